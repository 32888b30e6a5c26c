"""Curves of everything that the runs recorded while they trained: a line for each seed, or a band over many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.report.figures.model import Axis, Figure, Mark, Panel, Series, ramp_step, round_ticks, value_axis
from eval.report.records import grouped
from eval.report.sections.base import Section
from eval.report.statistics import Condition
from eval.report.table import ReportData, Row
from eval.schema import finite

MOST_SINGLE_RUNS = 24  # with more, their seeds become a mean and a band
CURVE_POINTS = 200
POINTS_PER_PAGE = 10000  # all curves together: the page stays small however many runs there are
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
SINGLE = "One panel per setting, one line per seed, the same vertical axis in all panels of a kind. "
BANDS = (
    "The mean over the seeds of each condition, in a band from the lowest to the highest of them, in the panels of the "
    "questions' figures; of a grid, the conditions that these show. "
)

Pairs = list[tuple[float, float]]


class Trace(NamedTuple):
    """What one line shows: the mean of its runs in a band, or a run of its own."""

    label: str
    colour: int
    palette: str
    runs: Sequence[Row]


def sections(data: ReportData) -> Iterator[Section]:
    """Small multiples: a figure for each metric that some run recorded at two steps or more."""
    rows = [row for row in data.rows if row.record.curves]
    single = len(rows) <= MOST_SINGLE_RUNS
    panels = _of_seeds(rows) if single else _of_conditions(data)
    keys = dict.fromkeys(key for row in rows for values in row.record.curves for key in values)
    shown = [*(key for key in TITLES if key in keys), *(key for key in keys if key not in (*TITLES, *NOT_CURVES))]
    curves = sum(map(len, panels.values())) * len(shown)
    points = max(FEWEST_POINTS, min(CURVE_POINTS, POINTS_PER_PAGE // max(curves, 1)))
    figures = tuple(figure for key in shown for figure in _figure(key, panels, points))
    if figures:
        yield Section(
            anchor="training",
            title="Training curves",
            remark=(SINGLE if single else BANDS) + "Hover or touch for values; every value is in metrics.jsonl.",
            figures=figures,
            notes=tuple(_without_curves(data)),
            folded_figures=True,
        )


def curve_panels(
    curves: Mapping[str, Iterable[Series]], y_label: str, *, percent: bool, x_label: str = "Epoch"
) -> list[Panel]:
    """A panel for each label that has a line, all with the same vertical axis; two values make a line."""
    drawn = {label: tuple(s for s in series if len(s.marks) > 1) for label, series in curves.items()}
    values = [value for series in drawn.values() for s in series for mark in s.marks for value in mark.heights]
    y = value_axis(
        values, ticks=4, floor=0.0 if min(values, default=0.0) >= 0 else None, top=100.0 if percent else None
    )
    panels = []
    for label, series in drawn.items():
        end = max((mark.x for s in series for mark in s.marks), default=0.0)
        if series:
            panels.append(Panel(label, Axis("linear", 0.0, end, round_ticks(0.0, end, 4)), y, x_label, y_label, series))
    return panels


def curve(pairs: Iterable[tuple[Any, Any]], label: str, colour: int, *, points: int = CURVE_POINTS) -> Series:
    """A line through the finite ones of ``pairs``, thinned out to about ``points`` of them."""
    marks = tuple(Mark(x, y) for x, y in _thinned(_known(pairs), points))
    return Series(label, colour, marks, marked=False)


def band(runs: Sequence[Pairs], points: int) -> Iterator[Mark]:
    """Mean over the runs that have come so far, and the lowest and highest of them, at about ``points`` places."""
    lines = [(np.array([x for x, _ in pairs]), np.array([y for _, y in pairs])) for pairs in runs if pairs]
    for place, _ in _thinned(max(runs, key=len, default=[]), points):
        values = [float(np.interp(place, x, y)) for x, y in lines if x[0] <= place <= x[-1]]
        if values:
            low, high = (min(values), max(values)) if len(lines) > 1 else (None, None)
            yield Mark(place, sum(values) / len(values), low, high)


def _known(pairs: Iterable[tuple[Any, Any]]) -> Pairs:
    return [(x, y) for x, y in ((finite(x), finite(y)) for x, y in pairs) if x is not None and y is not None]


def _thinned(pairs: Pairs, points: int) -> Pairs:
    every = math.ceil(len(pairs) / points) or 1
    return pairs[::every] + ([pairs[-1]] if pairs and (len(pairs) - 1) % every else [])


def _of_seeds(rows: Sequence[Row]) -> dict[str, list[Trace]]:
    return {
        label: [Trace(f"seed {row.seed}", index, "category", [row]) for index, row in enumerate(own)]
        for label, own in grouped(rows, lambda row: row.label).items()
    }


def _of_conditions(data: ReportData) -> dict[str, list[Trace]]:
    """A panel for each line of a question's own figure, in it a line for each of its places; one for the baselines."""
    row_of = {(row.study.label, row.record.name): row for row in data.rows}
    found: dict[str, list[Trace]] = {}
    for study in data.studies:
        who = data.who(study)

        def rows_of(condition: Condition, label: str = study.label) -> list[Row]:
            return [row_of[label, record.name] for record in condition.records]

        for analysis in data.analyses[study.label]:
            for line in analysis.lines if not analysis.view.derived else ():
                places = analysis.line(line)
                text = f": {places[0].line_text}" if places[0].line_text else ""
                found[f"{who}{analysis.view.title}{text}"] = [
                    Trace(condition.x_text, ramp_step(rank, len(places)), "ramp", rows_of(condition))
                    for rank, condition in enumerate(places)
                ]
        compared = [condition for owner, condition in data.baselines if owner is study]
        if compared:
            found[f"{who}For comparison"] = [Trace(b.curve, i, "category", rows_of(b)) for i, b in enumerate(compared)]
    return found


def _figure(key: str, panels: Mapping[str, Sequence[Trace]], points: int) -> list[Figure]:
    title = TITLES.get(key) or key.replace("_", " ").capitalize() + (" (%)" if key.endswith("_top1") else "")
    factor = 100.0 if title.endswith("(%)") else 1.0
    drawn = {label: [_series(trace, key, factor, points) for trace in traces] for label, traces in panels.items()}
    small = tuple(curve_panels(drawn, title, percent=factor != 1))
    description = f"{title} during training, small multiples"
    headline = key == "loss" or key.endswith("_top1")
    return [Figure(f"training_{key}", description, small, 3, headline=headline)] if small else []


def _series(trace: Trace, key: str, factor: float, points: int) -> Series:
    runs = [
        [
            (x, factor * y)
            for x, y in _known((row.get("epoch", row.get("step")), row.get(key)) for row in r.record.curves)
        ]
        for r in trace.runs
    ]
    if trace.palette == "category" and len(runs) == 1:
        return curve(runs[0], trace.label, trace.colour, points=points)
    return Series(trace.label, trace.colour, tuple(band(runs, points)), palette=trace.palette, marked=False)


def _without_curves(data: ReportData) -> Iterator[str]:
    """Runs that have recorded nothing, and runs that ended badly: their curves are not all there is."""
    for study in data.studies:
        absent = [record.name for record in study.points.values() if not record.curves]
        more = f" and {len(absent) - 6} more" if absent[6:] else ""
        if absent:
            yield f"{data.who(study)}No curve of {', '.join(absent[:6])}{more}."
        for record in study.points.values():
            if record.curves and record.status in ("diverged", "failed", "unfinished"):
                yield f"{data.who(study)}{record.name}: {record.status}, {record.detail}."
