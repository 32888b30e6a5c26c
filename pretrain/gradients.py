"""Gradients averaged over the ranks while the backward still runs.

Buckets are fixed by the order of the parameters, from the first step on. DistributedDataParallel rebuilds its buckets
after its first step, so that a resumed run adds in another order than the undisturbed one; here both add alike, and a
resumed run ends in the same weights bit for bit: on CPUs, and on GPUs with `precision.deterministic`, without which
cuDNN's weight gradients add in an order of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.collectives import Group, group_rank_and_size

BUCKET_BYTES = 25 * 2**20


@dataclass
class _Bucket:
    parameters: list[Tensor]
    flat: Tensor
    views: list[Tensor]
    waiting: int
    work: dist.Work | None = None


class GradientAverager:
    """Mean over the ranks of the gradients of ``parameters``; does nothing on one rank.

    After each backward call `average_over_ranks`; the gradients are then views into the buckets.
    """

    def __init__(self, parameters: Sequence[Tensor], group: Group = None, bucket_bytes: int = BUCKET_BYTES) -> None:
        self._group = group
        self._world_size = group_rank_and_size(group)[1]
        self._buckets: list[_Bucket] = []
        self._next = 0
        if self._world_size == 1:
            return
        # The backward reaches the last parameters first.
        for chunk in _chunks([p for p in reversed(parameters) if p.requires_grad], bucket_bytes):
            bucket = _make_bucket(chunk)
            self._buckets.append(bucket)
            for parameter in chunk:
                hook = partial(self._ready, bucket)
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def expect_backwards(self, count: int) -> None:
        """The next `average_over_ranks` comes after ``count`` backwards; their sum is sent once, at the end."""
        for bucket in self._buckets:
            bucket.waiting = count * len(bucket.parameters)

    def _ready(self, bucket: _Bucket, parameter: Tensor) -> None:
        bucket.waiting -= 1
        # Every rank starts the buckets in the same order, whichever gradient comes first.
        while self._next < len(self._buckets) and self._buckets[self._next].waiting <= 0:
            self._start(self._buckets[self._next])

    def _start(self, bucket: _Bucket) -> None:
        for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
            if parameter.grad is None:
                view.zero_()
            elif parameter.grad is not view:
                view.copy_(parameter.grad)
        bucket.work = dist.all_reduce(bucket.flat, group=self._group, async_op=True)
        self._next += 1

    def average_over_ranks(self) -> None:
        """Wait for the sums and leave the means in ``.grad``. Collective: every rank calls this after its backward."""
        while self._next < len(self._buckets):  # parameters that this backward did not reach
            self._start(self._buckets[self._next])
        for bucket in self._buckets:
            assert bucket.work is not None, "every bucket was started above"
            bucket.work.wait()
            bucket.flat.div_(self._world_size)
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                parameter.grad = view
            bucket.waiting, bucket.work = len(bucket.parameters), None
        self._next = 0


def _chunks(parameters: Sequence[Tensor], bucket_bytes: int) -> list[list[Tensor]]:
    """Runs of parameters of one type and device, each of at most ``bucket_bytes`` unless a single one is larger."""
    chunks: list[list[Tensor]] = []
    size = 0
    for parameter in parameters:
        nbytes = parameter.numel() * parameter.element_size()
        last = chunks[-1][-1] if chunks else None
        fits = last is not None and (last.dtype, last.device) == (parameter.dtype, parameter.device)
        if fits and size + nbytes <= bucket_bytes:
            chunks[-1].append(parameter)
            size += nbytes
        else:
            chunks.append([parameter])
            size = nbytes
    return chunks


def _make_bucket(parameters: list[Tensor]) -> _Bucket:
    sizes = [parameter.numel() for parameter in parameters]
    flat = torch.zeros(sum(sizes), dtype=parameters[0].dtype, device=parameters[0].device)
    pieces = torch.split(flat, sizes)
    # With the parameter's own strides, so that the optimizer walks both in the same order.
    views = [piece.as_strided(p.size(), p.stride(), piece.storage_offset()) for piece, p in zip(pieces, parameters)]
    return _Bucket(parameters, flat, views, waiting=len(parameters))
