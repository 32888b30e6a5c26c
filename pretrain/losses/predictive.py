"""Losses of one view's embedding that predicts the other's: no term between images, and so no communication."""

from torch import Tensor

from pretrain.losses.common import check_pair, full_precision, row_lengths, without_autocast


def byol_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """BYOL: Grill et al. 2020 (arXiv:2006.07733), eq. 2.

        L = mean over the batch of |q/|q| - t/|t||² = mean of 2 - 2 cos(q, t)

    q predicts the target t, the projection of the other view by the slowly moving network, which gets no gradient. The
    paper adds the loss with the two views exchanged: pass both as one batch and double, or add two calls.

    Mean over this rank's rows; float32, or float64 for float64 inputs.

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
    """Mean over rows of the cosine of prediction and target, whose gradient is stopped.

    A row of zeros has cosine 0 with everything, and no gradient.
    """
    check_pair(prediction, target, function, names=("prediction", "target"))
    with without_autocast(prediction):
        q_BD, t_BD = full_precision(prediction), full_precision(target.detach())
        return ((q_BD / row_lengths(q_BD)) * (t_BD / row_lengths(t_BD))).sum(1).mean()


def simsiam_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """SimSiam: Chen & He 2021 (arXiv:2011.10566), eq. 1-4.

        L = mean over the batch of -cos(p, z)

    p predicts z, the projection of the other view by the same network, which gets no gradient. The paper takes the
    mean of the loss and of the loss with the two views exchanged: pass both as one batch.

    Mean over this rank's rows; float32, or float64 for float64 inputs.

    prediction, target: (B, D), not normalised; no gradient flows to the target. The loss does not couple rows: with
    equally many rows on every rank the mean over the ranks of value and gradient is that of the global batch, without
    communication. Raises ValueError for shapes that do not fit.

    >>> import torch
    >>> from pretrain.losses import simsiam_loss
    >>> z = torch.eye(4)
    >>> print(f"{simsiam_loss(z, 3 * z):.1f}")
    -1.0
    """
    return -mean_cosine(prediction, target, "SimSiam")
