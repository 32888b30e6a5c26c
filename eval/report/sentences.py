"""What was measured, in plain sentences: each names its question and its test, and what the seeds cannot tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from eval.report.effects import MARGIN, NegativesEffect, Plateau
from eval.report.figures.model import tick_label
from eval.report.format import listed, lower, percent, signed, without_unit
from eval.report.statistics import Condition, Interval, QuestionAnalysis, Slope
from pretrain.format import plural

MOST_NAMED = 4  # best values of lines


def main_finding(analysis: QuestionAnalysis, metric: str) -> str:
    """Best against worst, or how far it is from being known."""
    label = without_unit(analysis.view.x_label)
    if analysis.contrast is not None:
        best, worst, difference = analysis.contrast
        ends = (f"{place(c, label)} ({top1_of(c)}, {plural(len(c.measured), 'seed')})" for c in (best, worst))
        text = f"{metric} is highest at {' and lowest at '.join(ends)}: a difference of {difference.value:.2f} points"
        number = len(analysis.measured)
        test = f"Tukey's test, allowing for the choice among {number} conditions" if number > 2 else "t-test"
        return f"{text}{tested(difference, test)}."
    if not analysis.measured:
        return "Nothing has been measured yet."
    (only,) = analysis.measured
    return (
        f"Only one condition has been measured: {metric} is {top1_of(only)} at {place(only, label)}. There is nothing "
        "to compare."
    )


def basis(analysis: QuestionAnalysis) -> str:
    """What the intervals of the question rest on."""
    fit, measured = analysis.fit, analysis.measured
    if not measured:
        return ""
    if fit.deviation is None:
        if any(len(condition.measured) > 1 for condition in measured):
            return "The seeds agree to the last digit, which says nothing about chance: no interval is drawn."
        return "One seed per condition: how much another seed would differ is unknown, so no interval is drawn."
    seeds = sorted({len(c.measured) for c in measured})
    each = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    paired = "Differences are paired by seed" if fit.paired else "Differences are not paired: too few seeds are shared"
    unequal = "paired by seed, each from its own runs" if fit.paired else "Welch's"
    noise = "" if fit.equal else f"; the noise differs between conditions (Bartlett's test), so they are {unequal}"
    return (
        f"Bars: 95 % t-intervals of the mean of {each} seed{'' if seeds == [1] else 's'}, from the standard deviation "
        f"between seeds pooled over this question's conditions ({_spread(analysis)}). {paired}{noise}. Intervals cover "
        "chance in training, not the choice of the data set."
    )


def basis_of_several(analyses: dict[str, QuestionAnalysis]) -> str:
    """The same for several studies, by their labels: each rests on its own seeds."""
    parts = [
        f"{label} has no seeds to draw an interval from" if a.fit.deviation is None else f"{label} {_spread(a)}"
        for label, a in analyses.items()
    ]
    return (
        "Bars: 95 % t-intervals of the mean, from each study's own standard deviation between seeds, pooled over its "
        f"own conditions: {'; '.join(parts)}."
    )


def baseline(condition: Condition) -> str:
    """``Random encoder: 62.10 % (2 seeds, 95 % interval 61.5 – 62.7)``."""
    if condition.mean is None:
        reasons = "; ".join(sorted({record.status for record in condition.records})) or "no points"
        return f"{condition.curve}: no result ({reasons})"
    ends = condition.mean.ends
    within = "no interval" if ends is None else f"95 % interval {ends[0]:.2f} – {ends[1]:.2f}"
    return f"{condition.curve}: {top1_of(condition)} ({plural(len(condition.measured), 'seed')}, {within})"


def missing(conditions: Sequence[Condition], x_label: str) -> str:
    """Which points have no result, and why; empty where all have one. What diverged is not left out in silence."""
    absent = [record for condition in conditions for record in condition.missing]
    if not absent:
        return ""
    detail = listed([f"{number} {status}" for status, number in Counter(r.status for r in absent).items()])
    total = sum(len(condition.records) for condition in conditions)
    text = f"{len(absent)} of {plural(total, 'point')} {'has' if len(absent) == 1 else 'have'} no result: {detail}."
    lost = [c for c in conditions if c.measured and any(record.status == "diverged" for record in c.missing)]
    if not lost:
        return text
    where = listed([place(condition, without_unit(x_label)) for condition in lost[:MOST_NAMED]])
    more = f" and {len(lost) - MOST_NAMED} more" if lost[MOST_NAMED:] else ""
    return f"{text} The mean at {where}{more} is of the seeds that did not diverge, so it flatters."


def top1_of(condition: Condition) -> str:
    """``83.12 %``, or a dash."""
    return percent(condition.mean.value if condition.mean else None)


def place(condition: Condition, x_label: str) -> str:
    """``batch size = 256`` or ``epochs = 100, batch size = 256``."""
    where = f"{lower(x_label)} = {condition.x_text or tick_label(condition.x)}"
    return f"{condition.line_text}, {where}" if condition.line_text else where


def slope(analysis: QuestionAnalysis, found: Slope) -> str:
    """The trend of one line."""
    per = f"{'doubling' if found.per_doubling else 'unit'} of {lower(without_unit(analysis.view.x_label))}"
    text = f"Trend{_of(found.line_text)}: {signed(found.slope.value)} points per {per}, by least squares"
    bent = "; but the conditions do not lie on a straight line" if found.bent else ""
    return f"{text}{tested(found.slope, 't-test of the slope')}{bent}."


def plateau(analysis: QuestionAnalysis, found: Plateau) -> str:
    """Which size comes close to the best, and how sure that is."""
    label = lower(without_unit(analysis.view.x_label))
    if found.enough is None:
        close = f"no {label} is shown to come within {MARGIN:g} point of it: that takes more seeds"
    elif found.short == 0:
        close = f"{label} = {found.enough.x_text} is better than all others"
    else:
        close = (
            f"{label} = {found.enough.x_text} is the smallest shown to come within {MARGIN:g} point of it (at most "
            f"{found.short:.2f} points short)"
        )
    out = f"; ruled out as the best: {', '.join(c.x_text for c in found.ruled_out)}" if found.ruled_out else ""
    return f"Compared with the best{_of(found.line_text)}: {close}{out} (Hsu's test, 95 %)."


def negatives_effect(found: NegativesEffect) -> str:
    """What batch size and negatives do, side by side."""
    (low, high), (n_low, n_high) = (map(tick_label, pair) for pair in (found.batches, found.negatives))
    return (
        f"Batch size or negatives{_of(found.line_text)}: from batch size {low} to {high}, which is {n_low} to {n_high} "
        f"negatives per anchor, accuracy changes by {_points(found.of_batch)}; the same change of negatives alone, at "
        f"batch size {tick_label(found.fixed_batch)}, makes {_points(found.of_negatives)}. The difference of the two, "
        f"{_points(found.rest)}, is what else comes with the batch size (t-tests)."
    )


def best(analysis: QuestionAnalysis) -> str:
    """The best value of each line of a grid, and whether it lies at the grid's edge."""
    found, parts, edges = analysis.best_of_lines, [], 0
    for line, condition in found.items():
        parts.append(condition.x_text + (f" at {condition.line_text}" if condition.line_text else ""))
        edges += condition in (analysis.line(line)[0], analysis.line(line)[-1])
    if not parts:
        return ""
    if len(parts) > MOST_NAMED:
        parts = [f"of {len(parts)} lines, each in the figure and its numbers"]
    edge = f" {edges} of {len(found)} lie at the edge of the grid: a wider one may hold a better one." if edges else ""
    label = lower(without_unit(analysis.view.x_label))
    by = "held-out accuracy" if analysis.view.chosen_by == "held_out" else "the accuracy shown here"
    return f"Best {label} (ringed): {'; '.join(parts)}, by {by}.{edge}"


def tested(difference: Interval, test: str) -> str:
    """``(95 % interval +1.20 to +2.19; t-test)``."""
    if difference.ends is None:
        return ", without an interval"
    unclear = ", not distinguishable from 0 with these seeds" if difference.contains_zero else ""
    return f"{unclear} (95 % interval {ends_of(difference)}; {test})"


def ends_of(difference: Interval) -> str:
    """``+1.20 to +2.19``; empty where there is no interval."""
    return "" if difference.ends is None else " to ".join(map(signed, difference.ends))


def _points(difference: Interval) -> str:
    ends = "no interval" if difference.ends is None else f"95 % interval {ends_of(difference)}"
    return f"{signed(difference.value)} points ({ends})"


def _spread(analysis: QuestionAnalysis) -> str:
    """``0.21 points, 6 degrees of freedom``."""
    freedom = f"{analysis.fit.freedom:.1f}".removesuffix(".0")
    return (
        f"{analysis.fit.deviation or 0.0:.2f} points, {freedom} {'degree' if freedom == '1' else 'degrees'} of freedom"
    )


def _of(line_text: str) -> str:
    return f", {line_text}" if line_text else ""
