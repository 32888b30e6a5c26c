"""Numbers of a classifier, and the split of the training set that chooses it. Shapes: N images, K classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NORMAL_975 = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True)
class Accuracy:
    """Test accuracy in percent. ``top5`` is None where five guesses or more name every class."""

    top1: float
    top1_interval: tuple[float, float]
    top5: float | None
    per_class_mean: float
    per_class: tuple[float | None, ...]  # None: no image of that class


def accuracy(logits_NK: Tensor, y_N: Tensor) -> Accuracy:
    """Top-1 with Wilson's 95 % interval, top-5, and the mean over classes."""
    correct_N = logits_NK.argmax(1) == y_N
    classes = logits_NK.shape[1]
    count_K = torch.bincount(y_N, minlength=classes)
    right_K = torch.bincount(y_N[correct_N], minlength=classes)
    per_class = [100 * right / count if count else None for right, count in zip(right_K.tolist(), count_K.tolist())]
    present = [value for value in per_class if value is not None]
    top5 = None
    if classes > 5:
        top5 = 100 * float((logits_NK.topk(5, dim=1).indices == y_N[:, None]).any(1).double().mean())
    correct = int(correct_N.sum())
    return Accuracy(
        top1=100 * correct / len(y_N),
        top1_interval=wilson_percent(correct, len(y_N)),
        top5=top5,
        per_class_mean=sum(present) / len(present),
        per_class=tuple(per_class),
    )


def accuracy_percent(logits_NK: Tensor, y_N: Tensor) -> float:
    """Top-1 accuracy in percent."""
    return 100 * float((logits_NK.argmax(1) == y_N).double().mean())


def wilson_percent(correct: int, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion, in percent (Wilson 1927): which accuracies the test set leaves open."""
    z2 = NORMAL_975**2
    p = correct / images
    centre = (p + z2 / (2 * images)) / (1 + z2 / images)
    half = NORMAL_975 / (1 + z2 / images) * math.sqrt(p * (1 - p) / images + z2 / (4 * images**2))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def held_out_mask(index_N: Tensor, *, fraction: float, seed: int) -> Tensor:
    """True (N,) for the images that are held out: a hash of (seed, index) falls below ``fraction``.

    The hash is splitmix64 (Steele et al. 2014), so that the same image is held out whatever stands beside it.
    """
    state_N = _mix(index_N.to(torch.int64).cpu() + _mix(torch.tensor(_signed(seed))))
    uniform_N = _shift_right(state_N, 11).double() * 2.0**-53
    return (uniform_N < fraction).to(index_N.device)


def _mix(value: Tensor) -> Tensor:
    """splitmix64's step on int64 tensors, whose products wrap as unsigned ones do."""
    z = value + _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shift_right(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift_right(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift_right(z, 31)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
