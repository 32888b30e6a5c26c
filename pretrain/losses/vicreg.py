"""VICReg over the global batch: Bardes et al. 2022, eq. 1-6, weighted as in the authors' code.

    invariance = mean over pairs and dimensions of (a - b)²
    variance   = mean over views and dimensions of max(0, 1 - sqrt(var + 1e-4))
    covariance = sum over views of (sum_{i != j} Cov_ij²) / D
    L = invariance_weight · invariance + variance_weight · variance + covariance_weight · covariance

Variance and covariance are unbiased and those of the global batch.

B pairs on this rank, G in the global batch, D dimensions.
"""

from torch import Tensor

from pretrain.collectives import Group
from pretrain.losses.moments import centred, off_diagonal_squares, sums_over_ranks
from pretrain.losses.precision import check_pair, full_precision, without_autocast

EPS = 1e-4


def vicreg_loss(
    z_a: Tensor,
    z_b: Tensor,
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    group: Group = None,
) -> Tensor:
    """The loss of the global batch, the same scalar on every rank; float32, or float64 for float64 inputs.

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
            variance_term = variance_term + (1.0 - (cov_DD.diagonal() + EPS).sqrt()).relu().mean() / 2
            covariance_term = covariance_term + off_diagonal_squares(cov_DD) / cov_DD.shape[0]
        invariance_term = distance / (rows * z_a.shape[1])
        return (
            invariance_weight * invariance_term + variance_weight * variance_term + covariance_weight * covariance_term
        )
