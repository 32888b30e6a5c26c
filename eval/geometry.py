"""How features lie: numbers that need no labels, or only pairs of views of the same images.

Shapes: N images, D features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

ROWS_AT_ONCE = 2048


def alignment(x_ND: Tensor, other_ND: Tensor) -> float:
    """mean |f(x) - f(x')|^2 over positive pairs, f on the unit sphere: 0 to 4, lower is closer (Wang & Isola 2020)."""
    distance_ND = normalize(x_ND.double(), dim=1) - normalize(other_ND.double(), dim=1)
    return float(distance_ND.square().sum(1).mean())


def uniformity(x_ND: Tensor) -> float:
    """log mean exp(-2 |f(x) - f(y)|^2) over pairs of different images, f on the unit sphere (Wang & Isola 2020).

    0 where all features are one point, down to nearly -4 where they are spread evenly. ValueError below 2 images.
    """
    images = len(x_ND)
    if images < 2:
        raise ValueError(f"uniformity: got {images} images, wanted at least 2")
    unit_ND = normalize(x_ND.double(), dim=1)
    total = 0.0
    for rows_nD in torch.split(unit_ND, ROWS_AT_ONCE):
        total += float(torch.exp(4 * (rows_nD @ unit_ND.t()) - 4).sum())  # |f - g|^2 = 2 - 2 f.g
    itself = float(torch.exp(4 * unit_ND.square().sum(1) - 4).sum())
    return math.log((total - itself) / (images * (images - 1)))


def rankme(x_ND: Tensor) -> float:
    """RankMe (Garrido et al. 2023): exp of the entropy of the singular values of the features; 1 to min(N, D)."""
    return _effective(torch.linalg.svdvals(x_ND.double()))


def effective_rank(x_ND: Tensor) -> float:
    """exp of the entropy of the eigenvalues of the features' covariance (Roy & Vetterli 2007): what varies, 1 to D.

    0 where nothing varies.
    """
    centred_ND = x_ND.double() - x_ND.double().mean(0)
    return _effective(torch.linalg.svdvals(centred_ND).square())


def _effective(spectrum_D: Tensor) -> float:
    total = spectrum_D.sum()
    if float(total) == 0:
        return 0.0
    share_D = spectrum_D / total
    return float(torch.exp(-torch.xlogy(share_D, share_D).sum()))
