"""Published batch-size curves, in panels of their own and labelled with their source: never among measured points."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

from eval.report.figures.model import Figure, Mark, Panel, Series, category_axis, ramp_step, value_axis
from eval.report.format import DATASETS, ENCODERS, METHODS
from eval.report.sections.base import Section, text_table

FILE_NAME = "published_batch_scaling.csv"
COLOURS = {"simclr": 0, "byol": 1, "barlow_twins": 2, "wmse": 3}  # the same method looks the same in all panels
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


def published_section(x_keys: set[str]) -> Section | None:
    """Published curves over the axes of those questions that ask for them; None where none does."""
    figures = [published_figure()] if x_keys - {"epochs"} else []
    figures += [published_epochs_figure()] if "epochs" in x_keys else []
    if not figures:
        return None
    rows = [("Source", "What")] + [(row.source, published_text(row)) for row in published_elsewhere()]
    return Section(
        anchor="published",
        title="Published curves",
        remark=REMARK,
        figures=tuple(figures),
        tables=(text_table("Published at a single batch size", rows, folded=True),) if len(rows) > 1 else (),
    )


def published_figure() -> Figure:
    """One panel for each source (and learning-rate rule), one line for each method and epoch count."""
    panels: dict[tuple[str, str], list[PublishedRow]] = {}
    for row in published_rows():
        panels.setdefault((row.source, row.lr_rule), []).append(row)
    kept = {key: rows for key, rows in panels.items() if len({row.batch_size for row in rows}) > 1}
    drawn = tuple(_panel(rows, [r for rs in kept.values() for r in rs]) for rows in kept.values())
    return Figure("published", "Published linear-evaluation accuracy against batch size, by source", drawn, 3)


def published_epochs_figure() -> Figure:
    """The sources with several epoch counts, against epochs: one line for each batch size."""
    panels: dict[tuple[str, str], list[PublishedRow]] = {}
    for row in published_rows():
        panels.setdefault((row.source, row.lr_rule), []).append(row)
    kept = [rows for rows in panels.values() if len({row.epochs for row in rows}) > 1]
    drawn = tuple(_epochs_panel(rows, [row.top1 for members in kept for row in members]) for rows in kept)
    return Figure("published_epochs", "Published linear-evaluation accuracy against epochs, by source", drawn, 3)


def published_elsewhere() -> tuple[PublishedRow, ...]:
    """Rows of sources with a single batch size: no curve."""
    sizes: dict[tuple[str, str], set[int]] = {}
    for row in published_rows():
        sizes.setdefault((row.source, row.lr_rule), set()).add(row.batch_size)
    return tuple(row for row in published_rows() if len(sizes[row.source, row.lr_rule]) == 1)


def published_text(row: PublishedRow) -> str:
    """One line about ``row``."""
    text = f"{METHODS.get(row.method, row.method)}, {DATASETS.get(row.dataset, row.dataset)}, "
    text += f"{row.epochs} epochs, batch size {row.batch_size:,}: {row.top1} %"
    return f"{text} ({row.note})" if row.note else text


def _panel(rows: list[PublishedRow], everywhere: list[PublishedRow]) -> Panel:
    first = rows[0]
    lines: dict[tuple[str, int], list[PublishedRow]] = {}
    for row in rows:
        lines.setdefault((row.method, row.epochs), []).append(row)
    by_epochs = len({method for method, _ in lines}) == 1 and len(lines) > 1
    series = []
    for rank, ((method, epochs), members) in enumerate(sorted(lines.items(), key=lambda item: item[0][1])):
        name = METHODS.get(method, method)
        label = f"{epochs} epochs" if by_epochs else name
        colour = ramp_step(rank, len(lines)) if by_epochs else COLOURS.get(method, 7)
        marks = tuple(_mark(row, label) for row in sorted(members, key=lambda row: row.batch_size))
        series.append(Series(label, colour, marks, palette="ramp" if by_epochs else "category"))
    rule = {"linear": ", linear LR", "sqrt": ", square-root LR"}.get(first.lr_rule, "")
    methods = " and ".join(dict.fromkeys(METHODS.get(row.method, row.method) for row in rows))
    same_task = [row.top1 - (row.top1_std or 0.0) for row in everywhere if row.dataset == first.dataset]
    same_task += [row.top1 + (row.top1_std or 0.0) for row in everywhere if row.dataset == first.dataset]
    budget = "" if by_epochs else f", {first.epochs} epochs"
    several = len({row.method for row in rows}) > 1
    notes = [f"{METHODS.get(row.method, row.method)}: {row.note}" if several else row.note for row in rows if row.note]
    return Panel(
        title=f"{first.source}{rule}",
        x=category_axis((row.batch_size for row in rows), "log2"),
        y=value_axis(same_task, ticks=4),
        x_label="Batch size (images)",
        y_label=f"{DATASETS.get(first.dataset, first.dataset)} top-1 (%)",
        series=tuple(series),
        footnote=f"{methods}, {ENCODERS.get(first.encoder, first.encoder)}{budget}."
        + "".join(f" {_sentence(note)}" for note in notes),
    )


def _epochs_panel(rows: list[PublishedRow], everywhere: list[float]) -> Panel:
    first = rows[0]
    sizes = sorted({row.batch_size for row in rows})
    series = []
    for rank, size in enumerate(sizes):
        members = sorted((row for row in rows if row.batch_size == size), key=lambda row: row.epochs)
        marks = tuple(Mark(r.epochs, r.top1, tip=_epochs_tip(r)) for r in members)
        series.append(Series(f"batch {size:,}", ramp_step(rank, len(sizes)), marks, palette="ramp"))
    rule = {"linear": ", linear LR", "sqrt": ", square-root LR"}.get(first.lr_rule, "")
    return Panel(
        title=f"{first.source}{rule}",
        x=category_axis((row.epochs for row in rows), "log2"),
        y=value_axis(everywhere, ticks=4),
        x_label="Epochs",
        y_label=f"{DATASETS.get(first.dataset, first.dataset)} top-1 (%)",
        series=tuple(series),
        footnote=f"{METHODS.get(first.method, first.method)}, {ENCODERS.get(first.encoder, first.encoder)}.",
    )


def _epochs_tip(row: PublishedRow) -> str:
    return f"{row.source}: batch size {row.batch_size:,}\n{row.epochs} epochs\n{row.top1} %"


def _mark(row: PublishedRow, label: str) -> Mark:
    deviation = "" if row.top1_std is None else f" ± {row.top1_std} (standard deviation)"
    low, high = (None, None) if row.top1_std is None else (row.top1 - row.top1_std, row.top1 + row.top1_std)
    tip = f"{row.source}: {label}\nbatch size {row.batch_size:,}\n{row.top1} %{deviation}"
    return Mark(row.batch_size, row.top1, low, high, tip)


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."
