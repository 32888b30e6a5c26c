"""SimSiam: Chen & He 2021, eq. 1-4.

    L = mean over the batch of -cos(p, z)

p predicts z, the projection of the other view by the same network, which gets no gradient. The paper takes the mean of
the loss and of the loss with the two views exchanged: pass both as one batch.
"""

from torch import Tensor

from pretrain.losses.byol import mean_cosine


def simsiam_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over this rank's rows; float32, or float64 for float64 inputs.

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
