"""Accuracy against a factor: the figure of a question, of one study or of several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from eval.report.factors import View
from eval.report.figures.model import (
    Axis,
    Figure,
    Mark,
    Missing,
    Panel,
    Reference,
    Series,
    category_axis,
    named_axis,
    ramp_step,
    value_axis,
)
from eval.report.format import interval, percent, plain, without_unit
from eval.report.records import StudyRecord, grouped
from eval.report.sentences import place, top1_of
from eval.report.statistics import Condition, QuestionAnalysis
from pretrain.format import plural

# A baseline further away than this many times the range of the data would flatten it: it gets an arrow instead.
FAR = 1.5
MOST_CURVES_WITH_SEEDS = 2  # among more, single seeds are found by hovering only


@dataclass(frozen=True)
class Trace:
    """One line of a figure. ``who``: its study, among several; ``best``: the place to ring."""

    panel: str
    label: str
    conditions: tuple[Condition, ...]
    colour: int
    palette: str = "category"
    who: str = ""
    best: Condition | None = None
    seeds: bool = False  # single seeds beside the mean


def view_figure(study: StudyRecord, analysis: QuestionAnalysis, baselines: Sequence[Condition]) -> Figure:
    """Mean and interval of each condition, single seeds beside it, baselines dashed, missing points below."""
    view = analysis.view
    curves = tuple(dict.fromkeys(curve for _, curve in analysis.lines))
    ramp = len(curves) > 2 and _ordered(curves)
    best = analysis.best_of_lines if view.mark_best else {}
    traces = [
        Trace(
            panel,
            curve or view.title,
            analysis.line((panel, curve)),
            ramp_step(curves.index(curve), len(curves)) if ramp else curves.index(curve),
            "ramp" if ramp else "category",
            best=best.get((panel, curve)),
            seeds=len(curves) <= MOST_CURVES_WITH_SEEDS,
        )
        for panel, curve in analysis.lines
    ]
    references = tuple(_references(baselines)) if len({trace.panel for trace in traces}) == 1 else ()
    description = f"{view.title}: {study.metric_label} against {view.x_label}"
    return accuracy_figure(view, study.metric_label, description, traces, view.categories, references)


def accuracy_figure(
    view: View,
    y_label: str,
    description: str,
    traces: Sequence[Trace],
    places: Sequence[str],
    references: tuple[Reference, ...] = (),
) -> Figure:
    """Panels with one vertical axis; ``places``: names along an axis without numbers."""

    def x_of(condition: Condition) -> float:
        return float(places.index(condition.x_text)) if places else condition.x

    panels = grouped(traces, lambda trace: trace.panel)
    drawn = {panel: tuple(_series(t, view, x_of, bool(places)) for t in own) for panel, own in panels.items()}
    missing = {panel: tuple(m for t in own for m in _missing(t, view, x_of)) for panel, own in panels.items()}
    marks = [mark for series in drawn.values() for s in series for mark in (*s.marks, *s.singles)]
    values = [value for mark in marks for value in mark.heights]
    y = _accuracy_axis(values, references, crosses=any(missing.values()))
    every = [condition.x for trace in traces for condition in trace.conditions]
    x = named_axis(places) if places else category_axis(every, view.x_scale)
    made = tuple(
        Panel(panel or view.title, x, y, view.x_label, y_label, own, references, missing[panel], dodge=len(own) > 1)
        for panel, own in drawn.items()
    )
    keys = tuple(dict.fromkeys((trace.label, trace.colour, trace.palette) for trace in traces))
    return Figure(
        view.name,
        description,
        made,
        columns=1 if len(made) == 1 else 3,
        legend=keys if len(keys) > 1 or any(trace.who for trace in traces) else (),
        per_panel_legend=False,
        headline=not view.derived,
    )


def _series(trace: Trace, view: View, x_of: Callable[[Condition], float], named: bool) -> Series:
    measured = [condition for condition in trace.conditions if condition.mean is not None]
    several = [condition for condition in measured if len(condition.measured) > 1]
    return Series(
        trace.label,
        trace.colour,
        tuple(_mean_mark(c, x_of(c), view, trace) for c in measured),
        tuple(mark for c in several for mark in _seed_marks(c, x_of(c))) if trace.seeds else (),
        trace.palette,
        joined=not named,
        gaps=tuple(x_of(c) for c in trace.conditions if c.mean is None),
    )


def _mean_mark(condition: Condition, x: float, view: View, trace: Trace) -> Mark:
    """Mean of a measured condition, with its interval and what hovering shows."""
    mean, seeds = condition.mean, condition.measured
    assert mean is not None, "only measured conditions are drawn"
    best = condition is trace.best
    lines = [trace.who, place(condition, without_unit(view.x_label)) + (", the best of its line" if best else "")]
    lines.append(percent(mean.value) + (f", mean of {plural(len(seeds), 'seed')}" if len(seeds) > 1 else ", one seed"))
    lines.append(f"95 % interval {interval(mean.ends)}" if mean.ends else "")
    lines.append("seeds " + ", ".join(plain(record.top1) for record in seeds) if len(seeds) > 1 else "")
    low, high = mean.ends or (None, None)
    return Mark(x, mean.value, low, high, "\n".join(filter(None, lines)), best)


def _seed_marks(condition: Condition, x: float) -> Iterator[Mark]:
    for record in condition.measured:
        assert record.top1 is not None, "only measured points are drawn"
        yield Mark(x, record.top1, tip=f"seed {record.point.seed}\n{percent(record.top1)}")


def _missing(trace: Trace, view: View, x_of: Callable[[Condition], float]) -> Iterator[Missing]:
    """A cross for each point without a result."""
    for condition in trace.conditions:
        for record in condition.missing:
            where = f"{place(condition, without_unit(view.x_label))}, seed {record.point.seed}"
            lines = [where, f"no result: {record.status}", record.detail]
            yield Missing(x_of(condition), "\n".join([trace.who, *lines] if trace.who else lines))


def _accuracy_axis(values: Sequence[float], references: Sequence[Reference], *, crosses: bool) -> Axis:
    """Range of the data, and of those baselines that do not flatten it; room for the notes on the others."""
    if not values:
        return value_axis([r.y for r in references] or [0.0, 100.0], floor=0.0, top=100.0)
    far = FAR * max(max(values) - min(values), 1.0)
    below, above = (
        any(sign * (r.y - end) > far for r in references) for sign, end in ((-1, min(values)), (1, max(values)))
    )
    near = [r.y for r in references if min(values) - far <= r.y <= max(values) + far]
    margins = (0.08 + 0.08 * (below + crosses), 0.16 if above else 0.08)
    return value_axis([*values, *near], ticks=6, floor=0.0, top=100.0, margins=margins)


def _references(baselines: Sequence[Condition]) -> Iterator[Reference]:
    for style, condition in enumerate(baselines):
        if condition.mean is not None:
            tip = f"{condition.curve}\n{top1_of(condition)}, {plural(len(condition.measured), 'seed')}"
            if condition.mean.ends:
                tip += f"\n95 % interval {interval(condition.mean.ends)}"
            yield Reference(condition.curve, condition.mean.value, tip, style)


def _ordered(curves: Sequence[str]) -> bool:
    """True where all labels end in a number: an ordered quantity gets an ordered palette."""
    try:
        numbers = [float(curve.rpartition("=")[2].replace(",", "")) for curve in curves]
    except ValueError:
        return False
    return numbers == sorted(numbers)
