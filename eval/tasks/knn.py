"""k-nearest-neighbours on frozen features: nothing is trained, so nothing can be tuned in the encoder's favour.

Shapes: N training images, M test images, T of them in a tile, D features, K classes, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

TILE_ELEMENTS = 2**26  # similarities held at a time: 256 MiB


@dataclass(frozen=True)
class Neighbours:
    """Top-1 accuracy in percent: similarity-weighted vote of many, plain vote of few; and how many voted."""

    weighted_percent: float
    plain_percent: float
    neighbours: int
    plain_neighbours: int


def knn_accuracy(
    train_ND: Tensor,
    train_y_N: Tensor,
    test_MD: Tensor,
    test_y_M: Tensor,
    *,
    classes: int,
    neighbours: int = 200,
    temperature: float = 0.07,
    plain_neighbours: int = 5,
) -> Neighbours:
    """Accuracy on the test images; cosine similarity s, weight exp(s / temperature) (Wu et al. 2018, eq. 8).

    Equal numbers of plain votes are decided by the sum of similarities. Never more neighbours than the smallest class
    has training images: beyond that even a perfect encoder's votes for it are drowned.
    """
    smallest = int(torch.unique(train_y_N, return_counts=True)[1].min())
    neighbours, plain_neighbours = min(neighbours, smallest), min(plain_neighbours, smallest)
    weighted_M, plain_M = knn_predictions(
        train_ND,
        train_y_N,
        test_MD,
        classes=classes,
        neighbours=neighbours,
        temperature=temperature,
        plain_neighbours=plain_neighbours,
    )
    weighted, plain = ((guess_M == test_y_M).double().mean() for guess_M in (weighted_M, plain_M))
    return Neighbours(100 * float(weighted), 100 * float(plain), neighbours, plain_neighbours)


def knn_predictions(
    train_ND: Tensor,
    train_y_N: Tensor,
    test_MD: Tensor,
    *,
    classes: int,
    neighbours: int,
    temperature: float,
    plain_neighbours: int,
) -> tuple[Tensor, Tensor]:
    """(weighted, plain) predicted classes (M,) each."""
    train_DN = normalize(train_ND, dim=1).t()
    few = min(plain_neighbours, len(train_ND))
    many = max(min(neighbours, len(train_ND)), few)
    weighted, plain = [], []
    rows = max(1, TILE_ELEMENTS // len(train_ND))
    for start in range(0, len(test_MD), rows):
        test_TD = test_MD[start : start + rows]
        similarity_Tk, nearest_Tk = (normalize(test_TD, dim=1) @ train_DN).topk(many, dim=1)
        labels_Tk = train_y_N[nearest_Tk]
        votes_TK = similarity_Tk.new_zeros(len(test_TD), classes)
        used = min(neighbours, many)
        weight_Tk = ((similarity_Tk[:, :used] - similarity_Tk[:, :1]) / temperature).exp()
        weighted.append(votes_TK.scatter_add(1, labels_Tk[:, :used], weight_Tk).argmax(1))
        # A sum of `few` similarities is below `few`, so that it decides between equal votes only.
        decided_Tk = 1 + similarity_Tk[:, :few] / (4 * few)
        plain.append(votes_TK.scatter_add(1, labels_Tk[:, :few], decided_Tk).argmax(1))
    return torch.cat(weighted), torch.cat(plain)
