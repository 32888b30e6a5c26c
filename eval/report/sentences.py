"""What was measured, in plain sentences: never what was expected, and with what the seeds cannot tell."""

from __future__ import annotations

from eval.report.analysis import BaselineAnalysis, Condition, Contrast, Interval, QuestionAnalysis, Slope
from eval.report.collect import PointRecord
from eval.report.scales import tick_label
from eval.report.text import DASH, listed, lower, many, percent, signed, without_unit


def findings(analysis: QuestionAnalysis, metric: str, *, slopes: bool = True) -> list[str]:
    """Sentences on one figure, the main one first; ``slopes``: with one for the slope of each line."""
    sentences = []
    if analysis.contrast is not None:
        sentences.append(_contrast(analysis, analysis.contrast, metric))
    else:
        sentences.append(_no_contrast(analysis, metric))
    sentences += [_slope(analysis, slope) for slope in analysis.slopes if slopes]
    if analysis.missing:
        sentences.append(missing(analysis.missing, total=sum(len(c.records) for c in analysis.conditions)))
    return sentences


def basis(analysis: QuestionAnalysis) -> str:
    """What the intervals of the question rest on."""
    if not any(condition.mean for condition in analysis.conditions):
        return ""
    if analysis.pooled_deviation is None:
        if any(len(condition.measured) > 1 for condition in analysis.conditions):
            return "The seeds agree to the last digit, which says nothing about chance: no interval is drawn."
        return "One seed per condition: how much another seed would differ is unknown, so no interval is drawn."
    seeds = sorted({len(c.measured) for c in analysis.conditions if c.measured})
    each = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"Bars: 95 % t-intervals of the mean of {each} seed{'' if seeds == [1] else 's'}, from the standard deviation "
        f"between seeds pooled over this question's conditions ({analysis.pooled_deviation:.2f} points, "
        f"{many(analysis.degrees_of_freedom, 'degree')} of freedom). They cover chance in training, "
        "not the choice of the data set."
    )


def basis_of_several(analyses: dict[str, QuestionAnalysis]) -> str:
    """The same for several studies, by their labels: each rests on its own seeds."""
    parts = []
    for label, analysis in analyses.items():
        if analysis.pooled_deviation is None:
            parts.append(f"{label} has no seeds to draw an interval from")
        else:
            freedom = many(analysis.degrees_of_freedom, "degree")
            parts.append(f"{label} {analysis.pooled_deviation:.2f} points ({freedom} of freedom)")
    return (
        "Bars: 95 % t-intervals of the mean, from each study's own standard deviation between seeds, pooled over its "
        f"own conditions: {'; '.join(parts)}."
    )


def baseline(analysis: BaselineAnalysis) -> str:
    """``Random encoder: 62.10 % (2 seeds, 95 % interval 61.5 to 62.7)``."""
    condition, title = analysis.condition, analysis.baseline.title
    if condition.mean is None:
        reasons = "; ".join(sorted({record.status for record in condition.records})) or "no points"
        return f"{title}: no result ({reasons})"
    return (
        f"{title}: {percent(condition.mean.value)} ({many(len(condition.measured), 'seed')}{_within(condition.mean)})"
    )


def missing(records: tuple[PointRecord, ...], *, total: int) -> str:
    """Which points have no result, and why."""
    reasons: dict[str, int] = {}
    for record in records:
        reasons[record.status] = reasons.get(record.status, 0) + 1
    detail = listed([f"{number} {status}" for status, number in reasons.items()])
    return f"{len(records)} of {many(total, 'point')} {'has' if len(records) == 1 else 'have'} no result: {detail}."


def place(condition: Condition, x_label: str) -> str:
    """``batch size = 256`` or ``epochs = 100, batch size = 256``."""
    where = f"{lower(x_label)} = {condition.x_text or tick_label(condition.x)}"
    return f"{condition.line_text}, {where}" if condition.line_text else where


def _contrast(analysis: QuestionAnalysis, contrast: Contrast, metric: str) -> str:
    label = without_unit(analysis.view.x_label)
    best, worst = (
        f"{place(c, label)} ({percent(c.mean.value if c.mean else None)}, {many(len(c.measured), 'seed')})"
        for c in (contrast.best, contrast.worst)
    )
    difference = contrast.difference
    text = f"{metric} is highest at {best} and lowest at {worst}"
    points = f"a difference of {difference.value:.2f} points"
    if difference.low is None or difference.high is None:
        return f"{text}: {points}, without an interval."
    conditions = sum(c.mean is not None for c in analysis.conditions)
    interval = f"95 % interval {signed(difference.low)} to {signed(difference.high)}"
    picked = f", allowing for the choice among {conditions} conditions" if conditions > 2 else ""
    if difference.contains_zero:
        return f"{text}: {points}, not distinguishable from 0 with these seeds ({interval}{picked})."
    return f"{text}: {points} ({interval}{picked})."


def _no_contrast(analysis: QuestionAnalysis, metric: str) -> str:
    measured = [c for c in analysis.conditions if c.mean is not None]
    if not measured:
        return "Nothing has been measured yet."
    only = measured[0]
    mean = only.mean.value if only.mean else None
    where = place(only, without_unit(analysis.view.x_label))
    return f"Only one condition has been measured: {metric} is {percent(mean)} at {where}. There is nothing to compare."


def _slope(analysis: QuestionAnalysis, slope: Slope) -> str:
    label = without_unit(analysis.view.x_label)
    per = f"per doubling of {lower(label)}" if slope.per_doubling else f"per unit of {lower(label)}"
    who = f"{slope.line_text}: {signed(slope.slope.value)}" if slope.line_text else signed(slope.slope.value)
    text = f"{who} points {per}, by least squares"
    low, high = slope.slope.low, slope.slope.high
    if low is None or high is None:
        return f"{text}, without an interval."
    interval = f"95 % interval {signed(low)} to {signed(high)}"
    text += f", not distinguishable from 0 ({interval})" if slope.slope.contains_zero else f" ({interval})"
    return text + ("; but the conditions do not lie on a straight line." if slope.lack_of_fit else ".")


def _within(mean: Interval) -> str:
    if mean.low is None or mean.high is None:
        return ", no interval"
    return f", 95 % interval {mean.low:.2f} {DASH} {mean.high:.2f}"
