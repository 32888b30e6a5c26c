"""Published batch-size curves, in panels of their own and labelled with their source: never among measured points."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple

from eval.report.figures.model import Figure, Mark, Panel, Series, category_axis, ramp_step, value_axis
from eval.report.format import DATASETS, ENCODERS, METHODS
from eval.report.records import grouped
from eval.report.sections.base import Section, cell, tabulate
from eval.report.table import ReportData

COLOURS = {"simclr": 0, "byol": 1, "barlow_twins": 2, "wmse": 3}  # the same method looks the same in all panels
RULES = {"linear": ", linear LR", "sqrt": ", square-root LR"}
REMARK = (
    "Copied from their sources for orientation: other data, encoders, budgets and code. "
    "Nothing in these panels was measured here, and levels do not compare."
)

Axis = Literal["batch_size", "epochs"]


class PublishedRow(NamedTuple):
    """One published accuracy in percent, with the deviation that its source gives, if any."""

    source: str
    method: str
    dataset: str
    encoder: str
    lr_rule: str
    epochs: int
    batch_size: int
    top1: float
    top1_std: float | None
    note: str


def published_rows() -> tuple[PublishedRow, ...]:
    """All rows of the table that comes with the package."""
    text = resources.files("eval.report").joinpath("published_batch_scaling.csv").read_text(encoding="utf-8")
    numbers: dict[str, Callable[[str], Any]] = {"epochs": int, "batch_size": int, "top1": float}
    numbers["top1_std"] = lambda text: float(text) if text else None
    rows = csv.DictReader(text.splitlines())
    return tuple(
        PublishedRow(**{name: numbers.get(name, str)(row[name]) for name in PublishedRow._fields}) for row in rows
    )


def sections(data: ReportData) -> Iterator[Section]:
    """Published curves over the axes of those questions that ask for them."""
    views = [analysis.view for analyses in data.analyses.values() for analysis in analyses]
    asked = {view.x_key for view in views if view.published}
    figures = [published_figure()] if asked - {"epochs"} else []
    figures += [published_figure("epochs")] if "epochs" in asked else []
    alone = [row for rows in _by_source() if len({row.batch_size for row in rows}) == 1 for row in rows]
    columns = {"Source": lambda row: cell(row.source), "What": lambda row: cell(published_text(row))}
    if figures:
        yield Section(
            anchor="published",
            title="Published curves",
            remark=REMARK,
            figures=tuple(figures),
            tables=(tabulate("Published at a single batch size", alone, columns, folded=True),) if alone else (),
        )


def published_figure(against: Axis = "batch_size") -> Figure:
    """A panel for each source and learning-rate rule with several sizes (or epoch counts), a line for each method."""
    kept = [rows for rows in _by_source() if len({getattr(row, against) for row in rows}) > 1]
    drawn = tuple(_panel(rows, [row for own in kept for row in own], against) for rows in kept)
    name, what = ("published", "batch size") if against == "batch_size" else ("published_epochs", "epochs")
    description = f"Published linear-evaluation accuracy against {what}, by source"
    return Figure(name, description, drawn, 3, headline=True)


def _by_source() -> list[list[PublishedRow]]:
    return list(grouped(published_rows(), lambda row: (row.source, row.lr_rule)).values())


def published_text(row: PublishedRow) -> str:
    """One line about ``row``."""
    text = f"{_method(row)}, {DATASETS.get(row.dataset, row.dataset)}, "
    text += f"{row.epochs} epochs, batch size {row.batch_size:,}: {row.top1} %"
    return f"{text} ({row.note})" if row.note else text


def _panel(rows: list[PublishedRow], everywhere: Sequence[PublishedRow], against: Axis) -> Panel:
    """One source. Its lines are methods, or what is not on the axis where there is one method only."""
    first, one_method = rows[0], len({row.method for row in rows}) == 1
    other: Axis = "batch_size" if against == "epochs" else "epochs"
    lines = grouped(sorted(rows, key=lambda row: getattr(row, other)), lambda row: (row.method, getattr(row, other)))
    ramp = one_method and len(lines) > 1
    series = []
    for rank, own in enumerate(lines.values()):
        label, colour = _method(own[0]), COLOURS.get(own[0].method, 7)
        if ramp:
            label = f"batch {own[0].batch_size:,}" if against == "epochs" else f"{own[0].epochs} epochs"
            colour = ramp_step(rank, len(lines))
        marks = tuple(_mark(row, label, against) for row in sorted(own, key=lambda row: getattr(row, against)))
        series.append(Series(label, colour, marks, palette="ramp" if ramp else "category"))
    same = [row for row in everywhere if row.dataset == first.dataset]
    budget = "" if ramp else f", {first.epochs} epochs"
    notes = [row.note if one_method else f"{_method(row)}: {row.note}" for row in rows if row.note]
    methods = " and ".join(dict.fromkeys(map(_method, rows)))
    return Panel(
        title=f"{first.source}{RULES.get(first.lr_rule, '')}",
        x=category_axis((getattr(row, against) for row in rows), "log2"),
        y=value_axis([row.top1 + sign * (row.top1_std or 0.0) for row in same for sign in (-1, 1)], ticks=4),
        x_label="Epochs" if against == "epochs" else "Batch size (images)",
        y_label=f"{DATASETS.get(first.dataset, first.dataset)} top-1 (%)",
        series=tuple(series),
        footnote=f"{methods}, {ENCODERS.get(first.encoder, first.encoder)}{budget}."
        + "".join(f" {note[:1].upper()}{note[1:]}." for note in notes),
    )


def _mark(row: PublishedRow, label: str, against: Axis) -> Mark:
    low, high = (None, None) if row.top1_std is None else (row.top1 - row.top1_std, row.top1 + row.top1_std)
    deviation = "" if row.top1_std is None else f" ± {row.top1_std} (standard deviation)"
    x = f"{row.epochs} epochs" if against == "epochs" else f"batch size {row.batch_size:,}"
    return Mark(getattr(row, against), row.top1, low, high, f"{row.source}: {label}\n{x}\n{row.top1} %{deviation}")


def _method(row: PublishedRow) -> str:
    return METHODS.get(row.method, row.method)
