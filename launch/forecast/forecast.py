"""`launch plan`: whether a point fits on its GPUs, how long it takes, and how it would scale. Torch-free.

Memory is counted from the layers; time follows from images per second, given or measured; communication is a model. All
of it is said before anything is started, none of it changes a run.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from launch.forecast.communication import Links, ModelSize, StepTimes, communication, model_size
from launch.plan.points import StudyPoint
from launch.plan.targets import Hardware, Target
from launch.state import PointState
from pretrain.config import PretrainConfig
from pretrain.objectives.settings import FLOAT_BYTES
from pretrain.plan import TrainPlan, loss_batch

# CUDA's context, its libraries' workspaces, and what the allocator loses in gaps.
RESERVED_FRACTION = 0.1
MOST_RANKS = 1024


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank."""

    activations: int
    loss: int
    states: int  # weights, gradients, the optimizer's tensors, a target network

    @property
    def total(self) -> int:
        return self.activations + self.loss + self.states


@dataclass(frozen=True)
class Forecast:
    """What is predicted for one point on its target.

    micro_batches: of the plan; micro_batches_needed: the fewest that fit, None where none do. efficiency: share of a
    step that one GPU alone would take as well; it and what follows from it are None where nobody knows the rate.
    """

    global_batch_size: int
    memory: Memory
    fits: bool
    micro_batches: int
    micro_batches_needed: int | None
    gpu_hours: float | None
    times: StepTimes
    efficiency: float | None


def forecast(point: StudyPoint, target: Target, *, images_per_second: float | None) -> Forecast:
    """What is predicted for ``point``. images_per_second: of one GPU that waits for no other."""
    config, plan, size = point.config, point.plan, model_size(point.config)
    links = Links(target.hardware, plan.world_size, target.ranks_per_node)
    times = communication(
        config, size, links, global_batch_size=plan.global_batch_size, micro_batches=plan.micro_batches
    )
    memory = memory_of(config, plan, size, micro_batches=plan.micro_batches)
    efficiency = None
    if images_per_second is not None:
        efficiency = _efficiency(times, plan.batch_size_per_rank / images_per_second)
    gpu_seconds = point.images_seen / (images_per_second * efficiency) if images_per_second and efficiency else None
    return Forecast(
        global_batch_size=plan.global_batch_size,
        memory=memory,
        fits=memory.total <= usable_bytes(target.hardware),
        micro_batches=plan.micro_batches,
        micro_batches_needed=micro_batches_needed(config, plan, size, target.hardware),
        gpu_hours=None if gpu_seconds is None else gpu_seconds / 3600,
        times=times,
        efficiency=efficiency,
    )


def memory_of(config: PretrainConfig, plan: TrainPlan, size: ModelSize, *, micro_batches: int) -> Memory:
    """Bytes on one rank when its batch is worked through in ``micro_batches`` parts."""
    views = plan.batch_size_per_rank * config.augmentation.number_of_views
    kept_bytes = 2 if config.precision.autocast == "bf16" else FLOAT_BYTES
    tensors = 2 + config.optimizer.state_tensors
    # Under autocast the weights are kept once more, in half precision.
    casts = size.parameters * 2 if config.precision.autocast == "bf16" else 0
    embeddings = FLOAT_BYTES * views * size.embedding_width
    return Memory(
        activations=-(-views // micro_batches) * size.kept_elements * kept_bytes + casts,
        loss=plan.loss_bytes_per_rank + embeddings,
        states=FLOAT_BYTES * (tensors * size.parameters + size.target_parameters),
    )


def usable_bytes(hardware: Hardware) -> float:
    """What a run may take of a GPU's memory."""
    return hardware.gpu_memory_gb * 1e9 * (1 - RESERVED_FRACTION)


def micro_batches_needed(config: PretrainConfig, plan: TrainPlan, size: ModelSize, hardware: Hardware) -> int | None:
    """The fewest equal parts of the global batch with which it fits; None where one image of each rank is too much."""
    per_rank = plan.batch_size_per_rank
    for parts in range(1, per_rank + 1):
        fits = memory_of(config, plan, size, micro_batches=parts).total <= usable_bytes(hardware)
        if per_rank % parts == 0 and fits:
            return parts
    return None


def measured_rate(states: Sequence[PointState]) -> float | None:
    """Images per second of one rank, the median of the study's finished runs; None before the first."""
    rates = [
        state.images_per_second / state.point.world_size
        for state in states
        if state.images_per_second and state.step and state.stage in ("trained", "evaluating", "finished")
    ]
    return statistics.median(rates) if rates else None


@dataclass(frozen=True)
class ScalingRow:
    """One number of ranks in the prediction, at the batch per rank of today."""

    ranks: int
    global_batch_size: int
    times: StepTimes
    loss_seconds: float
    efficiency: float


def weak_scaling(point: StudyPoint, target: Target, *, images_per_second: float) -> list[ScalingRow]:
    """Efficiency against one rank at the point's batch per rank, up to 1,024 ranks.

    It is a prediction of speed alone: on each row the global batch, and so the experiment, is another one.
    """
    config, size, hardware = point.config, model_size(point.config), target.hardware
    per_rank = point.plan.batch_size_per_rank
    alone = per_rank / images_per_second
    rows = []
    ranks = 1
    while ranks <= MOST_RANKS:
        batch = ranks * per_rank
        links = Links(hardware, ranks, min(target.ranks_per_node, ranks))
        times = communication(config, size, links, global_batch_size=batch, micro_batches=point.plan.micro_batches)
        # The work of the loss on one rank grows with the batch; that of one rank is in ``alone``.
        grown = _loss_seconds(config, size, hardware, ranks, batch) - _loss_seconds(config, size, hardware, 1, per_rank)
        rows.append(ScalingRow(ranks, batch, times, grown, _efficiency(times, alone, grown)))
        ranks *= 2
    return rows


def _loss_seconds(config: PretrainConfig, size: ModelSize, hardware: Hardware, ranks: int, batch: int) -> float:
    """Seconds for a contrastive loss and its gradient: 2.5 products over all pairs of embeddings that are compared."""
    pairs = config.objective.similarities(loss_batch(config, ranks, batch))
    return 2.5 * 2 * pairs * size.embedding_width / (1e12 * hardware.loss_tflops)


def _efficiency(times: StepTimes, compute_s: float, more_s: float = 0.0) -> float:
    """Share of a step that one rank alone would take as well. Gradients hide behind the backward, two thirds of it."""
    uncovered = max(0.0, times.gradients - 2 / 3 * compute_s)
    return compute_s / (compute_s + more_s + times.waiting + uncovered)
