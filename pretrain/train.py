"""The training loop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

from pretrain.config import PretrainConfig
from pretrain.data.loader import Batch, Loader, build_loader
from pretrain.data.to_device import on_device
from pretrain.dist import World, any_rank, mean_over_ranks
from pretrain.gradients import GradientAverager
from pretrain.metrics import MetricsLog, TrainingDiverged
from pretrain.plan import TrainPlan
from pretrain.preempt import Preemption, helpers_shielded
from pretrain.rundir import RunDirectory, write_json
from pretrain.state import CheckpointStore, TrainState, build_state, result_of
from pretrain.step import forward_backward

# Ranks agree on a signal this often, so that they do not wait for one another at every step.
AGREE_EVERY_STEPS = 5


def train(
    config: PretrainConfig, plan: TrainPlan, directory: RunDirectory, world: World, preemption: Preemption
) -> bool:
    """Train from the newest checkpoint to the end; True when finished, False when a signal asked to stop and it saved.

    Collective: every rank calls this. Raises TrainingDiverged.
    """
    state = build_state(config, plan, world)
    store = CheckpointStore(config, plan, directory, world)
    store.restore(state)
    with helpers_shielded():
        log = MetricsLog(config, plan, directory, first_step=state.step, writes=world.is_first)
        opened = contextlib.closing(open_loader(config, world))
    ending = "failed"
    try:
        with opened as loader:
            finished = run_steps(plan, world, state, loader, log, store, preemption)
        store.save(state)
        ending = "finished" if finished else "stopped"
    except TrainingDiverged:
        ending = "diverged"
        raise
    finally:
        log.close(ending)
    if finished and world.is_first:
        write_json(directory.result, result_of(config, plan, state, directory))
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
    gradients = GradientAverager(list(objective.parameters()))
    for batch in batches(loader, plan, world, first_step=state.step):
        set_learning_rate(optimizer, plan.learning_rate_at(state.step))
        measure = log.due(state.step + 1)
        output = forward_backward(objective, gradients, batch, micro_batches=plan.micro_batches, measure=measure)
        state.probe.learn(batch.labels, views=batch.views.shape[1], micro_batches=plan.micro_batches)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state.step, state.train_seconds = state.step + 1, clock.seconds()
        objective.after_optimizer_step(state.step / plan.total_steps)
        if measure:
            log.log(state.step, mean_over_ranks(world, output.metrics | state.probe.metrics()))
        if state.step % AGREE_EVERY_STEPS == 0 and any_rank(world, preemption.requested):
            preemption.agreed = True
            break
        if state.step % plan.checkpoint_every_steps == 0 or store.is_late():
            store.save(state)
    return state.step == plan.total_steps


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
        group=world.control,
    )


class Clock:
    """Seconds of training, those before a restart included."""

    def __init__(self, seconds_before: float) -> None:
        self._zero = time.perf_counter() - seconds_before

    def seconds(self) -> float:
        return time.perf_counter() - self._zero
