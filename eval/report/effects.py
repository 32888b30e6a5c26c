"""What a batch-size study is asked for: which sizes come close to the best, and what the negatives alone do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from eval.report.factors import NO_FACTOR
from eval.report.records import StudyRecord
from eval.report.statistics import Condition, Fit, Interval, Key, Quantile, QuestionAnalysis, by_seed, dunnett
from eval.schema import finite

MARGIN = 1.0  # points: who gives up no more than that would hardly pay for a larger one
# More of these is what one pays for: where does it stop to help? A temperature has a best value, not an end.
GROWING = ("global_batch_size", "negatives_per_anchor", "objective.negatives", "batch_norm_images", "data.images")
NEGATIVES, BATCH = "negatives_per_anchor", "global_batch_size"
OWN_KEYS = (BATCH, "objective.negatives")  # what the two questions vary

Place = tuple[str, str, float]
Weights = dict[frozenset[str], float]  # of conditions, by the names of their runs


@dataclass(frozen=True)
class Plateau:
    """One line compared with its best condition, whichever that is (Hsu 1984; all statements hold together at 95 %).

    enough: the smallest that is shown to be within MARGIN of the best, at most ``short`` points away; None where the
    seeds show it for none. ruled_out: those that are not the best.
    """

    line_text: str
    enough: Condition | None
    short: float
    ruled_out: tuple[Condition, ...]


@dataclass(frozen=True)
class NegativesEffect:
    """What accuracy changes by between two batch sizes, and by the same change of negatives at one of them."""

    line_text: str
    batches: tuple[float, float]
    negatives: tuple[float, float]
    fixed_batch: float
    of_batch: Interval
    of_negatives: Interval
    rest: Interval  # their difference


def plateaus(analysis: QuestionAnalysis) -> list[Plateau]:
    """Of each line over something GROWING with at least three measured conditions; none without seeds."""
    if analysis.view.x_key not in GROWING:
        return []
    lines = [[c for c in analysis.line(line) if c.mean is not None] for line in analysis.lines]
    found = (_plateau(line, analysis.fit) for line in lines if len(line) >= 3)
    return [plateau for plateau in found if plateau is not None]


def _plateau(line: Sequence[Condition], fit: Fit[Place]) -> Plateau | None:
    distances = behind_the_best([condition.key for condition in line], fit)
    if distances is None:
        return None
    close = [(one, max(high, 0.0)) for one in line if (high := distances[one.key][1]) <= MARGIN]
    enough, short = close[0] if close else (None, math.nan)
    return Plateau(line[0].line_text, enough, short, tuple(one for one in line if distances[one.key][0] > 0))


def behind_the_best(keys: Sequence[Key], fit: Fit[Key]) -> dict[Key, tuple[float, float]] | None:
    """How many points each condition is behind the best of the others, at least and at most; None without seeds."""
    quantile: Quantile = lambda freedom: dunnett(len(keys) - 1, freedom)  # noqa: E731
    found = {}
    for one in keys:
        ends = [fit.contrast({other: 1.0, one: -1.0}, quantile).ends for other in keys if other != one]
        known = [pair for pair in ends if pair is not None]
        if len(known) < len(ends):
            return None
        found[one] = max(low for low, _ in known), max(high for _, high in known)
    return found


def negatives_effects(study: StudyRecord, analyses: Sequence[QuestionAnalysis]) -> list[NegativesEffect]:
    """For each line over batch sizes with a line over negatives at one batch size that differs in nothing else."""
    own = [analysis for analysis in analyses if not analysis.view.derived]
    found = []
    for over_batch, over_negatives in itertools.product(
        (a for a in own if a.view.x_key == BATCH), [a for a in own if a.view.x_key == NEGATIVES]
    ):
        for line in over_batch.lines:
            effects = (_effect(study, over_batch.line(line), over_negatives.line(o)) for o in over_negatives.lines)
            found += [effect for effect in effects if effect is not None][:1]
    return found


def _effect(
    study: StudyRecord, over_batch: Sequence[Condition], over_negatives: Sequence[Condition]
) -> NegativesEffect | None:
    sizes, ladder = ([c for c in line if c.mean is not None] for line in (over_batch, over_negatives))
    fixed = _common(study, ladder, BATCH)
    if fixed is None or len(ladder) < 2 or not _comparable(study, [*sizes, *ladder]):
        return None
    negatives_at = [(c, _common(study, [c], NEGATIVES)) for c in sizes]
    inside = [(c, n) for c, n in negatives_at if n is not None and ladder[0].x <= n <= ladder[-1].x]
    if len(inside) < 2:
        return None
    (low, n_low), (high, n_high) = inside[0], inside[-1]
    fit = Fit({_runs(c): by_seed(c.measured) for c in [*sizes, *ladder]})  # the two lines may share conditions
    batch = {_runs(high): 1.0, _runs(low): -1.0}
    negatives = _minus(_at(ladder, n_high), _at(ladder, n_low))
    effects = (fit.contrast(weights) for weights in (batch, negatives, _minus(batch, negatives)))
    return NegativesEffect(low.line_text, (low.x, high.x), (n_low, n_high), fixed, *effects)


def _minus(a: Weights, b: Weights) -> Weights:
    return {key: a.get(key, 0.0) - b.get(key, 0.0) for key in {**a, **b}}


def _runs(condition: Condition) -> frozenset[str]:
    return frozenset(record.name for record in condition.measured)


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


def _at(ladder: Sequence[Condition], x: float) -> Weights:
    """Weights of the ladder's conditions in its value at ``x``, on straight lines over log2 x."""
    low, high = next((low, high) for low, high in itertools.pairwise(ladder) if low.x <= x <= high.x)
    share = math.log2(x / low.x) / math.log2(high.x / low.x)
    return {_runs(low): 1.0 - share, _runs(high): share}
