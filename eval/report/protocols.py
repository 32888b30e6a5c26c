"""One table of all protocols: random, supervised, linear, fine-tuned, neighbours, transfer; and of distillation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.analysis import mean_of, pooled_deviation
from eval.report.collect import PointRecord, number
from eval.report.evaluations import Found, rows_of
from eval.report.names import named
from eval.report.sections import Cell, Section, Table, cell
from eval.report.text import DASH, many, percent, plain

LINEAR = {"lbfgs": "Linear, L-BFGS", "sgd": "Linear, SGD"}


@dataclass(frozen=True)
class Value:
    """One number of one evaluation of one run. ``column`` sorts the table's columns, ``label`` names them."""

    setting: str
    record: PointRecord
    column: tuple[int, str, float, str]
    label: str
    value: float | None


def protocols_section(found: Found) -> Section | None:
    """The table; None where there is nothing to set side by side."""
    values = [value for setting, record, result in found for value in _values(setting, record, result)]
    columns = _columns(values)
    usual = {column for column, _ in columns if column[0] >= 2}
    if len(columns) < 2:
        return None
    settings = list(dict.fromkeys(value.setting for value in values))
    by_column = {column: _column(values, column, settings) for column, _ in columns}
    rows = [
        (cell(setting), *(by_column[column][index] for column, _ in columns)) for index, setting in enumerate(settings)
    ]
    seeds = len({value.record.point.seed for value in values})
    note = (
        f"Top-1 in percent, mean of up to {many(seeds, 'seed')}; ± half of the 95 % t-interval, from the deviation "
        "between seeds pooled over the column; none where no setting of the column has two seeds. In brackets: seeds, "
        "where some are missing. A dash is an evaluation that was not run."
    )
    tables = [Table("", ("Setting", *(label for _, label in columns)), tuple(rows), note=note)]
    distilled = _distillation(found)
    return Section(
        anchor="protocols",
        title="Every evaluation side by side" if not usual else "Random, supervised, linear, fine-tuned and transfer",
        tables=tuple(tables + ([distilled] if distilled else [])),
    )


def _columns(values: Sequence[Value]) -> list[tuple[tuple[int, str, float, str], str]]:
    """Columns in order, with labels that tell apart the same protocol with other settings."""
    labels = dict(sorted({value.column: value.label for value in values}.items()))
    texts = list(labels.values())
    return [(c, text if texts.count(text) == 1 else f"{text} ({c[-1][:4]})") for c, text in labels.items()]


def _column(values: Sequence[Value], column: tuple[int, str, float, str], settings: Sequence[str]) -> list[Cell]:
    groups = {setting: [v for v in values if v.column == column and v.setting == setting] for setting in settings}
    known = {setting: [v.value for v in members if v.value is not None] for setting, members in groups.items()}
    deviation, freedom = pooled_deviation(list(known.values()))
    cells = []
    for setting in settings:
        mean = mean_of(known[setting], deviation, freedom)
        if mean is None:
            cells.append(Cell("not a number" if groups[setting] else DASH))
            continue
        text = plain(mean.value) + ("" if mean.half_width is None else f" ± {mean.half_width:.2f}")
        most = max(len(members) for members in known.values())
        few = f" [{len(known[setting])}]" if len(known[setting]) < most else ""
        cells.append(Cell(text + few, mean.value))
    return cells


def _values(setting: str, record: PointRecord, result: dict[str, Any]) -> Iterable[Value]:
    """Every accuracy that a result holds."""
    fingerprint = str(result.get("fingerprint", ""))
    drawn_anew = (result.get("settings") or {}).get("initialisation") == "random"

    def value(rank: int, kind: str, order: float, label: str, found: Any) -> Value:
        return Value(setting, record, (rank, kind, order, fingerprint), label, number(found))

    match result.get("task"):
        case "linear":
            protocol = str(result.get("protocol") or "lbfgs")
            name = LINEAR.get(protocol, f"Linear, {protocol}")
            if drawn_anew:
                yield value(0, "random", 0, "Random encoder, linear", result.get("top1"))
                return
            yield value(1, f"linear {protocol}", 0, name, result.get("top1"))
            if "knn_top1" in result:
                yield value(3, "knn", 0, "kNN", result["knn_top1"])
                yield value(3, "knn", 1, "kNN, plain vote", result.get("knn_plain_top1"))
        case "knn" if not drawn_anew:
            yield value(3, "knn", 0, "kNN", result.get("knn_top1"))
            yield value(3, "knn", 1, "kNN, plain vote", result.get("knn_plain_top1"))
        case "finetune":
            for row in rows_of(result):
                fraction = number(row.get("label_fraction")) or 0.0
                name = str(row.get("name", "?"))
                rank = {"random": 0, "supervised": 2}.get(name, 2)
                label = f"{name.capitalize()}, {percent(100 * fraction, 0 if fraction >= 0.01 else 1)} of labels"
                yield value(rank, f"finetune {name}", fraction, label, row.get("top1"))
        case "transfer":
            for order, row in enumerate(rows_of(result)):
                yield value(4, "transfer", order, f"Transfer to {named(str(row.get('name', '?')))}", row.get("top1"))


def _distillation(found: Found) -> Table | None:
    rows = []
    for setting, record, result in found:
        if result.get("task") != "distill":
            continue
        parts = [result.get(key) or {} for key in ("student", "teacher", "labels_only")]
        student = parts[0]
        what = f"{named(str(student.get('architecture', '?')))} × {student.get('width', 1)}"
        tops = [number(part.get("top1")) for part in parts]
        numbers = [*tops, number(result.get("agreement"))]
        rows.append((cell(setting), cell(str(record.point.seed)), cell(what), *(Cell(plain(n), n) for n in numbers)))
    headers = ("Setting", "Seed", "Student", "Student %", "Teacher %", "Same student, labels only %", "Agreement %")
    note = "Agreement: test images on which student and teacher say the same."
    return Table("Distillation", headers, tuple(rows), note=note) if rows else None
