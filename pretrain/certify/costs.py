"""What exactness costs here: the collectives of a step, and time and memory of the loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.certify.harness import CheckResult, Harness
from pretrain.collectives import all_gather_rows, all_reduce_
from pretrain.gradients import BUCKET_BYTES
from pretrain.kernels.contrastive_work import tile_rows
from pretrain.losses.contrastive import ntxent_loss
from pretrain.measure import median_seconds, peak_growth_bytes

REPEATS = 5
MIB = 2**20
DEFAULT_WIDTH, DEFAULT_TEMPERATURE = 128, 0.1
NORM_CHANNELS = 512


def cost_findings(harness: Harness) -> list[CheckResult]:
    """Bandwidths (on several ranks) and the loss. Collective: every rank calls this."""
    return [*_collectives(harness), _loss(harness)]


def _collectives(harness: Harness) -> list[CheckResult]:
    if harness.world.size == 1:
        return []
    batch, device = harness.config.global_batch_size, harness.world.device
    rows = 2 * batch // harness.world.size
    embeddings = torch.zeros(rows, _width(harness), device=device)
    sums = torch.zeros(2 * batch, device=device)
    moments = torch.zeros(1, 2 * NORM_CHANNELS + 1, device=device)
    bucket = torch.zeros(BUCKET_BYTES // 4, device=device)
    size, groups = harness.world.size, harness.world.groups
    gathered, reduced = (size - 1), 2 * (size - 1) / size  # bytes a rank must receive, per byte it holds
    return [
        _timed(harness, "all-gather of embeddings", embeddings, gathered, lambda x: all_gather_rows(x, groups.loss)),
        _timed(harness, "all-reduce of row sums", sums, reduced, lambda x: all_reduce_(x, groups.loss)),
        _timed(
            harness,
            "all-gather of a batch norm's moments",
            moments,
            gathered,
            lambda x: all_gather_rows(x, groups.norm),
        ),
        _timed(harness, "all-reduce of a gradient bucket", bucket, reduced, lambda x: all_reduce_(x, groups.gradients)),
    ]


def _timed(
    harness: Harness, subject: str, held: Tensor, factor: float, call: Callable[[Tensor], Tensor]
) -> CheckResult:
    seconds = harness.largest(_seconds(harness, lambda: call(held)))
    nbytes = held.numel() * held.element_size()
    rate = factor * nbytes / seconds
    measured = f"{1e6 * seconds:,.0f} us, {rate / 1e9:.2f} GB/s"
    numbers = {"seconds": seconds, "bytes": float(nbytes), "bytes_per_second": rate}
    return CheckResult(
        "communication", f"{subject}, {nbytes / 1024:,.0f} KiB a rank", measured, "measured", True, numbers
    )


def _seconds(harness: Harness, call: Callable[[], object]) -> float:
    """Of one call that all ranks start together."""
    world = harness.world
    together = (lambda: dist.barrier(group=world.groups.control)) if world.size > 1 else (lambda: None)
    return median_seconds(call, world.device, repeats=REPEATS, ready=together)


def _width(harness: Harness) -> int:
    config = harness.config
    contrastive = config.objective.negatives_per_anchor(config.global_batch_size) > 0
    return config.objective.embedding_width(config.encoder.feature_width) if contrastive else DEFAULT_WIDTH


def _loss(harness: Harness) -> CheckResult:
    """NT-Xent over the configured global batch: memory must grow with the batch, not with its square."""
    pairs, width = harness.config.global_batch_size // harness.world.size, _width(harness)
    generator = torch.Generator().manual_seed(harness.world.rank)
    views = [harness.on_device(torch.randn(pairs, width, generator=generator)).requires_grad_() for _ in range(2)]
    group = harness.world.groups.loss
    temperature = getattr(harness.config.objective, "temperature", DEFAULT_TEMPERATURE)

    def once() -> None:
        torch.autograd.backward(ntxent_loss(views[0], views[1], temperature=temperature, group=group))

    once()  # opens connections and keeps what is kept
    growth = harness.largest(float(peak_growth_bytes(once, harness.world.device)))
    seconds = harness.largest(_seconds(harness, once))
    rows = 2 * harness.config.global_batch_size
    tile = min(tile_rows(harness.world.device.type), rows)
    allowed = 4 * (8 * rows * width + 4 * tile * tile) + 16 * MIB
    square = 4 * rows * rows / harness.world.size
    measured = f"{1e3 * seconds:,.1f} ms, {growth / MIB:,.0f} MiB (one matrix of similarities: {square / MIB:,.0f} MiB)"
    return CheckResult(
        "loss",
        f"NT-Xent, 2N = {rows:,}, d = {width}",
        measured,
        f"at most {allowed / MIB:,.0f} MiB",
        growth <= allowed,
        {"seconds": seconds, "bytes": growth},
    )
