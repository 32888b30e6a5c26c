"""What a run is made of between two steps: built the same on every rank, saved whole, restored exactly."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pretrain.checkpoint import checkpoint_path, newest_checkpoint, read_checkpoint, step_of, write_checkpoint
from pretrain.collectives import Group
from pretrain.config import PretrainConfig
from pretrain.data.catalog import read_manifest
from pretrain.dist import World, agree_on, block_of_ranks, broadcast_from_first
from pretrain.memory import peak_memory_bytes
from pretrain.models.batch_norm import share_batch_norm
from pretrain.models.sync_bn_cost import SyncCost, measure_sync_cost
from pretrain.objectives.base import Objective
from pretrain.objectives.build import build_objective
from pretrain.objectives.loss_cost import measure_loss_seconds
from pretrain.online_probe import OnlineProbe
from pretrain.optim.build import build_optimizer
from pretrain.plan import TrainPlan
from pretrain.rundir import RunDirectory, read_json_lines


@dataclass
class TrainState:
    """All that a checkpoint keeps, and what was measured at the start."""

    objective: Objective
    optimizer: torch.optim.Optimizer
    probe: OnlineProbe
    step: int = 0
    train_seconds: float = 0.0
    restarts: int = 0
    # Measured at each start, kept in no checkpoint; None where no step is done.
    sync_cost: SyncCost | None = None
    loss_seconds: float | None = None


def build_state(config: PretrainConfig, plan: TrainPlan, world: World) -> TrainState:
    """Objective and optimizer on the device, the same on every rank. Collective: every rank calls this.

    Raises ConfigError where the chosen batch norm library cannot be used.
    """
    classes = read_manifest(config.data.directory, config.data.split).classes
    objective = build_objective(config.objective, config.encoder, classes=classes, seed=config.seed)
    if config.precision.channels_last:
        objective = objective.to(memory_format=torch.channels_last)
        objective.channels_last = True
    objective.autocast_bf16 = config.precision.autocast == "bf16"
    norm_group = block_of_ranks(world, plan.batch_norm_ranks)
    share_batch_norm(objective, library=config.batch_norm_library, group=norm_group, device=world.device)
    objective = objective.to(world.device)
    broadcast_from_first(world, [*objective.parameters(), *objective.buffers()])
    optimizer = build_optimizer(
        objective,
        name=config.optimizer.name,
        lr=0.0,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        trust_coefficient=config.optimizer.trust_coefficient,
        betas=config.optimizer.betas,
    )
    probe = OnlineProbe(objective.encoder, classes=classes if config.log.online_probe else 0).to(world.device)
    state = TrainState(objective, optimizer, probe)
    if plan.total_steps:
        _measure_costs(state, config, plan, world, norm_group, classes)
    return state


def _measure_costs(
    state: TrainState, config: PretrainConfig, plan: TrainPlan, world: World, norm_group: Group, classes: int
) -> None:
    """What of a step is batch norm's communication and what is the loss. Collective: every rank calls this."""
    cost = measure_sync_cost(state.objective, world.device, norm_group, micro_batches=plan.micro_batches)
    state.sync_cost = cost
    state.loss_seconds = measure_loss_seconds(
        state.objective,
        images=plan.batch_size_per_rank,
        views=config.augmentation.number_of_views,
        size_px=config.augmentation.crop_size_px,
        classes=classes,
    )
    if world.is_first:
        if cost.gathers:
            print(f"  batch norm's gathers  {cost.describe()}, measured", flush=True)
        print(f"  the loss              {1e3 * state.loss_seconds:.2f} ms per step, measured", flush=True)


class CheckpointStore:
    """Saves on the first rank, restores on all."""

    def __init__(self, config: PretrainConfig, plan: TrainPlan, directory: RunDirectory, world: World) -> None:
        self._config, self._plan, self._world = config, plan, world
        self._directory = directory.checkpoints
        self._saved_step = -1
        self._saved_at = time.monotonic()

    def is_late(self) -> bool:
        """Whether the last checkpoint (or the start) is so long ago that the next step boundary should bring one."""
        every_s = self._config.checkpoint.every_s
        return every_s is not None and time.monotonic() - self._saved_at > every_s

    def save(self, state: TrainState) -> None:
        """Write a checkpoint of ``state`` unless this step has one."""
        if not self._world.is_first or state.step == self._saved_step:
            return
        content: dict[str, Any] = {
            "step": state.step,
            "fingerprint": self._plan.fingerprint,
            "config": self._config.model_dump(mode="json"),
            "model": _tensors_of(state.objective),
            "optimizer": state.optimizer.state_dict(),
            "online_probe": state.probe.state_dict(),
            "train_seconds": state.train_seconds,
            "restarts": state.restarts,
        }
        write_checkpoint(self._directory, content, keep=self._config.checkpoint.keep)
        self._saved_step, self._saved_at = state.step, time.monotonic()

    def restore(self, state: TrainState) -> None:
        """Continue from the newest checkpoint, if there is one. Collective: every rank calls this."""
        path = newest_checkpoint(self._directory)
        step = agree_on(self._world, step_of(path) if path else -1)
        if step < 0:
            return
        content = read_checkpoint(checkpoint_path(self._directory, step))
        if content["fingerprint"] != self._plan.fingerprint:
            raise ValueError(
                f"{self._directory} holds checkpoints of another run (fingerprint {content['fingerprint']}; this is "
                f"{self._plan.fingerprint}); choose another run.directory"
            )
        state.objective.load_state_dict(content["model"], strict=True)
        state.optimizer.load_state_dict(content["optimizer"])
        learned = content.get("online_probe")
        # Another shape: it was switched on or off since.
        if learned and learned["weight_CF"].shape == state.probe.weight_CF.shape:
            state.probe.load_state_dict(learned)
        state.step, self._saved_step = content["step"], content["step"]
        state.train_seconds = content["train_seconds"]
        state.restarts = content["restarts"] + 1


def _tensors_of(module: nn.Module) -> dict[str, Any]:
    return {name: value.detach() for name, value in module.state_dict().items()}


def result_of(config: PretrainConfig, plan: TrainPlan, state: TrainState, directory: RunDirectory) -> dict[str, Any]:
    """What result.json says of a finished run."""
    rows = read_json_lines(directory.metrics)
    images_seen = plan.total_steps * plan.global_batch_size
    rate = images_seen / state.train_seconds if state.train_seconds else None
    return {
        "fingerprint": plan.fingerprint,
        "total_steps": plan.total_steps,
        "epochs": config.epochs,
        "images_seen": images_seen,
        "train_seconds": state.train_seconds,
        "images_per_second": rate,
        "world_size": plan.world_size,
        "sync_batch_norm_seconds_per_step": state.sync_cost.seconds if state.sync_cost else None,
        "loss_seconds_per_step": state.loss_seconds,
        "peak_memory_bytes": peak_memory_bytes(next(state.objective.parameters()).device),
        "final": {name: value for name, value in rows[-1].items() if name not in ("step", "epoch")} if rows else {},
        "restarts": state.restarts,
    }
