"""BYOL: Grill et al. 2020, eq. 2.

    L = mean over the batch of |q/|q| - t/|t||² = mean of 2 - 2 cos(q, t)

q predicts the target t, the projection of the other view by the slowly moving network, which gets no gradient. The
paper adds the loss with the two views exchanged: pass both as one batch and double, or add two calls.
"""

from torch import Tensor
from torch.nn import functional as F

from pretrain.losses.precision import check_pair, full_precision, without_autocast


def byol_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over this rank's rows; float32, or float64 for float64 inputs.

    prediction, target: (B, D), not normalised; no gradient flows to the target. The loss does not couple rows: with
    equally many rows on every rank the mean over the ranks of value and gradient is that of the global batch, without
    communication. Raises ValueError for shapes that do not fit.

    >>> import torch
    >>> from pretrain.losses import byol_loss
    >>> z = torch.eye(4)
    >>> print(f"{byol_loss(z, 3 * z):.1f} {byol_loss(z, -z):.1f}")
    0.0 4.0
    """
    return 2.0 - 2.0 * mean_cosine(prediction, target, "BYOL")


def mean_cosine(prediction: Tensor, target: Tensor, function: str) -> Tensor:
    """Mean over rows of the cosine of prediction and target, whose gradient is stopped."""
    check_pair(prediction, target, function, names=("prediction", "target"))
    with without_autocast(prediction):
        q_BD = F.normalize(full_precision(prediction), dim=1)
        t_BD = F.normalize(full_precision(target.detach()), dim=1)
        return (q_BD * t_BD).sum(1).mean()
