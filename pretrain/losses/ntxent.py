"""NT-Xent over the global batch: SimCLR, Chen et al. 2020, eq. 1.

    L = mean over all 2 G rows i of  log sum_{k != i} exp(z_i.z_k / temperature) - z_i.z_p(i) / temperature

The mean is the paper's; the code released with the paper adds the two views' means and so minimises 2 L.
"""

from torch import Tensor

from pretrain.collectives import Group
from pretrain.losses.contrastive import contrastive_loss
from pretrain.losses.diagnostics import ntxent_diagnostics

__all__ = ["ntxent_diagnostics", "ntxent_loss"]


def ntxent_loss(
    z_a: Tensor, z_b: Tensor, *, temperature: float | Tensor, group: Group = None, negatives: int | None = None
) -> Tensor:
    """The loss of the global batch, the same scalar on every rank; float32, or float64 for float64 inputs.

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
