"""What a batch-size study is asked for: where gains end, and how much of them the negatives alone explain.

All of it rests on the standard deviation between seeds, pooled as in `statistics`; without seeds there is no answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.report.factors import NO_FACTOR
from eval.report.records import StudyRecord
from eval.report.statistics import (
    REMARKABLE,
    Condition,
    Interval,
    QuestionAnalysis,
    f_tail,
    pooled_deviation,
    student_t,
    studentized_range,
)
from eval.schema import finite

TURNS = 241  # places at which a line may turn flat
# More of these is what one pays for: where does it stop to help? A temperature has a best value, not an end.
GROWING = ("global_batch_size", "negatives_per_anchor", "objective.negatives", "batch_norm_images", "data.images")
NEGATIVES, BATCH = "negatives_per_anchor", "global_batch_size"
OWN_KEYS = (BATCH, "objective.negatives")  # what the two questions vary

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Plateau:
    """Where one line stops to rise.

    enough: the first condition that no later one exceeds by more than chance (Tukey's intervals over the line).
    unnoticed: a gain of so many points could have gone unnoticed there.
    turn: x at which a line that rises and then is flat fits best, with its 95 % interval; None at an end that is open.
    """

    line_text: str
    enough: Condition
    is_last: bool
    unnoticed: float
    turn: float | None
    turn_low: float | None
    turn_high: float | None


@dataclass(frozen=True)
class Share:
    """Effect of the batch size between two sizes, and of the negatives alone over the same numbers of negatives.

    share: negatives' effect / batch effect, with Fieller's 95 % interval; None where the batch effect may be 0.
    """

    line_text: str
    batches: tuple[float, float]
    negatives: tuple[float, float]
    fixed_batch: float
    batch_effect: Interval
    negatives_effect: Interval
    share: float | None
    share_low: float | None
    share_high: float | None


def plateaus(analysis: QuestionAnalysis) -> list[Plateau]:
    """Of each line over something GROWING with at least three measured conditions; none without seeds."""
    deviation, freedom = analysis.pooled_deviation, analysis.degrees_of_freedom
    if deviation is None or analysis.view.x_key not in GROWING:
        return []
    lines = [[c for c in analysis.line(line) if c.mean is not None and c.x > 0] for line in analysis.lines]
    return [_plateau(line, deviation, freedom) for line in lines if len(line) >= 3]


def _plateau(line: Sequence[Condition], deviation: float, freedom: int) -> Plateau:
    quantile = studentized_range(len(line), freedom)

    def chance(a: Condition, b: Condition) -> float:
        return quantile * deviation * math.sqrt((1 / len(a.measured) + 1 / len(b.measured)) / 2)

    def value(condition: Condition) -> float:
        assert condition.mean is not None, "only measured conditions are compared"
        return condition.mean.value

    first = next(
        i for i, c in enumerate(line) if all(value(later) - value(c) <= chance(later, c) for later in line[i + 1 :])
    )
    enough = line[first]
    unnoticed = max(
        (value(later) - value(enough) + chance(later, enough) for later in line[first + 1 :]), default=math.nan
    )
    turn, low, high = _turn(line, deviation, freedom)
    return Plateau(enough.line_text, enough, first == len(line) - 1, unnoticed, turn, low, high)


def _turn(line: Sequence[Condition], deviation: float, freedom: int) -> tuple[float | None, float | None, float | None]:
    """Least squares of a + b min(log2 x, k), b >= 0, over k; the interval holds every k that F does not rule out."""
    u = np.array([math.log2(c.x) for c in line for _ in c.measured])
    y = np.array([record.top1 for c in line for record in c.measured], dtype=np.float64)
    turns = np.linspace(u.min(), u.max(), TURNS)
    squares = np.array([_squares(np.minimum(u, turn), y) for turn in turns])
    best = int(squares.argmin())
    allowed = squares <= squares[best] + (student_t(freedom) * deviation) ** 2
    pure = sum(float(((own := y[u == place]) - own.mean()) @ (own - own.mean())) for place in np.unique(u))
    misfit = (squares[best] - pure) / max(len(line) - 3, 1) / deviation**2
    if allowed.all() or best < 2 or f_tail(float(misfit), (max(len(line) - 3, 1), freedom)) < REMARKABLE:
        return None, None, None  # it never rises, or it does something else than to rise and turn flat
    inside = np.flatnonzero(allowed)
    low = None if inside[0] == 0 else float(2 ** turns[inside[0]])
    high = None if inside[-1] == TURNS - 1 else float(2 ** turns[inside[-1]])
    return (None if best == TURNS - 1 else float(2 ** turns[best])), low, high


def _squares(x: Array, y: Array) -> float:
    """Residual sum of squares of a line that does not fall."""
    dx, dy = x - x.mean(), y - y.mean()
    spread = float(dx @ dx)
    slope = max(float(dx @ dy) / spread, 0.0) if spread > 0 else 0.0
    rest = dy - slope * dx
    return float(rest @ rest)


def negative_shares(study: StudyRecord, analyses: Sequence[QuestionAnalysis]) -> list[Share]:
    """For each line over batch sizes with a line over negatives at one batch size that differs in nothing else."""
    batch = [a for a in analyses if a.view.x_key == BATCH and not a.view.derived]
    negatives = [a for a in analyses if a.view.x_key == NEGATIVES and not a.view.derived]
    found = []
    for over_batch in batch:
        for line in over_batch.lines:
            for over_negatives in negatives:
                shares = (_share(study, over_batch, line, over_negatives, other) for other in over_negatives.lines)
                found += [share for share in shares if share is not None][:1]
    return found


def _share(
    study: StudyRecord,
    over_batch: QuestionAnalysis,
    line: tuple[str, str],
    over_negatives: QuestionAnalysis,
    other: tuple[str, str],
) -> Share | None:
    sizes = [c for c in over_batch.line(line) if c.mean is not None]
    ladder = [c for c in over_negatives.line(other) if c.mean is not None]
    fixed = _common(study, ladder, BATCH)
    if fixed is None or len(ladder) < 2 or not _comparable(study, [*sizes, *ladder]):
        return None
    negatives_at = {c.x: _common(study, [c], NEGATIVES) for c in sizes}
    inside = [c for c in sizes if _within(negatives_at[c.x], ladder)]
    if len(inside) < 2:
        return None
    low, high = inside[0], inside[-1]
    n_low, n_high = negatives_at[low.x], negatives_at[high.x]
    assert n_low is not None, "places without negatives are not inside"
    assert n_high is not None, "places without negatives are not inside"
    batch_weights = _minus(_weights([(high, 1.0)]), _weights([(low, 1.0)]))
    negative_weights = _minus(_weights(_between(ladder, n_high)), _weights(_between(ladder, n_low)))
    groups = {frozenset(r.name for r in c.measured): [float(r.top1 or 0.0) for r in c.measured] for c in sizes + ladder}
    deviation, freedom = pooled_deviation(list(groups.values()))
    values = {record.name: float(record.top1 or 0.0) for c in [*sizes, *ladder] for record in c.measured}
    effect, half = _contrast(batch_weights, values, deviation, freedom)
    alone, alone_half = _contrast(negative_weights, values, deviation, freedom)
    share, share_low, share_high = _fieller(alone, effect, negative_weights, batch_weights, deviation, freedom)
    return Share(
        low.line_text,
        (low.x, high.x),
        (n_low, n_high),
        fixed,
        Interval(effect, half),
        Interval(alone, alone_half),
        share,
        share_low,
        share_high,
    )


def _common(study: StudyRecord, conditions: Sequence[Condition], key: str) -> float | None:
    """The one number that all points have for ``key``; None where they differ or it is 0."""
    values = {finite(r.point.plan.get(key, study.value(r, key))) for c in conditions for r in c.records}
    return (values.pop() or None) if len(values) == 1 else None


def _comparable(study: StudyRecord, conditions: Sequence[Condition]) -> bool:
    """True where the points differ in batch size, negatives and seed only."""
    records = [record for condition in conditions for record in condition.records]
    keys = {key for record in records for key in record.point.settings} - {*OWN_KEYS}
    keys = {key for key in keys if key.partition(".")[0] not in NO_FACTOR}
    return all(len({repr(study.value(record, key)) for record in records}) == 1 for key in keys)


def _within(value: float | None, ladder: Sequence[Condition]) -> bool:
    return value is not None and ladder[0].x <= value <= ladder[-1].x


def _between(ladder: Sequence[Condition], x: float) -> list[tuple[Condition, float]]:
    """Weights of the ladder's conditions in its value at ``x``, on straight lines over log2 x."""
    for low, high in itertools.pairwise(ladder):
        if low.x <= x <= high.x:
            share = (math.log2(x) - math.log2(low.x)) / (math.log2(high.x) - math.log2(low.x))
            return [(low, 1.0 - share), (high, share)]
    raise AssertionError(f"{x} is not within the ladder")


def _weights(parts: Sequence[tuple[Condition, float]]) -> dict[str, float]:
    """Weight of each run in a weighted sum of conditions' means."""
    found: dict[str, float] = {}
    for condition, weight in parts:
        for record in condition.measured:
            found[record.name] = found.get(record.name, 0.0) + weight / len(condition.measured)
    return found


def _minus(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {name: a.get(name, 0.0) - b.get(name, 0.0) for name in {**a, **b}}


def _product(a: dict[str, float], b: dict[str, float]) -> float:
    return sum(weight * b.get(name, 0.0) for name, weight in a.items())


def _contrast(
    weights: dict[str, float], values: dict[str, float], deviation: float | None, freedom: int
) -> tuple[float, float | None]:
    half = None if deviation is None else student_t(freedom) * deviation * math.sqrt(_product(weights, weights))
    return _product(weights, values), half


def _fieller(
    numerator: float,
    denominator: float,
    a: dict[str, float],
    b: dict[str, float],
    deviation: float | None,
    freedom: int,
) -> tuple[float | None, float | None, float | None]:
    """Ratio of two contrasts of the same runs, which may share some of them (Fieller 1954)."""
    if deviation is None or denominator == 0:
        return None, None, None
    t, variance = student_t(freedom), deviation**2
    v11, v12, v22 = (variance * _product(*pair) for pair in ((a, a), (a, b), (b, b)))
    g = t**2 * v22 / denominator**2
    if g >= 1:  # the denominator's interval holds 0: any share is possible
        return None, None, None
    ratio = numerator / denominator
    root = v11 - 2 * ratio * v12 + ratio**2 * v22 - g * (v11 - v12**2 / v22)
    half = t / abs(denominator) * math.sqrt(max(root, 0.0))
    centre = ratio - g * v12 / v22
    return ratio, (centre - half) / (1 - g), (centre + half) / (1 - g)
