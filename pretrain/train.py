"""The training loop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from pretrain.batch import Batch, StepContext
from pretrain.checkpoint import CheckpointStore, newest_checkpoint
from pretrain.config import PretrainConfig
from pretrain.data.loader import Loader, build_loader
from pretrain.data.prefetch import on_device
from pretrain.dist import Agreement, World, mean_over_ranks
from pretrain.divergence import explained
from pretrain.errors import TrainingDiverged
from pretrain.format import command
from pretrain.forward_backward import forward_backward
from pretrain.gradients import GradientAverager
from pretrain.measure import StepCosts, measure_step_costs, peak_memory_bytes
from pretrain.metrics import MetricsLog
from pretrain.plan import TrainPlan
from pretrain.preemption import Preemption, signals_blocked
from pretrain.rundir import RunDirectory, read_json_lines, write_json
from pretrain.state import TrainState, build_state


def result_of(
    config: PretrainConfig, plan: TrainPlan, state: TrainState, costs: StepCosts | None, directory: RunDirectory
) -> dict[str, Any]:
    """What result.json says of a finished run. costs: None where no step was done."""
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
        "sync_batch_norm_seconds_per_step": costs.sync.seconds if costs and costs.sync else None,
        "loss_seconds_per_step": costs.loss_seconds if costs else None,
        "peak_memory_bytes": peak_memory_bytes(next(state.objective.parameters()).device),
        "final": {name: value for name, value in rows[-1].items() if name not in ("step", "epoch")} if rows else {},
        "restarts": state.restarts,
        "skipped_steps": state.finite.skipped,
    }


def train(
    config: PretrainConfig, plan: TrainPlan, directory: RunDirectory, world: World, preemption: Preemption
) -> bool:
    """Train from the newest checkpoint to the end; True when finished, False when a signal asked to stop and it saved.

    Collective: every rank calls this. Raises TrainingDiverged.
    """
    tell: Callable[[str], None] = partial(print, flush=True) if world.is_first else lambda line: None
    tell("starting (the first start in a fresh tree compiles the loader's kernels, about 20 s)")
    state = build_state(config, plan, world)
    store = CheckpointStore(config, plan, directory, world)
    store.restore(state)
    if state.step:
        tell(f"resuming from step {state.step:,} of {plan.total_steps:,}")
    costs = measure_step_costs(state.objective, config, plan) if plan.total_steps else None
    if costs:
        tell(costs.describe())
    with signals_blocked():
        log = MetricsLog(config, plan, directory, first_step=state.step, writes=world.is_first)
        opened = contextlib.closing(open_loader(config, world))
    ending = "failed"
    try:
        with opened as loader:
            finished = run_steps(plan, world, state, loader, log, store, preemption)
        store.save(state, last=True)
        ending = "finished" if finished else "stopped"
    except TrainingDiverged as error:
        ending = "diverged"
        raise explained(error, config, plan, directory, writes=world.is_first) from None
    finally:
        log.close(ending)
    if finished and world.is_first:
        directory.divergence.unlink(missing_ok=True)
        result = {**result_of(config, plan, state, costs, directory), "health": log.health._asdict()}
        write_json(directory.result, result)
        tell(f"weights: {newest_checkpoint(directory.checkpoints)}")
        tell(f"next: {command('eval', 'eval')} linear {directory.path}")
    return finished


def run_steps(
    plan: TrainPlan,
    world: World,
    state: TrainState,
    loader: Loader,
    log: MetricsLog,
    store: CheckpointStore,
    preemption: Preemption,
) -> bool:
    """The loop. True when all steps are done, False when the ranks agreed to stop."""
    objective, optimizer, clock = state.objective.train(), state.optimizer, Clock(state.train_seconds)
    gradients = GradientAverager(list(objective.parameters()), world.groups.gradients)
    agreement = Agreement(world)
    for batch in batches(loader, plan, world, first_step=state.step):
        # Set, not scheduled: a function of the step needs no state, and a resumed run has the same.
        set_learning_rate(optimizer, plan.learning_rate_at(state.step))
        context = step_context(state.step, plan, measure=log.due(state.step + 1))
        state.finite.before_step()
        output = forward_backward(objective, gradients, batch, context, micro_batches=plan.micro_batches)
        if state.finite.accepts(output.gradient_norm, step=state.step + 1):
            state.probe.learn(output.features_bF, batch.labels[:: plan.micro_batches], context)
            optimizer.step()
            objective.after_optimizer_step(context)
        # To None, so that the first gradient of a step is stored, not added to zeros.
        optimizer.zero_grad(set_to_none=True)
        state.step, state.train_seconds = state.step + 1, clock.seconds()
        if context.measure:
            # The one place where the host waits for the device.
            log.log(state.step, mean_over_ranks(world, output.metrics | state.probe.metrics(context)))
            state.finite.check()
        # A signal reaches one rank; all stop after the same step, or those that go on would wait for it for ever.
        stop, late = agreement.reached(preemption.requested, store.is_late())
        if stop:
            preemption.agreed = True
            break
        if late or state.step % plan.checkpoint_every_steps == 0:
            store.save(state)
    return state.step == plan.total_steps


def step_context(step: int, plan: TrainPlan, *, measure: bool) -> StepContext:
    """Of the step after ``step`` finished ones."""
    return StepContext(step, progress=(step + 1) / plan.total_steps, measure=measure)


def batches(loader: Loader, plan: TrainPlan, world: World, *, first_step: int) -> Iterator[Batch]:
    """Batches of steps ``first_step`` to the last, on the device, across epochs."""
    step = first_step
    while step < plan.stop_step:
        epoch, first_batch = plan.position(step)
        for batch in on_device(loader.epoch(epoch, first_batch=first_batch), world.device):
            yield batch
            step += 1
            if step == plan.stop_step:
                return


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """One learning rate for all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def open_loader(config: PretrainConfig, world: World) -> Loader:
    """This rank's part of the training data. Collective: the ranks check that their parts make up the whole."""
    return build_loader(
        config.data,
        config.augmentation,
        seed=config.seed,
        global_batch_size=config.global_batch_size,
        rank=world.rank,
        world_size=world.size,
        group=world.groups.control,
    )


class Clock:
    """Seconds of training, those before a restart included."""

    def __init__(self, seconds_before: float) -> None:
        self._zero = time.perf_counter() - seconds_before

    def seconds(self) -> float:
        return time.perf_counter() - self._zero
