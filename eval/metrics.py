"""Numbers of a classifier, and the parts of the training set that fit and choose it. Shapes: N images, K classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pretrain.randomness import GOLDEN, mix64, shift_right, signed

LARGEST_CONFUSION = 100  # classes: beyond them the table is a million numbers that nobody reads
NORMAL_975 = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True)
class Accuracy:
    """Test accuracy in percent. ``top5`` is None where five guesses or more name every class.

    confusion[k][g]: images of class k taken for class g; None where there are more than LARGEST_CONFUSION classes.
    """

    top1: float
    top1_interval: tuple[float, float]
    top5: float | None
    per_class_mean: float
    per_class: tuple[float | None, ...]  # None: no image of that class
    confusion: tuple[tuple[int, ...], ...] | None


def accuracy(logits_NK: Tensor, y_N: Tensor) -> Accuracy:
    """Top-1 with Wilson's 95 % interval, top-5, the mean over classes, and which class was taken for which."""
    guess_N = logits_NK.argmax(1)
    correct_N = guess_N == y_N
    classes = logits_NK.shape[1]
    count_K = torch.bincount(y_N, minlength=classes)
    right_K = torch.bincount(y_N[correct_N], minlength=classes)
    per_class = [100 * right / count if count else None for right, count in zip(right_K.tolist(), count_K.tolist())]
    present = [value for value in per_class if value is not None]
    top5 = None
    if classes > 5:
        top5 = 100 * float((logits_NK.topk(5, dim=1).indices == y_N[:, None]).any(1).double().mean())
    confusion = None
    if classes <= LARGEST_CONFUSION:
        counts_KK = torch.bincount(y_N * classes + guess_N, minlength=classes**2).view(classes, classes)
        confusion = tuple(tuple(row) for row in counts_KK.tolist())
    correct = int(correct_N.sum())
    return Accuracy(
        top1=100 * correct / len(y_N),
        top1_interval=wilson_percent(correct, len(y_N)),
        top5=top5,
        per_class_mean=sum(present) / len(present),
        per_class=tuple(per_class),
        confusion=confusion,
    )


def classifier_numbers(logits_NK: Tensor, y_N: Tensor) -> dict[str, Any]:
    """What a result says about a classifier on test images: accuracies in percent, ``test_loss`` in nats."""
    reached = accuracy(logits_NK, y_N)
    return {
        "top1": reached.top1,
        "top1_interval": list(reached.top1_interval),
        "top5": reached.top5,
        "per_class_mean": reached.per_class_mean,
        "per_class": list(reached.per_class),
        "test_loss": mean_loss(logits_NK, y_N),
        "confusion": None if reached.confusion is None else [list(row) for row in reached.confusion],
    }


def mean_loss(logits_NK: Tensor, y_N: Tensor) -> float | None:
    """Mean cross-entropy in nats; None where it is not a finite number."""
    loss = float(cross_entropy(logits_NK.double(), y_N))
    return loss if math.isfinite(loss) else None


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
    state_N = _mix(index_N.to(torch.int64).cpu() + _mix(torch.tensor(signed(seed))))
    uniform_N = shift_right(state_N, 11).double() * 2.0**-53
    return (uniform_N < fraction).to(index_N.device)


def too_few_to_hold_out(images: int, fraction: float) -> str:
    """What to say where a held-out part is empty or everything."""
    taken = f"which takes none or all of {images} training images"
    return f"held_out_fraction: got {fraction:g}, {taken}; expected another part"


def balanced_subset(y_N: Tensor, index_N: Tensor, *, fraction: float, seed: int) -> Tensor:
    """Positions (n,), ascending, of a share of the images with equally many of each class (where it has so many).

    ``fraction`` of all N, shared evenly by the classes present, at least one image of each; 1 is every image. Within a
    class the images come by the same hash as in `held_out_mask` with another key, so that a smaller fraction is part of
    every larger one, and the choice does not depend on what order the images stand in.
    """
    if fraction >= 1:
        return torch.arange(len(y_N))
    key_N = _mix(_mix(index_N.to(torch.int64).cpu()) + _mix(torch.tensor(signed(seed))))
    y_N = y_N.cpu()
    present = torch.unique(y_N).tolist()
    each = max(1, round(fraction * len(y_N) / len(present)))
    chosen = []
    for label in present:
        of_class_n = (y_N == label).nonzero().flatten()
        chosen.append(of_class_n[key_N[of_class_n].argsort()[:each]])
    return torch.cat(chosen).sort().values


def _mix(value: Tensor) -> Tensor:
    """splitmix64's step."""
    return mix64(value + GOLDEN)
