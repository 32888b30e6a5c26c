"""Decoupled contrastive loss over the global batch: DCL, Yeh et al. 2022, eq. 6 (L_DC, without weights).

    L = mean over all 2 G rows i of  log sum_{k != i, p(i)} exp(z_i.z_k / temperature) - z_i.z_p(i) / temperature

NT-Xent without the positive in its own denominator, which removes the factor by which an easy positive mutes the
gradient; it depends less on the number of negatives.
"""

from torch import Tensor

from pretrain.collectives import Group
from pretrain.losses.contrastive import contrastive_loss


def dcl_loss(
    z_a: Tensor, z_b: Tensor, *, temperature: float | Tensor, group: Group = None, negatives: int | None = None
) -> Tensor:
    """The loss of the global batch, the same scalar on every rank. Arguments, errors and gradients as for ntxent_loss.

    A global batch of one pair has no negatives and raises ValueError. Collective in the forward: every rank calls this.

    >>> import torch
    >>> from pretrain.losses import dcl_loss
    >>> z = torch.eye(4)
    >>> print(f"{dcl_loss(z, z, temperature=1.0):.4f}")  # log(6) - 1
    0.7918
    """
    return contrastive_loss(z_a, z_b, temperature, group, negatives, decoupled=True)
