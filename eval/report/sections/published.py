"""Published batch-size curves, in panels of their own and labelled with their source: never among measured points."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from eval.report.figures.model import Figure, Mark, Panel, Series, category_axis, ramp_step, value_axis
from eval.report.format import DATASETS, ENCODERS, METHODS
from eval.report.sections.base import Section, text_table
from eval.report.table import ReportData, grouped

FILE_NAME = "published_batch_scaling.csv"
COLOURS = {"simclr": 0, "byol": 1, "barlow_twins": 2, "wmse": 3}  # the same method looks the same in all panels
RULES = {"linear": ", linear LR", "sqrt": ", square-root LR"}
REMARK = (
    "Copied from their sources for orientation: other data, encoders, budgets and code. "
    "Nothing in these panels was measured here, and levels do not compare."
)


@dataclass(frozen=True)
class PublishedRow:
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
    text = resources.files("eval.report").joinpath(FILE_NAME).read_text(encoding="utf-8")
    return tuple(
        PublishedRow(
            source=row["source"],
            method=row["method"],
            dataset=row["dataset"],
            encoder=row["encoder"],
            lr_rule=row["lr_rule"],
            epochs=int(row["epochs"]),
            batch_size=int(row["batch_size"]),
            top1=float(row["top1"]),
            top1_std=float(row["top1_std"]) if row["top1_std"] else None,
            note=row["note"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def sections(data: ReportData) -> Iterator[Section]:
    """Published curves over the axes of those questions that ask for them."""
    views = [analysis.view for analyses in data.analyses.values() for analysis in analyses]
    asked = {view.x_key for view in views if view.published}
    figures = [published_figure()] if asked - {"epochs"} else []
    figures += [published_epochs_figure()] if "epochs" in asked else []
    rows = [("Source", "What")] + [(row.source, published_text(row)) for row in published_elsewhere()]
    if figures:
        yield Section(
            anchor="published",
            title="Published curves",
            remark=REMARK,
            figures=tuple(figures),
            tables=(text_table("Published at a single batch size", rows, folded=True),) if len(rows) > 1 else (),
        )


def published_figure() -> Figure:
    """One panel for each source (and learning-rate rule), one line for each method and epoch count."""
    kept = [rows for rows in _by_source() if len({row.batch_size for row in rows}) > 1]
    drawn = tuple(_panel(rows, [row for own in kept for row in own]) for rows in kept)
    return Figure(
        "published", "Published linear-evaluation accuracy against batch size, by source", drawn, 3, headline=True
    )


def published_epochs_figure() -> Figure:
    """The sources with several epoch counts, against epochs: one line for each batch size."""
    kept = [rows for rows in _by_source() if len({row.epochs for row in rows}) > 1]
    drawn = tuple(_panel(rows, [row for own in kept for row in own], against="epochs") for rows in kept)
    return Figure(
        "published_epochs", "Published linear-evaluation accuracy against epochs, by source", drawn, 3, headline=True
    )


def published_elsewhere() -> list[PublishedRow]:
    """Rows of sources with a single batch size: no curve."""
    return [row for rows in _by_source() if len({row.batch_size for row in rows}) == 1 for row in rows]


def _by_source() -> list[list[PublishedRow]]:
    return list(grouped(published_rows(), lambda row: (row.source, row.lr_rule)).values())


def published_text(row: PublishedRow) -> str:
    """One line about ``row``."""
    text = f"{_method(row)}, {DATASETS.get(row.dataset, row.dataset)}, "
    text += f"{row.epochs} epochs, batch size {row.batch_size:,}: {row.top1} %"
    return f"{text} ({row.note})" if row.note else text


def _panel(
    rows: list[PublishedRow],
    everywhere: Sequence[PublishedRow],
    *,
    against: Literal["batch_size", "epochs"] = "batch_size",
) -> Panel:
    """One source. Its lines are methods, or what is not on the axis where there is one method only."""
    first, one_method = rows[0], len({row.method for row in rows}) == 1
    other: Literal["batch_size", "epochs"] = "batch_size" if against == "epochs" else "epochs"
    lines = grouped(sorted(rows, key=lambda row: getattr(row, other)), lambda row: (row.method, getattr(row, other)))
    ramp = one_method and len(lines) > 1
    series = []
    for rank, own in enumerate(lines.values()):
        label = _method(own[0])
        if ramp:
            label = f"batch {own[0].batch_size:,}" if against == "epochs" else f"{own[0].epochs} epochs"
        colour = ramp_step(rank, len(lines)) if ramp else COLOURS.get(own[0].method, 7)
        marks = tuple(_mark(row, label, against) for row in sorted(own, key=lambda row: getattr(row, against)))
        series.append(Series(label, colour, marks, palette="ramp" if ramp else "category"))
    same = [row for row in everywhere if row.dataset == first.dataset]
    budget = "" if ramp else f", {first.epochs} epochs"
    notes = [row.note if one_method else f"{_method(row)}: {row.note}" for row in rows if row.note]
    methods = " and ".join(dict.fromkeys(_method(row) for row in rows))
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


def _mark(row: PublishedRow, label: str, against: Literal["batch_size", "epochs"]) -> Mark:
    low, high = (None, None) if row.top1_std is None else (row.top1 - row.top1_std, row.top1 + row.top1_std)
    deviation = "" if row.top1_std is None else f" ± {row.top1_std} (standard deviation)"
    x = f"{row.epochs} epochs" if against == "epochs" else f"batch size {row.batch_size:,}"
    return Mark(getattr(row, against), row.top1, low, high, f"{row.source}: {label}\n{x}\n{row.top1} %{deviation}")


def _method(row: PublishedRow) -> str:
    return METHODS.get(row.method, row.method)
