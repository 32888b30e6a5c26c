"""python -m pretrain.replay RUN_DIR: repeat a run's steps from its last checkpoint, and look at the numbers of each.

Nothing is written. Ends at the first step with a number that is not finite, and says in which layer, and of which
samples, it was first seen. Under torchrun as many ranks share the work.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.batch import Batch
from pretrain.checkpoint import CheckpointStore
from pretrain.config import PretrainConfig
from pretrain.configio import load
from pretrain.data.catalog import read_manifest
from pretrain.dist import World, open_world
from pretrain.errors import ConfigError, TrainingDiverged
from pretrain.forward_backward import forward_backward
from pretrain.gradients import GradientAverager
from pretrain.plan import TrainPlan, make_plan
from pretrain.preemption import interruptible
from pretrain.ranks import ranks_per_node_from_environment, world_size_from_environment
from pretrain.rundir import RunDirectory, read_json
from pretrain.state import TrainState, build_state
from pretrain.train import batches, open_loader, set_learning_rate, step_context

STEPS_BEYOND = 10  # where nothing says at which step the run diverged: a rounding apart, it may come a little later


Tell = Callable[[str], None]


class Watch:
    """The largest activation of a forward, and where the first one that is not finite came from."""

    def __init__(self) -> None:
        self.largest, self.at = 0.0, ""
        self.first_bad = ""
        self.bad_rows: Tensor | None = None

    @contextlib.contextmanager
    def over(self, module: nn.Module) -> Iterator[None]:
        """Look at the output of every part of ``module`` inside."""
        handles = [part.register_forward_hook(self._hook(name)) for name, part in module.named_modules() if name]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or not output.numel():
                return
            magnitude = float(output.detach().abs().max())
            if magnitude > self.largest:
                self.largest, self.at = magnitude, name
            if not self.first_bad and not torch.isfinite(output).all():
                self.first_bad = name
                self.bad_rows = (~torch.isfinite(output.detach())).flatten(1).any(1).nonzero().flatten()

        return look

    def samples(self, batch: Batch) -> str:
        """Those of this rank whose rows were not finite."""
        if self.bad_rows is None:
            return ""
        bad = sorted({int(batch.indices[row % len(batch.indices)]) for row in self.bad_rows.tolist()})
        return f" for {len(bad)} of {len(batch.indices)} samples: {', '.join(map(str, bad[:20]))}"


def replay(config: PretrainConfig, plan: TrainPlan, directory: RunDirectory, world: World) -> int | None:
    """The first step that diverges, None where none does. Collective: every rank calls this."""
    state = build_state(config, plan, world)
    CheckpointStore(config, plan, directory, world).restore(state)
    last = plan.stop_step
    if directory.divergence.is_file():
        last = min(last, read_json(directory.divergence)["step"] + STEPS_BEYOND)
    tell: Tell = partial(print, flush=True) if world.is_first else _say_nothing
    tell(f"from step {state.step} to {last} of {plan.total_steps}, at most")
    gradients = GradientAverager(list(state.objective.train().parameters()), world.groups.gradients)
    with contextlib.closing(open_loader(config, world)) as loader:
        for batch in batches(loader, plan, world, first_step=state.step):
            if state.step == last:
                break
            try:
                _step(state, gradients, batch, plan, tell)
            except TrainingDiverged as error:
                tell(f"step {error.step}: {error}")
                return error.step
    return None


def _say_nothing(text: str) -> None:
    """What ranks but the first tell."""


def _step(state: TrainState, gradients: GradientAverager, batch: Batch, plan: TrainPlan, tell: Tell) -> None:
    set_learning_rate(state.optimizer, plan.learning_rate_at(state.step))
    context, watch = step_context(state.step, plan, measure=False), Watch()
    with watch.over(state.objective):
        output = forward_backward(state.objective, gradients, batch, context, micro_batches=plan.micro_batches)
    tell(
        f"step {state.step + 1}  loss {float(output.loss):.6g}  gradient norm {float(output.gradient_norm):.4g}  "
        f"largest activation {watch.largest:.4g} in {watch.at}"
    )
    if not output.gradient_norm.isfinite():
        bad = [n for n, p in state.objective.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        where = f"the output of {watch.first_bad}{watch.samples(batch)}" if watch.first_bad else "no layer's output"
        raise TrainingDiverged(
            state.step + 1,
            f"not finite: first {where}; the gradient of {len(bad)} parameters{': ' + bad[-1] if bad else ''}",
        )
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.objective.after_optimizer_step(context)
    state.step += 1
    state.check()


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every step was finite, 1 where one was not, 2 where the directory holds no run."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.replay", description=__doc__.split("\n\n")[0])
    parser.add_argument("run_directory", metavar="RUN_DIR", type=Path, help="directory of a run that diverged")
    directory = RunDirectory(parser.parse_args(arguments).run_directory)
    ranks = world_size_from_environment()
    try:
        config = load(PretrainConfig, directory.config)
        images = read_manifest(config.data.directory, config.data.split).images
        per_node = ranks_per_node_from_environment()
        plan = make_plan(config, images=images, world_size=ranks, ranks_per_node=per_node, source=str(directory.config))
    except (ConfigError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    with open_world(config.device) as world:
        diverged = replay(config, plan, directory, world)
        if diverged is None and world.is_first:
            print("every step is finite")
    return 0 if diverged is None else 1


if __name__ == "__main__":
    sys.exit(interruptible(main))
