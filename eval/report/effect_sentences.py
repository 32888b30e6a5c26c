"""Plain sentences on where gains end, what the negatives explain, and which learning rate was best."""

from __future__ import annotations

from eval.report.analysis import Interval, QuestionAnalysis
from eval.report.effects import Plateau, Share
from eval.report.scales import tick_label
from eval.report.text import DASH, lower, percent, signed, without_unit

MOST_NAMED = 4


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
