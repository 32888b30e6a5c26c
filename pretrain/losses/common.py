"""What the losses share: their precision, the check of a pair of views, moments of the global batch.

Losses compute in float32, or in float64 for float64 inputs, whatever the autocast around them says. Every rank computes
the moments alike, so that they need no communication in the backward.

B rows on this rank, G in the global batch, D dimensions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pretrain.collectives import Group, all_reduce_, all_reduce_sum_shared, group_rank_and_size


def centred(z_a: Tensor, z_b: Tensor, group: Group) -> tuple[Tensor, Tensor, int]:
    """Both (B, D) minus their means over the global batch, which may count as constants; and G.

    Sums of products of such rows are stationary in the means, so that their gradient is exact without the means' own.
    Collective: every rank calls this.
    """
    rows = z_a.shape[0] * group_rank_and_size(group)[1]
    with torch.no_grad():
        means_2D = all_reduce_(torch.stack((z_a.sum(0), z_b.sum(0))), group) / rows
    return z_a - means_2D[0], z_b - means_2D[1], rows


def sums_over_ranks(tensors: Sequence[Tensor], group: Group) -> list[Tensor]:
    """The sum over ranks of each tensor, in one message; every rank must go on to the same scalar (see collectives).

    Collective in the forward: every rank calls this.
    """
    if group_rank_and_size(group)[1] == 1:
        return list(tensors)
    flat = all_reduce_sum_shared(torch.cat([tensor.flatten() for tensor in tensors]), group)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def off_diagonal_squares(matrix_DD: Tensor) -> Tensor:
    """The sum of the squares of all entries off the diagonal."""
    return (matrix_DD - torch.diag(matrix_DD.diagonal())).square().sum()


SHORTEST = 1e-6  # of an embedding that has a direction: training keeps lengths near 1


def row_lengths(x: Tensor) -> Tensor:
    """|x| over the last dimension, which stays as 1; infinite where x is nothing but zeros, up to `SHORTEST`.

    x divided by it is then 0, and so is its gradient, which would else be as large as the length is small.
    """
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length.masked_fill(length <= SHORTEST, torch.inf)


def full_precision(x: Tensor) -> Tensor:
    """x in float32; a float64 x stays as it is."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(x: Tensor) -> Any:
    """A context in which matrix products on x's device keep the type of their operands."""
    return torch.autocast(x.device.type, enabled=False)


def check_pair(z_a: Tensor, z_b: Tensor, function: str, names: tuple[str, str] = ("z_a", "z_b")) -> None:
    """Raises ValueError unless both are floating point matrices (B, D) of the same shape."""
    if z_a.dim() != 2 or z_a.shape != z_b.shape or not (z_a.is_floating_point() and z_b.is_floating_point()):
        given = " and ".join(f"{name} {tuple(z.shape)} {z.dtype}" for name, z in zip(names, (z_a, z_b), strict=True))
        raise ValueError(f"{function}: got {given}; expected two floating point matrices (B, D) of the same shape")
