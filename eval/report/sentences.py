"""What was measured, in plain sentences: never what was expected, and with what the seeds cannot tell."""

from __future__ import annotations

from eval.report.effects import Plateau, Share
from eval.report.figures.model import tick_label
from eval.report.format import DASH, listed, lower, many, percent, signed, without_unit
from eval.report.records import PointRecord
from eval.report.statistics import BaselineAnalysis, Condition, Contrast, Interval, QuestionAnalysis, Slope

MOST_NAMED = 4  # best values of lines


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


def plateau(analysis: QuestionAnalysis, found: Plateau) -> str:
    """From where on nothing more is gained, and how sure that is."""
    label = lower(without_unit(analysis.view.x_label))
    who = f"{found.line_text}: " if found.line_text else ""
    where = f"{label} = {found.enough.x_text}"
    if found.is_last:
        text = f"{who}No end of the gain is seen: the largest, {where}, beats each smaller one by more than chance"
    else:
        text = (
            f"{who}Beyond {where} no larger one is better by more than chance; "
            f"a gain of up to {found.unnoticed:.2f} points could go unnoticed with these seeds"
        )
    return f"{text}{_turn(found)}."


def _turn(found: Plateau) -> str:
    if found.turn is None and found.turn_low is None and found.turn_high is None:
        return ""
    low = "the smallest" if found.turn_low is None else tick_label(_round(found.turn_low))
    high = "beyond the largest" if found.turn_high is None else tick_label(_round(found.turn_high))
    if found.turn is None:
        return f". A line that may turn flat fits best without a turn (95 % interval of the turn: {low} to {high})"
    turn = tick_label(_round(found.turn))
    return f". A line that may turn flat fits best with its turn at {turn} (95 % interval {low} to {high})"


def share(found: Share) -> str:
    """How much of the batch-size effect the number of negatives explains by itself."""
    low, high = (tick_label(x) for x in found.batches)
    n_low, n_high = (tick_label(x) for x in found.negatives)
    who = f"{found.line_text}: " if found.line_text else ""
    text = (
        f"{who}From batch size {low} to {high}, which is {n_low} to {n_high} negatives per anchor, accuracy changes by "
        f"{_points(found.batch_effect)}; the same change of negatives alone, at batch size "
        f"{tick_label(found.fixed_batch)}, makes {_points(found.negatives_effect)}."
    )
    if found.batch_effect.half_width is None:
        return f"{text} What share that is cannot be said without several seeds."
    if found.share is None:
        return f"{text} The batch-size effect is not distinguishable from 0, so there is no share to speak of."
    low, high = (DASH if end is None else percent(100 * end, 0) for end in (found.share_low, found.share_high))
    return (
        f"{text} Negatives alone explain {percent(100 * found.share, 0)} of the batch-size effect (Fieller's 95 % "
        f"interval {low} to {high})."
    )


def best(analysis: QuestionAnalysis, key: str) -> str:
    """The best value of each line of a grid, and whether it lies at the grid's edge."""
    parts, edges = [], 0
    for line, x in sorted(analysis.best_of_lines, key=lambda pair: analysis.lines.index(pair[0])):
        conditions = analysis.line(line)
        text = ", ".join(part for part in line if part)
        parts.append(f"{conditions[[c.x for c in conditions].index(x)].x_text}{f' at {text}' if text else ''}")
        edges += x in (conditions[0].x, conditions[-1].x)
    if not parts:
        return ""
    if len(parts) > MOST_NAMED:
        parts = [f"of {len(parts)} lines, each in the figure and its numbers"]
        total = len(analysis.best_of_lines)
    else:
        total = len(parts)
    edge = f" {edges} of {total} lie at the edge of the grid: a wider one may hold a better one." if edges else ""
    return f"Best {lower(key)} (ringed): {'; '.join(parts)}, by the accuracy shown here.{edge}"


def _points(interval: Interval) -> str:
    text = f"{signed(interval.value)} points"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} (95 % interval {signed(interval.low)} to {signed(interval.high)})"


def _round(value: float) -> float:
    """Two digits: more would be for show."""
    return float(f"{value:.2g}")
