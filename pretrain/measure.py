"""What is measured where a run will run: memory, the communication of batch norm, the time of the loss."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pretrain.batch import StepContext
from pretrain.collectives import all_gather_rows, group_rank_and_size
from pretrain.config import PretrainConfig
from pretrain.data.catalog import read_manifest
from pretrain.models.sync_batch_norm import SyncBatchNorm
from pretrain.objectives.base import Objective
from pretrain.plan import TrainPlan

_CPU = torch.device("cpu")


def peak_memory_bytes(device: torch.device = _CPU) -> int:
    """Most memory that this process has held so far: of its GPU where ``device`` is one, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kilobytes


def peak_growth_bytes(call: Callable[[], object], device: torch.device = _CPU) -> int:
    """Bytes that ``call`` needs at its worst beyond what is held before it.

    Resident memory is too small a number where memory that was freed before lies ready for use. Where the kernel cannot
    start the peak again (a container without /proc/self/clear_refs), only what exceeds the old peak is counted.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident
    except OSError:
        before = peak_memory_bytes()
        call()
        return peak_memory_bytes() - before
    before = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def median_seconds(
    call: Callable[[], object], device: torch.device, *, repeats: int, ready: Callable[[], object] = lambda: None
) -> float:
    """Median time of ``call`` until ``device`` is done with it, over so many runs after one that is not counted.

    The first run opens connections, allocates and chooses algorithms. ready: called before each run, beside the clock.
    """
    times = []
    for _ in range(repeats + 1):
        ready()
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


SYNC_REPEATS = 5
LOSS_REPEATS = 3
# Of so many embeddings a loss takes so long that one measurement is as good as several.
LARGE = 4096


class SyncCost(NamedTuple):
    """Of one training step. gathers: its collectives; seconds: for all of them, among ranks that wait for nothing."""

    layers: int
    gathers: int
    seconds: float

    def describe(self) -> str:
        """One line for a person."""
        each = f"{1e6 * self.seconds / self.gathers:.0f} us each" if self.gathers else "no communication"
        return f"{self.layers} layers, {self.gathers} gathers per step, {1e3 * self.seconds:.2f} ms ({each})"


class StepCosts(NamedTuple):
    """What of one training step is batch norm's communication and what is the loss, measured at the start of a run."""

    sync: SyncCost | None  # None: unknown, of another library's batch norm
    loss_seconds: float

    def describe(self) -> str:
        """Lines for a person."""
        lines = [f"  batch norm's gathers  {self.sync.describe()}, measured"] if self.sync and self.sync.gathers else []
        return "\n".join([*lines, f"  the loss              {1e3 * self.loss_seconds:.2f} ms per step, measured"])


def measure_step_costs(objective: Objective, config: PretrainConfig, plan: TrainPlan) -> StepCosts:
    """Costs of a step of ``plan`` on these ranks. Collective: every rank calls this."""
    sync, device = None, next(objective.parameters()).device
    if config.batch_norm_library == "bigbatch":
        sync = measure_sync_cost(objective, device, micro_batches=plan.micro_batches)
    loss_seconds = measure_loss_seconds(
        objective,
        images=plan.batch_size_per_rank,
        views=config.augmentation.number_of_views,
        size_px=config.augmentation.crop_size_px,
        classes=read_manifest(config.data.directory, config.data.split).classes,
    )
    return StepCosts(sync, loss_seconds)


def measure_sync_cost(module: nn.Module, device: torch.device, *, micro_batches: int = 1) -> SyncCost:
    """Time of the gathers that the batch norms of ``module`` do in a step, over the ranks that share them.

    Collective: every rank calls this. Costs about six steps' worth of those gathers, and nothing on a single rank.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, SyncBatchNorm)]
    if not norms or group_rank_and_size(norms[0].group)[1] == 1:
        return SyncCost(len(norms), 0, 0.0)
    forward = [torch.zeros(1, 2 * norm.num_features + 1, device=device) for norm in norms]
    # A target network (BYOL's) has no backward.
    trained = [norm for norm in norms if norm.weight is None or norm.weight.requires_grad]
    backward = [torch.zeros(1, 2 * norm.num_features, device=device) for norm in trained]
    # Gradient caching embeds every micro-batch twice.
    sent = [*forward, *backward] if micro_batches == 1 else [*forward, *forward, *backward]
    group = norms[0].group
    seconds = median_seconds(lambda: [all_gather_rows(x, group) for x in sent], device, repeats=SYNC_REPEATS)
    return SyncCost(len(norms), len(sent) * micro_batches, seconds * micro_batches)


def measure_loss_seconds(objective: Objective, *, images: int, views: int, size_px: int, classes: int) -> float:
    """Seconds of forward and backward of the loss on one rank's part of a batch of random embeddings.

    images: of this rank. Neither the objective nor the random state is changed.
    Collective: every rank calls this. Costs as much as the loss of two steps, or of four where the batch is small.
    """
    device = next(objective.parameters()).device
    width = _embedding_width(objective, views, size_px, device)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(views * images, width, generator=generator).to(device).requires_grad_()
    labels = (torch.arange(images) % max(classes, 1)).to(device)

    def once() -> None:
        torch.autograd.grad(objective.loss(embeddings, labels, StepContext()).loss, embeddings)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return median_seconds(once, device, repeats=1 if len(embeddings) > LARGE else LOSS_REPEATS)


@torch.no_grad()
def _embedding_width(objective: Objective, views: int, size_px: int, device: torch.device) -> int:
    """D of what the loss takes; without training statistics, so that nothing moves and nobody communicates."""
    was_training = objective.training
    objective.eval()
    blank: Tensor = torch.zeros(1, views, 3, size_px, size_px, dtype=torch.uint8, device=device)
    width = objective.embed_views(blank, StepContext()).embeddings.shape[1]
    objective.train(was_training)
    return width
