"""The figures of a report, from the analysis: one for each question, and the training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval.manifest import Curve
from eval.report.analysis import BaselineAnalysis, Condition, QuestionAnalysis
from eval.report.collect import PointRecord, StudyRecord, number
from eval.report.panels import Figure, Mark, Missing, Panel, Reference, Series
from eval.report.scales import Axis, category_axis, round_ticks, value_axis
from eval.report.sentences import place
from eval.report.text import DASH, many, percent, plain, setting

# A baseline further away than this many times the range of the data would flatten it: it gets an arrow instead.
FAR = 1.5
MOST_CURVES_WITH_SEEDS = 2  # among more, single seeds are found by hovering only
CURVE_POINTS = 200
TRAINING_METRICS = (
    ("loss", "Training loss"),
    ("contrastive_top1", "Contrastive accuracy (%)"),
    ("train_top1", "Training accuracy (%)"),
)


def question_figure(study: StudyRecord, analysis: QuestionAnalysis, baselines: Sequence[BaselineAnalysis]) -> Figure:
    """Mean and interval of each condition, single seeds beside it, baselines dashed, missing points below."""
    question = analysis.question
    ordered = _numeric_order(question.curves)
    series = []
    for index, curve in enumerate(question.curves):
        conditions = [c for c in analysis.curve(curve.label) if c.mean is not None]
        label = curve.label or question.title
        colour = ordered.get(curve.label, index)
        palette = "ramp" if curve.label in ordered and len(question.curves) > 2 else "category"
        marks = tuple(_mean_mark(condition, question.x_label) for condition in conditions)
        gaps = tuple(c.x for c in analysis.curve(curve.label) if c.mean is None)
        singles: tuple[Mark, ...] = ()
        if len(question.curves) <= MOST_CURVES_WITH_SEEDS:
            singles = tuple(_seed_mark(c.x, r) for c in conditions if len(c.measured) > 1 for r in c.measured)
        series.append(Series(label, colour, marks, singles, palette, gaps=gaps))
    references = _references(baselines)
    y = _accuracy_axis([value for s in series for value in _extent(s)], references, crosses=bool(analysis.missing))
    missing = [
        Missing(c.x, _missing_tip(c, record, question.x_label)) for c in analysis.conditions for record in c.missing
    ]
    panel = Panel(
        title=question.title,
        x=category_axis((c.x for c in analysis.conditions), question.x_scale),
        y=y,
        x_label=question.x_label,
        y_label=study.metric_label,
        series=tuple(series),
        references=references,
        missing=tuple(missing),
        dodge=len(series) > 1,
    )
    legend = tuple((s.label, s.colour, s.palette) for s in series) if len(series) > 1 else ()
    return Figure(
        question.name, f"{question.title}: {study.metric_label} against {question.x_label}", (panel,), 1, legend
    )


def training_figures(study: StudyRecord) -> tuple[Figure, ...]:
    """For each metric one panel per setting, with a line per seed, on one vertical axis."""
    groups: dict[str, list[PointRecord]] = {}
    for record in study.points.values():
        if record.curves:
            groups.setdefault(settings_label(record, study), []).append(record)
    figures = []
    for key, title in TRAINING_METRICS:
        factor = 100.0 if title.endswith("(%)") else 1.0
        drawn = {label: [_curve(r, key, factor, i) for i, r in enumerate(rs)] for label, rs in groups.items()}
        kept = {label: [s for s in series if len(s.marks) > 1] for label, series in drawn.items()}
        kept = {label: series for label, series in kept.items() if series}
        if not kept:
            continue
        y = _curve_axis([m.y for series in kept.values() for s in series for m in s.marks], percent=factor != 1)
        panels = tuple(_curve_panel(label, series, y, title) for label, series in kept.items())
        figures.append(Figure(f"training_{key}", f"{title} during training, one panel per setting", panels, 3))
    return tuple(figures)


def settings_label(record: PointRecord, study: StudyRecord) -> str:
    """What sets a point apart: the baseline's title, else the settings that differ within the study."""
    for baseline in study.manifest.baselines:
        if record.name in baseline.points:
            return baseline.title
    varied = varied_settings(study)
    found = [
        f"{_short(key)} {setting(record.point.settings.get(key))}" for key in varied if key in record.point.settings
    ]
    return ", ".join(found) or record.name.partition(",seed=")[0]


def varied_settings(study: StudyRecord) -> tuple[str, ...]:
    """Settings that are not the same at all points of the questions, in order of first use."""
    in_baselines = {name for baseline in study.manifest.baselines for name in baseline.points}
    points = [record.point for record in study.points.values() if record.name not in in_baselines]
    keys = dict.fromkeys(key for point in points for key in point.settings)
    return tuple(key for key in keys if len({repr(point.settings.get(key)) for point in points}) > 1)


def _short(key: str) -> str:
    return {"global_batch_size": "batch", "base_learning_rate": "base LR"}.get(
        key.rpartition(".")[2], key.rpartition(".")[2]
    )


def _mean_mark(condition: Condition, x_label: str) -> Mark:
    assert condition.mean is not None, "only measured conditions are drawn"
    mean = condition.mean
    lines = [place(condition, x_label.partition(" (")[0])]
    seeds = len(condition.measured)
    lines.append(f"{percent(mean.value)}" + (f", mean of {many(seeds, 'seed')}" if seeds > 1 else ", one seed"))
    if mean.low is not None and mean.high is not None:
        lines.append(f"95 % interval {mean.low:.2f} {DASH} {mean.high:.2f}")
    if seeds > 1:
        lines.append("seeds " + ", ".join(plain(record.top1) for record in condition.measured))
    return Mark(condition.x, mean.value, mean.low, mean.high, "\n".join(lines))


def _seed_mark(x: float, record: PointRecord) -> Mark:
    assert record.top1 is not None, "only measured points are drawn"
    return Mark(x, record.top1, tip=f"seed {record.point.seed}\n{percent(record.top1)}")


def _missing_tip(condition: Condition, record: PointRecord, x_label: str) -> str:
    where = place(condition, x_label.partition(" (")[0])
    return f"{where}, seed {record.point.seed}\nno result: {record.status}\n{record.detail}"


def _references(baselines: Sequence[BaselineAnalysis]) -> tuple[Reference, ...]:
    found = []
    for style, analysis in enumerate(baselines):
        mean = analysis.condition.mean
        if mean is None:
            continue
        tip = f"{analysis.baseline.title}\n{percent(mean.value)}, {many(len(analysis.condition.measured), 'seed')}"
        if mean.low is not None and mean.high is not None:
            tip += f"\n95 % interval {mean.low:.2f} {DASH} {mean.high:.2f}"
        found.append(Reference(analysis.baseline.title, mean.value, tip, style))
    return tuple(found)


def _extent(series: Series) -> list[float]:
    values = [value for mark in series.marks for value in (mark.y, mark.low, mark.high) if value is not None]
    return values + [mark.y for mark in series.singles]


def _accuracy_axis(values: Sequence[float], references: Sequence[Reference], *, crosses: bool) -> Axis:
    """Range of the data, and of those baselines that do not flatten it; room for the notes on the others."""
    if not values:
        return value_axis([r.y for r in references] or [0.0, 100.0], floor=0.0, top=100.0)
    span = max(max(values) - min(values), 1.0)
    below = [r.y for r in references if r.y < min(values) - FAR * span]
    above = [r.y for r in references if r.y > max(values) + FAR * span]
    near = [r.y for r in references if r.y not in (*below, *above)]
    margins = (0.08 + 0.08 * (bool(below) + crosses), 0.16 if above else 0.08)
    return value_axis([*values, *near], ticks=6, floor=0.0, top=100.0, margins=margins)


def _numeric_order(curves: Sequence[Curve]) -> dict[str, int]:
    """Curve label to its rank, where all labels end in a number: an ordered quantity gets an ordered palette."""
    numbers: dict[str, float] = {}
    for curve in curves:
        try:
            numbers[curve.label] = float(curve.label.rpartition("=")[2].replace(",", ""))
        except ValueError:
            return {}
    return {label: rank for rank, label in enumerate(sorted(numbers, key=numbers.__getitem__))}


def _curve(record: PointRecord, key: str, factor: float, index: int) -> Series:
    pairs = [(number(row.get("epoch", row.get("step"))), number(row.get(key))) for row in record.curves]
    known = [(x, y * factor) for x, y in pairs if x is not None and y is not None]
    every = math.ceil(len(known) / CURVE_POINTS) or 1
    kept = known[::every] + ([known[-1]] if known and (len(known) - 1) % every else [])
    marks = tuple(Mark(x, y) for x, y in kept)
    return Series(f"seed {record.point.seed}", index, marks, marked=False)


def _curve_axis(values: Sequence[float], *, percent: bool) -> Axis:
    return value_axis(values, ticks=4, floor=0.0, top=100.0 if percent else None)


def _curve_panel(label: str, series: list[Series], y: Axis, title: str) -> Panel:
    end = max(mark.x for s in series for mark in s.marks)
    x = Axis("linear", 0.0, end, round_ticks(0.0, end, 4))
    return Panel(label, x, y, "Epoch", title, tuple(series))
