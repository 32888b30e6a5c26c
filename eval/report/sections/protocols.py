"""One table of all protocols: random, supervised, linear, fine-tuned, neighbours, transfer; and of distillation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eval.report.format import DASH, count, named, percent, plain
from eval.report.records import grouped
from eval.report.sections.base import Cell, Column, Section, Table, cell, num, tabulate
from eval.report.statistics import Fit
from eval.report.table import Evaluation, ReportData, Row
from eval.schema import DistillResult, FinetuneResult, KnnResult, LinearResult, OtherResult, TransferResult
from pretrain.config import fingerprint
from pretrain.format import plural

LINEAR = {"lbfgs": "Linear, L-BFGS", "sgd": "Linear, SGD"}
# What is fine-tuned and what it is compared with, in the order of the usual table.
NAMES = ("random", "supervised", "linear", "fine-tuned")
NOTE = (
    "Top-1 in percent, mean of up to {}; ± half of the 95 % t-interval, from the deviation between seeds pooled over "
    "the column, a baseline's from its own; left out where there are no two seeds. In brackets: seeds, where some are "
    "missing; in round ones: the mark of settings that the study did not ask for. A dash: not run."
)

Protocol = tuple[int, str, float, str]  # what columns are sorted by: rank, kind, order, settings


class Value(NamedTuple):
    """One number of one evaluation of one run: ``line`` and ``column`` say where, ``label`` names the column."""

    run: Row
    line: tuple[str, ...]
    column: Protocol
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
        settings = list(dict.fromkeys(value.line[0] for value in by_labels))
        order = {name: index for index, name in enumerate(NAMES)}
        by_labels.sort(key=lambda value: (settings.index(value.line[0]), order.get(value.line[1], 9)))
        title = "Random, supervised, linear, fine-tuned, by the share of labels"
        tables.append(_table(title, ("Setting", "Method"), by_labels))
    tables += _distillation(data)
    if tables:
        seeds = len({found.row.seed for found in data.evaluations})
        note = NOTE.format(plural(seeds, "seed"))
        yield Section("protocols", "Every evaluation side by side", remark=note, tables=tuple(tables))


def _table(title: str, headers: tuple[str, ...], values: Sequence[Value]) -> Table:
    lines = list(dict.fromkeys(value.line for value in values))
    of_column = grouped(values, lambda value: value.column)
    labels = _labels(values)
    by_column = [_column(of_column[column], lines) for column in labels]
    cells = [(*map(cell, line), *(column[index] for column in by_column)) for index, line in enumerate(lines)]
    return Table(title, (*headers, *labels.values()), tuple(cells))


def _labels(values: Sequence[Value]) -> dict[Protocol, str]:
    """Columns in order, with labels that tell apart the same protocol with other settings."""
    labels = {value.column: value.label for value in values}
    asked = {value.column for value in values if value.asked}

    def label(column: Protocol) -> str:
        alike = [other for other in labels if labels[other] == labels[column]]
        several = len(alike) > 1 and (column not in asked or len(asked.intersection(alike)) > 1)
        return f"{labels[column]} ({column[-1][:4]})" if several else labels[column]

    return {c: label(c) for c in sorted(labels, key=lambda column: (*column[:3], column not in asked, column[3]))}


def _column(values: Sequence[Value], lines: Sequence[tuple[str, ...]]) -> list[Cell]:
    groups: dict[tuple[str, ...], dict[int, float | None]] = {line: {} for line in lines}
    for value in values:
        groups[value.line].setdefault(value.run.seed, value.value)
    known = {line: {s: v for s, v in group.items() if v is not None} for line, group in groups.items()}
    baselines = {value.line for value in values if value.run.baseline}
    together = Fit({line: group for line, group in known.items() if line not in baselines})
    most = max(len(group) for group in groups.values())
    cells = []
    for line, group in known.items():
        fit = Fit({line: group}) if line in baselines else together
        mean = fit.mean(line)
        if mean is None:
            cells.append(Cell("without accuracy" if groups[line] else DASH))
            continue
        text = plain(mean.value) + ("" if mean.half_width is None else f" ± {mean.half_width:.2f}")
        cells.append(Cell(text + (f" [{len(group)}]" if len(group) < most else ""), mean.value))
    return cells


def _values(found: Evaluation, asked: bool) -> Iterator[Value]:
    """Accuracies that are one number for a run."""
    run, result = found
    settings = result.settings
    alike = fingerprint({"neighbours": settings.get("neighbours"), "images": settings.get("train_images")})

    def value(rank: int, kind: str, order: float, label: str, number: float | None, mark: str = "") -> Value:
        return Value(run, (run.label,), (rank, kind, order, mark or result.fingerprint), label, number, asked)

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
    run, result = found
    for row in result.rows if isinstance(result, FinetuneResult) else ():
        share = row.label_fraction or 0.0
        label = f"{percent(100 * share, 0 if share >= 0.01 else 1)} of labels"
        yield Value(run, (run.label, row.name), (0, "labels", share, result.fingerprint), label, row.top1, True)


def _distillation(data: ReportData) -> Iterator[Table]:
    found = [(row, result) for row, result in data.evaluations if isinstance(result, DistillResult)]
    columns: dict[str, Column[tuple[Row, DistillResult]]] = {
        "Setting": lambda pair: cell(pair[0].label),
        "Seed": lambda pair: num(pair[0].seed, count),
        "Student": lambda pair: cell(f"{named(pair[1].student.architecture or '?')} × {pair[1].student.width or 1:g}"),
        "Student %": lambda pair: num(pair[1].student.top1),
        "Teacher %": lambda pair: num(pair[1].teacher.top1),
        "Same student, labels only %": lambda pair: num(pair[1].labels_only.top1 if pair[1].labels_only else None),
        "Agreement %": lambda pair: num(pair[1].agreement),
    }
    if found:
        yield tabulate("Distillation", found, columns, note="Agreement: test images on which both say the same.")
