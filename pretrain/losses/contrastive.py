"""The contrastive losses over the global batch, exact on any number of ranks, in memory linear in the batch.

    s_ik = z_i.z_k / temperature, z of unit length         L = mean over all 2 G rows i of lse_i - s_i,p(i)
    lse_i = log sum_{k != i} exp(s_ik)                     NT-Xent
    lse_i = log sum_{k != i, p(i)} exp(s_ik)               decoupled: without the positive

p(i) is the positive of row i, the other view of its image. The gradient by row i (NT-Xent; decoupled, the sum leaves
out p(i)) is

    dL/dz_i = 1 / (2 G temperature) [ sum_{k != i} (exp(s_ik - lse_i) + exp(s_ik - lse_k)) z_k - 2 z_p(i) ]

and needs, beyond z, only the lse of all rows, a number each: with both known to every rank after the forward, each rank
computes the exact gradient of its own rows without communication, other ranks' anchors included. Tiles of similarities
are computed twice instead of stored.

G pairs of the global batch, B on this rank, M = 2 G rows (row 2 i + v: view v of image i), N = 2 B rows of this rank,
D dimensions.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pretrain.collectives import Group, all_gather_rows, all_reduce_, group_rank_and_size
from pretrain.kernels.backend import backend_of
from pretrain.kernels.contrastive_work import Between, Within, divide_work
from pretrain.losses.common import check_pair, full_precision, row_lengths, without_autocast

LN2 = math.log(2.0)


def contrastive_loss(
    z_a: Tensor, z_b: Tensor, temperature: float | Tensor, group: Group, negatives: int | None, *, decoupled: bool
) -> Tensor:
    """See ntxent_loss and dcl_loss for the arguments. Collective in the forward: every rank calls this."""
    group_pairs = check_contrastive(z_a, z_b, temperature, group, negatives)
    if decoupled and group_pairs == 1:
        raise ValueError("decoupled contrastive loss: a global batch of 1 pair has no negatives; expected 2 or more")
    with without_autocast(z_a):
        u_ND = scaled_rows(z_a, z_b, temperature)
        loss: Tensor = _Contrastive.apply(u_ND, group, group_pairs, _largest_similarity(temperature, u_ND), decoupled)
    return loss


def check_contrastive(
    z_a: Tensor, z_b: Tensor, temperature: float | Tensor, group: Group, negatives: int | None
) -> int:
    """The number of images in a group of negatives. Raises ValueError with what is wrong."""
    check_pair(z_a, z_b, "contrastive loss")
    if not isinstance(temperature, Tensor) and not (0.0 < temperature < math.inf):
        raise ValueError(f"contrastive loss: got temperature={temperature}; expected a positive number")
    _, world_size = group_rank_and_size(group)
    global_pairs = world_size * z_a.shape[0]
    if negatives is None:
        return global_pairs
    if negatives < 2 or global_pairs % negatives:
        raise ValueError(
            f"contrastive loss: got negatives={negatives}; expected at least 2 and a divisor of the global batch of "
            f"{global_pairs} pairs ({z_a.shape[0]} on each of {world_size} ranks)"
        )
    return negatives


def scaled_rows(z_a: Tensor, z_b: Tensor, temperature: float | Tensor) -> Tensor:
    """(2 B, D) rows u = z / |z| · sqrt(log2(e) / temperature), the two views of an image next to each other."""
    z_BVD = torch.stack((full_precision(z_a), full_precision(z_b)), dim=1)
    z_ND = z_BVD.flatten(0, 1)
    if isinstance(temperature, Tensor):
        scale: float | Tensor = (LN2 * temperature.to(z_ND.dtype)).rsqrt()
    else:
        scale = (LN2 * temperature) ** -0.5
    return z_ND * (scale / row_lengths(z_ND))


def _largest_similarity(temperature: float | Tensor, u_ND: Tensor) -> float | None:
    """The bound 1 / (temperature ln 2) of all u_i.u_k; None where only the device knows it."""
    if isinstance(temperature, Tensor) and backend_of(temperature.device).reading_waits:
        return None
    return 1.0 / (LN2 * float(temperature))


def _common_shift(bound: float | None, dtype: torch.dtype) -> float | None:
    """A shift of the exponents with which no sum of 2^27 terms overflows and no term is lost, if there is one.

    In float32 there is one, mostly 0, for temperatures down to 0.0128.
    """
    largest_exponent = 1023 if dtype == torch.float64 else 127
    if bound is None:
        return None
    shift = max(0.0, bound + 27 - largest_exponent)
    return shift if bound + shift < largest_exponent else None


class _Contrastive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u_ND: Tensor, group: Group, group_pairs: int, bound: float | None, decoupled: bool) -> Tensor:
        rank, world_size = group_rank_and_size(group)
        rows = u_ND.shape[0]
        work = divide_work(rank, world_size, rows // 2, group_pairs)
        u_MD, backend = all_gather_rows(u_ND, group), backend_of(u_ND.device)
        shift: float | Tensor | None = _common_shift(bound, u_MD.dtype)
        visits: tuple[Within | Between, ...] = (*work.within, *work.between)
        if shift is None:
            shift = all_reduce_(backend.negative_maxima(u_MD, visits), group, op="max")
        sums_M = all_reduce_(backend.negative_sums(u_MD, visits, shift), group)

        # Everything below is O(M·D) and the same on every rank. log_odds: of all negatives against the positive.
        u_GVD = u_MD.view(-1, 2, u_MD.shape[1])
        positive_M = (u_GVD[:, 0] * u_GVD[:, 1]).sum(1).repeat_interleave(2)
        log2_sums_M = sums_M.log2() + shift
        log_odds_M = (log2_sums_M - positive_M) * LN2
        loss_M = log_odds_M if decoupled else torch.nn.functional.softplus(log_odds_M)
        ctx.shift, weight_M = shift, None
        if isinstance(shift, Tensor):
            ctx.shift = log2_sums_M if decoupled else torch.logaddexp2(log2_sums_M, positive_M)
        else:
            weight_M = (sums_M if decoupled else sums_M + (positive_M - shift).exp2()).reciprocal()
        # 1 - P of the positive, without the cancellation as P goes to 1.
        missing_N = (log_odds_M[rank * rows : (rank + 1) * rows]).sigmoid()
        ctx.save_for_backward(u_MD, weight_M, torch.ones_like(missing_N) if decoupled else missing_N)
        ctx.work, ctx.own, ctx.world_size = work, (rank * rows, (rank + 1) * rows), world_size
        return loss_M.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        u_MD, weight_M, missing_N = ctx.saved_tensors
        with without_autocast(u_MD):
            backend = backend_of(u_MD.device)
            du_ND = backend.negative_gradient(u_MD, ctx.work.within, ctx.work.others, ctx.own, ctx.shift, weight_M)
        du_BVD = du_ND.view(-1, 2, du_ND.shape[1])
        u_BVD = u_MD[ctx.own[0] : ctx.own[1]].view(du_BVD.shape)
        pull_B1 = missing_N.view(-1, 2).sum(1, keepdim=True)
        for view in (0, 1):
            du_BVD[:, view].addcmul_(u_BVD[:, 1 - view], pull_B1, value=-1.0)
        # W times this rank's rows: the mean over the ranks of the parameters' gradients is then that of the loss.
        return du_ND.mul_(grad * (ctx.world_size * LN2 / u_MD.shape[0])), None, None, None, None


def ntxent_loss(
    z_a: Tensor, z_b: Tensor, *, temperature: float | Tensor, group: Group = None, negatives: int | None = None
) -> Tensor:
    """NT-Xent over the global batch: SimCLR, Chen et al. 2020 (arXiv:2002.05709), eq. 1.

        L = mean over all 2 G rows i of  log sum_{k != i} exp(z_i.z_k / temperature) - z_i.z_p(i) / temperature

    The mean is the paper's; the code released with the paper adds the two views' means and so minimises 2 L.

    The loss of the global batch, the same scalar on every rank; float32, or float64 for float64 inputs.

    z_a, z_b: (B, D) projections of the two views of this rank's images, not normalised; B the same on every rank.
    temperature: positive; a tensor gets its exact gradient.
    negatives: None for all other images of the global batch; K for groups of K consecutive images (in the order of the
    ranks) which are each other's only negatives. K must divide the global batch.
    Gradients are scaled so that their mean over the ranks, as DistributedDataParallel takes it, is the gradient of the
    loss. Raises ValueError for shapes, temperatures and groups that do not fit.
    Collective in the forward: every rank calls this.

    >>> import torch
    >>> from pretrain.losses import ntxent_loss
    >>> z = torch.eye(4)  # four images, as far apart as can be; both views the same
    >>> loss = ntxent_loss(z, z, temperature=1.0)  # log(e + 6) - 1
    >>> print(f"{loss:.4f}")
    1.1654
    """
    return contrastive_loss(z_a, z_b, temperature, group, negatives, decoupled=False)


def dcl_loss(
    z_a: Tensor, z_b: Tensor, *, temperature: float | Tensor, group: Group = None, negatives: int | None = None
) -> Tensor:
    """Decoupled contrastive loss over the global batch: DCL, Yeh et al. 2022 (arXiv:2110.06848), eq. 6.

        L = mean over all 2 G rows i of  log sum_{k != i, p(i)} exp(z_i.z_k / temperature) - z_i.z_p(i) / temperature

    NT-Xent without the positive in its own denominator, which removes the factor by which an easy positive mutes the
    gradient; it depends less on the number of negatives.

    The loss of the global batch, the same scalar on every rank. Arguments, errors and gradients as for ntxent_loss.

    A global batch of one pair has no negatives and raises ValueError. Collective in the forward: every rank calls this.

    >>> import torch
    >>> from pretrain.losses import dcl_loss
    >>> z = torch.eye(4)
    >>> print(f"{dcl_loss(z, z, temperature=1.0):.4f}")  # log(6) - 1
    0.7918
    """
    return contrastive_loss(z_a, z_b, temperature, group, negatives, decoupled=True)
