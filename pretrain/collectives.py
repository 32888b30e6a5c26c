"""The differentiable communication of the project: everything the losses and batch norm need from other ranks.

Convention for gradients. Every rank computes the loss of the *global* batch, and the gradients of the parameters are
then averaged over the ranks (DistributedDataParallel). So what a function here hands back to a rank's own input is the
gradient of the *sum* of all ranks' losses, W times that of the one global loss; the mean over ranks undoes the W.

`group=None` means the default process group if there is one, else a single rank; then every function is the identity.
"""

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

Group = dist.ProcessGroup | None


def group_rank_and_size(group: Group = None) -> tuple[int, int]:
    """(rank of this process in the group, ranks in the group); (0, 1) without a process group. No communication."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def all_gather_rows(x: Tensor, group: Group = None) -> Tensor:
    """Rows of all ranks in the order of the ranks: (B, ...) -> (W·B, ...), B the same on every rank. No gradient.

    Collective: every rank calls this.
    """
    x = x.detach().contiguous()
    _, world_size = group_rank_and_size(group)
    if world_size == 1:
        return x
    gathered = x.new_empty((world_size * x.shape[0], *x.shape[1:]))
    dist.all_gather_into_tensor(gathered, x, group=group)
    return gathered


def all_reduce_(x: Tensor, group: Group = None, op: Literal["sum", "max"] = "sum") -> Tensor:
    """Replaces x, which must be contiguous, by its sum or maximum over the ranks, and returns it. No gradient.

    Collective: every rank calls this.
    """
    if group_rank_and_size(group)[1] > 1:
        dist.all_reduce(x, op=dist.ReduceOp.SUM if op == "sum" else dist.ReduceOp.MAX, group=group)
    return x


def sum_by_gather(x: Tensor, group: Group = None) -> Tensor:
    """Sum of a small x over the ranks, added in the order of the ranks. No gradient.

    A gather and a local sum: for few numbers a gather's latency is what counts, and gloo's is less than half of its
    all-reduce's. Collective: every rank calls this.
    """
    if group_rank_and_size(group)[1] == 1:
        return x
    return all_gather_rows(x[None], group).sum(0)


def all_reduce_sum_shared(x: Tensor, group: Group = None) -> Tensor:
    """Sum of x over the ranks, for a sum from which every rank goes on to compute the *same* scalar.

    All ranks then hold the same gradient, so that its sum is W times one's own and the backward communicates nothing.
    Wrong where ranks use the sum in different ways.
    Collective in the forward: every rank calls this.
    """
    if group_rank_and_size(group)[1] == 1:
        return x
    summed: Tensor = _AllReduceSumShared.apply(x, group)
    return summed


def all_gather_rows_shared(x: Tensor, group: Group = None) -> Tensor:
    """all_gather_rows with a gradient, for rows from which every rank goes on to compute the *same* scalar.

    The backward takes one's own rows out of the gradient, times W, and communicates nothing.
    Collective in the forward: every rank calls this.
    """
    if group_rank_and_size(group)[1] == 1:
        return x
    gathered: Tensor = _AllGatherRowsShared.apply(x, group)
    return gathered


class _AllReduceSumShared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.world_size = group_rank_and_size(group)[1]
        return all_reduce_(x.clone(memory_format=torch.contiguous_format), group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.world_size, None


class _AllGatherRowsShared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.rank, ctx.world_size = group_rank_and_size(group)
        return all_gather_rows(x, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rows = grad.shape[0] // ctx.world_size
        return grad[ctx.rank * rows : (ctx.rank + 1) * rows] * ctx.world_size, None
