"""A verdict on a training from the rows of its metrics, while it runs: healthy or not, and what to try. Torch-free.

    diverging    the loss or the gradient has grown far beyond where it began, or dimensions went and the loss stayed
    collapsed    all embeddings point in one direction, or lie on a line: the encoder tells images apart no longer
    trivial      the two views of an image are the same: nothing is left to learn
    at chance    the contrastive loss stays at log(negatives + 1), where every image looks like every other
    healthy      none of these, or too early to say

Thresholds are far from what sound runs show (see tests/test_health.py), so that a verdict is worth a look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

GROWN = 1.25  # times the first loss, or chance where that is more; sound runs fall, or stay for a while
GRADIENT_GROWN = 100.0  # times the first gradient's norm
NARROW = 0.05  # spread of directions; 1: in all directions alike, as at the start of a training
THIN = 1.2  # effective rank
LOST = 1 / 3  # of the first rank: what sound runs trade for a lower loss
SAME_VIEWS = 1e-4  # mean squared distance of the views; crops alone keep it above 0.01
CHANCE_GAP = 0.05  # nats around chance, in which all of CHANCE_ROWS lie: a loss on its way down passes more quickly
CHANCE_ROWS = 6
EARLIEST_ROW, EARLIEST_CHANCE = 3, 8  # rows of the record before a verdict: a beginning looks like chance
LATEST_ROWS = 3  # whose mean a verdict looks at
KEPT_ROWS = EARLIEST_CHANCE  # beside the first one, all that `judge` needs


class Verdict(NamedTuple):
    """name: one of those above; why: the numbers; advice: what to try, empty where all is well."""

    name: str
    why: str = ""
    advice: str = ""

    def describe(self) -> str:
        """One line."""
        return f"{self.name}: {self.why}; try {self.advice}" if self.advice else self.name


def judge(rows: Sequence[Mapping[str, Any]], *, chance_loss: float | None, warmup_steps: int) -> Verdict:
    """What the rows of metrics.jsonl say so far. chance_loss: None where an objective has no such level."""
    if len(rows) < EARLIEST_ROW:
        return Verdict("healthy")
    first, last = rows[0], rows[-LATEST_ROWS:]
    found = None
    if len(rows) >= EARLIEST_CHANCE and rows[-CHANCE_ROWS]["step"] > warmup_steps:
        found = _at_chance(rows[-CHANCE_ROWS:], chance_loss)
    found = found or _diverging(first, last, chance_loss or 0.0) or _collapsed(last) or _trivial(last)
    return found or Verdict("healthy")


def _diverging(first: Mapping[str, Any], last: Sequence[Mapping[str, Any]], chance: float) -> Verdict | None:
    advice = "a smaller schedule.base_learning_rate or more schedule.warmup_epochs"
    began, loss = first.get("loss"), _mean(last, "loss")
    if loss is None or began is None:
        return Verdict("diverging", "the loss is not a finite number", advice)
    if loss > GROWN * max(abs(began), chance, 1.0):
        return Verdict("diverging", f"the loss has grown from {began:.3g} to {loss:.3g}", advice)
    rank, left = first.get("embedding_rank"), _mean(last, "embedding_rank")
    if rank is not None and left is not None and left < LOST * rank and loss > began - CHANCE_GAP:
        why = f"embeddings fill {left:.1f} dimensions, {rank:.1f} at first, and the loss has not fallen ({loss:.3g})"
        return Verdict("diverging", why, advice)
    gradient, grown = first.get("gradient_norm"), _mean(last, "gradient_norm")
    if gradient is not None and grown is not None and grown > GRADIENT_GROWN * max(gradient, 1e-3):
        return Verdict("diverging", f"the gradient has grown from {gradient:.3g} to {grown:.3g}", advice)
    return None


def _collapsed(last: Sequence[Mapping[str, Any]]) -> Verdict | None:
    spread, rank = _mean(last, "embedding_spread"), _mean(last, "embedding_rank")
    if spread is None or rank is None or (spread >= NARROW and rank >= THIN):
        return None
    return Verdict(
        "collapsed",
        f"embeddings spread by {spread:.2g} of 1 over {rank:.1f} dimensions",
        "a smaller schedule.base_learning_rate, batch norm in the heads, a predictor (BYOL, SimSiam), more negatives",
    )


def _trivial(last: Sequence[Mapping[str, Any]]) -> Verdict | None:
    alignment = _mean(last, "alignment")
    if alignment is None or alignment >= SAME_VIEWS:
        return None
    return Verdict(
        "trivial",
        f"the two views of an image are {alignment:.1g} apart",
        "an augmentation: crops (augmentation.crop_area), colour (augmentation.jitter_probability)",
    )


def _at_chance(last: Sequence[Mapping[str, Any]], chance: float | None) -> Verdict | None:
    losses = [row.get("loss") for row in last]
    if chance is None or any(loss is None or abs(loss - chance) > CHANCE_GAP for loss in losses):
        return None
    loss = _mean(last, "loss")
    right = _mean(last, "contrastive_top1")
    accuracy = "" if right is None else f", {100 * right:.1f} % of the positives found"
    return Verdict(
        "at chance",
        f"the loss is {loss:.3f}, and {chance:.3f} where all images look alike{accuracy}",
        "a smaller objective.temperature, another schedule.base_learning_rate, weaker augmentation",
    )


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [row.get(name) for row in rows]
    return None if None in values else fmean(values)  # type: ignore[arg-type]
