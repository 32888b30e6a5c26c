"""Statistics of a study: means over seeds, paired differences, contrasts and slopes. `sentences` words them.

A condition is one place of one curve of one panel, measured with n seeds. A seed is a block: the same initialisation,
order and augmentation in every condition. So value = condition + seed + noise by least squares; what is compared are
the same seeds, and the interval of a difference holds the noise alone. A condition's mean differs from what other seeds
would give by both: its interval rests on the deviation between seeds, pooled over the conditions of the figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, stats

from eval.report.factors import View
from eval.report.records import PointRecord, StudyRecord, mean
from eval.study_manifest import Baseline

LEVEL = 0.95
REMARKABLE = 0.05  # what chance alone shows as much less often than this is worth a remark
NOTHING = 1e-12  # squared points: seeds that differ by less agree to the last digit, which says nothing of chance

Array = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)
Line = tuple[str, str]  # (panel, curve): conditions of one line are joined
Quantile = Callable[[float], float]  # of the degrees of freedom, in standard errors


def student_t(freedom: float, comparisons: int = 1) -> float:
    """Two-sided 95 % quantile of Student's t, for so many comparisons together (Bonferroni)."""
    return float(stats.t.isf((1 - LEVEL) / 2 / comparisons, freedom))


@cache
def tukey(groups: int, freedom: float) -> float:
    """95 % quantile of the largest difference between two of ``groups`` means, in its standard errors."""
    return float(stats.studentized_range.ppf(LEVEL, groups, freedom)) / math.sqrt(2)


@cache
def dunnett(others: int, freedom: float) -> float:
    """One-sided 95 % quantile of the largest of ``others`` differences from one mean, in standard errors.

    P(all (z_i - z_0) / sqrt(2) <= d s) = E over z_0 and s of Phi(z_0 + sqrt(2) d s)^others, by quadrature.
    """
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    s = np.sqrt(stats.chi2.ppf((np.arange(400) + 0.5) / 400, freedom) / freedom)

    def missing(d: float) -> float:
        inside = stats.norm.cdf(z[:, None] + math.sqrt(2) * d * s) ** others
        return float(weight @ inside.mean(1) / weight.sum()) - LEVEL

    return float(optimize.brentq(missing, 0.0, 1000.0))


@dataclass(frozen=True)
class Interval:
    """An estimate in percentage points with its 95 % interval, None where none can be computed."""

    value: float
    half_width: float | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """(low, high)."""
        return None if self.half_width is None else (self.value - self.half_width, self.value + self.half_width)

    @property
    def contains_zero(self) -> bool:
        """Whether the interval leaves it open if there is any difference."""
        return self.half_width is not None and abs(self.value) <= self.half_width


class Fit(Generic[Key]):
    """Conditions with a value for each seed: their means, and contrasts of them.

    deviation: between seeds, pooled over the conditions; freedom: its degrees of freedom, by Satterthwaite, because
    the same seeds are in all conditions. paired: whether enough seeds are shared to take their effect out of
    differences. equal: False where the noise differs between conditions by more than chance (Bartlett's test); then
    each contrast rests on its own values: paired by seed, or Welch's where seeds are not shared.
    """

    def __init__(self, values: Mapping[Key, Mapping[int, float]]) -> None:
        self.values = {key: dict(seeds) for key, seeds in values.items() if seeds}
        self._index = {key: index for index, key in enumerate(self.values)}
        runs = [(i, seed, y) for i, own in enumerate(self.values.values()) for seed, y in own.items()]
        order = {seed: index for index, seed in enumerate(sorted({seed for _, seed, _ in runs}))}
        y, number = np.array([value for _, _, value in runs]), len(self.values)
        design = np.zeros((len(runs), number + len(order)))
        for run, (condition, seed, _) in enumerate(runs):
            design[run, condition] = design[run, number + order[seed]] = 1.0
        groups = [np.array(list(own.values())) for own in self.values.values()]
        within, free = sum(float(((own - own.mean()) ** 2).sum()) for own in groups), len(runs) - number
        solved = np.linalg.pinv(design)
        parameters = number + len(order) - 1  # fewer are known where some conditions share no seed with the others
        self.paired = len(runs) > parameters == round(float(np.vdot(solved.T, design)))
        if not self.paired:
            design = design[:, :number]
            solved, parameters = np.linalg.pinv(design), number
        self._effects, self._covariance = (solved @ y)[:number], (solved @ solved.T)[:number, :number]
        left, self._noise_freedom = float(((y - design @ (solved @ y)) ** 2).sum()), len(runs) - parameters
        self._noise = math.sqrt(left / self._noise_freedom) if self._noise_freedom and left > NOTHING else None
        self.deviation = math.sqrt(within / free) if free and within > NOTHING else None
        self.freedom = float(free)
        if self.paired and self.deviation is not None:
            parts = ((within - left, free - self._noise_freedom), (left, self._noise_freedom))
            self.freedom = within**2 / sum(part**2 / degrees for part, degrees in parts)
        tested = [own for own in groups if len(own) > 1 and np.ptp(own) > NOTHING]
        self.equal = len(tested) < 2 or float(stats.bartlett(*tested).pvalue) >= REMARKABLE

    def mean(self, key: Key, comparisons: int = 1) -> Interval | None:
        """Mean of a condition; None where it has no values. comparisons: how many intervals are to hold together."""
        own = self.values.get(key)
        if not own:
            return None
        half = None
        if self.deviation is not None:
            half = student_t(self.freedom, comparisons) * self.deviation / math.sqrt(len(own))
        return Interval(sum(own.values()) / len(own), half)

    def contrast(self, weights: Mapping[Key, float], quantile: Quantile = student_t) -> Interval:
        """Weighted sum of conditions, weights that add up to 0: seeds enter by what they share."""
        value, error, freedom = self._estimate(weights)
        return Interval(value, None if error is None else quantile(freedom) * error)

    def _estimate(self, weights: Mapping[Key, float]) -> tuple[float, float | None, float]:
        """(estimate, standard error, degrees of freedom)."""
        if self.equal:
            w = np.zeros(len(self.values))
            for key, weight in weights.items():
                w[self._index[key]] = weight
            error = None if self._noise is None else self._noise * math.sqrt(float(w @ self._covariance @ w))
            return float(w @ self._effects), error, self._noise_freedom
        own = {key: self.values[key] for key, weight in weights.items() if weight}
        shared = sorted(set.intersection(*(set(seeds) for seeds in own.values())))
        if self.paired and len(shared) > 1:
            sums = np.array([sum(weights[key] * own[key][seed] for key in own) for seed in shared])
            return float(sums.mean()), float(sums.std(ddof=1)) / math.sqrt(len(sums)), len(sums) - 1
        samples = {key: np.array(list(seeds.values())) for key, seeds in own.items()}
        value = sum(weights[key] * float(sample.mean()) for key, sample in samples.items())
        if any(len(sample) < 2 for sample in samples.values()):
            return value, None, 0
        parts = [(weights[k] ** 2 * float(s.var(ddof=1)) / len(s), len(s) - 1) for k, s in samples.items()]
        variance = sum(part for part, _ in parts)
        return value, math.sqrt(variance), variance**2 / sum(part**2 / degrees for part, degrees in parts)

    def bent(self, keys: Sequence[Key], x: Sequence[float]) -> bool | None:
        """Whether ``keys`` leave a straight line over ``x`` by more than the noise (F test); None where unknown."""
        if self._noise is None or len(set(x)) < 3:
            return None
        rows = linalg.null_space(np.vstack([np.ones(len(x)), x])).T
        index = [self._index[key] for key in keys]
        misfit = rows @ self._effects[index]
        spread = rows @ self._covariance[np.ix_(index, index)] @ rows.T
        ratio = float(misfit @ np.linalg.solve(spread, misfit)) / len(rows) / self._noise**2
        return float(stats.f.sf(ratio, len(rows), self._noise_freedom)) < REMARKABLE


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
    def line(self) -> Line:
        return self.panel, self.curve

    @property
    def line_text(self) -> str:
        """``epochs = 100``, ``LR rule = sqrt, epochs = 100``; empty where there is only one line."""
        return ", ".join(text for text in self.line if text)

    @property
    def key(self) -> tuple[str, str, float]:
        """Of the condition in the fit of its figure."""
        return self.panel, self.curve, self.x

    @property
    def measured(self) -> tuple[PointRecord, ...]:
        return tuple(record for record in self.records if record.top1 is not None)

    @property
    def missing(self) -> tuple[PointRecord, ...]:
        return tuple(record for record in self.records if record.top1 is None)


@dataclass(frozen=True)
class Slope:
    """Least-squares slope of one curve: points per doubling of x, or per unit of a linear axis."""

    line_text: str
    per_doubling: bool
    slope: Interval
    bent: bool | None  # the conditions leave the line by more than the seeds differ


@dataclass(frozen=True)
class QuestionAnalysis:
    """What the points of one figure say."""

    view: View
    conditions: tuple[Condition, ...]
    fit: Fit[tuple[str, str, float]]

    @property
    def measured(self) -> list[Condition]:
        return [condition for condition in self.conditions if condition.mean is not None]

    @property
    def missing(self) -> tuple[PointRecord, ...]:
        return tuple(record for condition in self.conditions for record in condition.missing)

    @property
    def lines(self) -> tuple[Line, ...]:
        """Every line that has points, in the view's order."""
        present = {condition.line for condition in self.conditions}
        return tuple((p, c) for p in self.view.panels for c in self.view.curves if (p, c) in present)

    def line(self, line: Line) -> tuple[Condition, ...]:
        """Conditions of one line by increasing x."""
        return tuple(sorted((c for c in self.conditions if c.line == line), key=lambda c: c.x))

    @property
    def best_of_lines(self) -> dict[Line, Condition]:
        """The best of each line with at least two means, by what the view goes by."""

        def score(condition: Condition) -> tuple[float, float]:
            return mean(getattr(r, self.view.chosen_by) for r in condition.measured) or 0.0, condition.x

        measured = {line: [c for c in self.line(line) if c.mean is not None] for line in self.lines}
        return {line: max(found, key=score) for line, found in measured.items() if len(found) > 1}

    @cached_property
    def contrast(self) -> tuple[Condition, Condition, Interval] | None:
        """Best and worst condition, and their difference, allowing for both having been picked by their result."""
        ranked = sorted(self.measured, key=_level)
        if len(ranked) < 2:
            return None
        best, worst = ranked[-1], ranked[0]
        quantile: Quantile = lambda freedom: tukey(len(ranked), freedom)  # noqa: E731
        return best, worst, self.fit.contrast({best.key: 1.0, worst.key: -1.0}, quantile)

    @cached_property
    def slopes(self) -> tuple[Slope, ...]:
        """One for each line over numbers with two places or more."""
        found = (self._slope([c for c in self.line(line) if c.mean is not None]) for line in self.lines)
        return tuple(slope for slope in found if slope is not None)

    def _slope(self, line: Sequence[Condition]) -> Slope | None:
        if self.view.x_scale == "category" or len(line) < 2:
            return None
        per_doubling = self.view.x_scale != "linear" and all(condition.x > 0 for condition in line)
        x = np.array([math.log2(c.x) if per_doubling else c.x for c in line])
        seeds = np.array([len(c.measured) for c in line])
        from_mean = x - np.average(x, weights=seeds)
        weights = seeds * from_mean / float(seeds @ from_mean**2)
        keys = [condition.key for condition in line]
        slope = self.fit.contrast(dict(zip(keys, map(float, weights))))
        return Slope(line[0].line_text, per_doubling, slope, self.fit.bent(keys, list(x)))


def _level(condition: Condition) -> tuple[float, float]:
    assert condition.mean is not None, "only measured conditions are ranked"
    return condition.mean.value, condition.x


def analyse_view(study: StudyRecord, view: View) -> QuestionAnalysis:
    """The conditions of ``view``, and their fit."""
    groups: dict[tuple[str, str, float], dict[str, PointRecord]] = {}
    for place in sorted(view.places, key=lambda p: (view.panels.index(p.panel), view.curves.index(p.curve), p.x)):
        groups.setdefault((place.panel, place.curve, place.x), {})[place.point] = study.points[place.point]
    fit = Fit({key: by_seed(records.values()) for key, records in groups.items()})
    conditions = tuple(
        Condition(curve, x, tuple(records.values()), fit.mean((panel, curve, x)), panel, view.x_text(x))
        for (panel, curve, x), records in groups.items()
    )
    return QuestionAnalysis(view, conditions, fit)


def analyse_baseline(study: StudyRecord, baseline: Baseline) -> Condition:
    """A reference: its own seeds, its own deviation."""
    records = tuple(study.points[name] for name in baseline.points if name in study.points)
    return Condition(baseline.title, 0.0, records, Fit({baseline.title: by_seed(records)}).mean(baseline.title))


def by_seed(records: Iterable[PointRecord]) -> dict[int, float]:
    """The accuracies of those that have one."""
    return {record.point.seed: record.top1 for record in records if record.top1 is not None}
