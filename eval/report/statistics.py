"""Statistics of a study: means over seeds, intervals, contrasts and slopes. Numbers only; `sentences` words them.

A condition is one place of one curve of one panel, measured with n seeds. All intervals of a figure come from one
standard deviation, pooled over its conditions (pure error): s^2 = sum_i (n_i - 1) s_i^2 / df, df = sum_i (n_i - 1).
With two or three seeds a condition's own deviation is too uncertain to be of use. Where df is 0 there is no interval.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.report.factors import Place, View, main_view
from eval.report.records import PointRecord, StudyRecord
from eval.study_manifest import Baseline, Question

LEVEL = 0.95
NODES = 120  # of the quadrature
REMARKABLE = 0.05  # lack of fit is worth a remark when chance alone shows as much less often than this

Array = NDArray[np.float64]


def student_t(freedom: float) -> float:
    """Two-sided 95 % quantile of Student's t with ``freedom`` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + LEVEL / 2))


def f_tail(ratio: float, freedom: tuple[int, int]) -> float:
    """Probability that an F ratio exceeds ``ratio`` by chance."""
    from scipy.special import fdtrc

    return float(fdtrc(*freedom, ratio))


@functools.cache
def studentized_range(groups: int, freedom: int) -> float:
    """95 % quantile of the range of ``groups`` standard normal means over an independent deviation (Tukey).

    scipy.stats has it too, but takes seconds to import.

    Bisection on the distribution function P(range <= q s), integrated over s by Gauss and Legendre.
    """
    low, high = 0.0, 1.0
    while _range_cdf(high, groups, freedom) < LEVEL:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _range_cdf(middle, groups, freedom) < LEVEL else (low, middle)
    return (low + high) / 2


def _range_cdf(q: float, groups: int, freedom: int) -> float:
    """E over s of W(q s), s^2 freedom chi-square distributed, W(w) = k int phi(z) (Phi(z) - Phi(z - w))^(k - 1) dz."""
    from scipy.special import ndtr

    x, weight = _nodes()
    spread = 8 / math.sqrt(2 * freedom)  # s is close to 1, with a deviation of 1 / sqrt(2 freedom)
    s_low, s_high = max(0.0, 1 - spread), 1 + spread
    s = (s_high - s_low) / 2 * (x + 1) + s_low
    log_density = (freedom - 1) * np.log(s) - freedom * s**2 / 2
    log_density += freedom / 2 * math.log(freedom) - math.lgamma(freedom / 2) - (freedom / 2 - 1) * math.log(2)
    z = 8.5 * x
    phi = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    inside = (ndtr(z)[None, :] - ndtr(z[None, :] - q * s[:, None])) ** (groups - 1)
    within = groups * 8.5 * (inside * (phi * weight)[None, :]).sum(1)
    return float((s_high - s_low) / 2 * (weight * np.exp(log_density) * within).sum())


@functools.cache
def _nodes() -> tuple[Array, Array]:
    x, weight = np.polynomial.legendre.leggauss(NODES)
    return np.asarray(x), np.asarray(weight)


@dataclass(frozen=True)
class Interval:
    """An estimate in percentage points with its 95 % interval, None where none can be computed."""

    value: float
    half_width: float | None

    @property
    def low(self) -> float | None:
        return None if self.half_width is None else self.value - self.half_width

    @property
    def high(self) -> float | None:
        return None if self.half_width is None else self.value + self.half_width

    @property
    def contains_zero(self) -> bool | None:
        """None where there is no interval."""
        return None if self.half_width is None else abs(self.value) <= self.half_width


@dataclass(frozen=True)
class Condition:
    """One place of one curve: its points, and the accuracies of those that have one."""

    curve: str
    x: float
    records: tuple[PointRecord, ...]
    mean: Interval | None
    panel: str = ""
    x_text: str = ""  # what x is called, e.g. ``4,096``, ``sqrt``

    @property
    def line(self) -> tuple[str, str]:
        """(panel, curve): conditions of one line are joined."""
        return self.panel, self.curve

    @property
    def line_text(self) -> str:
        """``epochs = 100``, ``LR rule = sqrt, epochs = 100``; empty where there is only one line."""
        return ", ".join(text for text in self.line if text)

    @property
    def measured(self) -> tuple[PointRecord, ...]:
        return tuple(record for record in self.records if record.top1 is not None)

    @property
    def missing(self) -> tuple[PointRecord, ...]:
        return tuple(record for record in self.records if record.top1 is None)


@dataclass(frozen=True)
class Slope:
    """Least-squares slope of one curve: points per doubling of x, or per unit of a linear axis."""

    line: tuple[str, str]
    line_text: str
    per_doubling: bool
    slope: Interval
    lack_of_fit: bool  # the conditions leave the line by more than the seeds differ


@dataclass(frozen=True)
class Contrast:
    """Best against worst condition. The interval is Tukey's: it allows for both having been picked by their result."""

    best: Condition
    worst: Condition
    difference: Interval


@dataclass(frozen=True)
class QuestionAnalysis:
    """What the points of one figure say."""

    view: View
    conditions: tuple[Condition, ...]
    pooled_deviation: float | None
    degrees_of_freedom: int
    contrast: Contrast | None
    slopes: tuple[Slope, ...]

    @property
    def missing(self) -> tuple[PointRecord, ...]:
        return tuple(record for condition in self.conditions for record in condition.missing)

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """(panel, curve) of every line that has points, in the view's order."""
        present = {condition.line for condition in self.conditions}
        return tuple((p, c) for p in self.view.panels for c in self.view.curves if (p, c) in present)

    def line(self, line: tuple[str, str]) -> tuple[Condition, ...]:
        """Conditions of one line by increasing x."""
        return tuple(sorted((c for c in self.conditions if c.line == line), key=lambda c: c.x))

    @property
    def best_of_lines(self) -> frozenset[tuple[tuple[str, str], float]]:
        """(line, x) of the highest mean of each line with at least two of them."""
        found = []
        for line in self.lines:
            means = [(c.mean.value, c.x) for c in self.line(line) if c.mean is not None]
            found += [(line, max(means)[1])] if len(means) > 1 else []
        return frozenset(found)


@dataclass(frozen=True)
class BaselineAnalysis:
    """A reference: its own seeds, its own deviation."""

    baseline: Baseline
    condition: Condition
    degrees_of_freedom: int


def analyse_question(study: StudyRecord, question: Question) -> QuestionAnalysis:
    """Analysis of the question's own figure."""
    return analyse_view(study, main_view(study, question))


def analyse_view(study: StudyRecord, view: View) -> QuestionAnalysis:
    """Conditions, intervals, the largest difference and the slopes of ``view``."""
    groups: dict[tuple[str, str, float], list[PointRecord]] = {}
    for place in sorted(view.places, key=lambda place: _order(view, place)):
        records = groups.setdefault((place.panel, place.curve, place.x), [])
        if study.points[place.point] not in records:
            records.append(study.points[place.point])
    deviation, freedom = pooled_deviation([_values(records) for records in groups.values()])
    conditions = tuple(
        Condition(curve, x, tuple(records), mean_of(_values(records), deviation, freedom), panel, view.x_text(x))
        for (panel, curve, x), records in groups.items()
    )
    measured = [condition for condition in conditions if condition.mean is not None]
    lines = dict.fromkeys(condition.line for condition in measured)
    slopes = (_slope([c for c in measured if c.line == line], view, deviation, freedom) for line in lines)
    return QuestionAnalysis(
        view=view,
        conditions=conditions,
        pooled_deviation=deviation,
        degrees_of_freedom=freedom,
        contrast=_contrast(measured, deviation, freedom),
        slopes=tuple(slope for slope in slopes if slope is not None),
    )


def _order(view: View, place: Place) -> tuple[int, int, float]:
    return view.panels.index(place.panel), view.curves.index(place.curve), place.x


def analyse_baseline(study: StudyRecord, baseline: Baseline) -> BaselineAnalysis:
    """Mean of a baseline's seeds."""
    records = tuple(study.points[name] for name in baseline.points if name in study.points)
    values = _values(records)
    deviation, freedom = pooled_deviation([values])
    return BaselineAnalysis(
        baseline, Condition(baseline.title, 0.0, records, mean_of(values, deviation, freedom)), freedom
    )


def pooled_deviation(groups: Sequence[Sequence[float]]) -> tuple[float | None, int]:
    """(standard deviation pooled over ``groups``, its degrees of freedom); None and 0 where it cannot be known.

    It cannot where no group has two values, nor where all seeds agree to the last digit: then they are no seeds.
    """
    freedom = sum(len(values) - 1 for values in groups if values)
    if freedom <= 0:
        return None, 0
    squares = 0.0
    for values in groups:
        mean = sum(values) / len(values) if values else 0.0
        squares += sum((value - mean) ** 2 for value in values)
    return (math.sqrt(squares / freedom), freedom) if squares > 0 else (None, 0)


def _values(records: Sequence[PointRecord]) -> list[float]:
    return [record.top1 for record in records if record.top1 is not None]


def mean_of(values: Sequence[float], deviation: float | None, freedom: int) -> Interval | None:
    """Mean with its t-interval from the standard ``deviation`` of one value; None where there are no values."""
    if not values:
        return None
    half = None if deviation is None else student_t(freedom) * deviation / math.sqrt(len(values))
    return Interval(sum(values) / len(values), half)


def _contrast(measured: Sequence[Condition], deviation: float | None, freedom: int) -> Contrast | None:
    ranked = sorted((c.mean.value, i) for i, c in enumerate(measured) if c.mean is not None)
    if len(ranked) < 2:
        return None
    best, worst = measured[ranked[-1][1]], measured[ranked[0][1]]
    half = None
    if deviation is not None:
        error = deviation * math.sqrt((1 / len(best.measured) + 1 / len(worst.measured)) / 2)
        half = studentized_range(len(ranked), freedom) * error
    return Contrast(best, worst, Interval(ranked[-1][0] - ranked[0][0], half))


def _slope(conditions: Sequence[Condition], view: View, deviation: float | None, freedom: int) -> Slope | None:
    if view.x_scale == "category":
        return None
    per_doubling = view.x_scale != "linear" and all(condition.x > 0 for condition in conditions)
    pairs = [
        (math.log2(condition.x) if per_doubling else condition.x, value)
        for condition in conditions
        for value in _values(condition.records)
    ]
    places = {x for x, _ in pairs}
    if len(places) < 2:
        return None
    mean_x = sum(x for x, _ in pairs) / len(pairs)
    mean_y = sum(y for _, y in pairs) / len(pairs)
    spread = sum((x - mean_x) ** 2 for x, _ in pairs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in pairs) / spread
    half = None if deviation is None else student_t(freedom) * deviation / math.sqrt(spread)
    bent = _lack_of_fit(conditions, per_doubling, (mean_x, mean_y, slope), deviation, freedom)
    return Slope(conditions[0].line, conditions[0].line_text, per_doubling, Interval(slope, half), bent)


def _lack_of_fit(
    conditions: Sequence[Condition],
    per_doubling: bool,
    line: tuple[float, float, float],
    deviation: float | None,
    freedom: int,
) -> bool:
    """F test of the conditions' distances from the line against the pooled deviation."""
    extra = len(conditions) - 2
    if deviation is None or extra < 1 or deviation == 0:
        return False
    mean_x, mean_y, slope = line
    misfit = 0.0
    for condition in conditions:
        if condition.mean is not None:
            x = math.log2(condition.x) if per_doubling else condition.x
            predicted = mean_y + slope * (x - mean_x)
            misfit += len(condition.measured) * (condition.mean.value - predicted) ** 2
    return f_tail(misfit / extra / deviation**2, (extra, freedom)) < REMARKABLE
