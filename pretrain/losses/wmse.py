"""W-MSE over the global batch: Ermolov et al. 2021, eq. 3-5, with the Cholesky whitening of the authors' code.

    y = L^-1 (z - mean),  L L.T = (1 - shrinkage) Cov + shrinkage I        for each view and each sub-batch
    L = mean over pairs of 2 - 2 cos(y_a, y_b)

Mean and (biased) covariance are those of the global batch, or of random sub-batches of it, in which each image keeps
other company in each iteration. The draw is a hash of (seed, draw, iteration, index in the global batch): no generator,
nothing that depends on the ranks.

B pairs on this rank, G in the global batch, S of them in a sub-batch, D dimensions.
"""

import torch
from torch import Tensor

from pretrain.collectives import Group, all_gather_rows_shared
from pretrain.losses.common import check_pair, full_precision, row_lengths, without_autocast
from pretrain.randomness import permutation


def wmse_loss(
    z_a: Tensor,
    z_b: Tensor,
    *,
    group: Group = None,
    sub_batch_size: int | None = None,
    iterations: int = 1,
    shrinkage: float = 0.0,
    seed: int = 0,
    draw: int | Tensor = 0,
) -> Tensor:
    """The loss of the global batch, the same scalar on every rank; float32, or float64 for float64 inputs.

    z_a, z_b: (B, D) embeddings of the two views of this rank's images; B the same on every rank.
    sub_batch_size: None whitens with the covariance of the global batch; S, a divisor of the global batch, with those
    of random sub-batches of S images, drawn again in each of `iterations`, over which the loss is averaged.
    draw: the number of the draw, such as the step: a new one gives new sub-batches. An int, or a tensor on the device.
    shrinkage: in [0, 1]; needed where a sub-batch has no more images than dimensions, and its covariance no inverse.
    Gradients are scaled so that their mean over the ranks is the gradient of the loss. Raises ValueError for what does
    not fit. Collective in the forward: every rank calls this.

    >>> import torch
    >>> from pretrain.losses import wmse_loss
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> print(f"{wmse_loss(z, -z):.1f}")  # 2 - 2 cos, at most 4
    4.0
    """
    check_pair(z_a, z_b, "W-MSE")
    with without_autocast(z_a):
        z_G2D = all_gather_rows_shared(torch.stack((full_precision(z_a), full_precision(z_b)), dim=1), group)
        global_pairs, _, dimensions = z_G2D.shape
        size = global_pairs if sub_batch_size is None else sub_batch_size
        _check(size, global_pairs, dimensions, iterations, shrinkage)
        if size == global_pairs:
            return _loss_of_parts(z_G2D[None], shrinkage)
        total = z_G2D.new_zeros(())
        for iteration in range(iterations):
            order_G = permutation(global_pairs, (seed, draw, iteration), z_G2D.device)
            total = total + _loss_of_parts(z_G2D[order_G].view(-1, size, 2, dimensions), shrinkage)
        return total / iterations


def _check(size: int, global_pairs: int, dimensions: int, iterations: int, shrinkage: float) -> None:
    problems = []
    if size < 1 or global_pairs % size:
        problems.append(f"sub_batch_size={size} does not divide the global batch of {global_pairs} pairs")
    if iterations < 1:
        problems.append(f"iterations={iterations} is less than 1")
    if not 0.0 <= shrinkage <= 1.0:
        problems.append(f"shrinkage={shrinkage} is not in [0, 1]")
    if size <= dimensions and shrinkage == 0.0:
        problems.append(
            f"the covariance of {size} images in {dimensions} dimensions has no inverse: "
            f"expected more than {dimensions} images, or shrinkage > 0"
        )
    if problems:
        raise ValueError("W-MSE: " + "; ".join(problems))


def _loss_of_parts(z_PS2D: Tensor, shrinkage: float) -> Tensor:
    """Mean over P sub-batches of S pairs."""
    z_P2SD = z_PS2D.transpose(1, 2)
    centred_P2SD = z_P2SD - z_P2SD.mean(2, keepdim=True)
    cov_P2DD = centred_P2SD.mT @ centred_P2SD / z_P2SD.shape[2]
    identity_DD = torch.eye(cov_P2DD.shape[-1], dtype=cov_P2DD.dtype, device=cov_P2DD.device)
    # Unchecked: a check would wait for the device. A failure shows as a loss that is not finite.
    factor_P2DD, _ = torch.linalg.cholesky_ex((1.0 - shrinkage) * cov_P2DD + shrinkage * identity_DD)
    white_P2DS = torch.linalg.solve_triangular(factor_P2DD, centred_P2SD.mT, upper=False)
    white_P2SD: Tensor = white_P2DS.mT / row_lengths(white_P2DS.mT)
    return 2.0 - 2.0 * (white_P2SD[:, 0] * white_P2SD[:, 1]).sum(2).mean()
