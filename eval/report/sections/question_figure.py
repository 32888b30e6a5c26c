"""The figure of a view, from its analysis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
from eval.report.format import interval, many, percent, plain, without_unit
from eval.report.records import PointRecord, StudyRecord
from eval.report.sentences import place
from eval.report.statistics import BaselineAnalysis, Condition, QuestionAnalysis

# A baseline further away than this many times the range of the data would flatten it: it gets an arrow instead.
FAR = 1.5
MOST_CURVES_WITH_SEEDS = 2  # among more, single seeds are found by hovering only


def view_figure(study: StudyRecord, analysis: QuestionAnalysis, baselines: Sequence[BaselineAnalysis]) -> Figure:
    """Mean and interval of each condition, single seeds beside it, baselines dashed, missing points below."""
    view = analysis.view
    curves = tuple(dict.fromkeys(curve for _, curve in analysis.lines))
    ramp = len(curves) > 2 and _ordered(curves)
    drawn = {
        panel: [
            _series(analysis, (panel, curve), ramp_step(rank, len(curves)) if ramp else rank, len(curves), ramp)
            for rank, curve in enumerate(curves)
            if (panel, curve) in analysis.lines
        ]
        for panel in view.panels
    }
    references = _references(baselines) if len(drawn) == 1 else ()
    values = [value for series in drawn.values() for s in series for value in extent(s)]
    y = accuracy_axis(values, references, crosses=bool(analysis.missing))
    panels = []
    for label, series in drawn.items():
        conditions = [condition for condition in analysis.conditions if condition.panel == label]
        panel = Panel(
            title=label or view.title,
            x=x_axis(view, (c.x for c in analysis.conditions)),
            y=y,
            x_label=view.x_label,
            y_label=study.metric_label,
            series=tuple(series),
            references=references,
            missing=tuple(missing_marks(conditions, view)),
            dodge=len(series) > 1,
        )
        panels.append(panel)
    legend = tuple((s.label, s.colour, s.palette) for s in next(iter(drawn.values()))) if len(curves) > 1 else ()
    description = f"{view.title}: {study.metric_label} against {view.x_label}"
    return Figure(view.name, description, tuple(panels), 1 if len(panels) == 1 else 3, legend, per_panel_legend=False)


def x_axis(view: View, places: Iterable[float]) -> Axis:
    """Horizontal axis of the view."""
    return named_axis(view.categories) if view.categories else category_axis(places, view.x_scale)


def _series(
    analysis: QuestionAnalysis, line: tuple[str, str], colour: int, number_of_curves: int, ramp: bool
) -> Series:
    view, conditions = analysis.view, analysis.line(line)
    best = analysis.best_of_lines if view.mark_best else frozenset()
    measured = [c for c in conditions if c.mean is not None]
    singles: tuple[Mark, ...] = ()
    if number_of_curves <= MOST_CURVES_WITH_SEEDS:
        singles = tuple(_seed_mark(c.x, r) for c in measured if len(c.measured) > 1 for r in c.measured)
    return Series(
        line[1] or view.title,
        colour,
        tuple(mean_mark(c, view.x_label, best=(line, c.x) in best) for c in measured),
        singles,
        "ramp" if ramp else "category",
        joined=not view.categories,
        gaps=tuple(c.x for c in conditions if c.mean is None),
    )


def mean_mark(condition: Condition, x_label: str, *, who: str = "", best: bool = False) -> Mark:
    """Mean of a measured condition, with its interval and what hovering tells; ``who``: the study, among several."""
    assert condition.mean is not None, "only measured conditions are drawn"
    mean = condition.mean
    lines = [who] if who else []
    lines.append(place(condition, without_unit(x_label)) + (", the best of its line" if best else ""))
    seeds = len(condition.measured)
    lines.append(f"{percent(mean.value)}" + (f", mean of {many(seeds, 'seed')}" if seeds > 1 else ", one seed"))
    if mean.low is not None:
        lines.append(f"95 % interval {interval(mean.low, mean.high)}")
    if seeds > 1:
        lines.append("seeds " + ", ".join(plain(record.top1) for record in condition.measured))
    return Mark(condition.x, mean.value, mean.low, mean.high, "\n".join(lines), best)


def missing_marks(conditions: Iterable[Condition], view: View, *, who: str = "") -> list[Missing]:
    """A cross for each point without a result."""
    found = []
    for condition in conditions:
        for record in condition.missing:
            where = f"{place(condition, without_unit(view.x_label))}, seed {record.point.seed}"
            head = f"{who}\n{where}" if who else where
            found.append(Missing(condition.x, f"{head}\nno result: {record.status}\n{record.detail}"))
    return found


def extent(series: Series) -> list[float]:
    """Every height that the series needs."""
    values = [value for mark in series.marks for value in (mark.y, mark.low, mark.high) if value is not None]
    return values + [mark.y for mark in series.singles]


def accuracy_axis(values: Sequence[float], references: Sequence[Reference], *, crosses: bool) -> Axis:
    """Range of the data, and of those baselines that do not flatten it; room for the notes on the others."""
    if not values:
        return value_axis([r.y for r in references] or [0.0, 100.0], floor=0.0, top=100.0)
    span = max(max(values) - min(values), 1.0)
    below = [r.y for r in references if r.y < min(values) - FAR * span]
    above = [r.y for r in references if r.y > max(values) + FAR * span]
    near = [r.y for r in references if r.y not in (*below, *above)]
    margins = (0.08 + 0.08 * (bool(below) + crosses), 0.16 if above else 0.08)
    return value_axis([*values, *near], ticks=6, floor=0.0, top=100.0, margins=margins)


def _seed_mark(x: float, record: PointRecord) -> Mark:
    assert record.top1 is not None, "only measured points are drawn"
    return Mark(x, record.top1, tip=f"seed {record.point.seed}\n{percent(record.top1)}")


def _references(baselines: Sequence[BaselineAnalysis]) -> tuple[Reference, ...]:
    found = []
    for style, analysis in enumerate(baselines):
        mean = analysis.condition.mean
        if mean is None:
            continue
        tip = f"{analysis.baseline.title}\n{percent(mean.value)}, {many(len(analysis.condition.measured), 'seed')}"
        if mean.low is not None:
            tip += f"\n95 % interval {interval(mean.low, mean.high)}"
        found.append(Reference(analysis.baseline.title, mean.value, tip, style))
    return tuple(found)


def _ordered(curves: Sequence[str]) -> bool:
    """True where all labels end in a number: an ordered quantity gets an ordered palette."""
    try:
        numbers = [float(curve.rpartition("=")[2].replace(",", "")) for curve in curves]
    except ValueError:
        return False
    return numbers == sorted(numbers)
