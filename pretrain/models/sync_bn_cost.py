"""What batch norm's communication costs in a step, measured where it will run."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

import torch
from torch import nn

from pretrain.collectives import Group, all_gather_rows, group_rank_and_size
from pretrain.models.sync_bn import SyncBatchNorm

REPEATS = 5


class SyncCost(NamedTuple):
    """Of one training step. gathers: its collectives; seconds: for all of them, among ranks that wait for nothing."""

    layers: int
    gathers: int
    seconds: float

    def describe(self) -> str:
        """One line for a person."""
        each = f"{1e6 * self.seconds / self.gathers:.0f} us each" if self.gathers else "no communication"
        return f"{self.layers} layers, {self.gathers} gathers per step, {1e3 * self.seconds:.2f} ms ({each})"


def measure_sync_cost(
    module: nn.Module, device: torch.device, group: Group = None, *, micro_batches: int = 1
) -> SyncCost:
    """Time of the gathers that the batch norms of ``module`` do in a step; median of five.

    Collective: every rank calls this. Costs about six steps' worth of those gathers, and nothing on a single rank.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, SyncBatchNorm)]
    if group_rank_and_size(group)[1] == 1 or not norms:
        return SyncCost(len(norms), 0, 0.0)
    forward = [torch.zeros(1, 2 * norm.num_features + 1, device=device) for norm in norms]
    # A target network (BYOL's) has no backward.
    trained = [norm for norm in norms if norm.weight is None or norm.weight.requires_grad]
    backward = [torch.zeros(1, 2 * norm.num_features, device=device) for norm in trained]
    # Gradient caching embeds every micro-batch twice.
    sent = [*forward, *backward] if micro_batches == 1 else [*forward, *forward, *backward]
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        for x in sent:
            all_gather_rows(x, group)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])  # the first one opens connections
    return SyncCost(len(norms), len(sent) * micro_batches, seconds * micro_batches)
