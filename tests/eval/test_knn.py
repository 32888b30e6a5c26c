"""Nearest neighbours against a loop over images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eval.tasks import knn
from eval.tasks.knn import knn_accuracy, knn_predictions


def naive(train_ND: Tensor, y_N: Tensor, query_D: Tensor, k: int, temperature: float | None) -> int:
    """The class of one query, by the definition."""
    similarity = [float(row @ query_D / row.norm() / query_D.norm()) for row in train_ND]
    nearest = sorted(range(len(similarity)), key=lambda i: -similarity[i])[:k]
    votes: dict[int, float] = {}
    for i in nearest:
        weight = 1 + 1e-6 * similarity[i] if temperature is None else math.exp(similarity[i] / temperature)
        votes[int(y_N[i])] = votes.get(int(y_N[i]), 0.0) + weight
    return max(votes, key=votes.__getitem__)


@pytest.mark.parametrize("tile", [2**26, 300], ids=["one tile", "tiles of two"])
def test_against_the_definition(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr(knn, "TILE_ELEMENTS", tile)
    generator = torch.Generator().manual_seed(0)
    y_N = torch.randint(4, (150,), generator=generator)
    train_ND = torch.randn(150, 8, generator=generator).double() + 0.7 * torch.eye(8).double()[y_N]
    test_MD = torch.randn(31, 8, generator=generator).double() + 0.5
    weighted_M, plain_M = knn_predictions(
        train_ND, y_N, test_MD, classes=4, neighbours=20, temperature=0.07, plain_neighbours=5
    )
    assert weighted_M.tolist() == [naive(train_ND, y_N, q, 20, 0.07) for q in test_MD]
    assert plain_M.tolist() == [naive(train_ND, y_N, q, 5, None) for q in test_MD]
    assert weighted_M.tolist() != plain_M.tolist(), "the two rules must differ for this test to tell them apart"


def test_accuracy_and_fewer_images_than_neighbours() -> None:
    """Three neighbours of one class would outvote the only image of the other, however near it is."""
    train_ND = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0]])
    test_MD, y_N, test_y_M = torch.tensor([[5.0, 0.1], [0.0, 0.1]]), torch.tensor([0, 0, 1]), torch.tensor([0, 1])
    found = knn_accuracy(train_ND, y_N, test_MD, test_y_M, classes=2, neighbours=200, plain_neighbours=1)
    assert (found.weighted_percent, found.plain_percent) == (100.0, 100.0)
    assert (found.neighbours, found.plain_neighbours) == (1, 1), "no more than the smallest class has"


def test_cosine_ignores_length() -> None:
    generator = torch.Generator().manual_seed(0)
    train_ND, test_MD = torch.randn(50, 4, generator=generator), torch.randn(9, 4, generator=generator)
    y_N = torch.randint(3, (50,), generator=generator)
    settings = {"classes": 3, "neighbours": 7, "temperature": 0.1, "plain_neighbours": 3}
    scaled = knn_predictions(train_ND * torch.rand(50, 1), y_N, test_MD * 9, **settings)  # type: ignore[arg-type]
    plain = knn_predictions(train_ND, y_N, test_MD, **settings)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(scaled, plain))
