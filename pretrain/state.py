"""What a run is made of between two steps: built the same on every rank, saved whole, restored exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pretrain.config import PretrainConfig
from pretrain.data.catalog import read_manifest
from pretrain.dist import World, block_of_ranks, broadcast_from_first
from pretrain.divergence import FiniteGuard, all_finite
from pretrain.errors import TrainingDiverged
from pretrain.models.sync_batch_norm import synchronise_batch_norm
from pretrain.numerics import set_network_numerics, set_numerics
from pretrain.objectives.base import Objective, build_objective
from pretrain.online_probe import OnlineProbe
from pretrain.optim.build import build_optimizer
from pretrain.plan import TrainPlan


@dataclass
class TrainState:
    """All that a checkpoint keeps."""

    objective: Objective
    optimizer: torch.optim.Optimizer
    probe: OnlineProbe
    finite: FiniteGuard
    step: int = 0
    train_seconds: float = 0.0
    restarts: int = 0

    def content(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            "step": self.step,
            "model": {name: value.detach() for name, value in self.objective.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "online_probe": self.probe.state_dict(),
            "train_seconds": self.train_seconds,
            "restarts": self.restarts,
            "skipped_steps": self.finite.skipped,
        }

    def check(self) -> None:
        """Waits for the device. Raises TrainingDiverged where this is not a state to go on from."""
        self.finite.check()
        if not all_finite([*self.objective.parameters(), *self.objective.buffers()]):
            raise TrainingDiverged(self.step, "the weights are not finite numbers")

    def take(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint's content."""
        known = self.objective.state_dict()
        # Earlier versions numbered the draws of dropout and W-MSE in buffers; now the step numbers them.
        model = {k: v for k, v in content["model"].items() if k in known or k.split(".")[-1] != "draw"}
        self.objective.load_state_dict(model, strict=True)
        self.optimizer.load_state_dict(content["optimizer"])
        learned = content.get("online_probe")
        if learned and learned["weight_CF"].shape == self.probe.weight_CF.shape:
            self.probe.load_state_dict(learned)
        else:  # it was switched on or off since
            self.probe.first_step = content["step"]
        self.step = content["step"]
        self.train_seconds = content["train_seconds"]
        self.restarts = content["restarts"] + 1
        self.finite.skipped = content.get("skipped_steps", 0)


def build_state(config: PretrainConfig, plan: TrainPlan, world: World) -> TrainState:
    """Objective and optimizer on the device, the same on every rank. Collective: every rank calls this.

    Raises ConfigError where the chosen batch norm library cannot be used.
    """
    classes = read_manifest(config.data.directory, config.data.split).classes
    objective = build_objective(config.objective, config.encoder, classes=classes, seed=config.seed)
    set_numerics(config.precision)
    objective.group = world.groups.loss
    norm_group = block_of_ranks(world, plan.batch_norm_ranks)
    synchronise_batch_norm(objective, library=config.batch_norm_library, group=norm_group, device=world.device)
    objective = set_network_numerics(objective.to(world.device), config.precision)
    broadcast_from_first(world, [*objective.parameters(), *objective.buffers()])
    optimizer = build_optimizer(objective, config.optimizer, lr=0.0)
    probe = OnlineProbe(
        objective.encoder.feature_width, classes=classes if config.log.online_probe else 0, group=world.groups.gradients
    ).to(world.device)
    return TrainState(objective, optimizer, probe, FiniteGuard(objective, skips=config.precision.skip_nonfinite_steps))
