"""One table of all protocols: random, supervised, linear, fine-tuned, neighbours, transfer; and of distillation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.report.format import DASH, many, named, percent, plain
from eval.report.sections.base import Cell, Section, Table, cell
from eval.report.statistics import mean_of, pooled_deviation
from eval.report.table import Evaluation, ReportData, grouped
from eval.schema import DistillResult, FinetuneResult, KnnResult, LinearResult, OtherResult, TransferResult
from pretrain.config import fingerprint

LINEAR = {"lbfgs": "Linear, L-BFGS", "sgd": "Linear, SGD"}
# What is fine-tuned and what it is compared with, in the order of the usual table.
NAMES = ("random", "supervised", "linear", "fine-tuned")
NOTE = (
    "Top-1 in percent, mean of up to {}; ± half of the 95 % t-interval, from the deviation between seeds pooled over "
    "the column; left out where no row of it has two seeds. In brackets: seeds, where some are missing; in round "
    "ones: the mark of settings that the study did not ask for. A dash: not run."
)

Column = tuple[int, str, float, str]  # what columns are sorted by: rank, kind, order, settings


@dataclass(frozen=True)
class Value:
    """One number of one evaluation of one run: ``row`` and ``column`` say where, ``label`` names the column."""

    row: tuple[str, ...]
    run: str
    column: Column
    label: str
    value: float | None
    asked: bool  # by the study; not somebody's later, or of settings that the study had before


def sections(data: ReportData) -> Iterator[Section]:
    """The tables, where there is something to set side by side."""
    values = [value for found in data.evaluations for value in _values(found, found.result.fingerprint in data.asked)]
    tables = []
    if len({value.column for value in values}) > 1:
        tables.append(_table("", ("Setting",), values))
    by_labels = [value for found in data.evaluations for value in _by_labels(found)]
    if by_labels:
        settings = list(dict.fromkeys(value.row[0] for value in by_labels))
        order = {name: index for index, name in enumerate(NAMES)}
        by_labels.sort(key=lambda value: (settings.index(value.row[0]), order.get(value.row[1], 9)))
        title = "Random, supervised, linear, fine-tuned, by the share of labels"
        tables.append(_table(title, ("Setting", "Method"), by_labels))
    tables += _distillation(data)
    if tables:
        seeds = len({found.row.seed for found in data.evaluations})
        note = NOTE.format(many(seeds, "seed"))
        yield Section("protocols", "Every evaluation side by side", remark=note, tables=tuple(tables))


def _table(title: str, headers: tuple[str, ...], values: Sequence[Value]) -> Table:
    columns = _columns(values)
    rows = list(dict.fromkeys(value.row for value in values))
    of_column = grouped(values, lambda value: value.column)
    by_column = [_column(of_column[column], rows) for column, _ in columns]
    cells = [(*map(cell, row), *(column[index] for column in by_column)) for index, row in enumerate(rows)]
    return Table(title, (*headers, *(label for _, label in columns)), tuple(cells))


def _columns(values: Sequence[Value]) -> list[tuple[Column, str]]:
    """Columns in order, with labels that tell apart the same protocol with other settings."""
    labels = {value.column: value.label for value in values}
    asked = {value.column for value in values if value.asked}
    texts = list(labels.values())
    ordered = sorted(labels, key=lambda column: (*column[:3], column not in asked, column[3]))
    marked = {column for column in labels if texts.count(labels[column]) > 1 and column not in asked}
    several = {labels[column] for column in asked if [labels[other] for other in asked].count(labels[column]) > 1}
    return [
        (
            column,
            f"{labels[column]} ({column[-1][:4]})" if column in marked or labels[column] in several else labels[column],
        )
        for column in ordered
    ]


def _column(values: Sequence[Value], rows: Sequence[tuple[str, ...]]) -> list[Cell]:
    groups: dict[tuple[str, ...], dict[str, float | None]] = {row: {} for row in rows}
    for value in values:
        groups[value.row].setdefault(value.run, value.value)
    known = {row: [value for value in group.values() if value is not None] for row, group in groups.items()}
    deviation, freedom = pooled_deviation(list(known.values()))
    most = max(len(group) for group in groups.values())
    cells = []
    for row in rows:
        mean = mean_of(known[row], deviation, freedom)
        if mean is None:
            cells.append(Cell("not a number" if groups[row] else DASH))
            continue
        text = plain(mean.value) + ("" if mean.half_width is None else f" ± {mean.half_width:.2f}")
        cells.append(Cell(text + (f" [{len(known[row])}]" if len(known[row]) < most else ""), mean.value))
    return cells


def _values(found: Evaluation, asked: bool) -> Iterator[Value]:
    """Accuracies that are one number for a run."""
    run, result = found.row, found.result
    settings = result.settings
    alike = fingerprint({"neighbours": settings.get("neighbours"), "images": settings.get("train_images")})

    def value(rank: int, kind: str, order: float, label: str, number: float | None, mark: str = "") -> Value:
        column = (rank, kind, order, mark or result.fingerprint)
        return Value((run.label,), run.record.point.fingerprint, column, label, number, asked)

    if result.initialisation == "random":
        if isinstance(result, LinearResult):
            yield value(0, "random", 0, "Random encoder, linear", result.top1)
        return
    if isinstance(result, LinearResult):
        kind = result.protocol
        yield value(1, f"linear {kind}", 0, LINEAR.get(kind, f"Linear, {kind}"), result.top1)
    if isinstance(result, LinearResult | KnnResult) and "knn_top1" in result.model_fields_set:
        yield value(3, "knn", 0, "kNN", result.knn_top1, alike)  # the same neighbours, whoever counted them
        yield value(3, "knn", 1, "kNN, plain vote", result.knn_plain_top1, alike)
    if isinstance(result, TransferResult):
        for order, row in enumerate(result.rows):
            yield value(4, "transfer", order, f"Transfer to {named(row.name)}", row.top1)
    if isinstance(result, OtherResult) and result.top1 is not None:
        yield value(5, result.task, 0, result.task.rpartition(":")[2], result.top1)


def _by_labels(found: Evaluation) -> Iterator[Value]:
    """Accuracies of one run by the share of labels that was used."""
    run, result = found.row, found.result
    for row in result.rows if isinstance(result, FinetuneResult) else ():
        share = row.label_fraction or 0.0
        label = f"{percent(100 * share, 0 if share >= 0.01 else 1)} of labels"
        column = (0, "labels", share, result.fingerprint)
        yield Value((run.label, row.name), run.record.point.fingerprint, column, label, row.top1, True)


def _distillation(data: ReportData) -> Iterator[Table]:
    rows = []
    for found in data.evaluations:
        run, result = found.row, found.result
        if not isinstance(result, DistillResult):
            continue
        student, alone = result.student, result.labels_only
        what = f"{named(student.architecture or '?')} × {student.width or 1:g}"
        numbers = [student.top1, result.teacher.top1, alone.top1 if alone else None, result.agreement]
        rows.append((cell(run.label), cell(str(run.seed)), cell(what), *(Cell(plain(n), n) for n in numbers)))
    headers = ("Setting", "Seed", "Student", "Student %", "Teacher %", "Same student, labels only %", "Agreement %")
    note = "Agreement: test images on which student and teacher say the same."
    if rows:
        yield Table("Distillation", headers, tuple(rows), note=note)
