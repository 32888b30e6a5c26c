"""Losses that keep the dimensions of an embedding from repeating one another, over the global batch.

B pairs on this rank, G in the global batch, D dimensions.
"""

import torch
from torch import Tensor

from pretrain.collectives import Group
from pretrain.losses.common import (
    centred,
    check_pair,
    full_precision,
    off_diagonal_squares,
    sums_over_ranks,
    without_autocast,
)

BARLOW_TWINS_EPS = 1e-5  # added to the variance in the authors' code
VICREG_EPS = 1e-4  # likewise


def barlow_twins_loss(z_a: Tensor, z_b: Tensor, *, off_diagonal_weight: float = 0.0051, group: Group = None) -> Tensor:
    """Barlow Twins: Zbontar et al. 2021 (arXiv:2103.03230), eq. 1-2, standardised as in the authors' code.

        C_ij = mean over pairs of a_i b_j,  a, b: views standardised with mean and variance of the global batch
        L = sum_i (1 - C_ii)² + off_diagonal_weight · sum_{i != j} C_ij²

    The variance is biased with 1e-5 added, as in a batch norm without parameters. The cross-correlation is that of the
    global batch, with its gradient: the value depends on nothing but the global batch.

    The loss of the global batch, the same scalar on every rank; float32, or float64 for float64 inputs.

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
        scale_a_D, scale_b_D = (
            (squares_D / rows + BARLOW_TWINS_EPS).rsqrt() for squares_D in (squares_a_D, squares_b_D)
        )
        c_DD = products_DD / rows * torch.outer(scale_a_D, scale_b_D)
        return (1.0 - c_DD.diagonal()).square().sum() + off_diagonal_weight * off_diagonal_squares(c_DD)


def vicreg_loss(
    z_a: Tensor,
    z_b: Tensor,
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    group: Group = None,
) -> Tensor:
    """VICReg: Bardes et al. 2022 (arXiv:2105.04906), eq. 1-6, weighted as in the authors' code.

        invariance = mean over pairs and dimensions of (a - b)²
        variance   = mean over views and dimensions of max(0, 1 - sqrt(var + 1e-4))
        covariance = sum over views of (sum_{i != j} Cov_ij²) / D
        L = invariance_weight · invariance + variance_weight · variance + covariance_weight · covariance

    Variance and covariance are unbiased and those of the global batch.

    The loss of the global batch, the same scalar on every rank; float32, or float64 for float64 inputs.

    z_a, z_b: (B, D) embeddings of the two views of this rank's images; B the same on every rank, at least 2 images in
    all. Gradients are scaled so that their mean over the ranks is the gradient of the loss. Raises ValueError for
    shapes that do not fit. Collective in the forward: every rank calls this.

    >>> import torch
    >>> from pretrain.losses import vicreg_loss
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> print(f"{vicreg_loss(z, z):.1f} {vicreg_loss(z, -z):.1f}")  # 25 times the mean square of 2
    0.0 100.0
    """
    check_pair(z_a, z_b, "VICReg")
    with without_autocast(z_a):
        z_a, z_b = full_precision(z_a), full_precision(z_b)
        a_BD, b_BD, rows = centred(z_a, z_b, group)
        if rows < 2:
            raise ValueError("VICReg: a global batch of 1 pair has no variance; expected 2 or more")
        local = ((z_a - z_b).square().sum(), a_BD.t() @ a_BD, b_BD.t() @ b_BD)
        distance, products_a_DD, products_b_DD = sums_over_ranks(local, group)
        variance_term = covariance_term = z_a.new_zeros(())
        for products_DD in (products_a_DD, products_b_DD):
            cov_DD = products_DD / (rows - 1)
            variance_term = variance_term + (1.0 - (cov_DD.diagonal() + VICREG_EPS).sqrt()).relu().mean() / 2
            covariance_term = covariance_term + off_diagonal_squares(cov_DD) / cov_DD.shape[0]
        invariance_term = distance / (rows * z_a.shape[1])
        return (
            invariance_weight * invariance_term + variance_weight * variance_term + covariance_weight * covariance_term
        )
