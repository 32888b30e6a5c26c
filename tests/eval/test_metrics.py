"""Accuracies against counting by hand, Wilson against published values, the held-out hash against its properties."""

from __future__ import annotations

import math

import pytest
import torch

from eval.metrics import (
    LARGEST_CONFUSION,
    accuracy,
    classifier_numbers,
    held_out_mask,
    mean_loss,
    wilson_percent,
)


def test_wilson_against_known_values() -> None:
    assert wilson_percent(8, 10) == pytest.approx((49.02, 94.33), abs=0.01)
    assert wilson_percent(0, 10) == pytest.approx((0.0, 27.75), abs=0.01)
    assert wilson_percent(10, 10) == pytest.approx((72.25, 100.0), abs=0.01)


def test_accuracy_by_hand() -> None:
    guesses = [0, 0, 1, 2, 2, 2]
    labels = torch.tensor([0, 1, 1, 2, 2, 0])
    logits_NK = torch.eye(7)[guesses]
    found = accuracy(logits_NK, labels)
    assert found.top1 == pytest.approx(100 * 4 / 6)
    assert found.per_class[:3] == (50.0, 50.0, 100.0)
    assert found.per_class[3:] == (None,) * 4
    assert found.per_class_mean == pytest.approx(200 / 3)
    assert found.top1_interval == wilson_percent(4, 6)


def test_confusion_counts_classes_by_guesses() -> None:
    guesses, labels = [0, 0, 1, 2, 2, 2], torch.tensor([0, 1, 1, 2, 2, 0])
    assert accuracy(torch.eye(3)[guesses], labels).confusion == ((1, 0, 1), (1, 1, 0), (0, 0, 2))
    many = accuracy(torch.eye(LARGEST_CONFUSION + 1)[guesses], labels)
    assert many.confusion is None, "nobody reads a million numbers"
    assert classifier_numbers(torch.eye(3)[guesses], labels)["confusion"] == [[1, 0, 1], [1, 1, 0], [0, 0, 2]]


def test_loss_is_a_number_or_nothing() -> None:
    labels = torch.tensor([0, 2])
    assert mean_loss(torch.zeros(2, 4), labels) == pytest.approx(math.log(4))
    assert mean_loss(torch.full((2, 4), float("nan")), labels) is None
    assert mean_loss(torch.tensor([[0.0, float("inf")], [0.0, 0.0]]), torch.tensor([0, 1])) is None


def test_top5() -> None:
    logits_NK = torch.arange(8.0).repeat(2, 1)
    found = accuracy(logits_NK, torch.tensor([3, 2]))
    assert (found.top1, found.top5) == (0.0, 50.0)
    assert accuracy(logits_NK[:, :5], torch.tensor([0, 0])).top5 is None


def test_held_out_images_depend_on_seed_and_index_alone() -> None:
    index_N = torch.arange(20000)
    mask_N = held_out_mask(index_N, fraction=0.1, seed=0)
    assert 0.09 < float(mask_N.double().mean()) < 0.11
    order_N = torch.randperm(20000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(held_out_mask(index_N[order_N], fraction=0.1, seed=0), mask_N[order_N])
    other_N = held_out_mask(index_N, fraction=0.1, seed=1)
    assert 0.005 < float((mask_N & other_N).double().mean()) < 0.015
    assert bool((held_out_mask(index_N, fraction=0.2, seed=0) | ~mask_N).all()), "a larger fraction contains a smaller"


@pytest.mark.parametrize("seed", [0, 5, 2**63 - 1])
def test_held_out_hash_is_splitmix64(seed: int) -> None:
    expected = [i for i in range(3000) if (splitmix64(i + splitmix64(seed)) >> 11) * 2.0**-53 < 0.1]
    assert held_out_mask(torch.arange(3000), fraction=0.1, seed=seed).nonzero().flatten().tolist() == expected


def splitmix64(value: int) -> int:
    """Steele et al. 2014, in integers of any size."""
    z = (value + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)
