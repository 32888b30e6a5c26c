"""What exactness costs here: the collectives of a step, and time and memory of the loss."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.certify.harness import Bench, Finding
from pretrain.collectives import all_gather_rows, all_reduce_
from pretrain.gradients import BUCKET_BYTES
from pretrain.kernels import contrastive_tiles
from pretrain.losses.ntxent import ntxent_loss
from pretrain.measure import peak_growth_bytes
from pretrain.objectives.config import DCLConfig, SimCLRConfig

REPEATS = 5
MIB = 2**20
DEFAULT_WIDTH, DEFAULT_TEMPERATURE = 128, 0.1
NORM_CHANNELS = 512


def cost_findings(bench: Bench) -> list[Finding]:
    """Bandwidths (on several ranks) and the loss. Collective: every rank calls this."""
    return [*_collectives(bench), _loss(bench)]


def _collectives(bench: Bench) -> list[Finding]:
    if bench.world.size == 1:
        return []
    batch, device = bench.config.global_batch_size, bench.world.device
    rows = 2 * batch // bench.world.size
    embeddings = torch.zeros(rows, _width(bench), device=device)
    sums = torch.zeros(2 * batch, device=device)
    moments = torch.zeros(1, 2 * NORM_CHANNELS + 1, device=device)
    bucket = torch.zeros(BUCKET_BYTES // 4, device=device)
    size = bench.world.size
    gathered, reduced = (size - 1), 2 * (size - 1) / size  # bytes a rank must receive, per byte it holds
    return [
        _timed(bench, "all-gather of embeddings", embeddings, gathered, lambda: all_gather_rows(embeddings)),
        _timed(bench, "all-reduce of row sums", sums, reduced, lambda: all_reduce_(sums)),
        _timed(bench, "all-gather of a batch norm's moments", moments, gathered, lambda: all_gather_rows(moments)),
        _timed(bench, "all-reduce of a gradient bucket", bucket, reduced, lambda: all_reduce_(bucket)),
    ]


def _timed(bench: Bench, subject: str, held: Tensor, factor: float, call: Callable[[], Tensor]) -> Finding:
    seconds = bench.largest(_seconds(bench, call))
    nbytes = held.numel() * held.element_size()
    rate = factor * nbytes / seconds
    measured = f"{1e6 * seconds:,.0f} us, {rate / 1e9:.2f} GB/s"
    numbers = {"seconds": seconds, "bytes": float(nbytes), "bytes_per_second": rate}
    return Finding("communication", f"{subject}, {nbytes / 1024:,.0f} KiB a rank", measured, "measured", True, numbers)


def _seconds(bench: Bench, call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS + 1):
        if bench.world.size > 1:
            dist.barrier(group=bench.world.control)
        start = time.perf_counter()
        call()
        if bench.world.device.type == "cuda":
            torch.cuda.synchronize(bench.world.device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _width(bench: Bench) -> int:
    objective = bench.config.objective
    return objective.projector.output_width if isinstance(objective, SimCLRConfig | DCLConfig) else DEFAULT_WIDTH


def _loss(bench: Bench) -> Finding:
    """NT-Xent over the configured global batch: memory must grow with the batch, not with its square."""
    pairs, width = bench.config.global_batch_size // bench.world.size, _width(bench)
    generator = torch.Generator().manual_seed(bench.world.rank)
    views = [bench.on_device(torch.randn(pairs, width, generator=generator)).requires_grad_() for _ in range(2)]
    temperature = getattr(bench.config.objective, "temperature", DEFAULT_TEMPERATURE)

    def once() -> None:
        torch.autograd.backward(ntxent_loss(views[0], views[1], temperature=temperature))

    once()  # opens connections and keeps what is kept
    growth = bench.largest(float(peak_growth_bytes(once, bench.world.device)))
    seconds = bench.largest(_seconds(bench, once))
    rows = 2 * bench.config.global_batch_size
    on_cuda = bench.world.device.type == "cuda"
    tile = min(contrastive_tiles.TILE_ROWS_ACCELERATOR if on_cuda else contrastive_tiles.TILE_ROWS_CPU, rows)
    allowed = 4 * (8 * rows * width + 4 * tile * tile) + 16 * MIB
    square = 4 * rows * rows / bench.world.size
    measured = f"{1e3 * seconds:,.1f} ms, {growth / MIB:,.0f} MiB (one matrix of similarities: {square / MIB:,.0f} MiB)"
    return Finding(
        "loss",
        f"NT-Xent, 2N = {rows:,}, d = {width}",
        measured,
        f"at most {allowed / MIB:,.0f} MiB",
        growth <= allowed,
        {"seconds": seconds, "bytes": growth},
    )
