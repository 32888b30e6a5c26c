"""Barlow Twins over the global batch: Zbontar et al. 2021, eq. 1-2, standardised as in the authors' code.

    C_ij = mean over pairs of a_i b_j,  a, b: views standardised with mean and variance of the global batch
    L = sum_i (1 - C_ii)² + off_diagonal_weight · sum_{i != j} C_ij²

The variance is biased with 1e-5 added, as in a batch norm without parameters. The cross-correlation is that of the
global batch, with its gradient: the value depends on nothing but the global batch.

B pairs on this rank, D dimensions.
"""

import torch
from torch import Tensor

from pretrain.collectives import Group
from pretrain.losses.moments import centred, off_diagonal_squares, sums_over_ranks
from pretrain.losses.precision import check_pair, full_precision, without_autocast

EPS = 1e-5


def barlow_twins_loss(z_a: Tensor, z_b: Tensor, *, off_diagonal_weight: float = 0.0051, group: Group = None) -> Tensor:
    """The loss of the global batch, the same scalar on every rank; float32, or float64 for float64 inputs.

    z_a, z_b: (B, D) embeddings of the two views of this rank's images; B the same on every rank. Gradients are scaled
    so that their mean over the ranks is the gradient of the loss. Raises ValueError for shapes that do not fit.
    Collective in the forward: every rank calls this.

    >>> import torch
    >>> from pretrain.losses import barlow_twins_loss
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # uncorrelated
    >>> print(f"{barlow_twins_loss(z, z):.4f}")
    0.0000
    """
    check_pair(z_a, z_b, "Barlow Twins")
    with without_autocast(z_a):
        a_BD, b_BD, rows = centred(full_precision(z_a), full_precision(z_b), group)
        local = (a_BD.t() @ b_BD, a_BD.square().sum(0), b_BD.square().sum(0))
        products_DD, squares_a_D, squares_b_D = sums_over_ranks(local, group)
        scale_a_D, scale_b_D = ((squares_D / rows + EPS).rsqrt() for squares_D in (squares_a_D, squares_b_D))
        c_DD = products_DD / rows * torch.outer(scale_a_D, scale_b_D)
        return (1.0 - c_DD.diagonal()).square().sum() + off_diagonal_weight * off_diagonal_squares(c_DD)
