"""Curves of everything that the runs recorded while they trained, and of the probes that were trained on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from eval.report.evaluations import Found, settings_label
from eval.report.figures.model import Axis, Figure, Mark, Panel, Series, round_ticks, value_axis
from eval.report.format import many, percent
from eval.report.records import PointRecord, StudyRecord
from eval.report.sections.base import Section
from eval.schema import Curves, DistillResult, EvaluationResult, FinetuneResult, LinearResult, finite

CURVE_POINTS = 200
POINTS_PER_PAGE = 20000  # all curves together: the page stays small however many runs there are
FEWEST_POINTS = 16
TITLES = {
    "loss": "Training loss",
    "contrastive_top1": "Contrastive accuracy (%)",
    "train_top1": "Training accuracy (%)",
    "online_probe_top1": "Online-probe accuracy (%)",
    "contrastive_entropy": "Contrastive entropy (nats)",
    "learning_rate": "Learning rate",
    "images_per_second": "Images per second",
}
NOT_CURVES = ("step", "epoch")


def training_section(studies: Sequence[StudyRecord]) -> Section | None:
    """Small multiples: for each metric a panel per setting, a line per seed, one vertical axis."""
    figures = training_figures(studies)
    if not figures:
        return None
    return Section(
        anchor="training",
        title="Training curves",
        remark="One panel per setting, one line per seed, the same vertical axis in all panels of a kind. "
        "Hover or touch for values.",
        figures=figures,
        notes=tuple(_without_curves(studies)),
        folded_figures=True,
    )


def training_figures(studies: Sequence[StudyRecord]) -> tuple[Figure, ...]:
    """A figure for each metric that some run recorded at two steps or more."""
    groups: dict[str, list[PointRecord]] = {}
    for study in studies:
        for record in study.points.values():
            if record.curves:
                label = settings_label(record, study)
                groups.setdefault(f"{study.label}: {label}" if len(studies) > 1 else label, []).append(record)
    keys = dict.fromkeys(key for rs in groups.values() for r in rs for row in r.curves for key in row)
    ordered = [*(key for key in TITLES if key in keys), *(key for key in keys if key not in TITLES)]
    wanted = [key for key in ordered if key not in NOT_CURVES]
    curves = sum(map(len, groups.values())) * len(wanted)
    points = max(FEWEST_POINTS, min(CURVE_POINTS, POINTS_PER_PAGE // max(curves, 1)))
    figures = (_metric_figure(key, groups, points) for key in wanted)
    return tuple(figure for figure in figures if figure is not None)


def curve_panels(
    curves: dict[str, list[Series]], y_label: str, *, percent: bool, x_label: str = "Epoch"
) -> list[Panel]:
    """A panel for each label, all with the same vertical axis."""
    values = [mark.y for series in curves.values() for s in series for mark in s.marks]
    y = value_axis(values, ticks=4, floor=0.0 if min(values) >= 0 else None, top=100.0 if percent else None)
    panels = []
    for label, series in curves.items():
        end = max(mark.x for s in series for mark in s.marks)
        x = Axis("linear", 0.0, end, round_ticks(0.0, end, 4))
        panels.append(Panel(label, x, y, x_label, y_label, tuple(series)))
    return panels


def curve(pairs: Iterable[tuple[Any, Any]], label: str, colour: int, *, points: int = CURVE_POINTS) -> Series:
    """A line through the finite ones of ``pairs``, thinned out to about ``points`` of them."""
    known = [(x, y) for x, y in ((finite(x), finite(y)) for x, y in pairs) if x is not None and y is not None]
    every = math.ceil(len(known) / points) or 1
    kept = known[::every] + ([known[-1]] if known and (len(known) - 1) % every else [])
    return Series(label, colour, tuple(Mark(x, y) for x, y in kept), marked=False)


def _metric_figure(key: str, groups: dict[str, list[PointRecord]], points: int) -> Figure | None:
    title = TITLES.get(key) or key.replace("_", " ").capitalize() + (" (%)" if key.endswith("_top1") else "")
    factor = 100.0 if title.endswith("(%)") else 1.0
    drawn = {
        label: [_seed_curve(record, key, factor, index, points) for index, record in enumerate(records)]
        for label, records in groups.items()
    }
    kept = {label: [s for s in series if len(s.marks) > 1] for label, series in drawn.items()}
    kept = {label: series for label, series in kept.items() if series}
    if not kept:
        return None
    panels = curve_panels(kept, title, percent=factor != 1)
    description = f"{title} during training, one panel per setting"
    return Figure(f"training_{key}", description, tuple(panels), 3, in_files=key == "loss" or key.endswith("_top1"))


def _seed_curve(record: PointRecord, key: str, factor: float, index: int, points: int) -> Series:
    rows = ((row.get("epoch", row.get("step")), finite(row.get(key))) for row in record.curves)
    pairs = ((x, None if y is None else y * factor) for x, y in rows)
    return curve(pairs, f"seed {record.point.seed}", index, points=points)


def _without_curves(studies: Sequence[StudyRecord]) -> Iterable[str]:
    """Runs that have recorded nothing, and runs that ended badly: their curves are not all there is."""
    for study in studies:
        who = f"{study.label}: " if len(studies) > 1 else ""
        absent = [record for record in study.points.values() if not record.curves]
        if absent:
            yield f"{who}No curve of {_names(absent)}."
        broken = [r for r in study.points.values() if r.curves and r.status in ("diverged", "failed", "unfinished")]
        for record in broken:
            yield f"{who}{record.name}: {record.status}, {record.detail}."


def _names(records: Sequence[PointRecord]) -> str:
    shown = ", ".join(record.name for record in records[:6])
    return shown if len(records) <= 6 else f"{shown} and {len(records) - 6} more"


# Train and test curves of everything that an evaluation trained: linear probes, fine-tuning, distillation.


MOST_PANELS = 24
METRICS = (("top1", "Accuracy of the probe (%)", True), ("loss", "Loss of the probe (nats)", False))


def probe_curves_section(found: Found) -> Section | None:
    """Train and test accuracy and loss by epoch of everything that was trained on the labels."""
    groups = _groups(found)
    figures = []
    for key, title, percents in METRICS:
        drawn: dict[str, list[Series]] = {}
        for label, members in list(groups.items())[:MOST_PANELS]:
            series = [
                curve(zip(curves.epoch or (), getattr(curves, f"{part}_{key}") or ()), _line(part, seed, members), i)
                for seed, curves in members
                for i, part in enumerate(("train", "test"))
            ]
            series = [s for s in series if len(s.marks) > 1]
            if series:
                drawn[label] = series
        if drawn:
            panels = curve_panels(drawn, title, percent=percents)
            legend = (("train", 0, "category"), ("test", 1, "category"))
            figures.append(Figure(f"probe_{key}", f"{title} by epoch, train and test", tuple(panels), 3, legend))
    if not figures:
        return None
    more = len(groups) - MOST_PANELS
    return Section(
        anchor="probe-curves",
        title="Curves of the evaluations",
        remark="Test curves are a record only: the last epoch is what counts, and nothing is chosen by them.",
        figures=tuple(figures),
        notes=(f"{many(more, 'more setting')} not drawn here.",) if more > 0 else (),
        folded_figures=True,
    )


def _groups(found: Found) -> dict[str, list[tuple[int, Curves]]]:
    """(seed, curves) by what a panel shows; evaluations with other settings get panels of their own."""
    marks: dict[str, set[str]] = {}
    parts = [
        (f"{setting}: {what}", result.fingerprint[:4], record.point.seed, curves)
        for setting, record, result in found
        for what, curves in _curves_of(result)
    ]
    for label, mark, _, _ in parts:
        marks.setdefault(label, set()).add(mark)
    groups: dict[str, list[tuple[int, Curves]]] = {}
    for label, mark, seed, curves in parts:
        groups.setdefault(f"{label} ({mark})" if len(marks[label]) > 1 else label, []).append((seed, curves))
    return groups


def _curves_of(result: EvaluationResult) -> Iterable[tuple[str, Curves]]:
    if isinstance(result, LinearResult) and result.curves is not None:
        yield "linear probe", result.curves
    if isinstance(result, DistillResult) and result.curves is not None:
        yield "distillation", result.curves
    for row in result.rows if isinstance(result, FinetuneResult) else ():
        if row.curves is not None:
            yield f"{row.name}, {percent(100 * (row.label_fraction or 0.0), 0)} of labels", row.curves


def _line(part: str, seed: int, members: Sequence[tuple[int, Any]]) -> str:
    return part if len(members) == 1 else f"{part}, seed {seed}"
