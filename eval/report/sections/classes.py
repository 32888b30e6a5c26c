"""Accuracy by class, and which class is predicted as which: of the linear evaluations that a study asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.report.format import DASH, count, percent, plain
from eval.report.records import grouped, mean
from eval.report.sections.base import Cell, Section, Table, cell, num, tabulate
from eval.report.table import ReportData, Row
from eval.schema import LinearResult
from pretrain.format import plural

MOST_CLASSES_IN_A_ROW = 20
MOST_MATRICES = 8
MOST_PAIRS = 15
EXTREMES = 5
NOTE = "Share of each class's test images that is recognised, in percent; mean over seeds."

Matrix = NDArray[np.int64]  # [class][guess]: images


@dataclass(frozen=True)
class Classified:
    """A setting's seeds. per_class: mean over seeds in percent; confusion: all seeds together, where all have one."""

    setting: str
    baseline: bool
    names: tuple[str, ...]
    seeds: int
    top1: float
    per_class: tuple[float | None, ...]
    confusion: Matrix | None


def sections(data: ReportData) -> Iterator[Section]:
    """One section, where an evaluation tells its classes apart."""
    tables: list[Table] = []
    findings, left_out = [], 0
    for names, same in grouped(_classified(data), lambda classified: classified.names).items():
        few, drawn = len(names) <= MOST_CLASSES_IN_A_ROW, _drawn(same)
        tables.append(_by_class(same, names) if few else _extremes(same, names))
        tables += [(_matrix if few else _pairs)(s, confusion) for s, confusion in drawn]
        findings.append(_hardest(same, names))
        left_out += sum(s.confusion is not None for s in same) - len(drawn)
    others = f"The matrices of {plural(left_out, 'more setting')} are in their evaluations' result.json."
    if tables:
        yield Section(
            anchor="classes",
            title="Classes",
            findings=tuple(text for text in findings if text),
            tables=tuple(tables),
            notes=(others,) if left_out else (),
        )


def _classified(data: ReportData) -> list[Classified]:
    """The first such evaluation of each run, by setting and names of the classes."""
    first: dict[tuple[str, str], tuple[Row, LinearResult]] = {}
    for row, result in data.of_trained_encoders:
        known = isinstance(result, LinearResult) and result.per_class and row.record.top1 is not None
        if known and isinstance(result, LinearResult) and result.fingerprint in data.asked:
            first.setdefault((row.study.label, row.record.name), (row, result))
    kinds = grouped(first.values(), lambda pair: (pair[0].label, _names(pair[1])))
    return [_one(setting, names, members) for (setting, names), members in kinds.items()]


def _one(setting: str, names: tuple[str, ...], members: list[tuple[Row, LinearResult]]) -> Classified:
    return Classified(
        setting=setting,
        baseline=all(row.baseline for row, _ in members),
        names=names,
        seeds=len(members),
        top1=mean(row.record.top1 for row, _ in members) or 0.0,
        per_class=tuple(mean(column) for column in zip(*(result.per_class or () for _, result in members))),
        confusion=_sum([_square(result, len(names)) for _, result in members]),
    )


def _square(result: LinearResult, classes: int) -> Matrix | None:
    """The confusions of one run; None where they are missing or damaged."""
    rows = result.confusion or ()
    return np.array(rows) if len(rows) == classes and all(len(row) == classes for row in rows) else None


def _sum(matrices: Sequence[Matrix | None]) -> Matrix | None:
    """All together; None where one of them is missing."""
    known = [matrix for matrix in matrices if matrix is not None]
    return np.sum(known, axis=0) if known and len(known) == len(matrices) else None


def _names(result: LinearResult) -> tuple[str, ...]:
    names, classes = result.data.class_names, len(result.per_class or ())
    return names if names and len(names) == classes else tuple(f"class {label}" for label in range(classes))


def _hardest(settings: Sequence[Classified], names: tuple[str, ...]) -> str:
    """The class that trained encoders tell apart worst, in the mean over the settings."""
    trained = [s for s in settings if not s.baseline]
    means = [(mean(s.per_class[label] for s in trained), label) for label in range(len(names))]
    known = [(value, label) for value, label in means if value is not None]
    if not known:
        return ""
    worst, label = min(known)
    over = "" if len(trained) == 1 else f", in the mean of {plural(len(trained), 'setting')}"
    sentence = f"Hardest class: {names[label]}, {percent(worst, 1)} correct{over}"
    confusion = _sum([s.confusion for s in trained])
    others = np.zeros(1) if confusion is None else np.delete(confusion[label], label)
    if confusion is None or not others.any():
        return f"{sentence}."
    guess = max((n, other) for other, n in enumerate(confusion[label]) if other != label)[1]
    share = 100 * confusion[label, guess] / confusion[label].sum()
    return f"{sentence}; most often predicted as {names[guess]} ({percent(share, 1)})."


def _drawn(settings: Sequence[Classified]) -> list[tuple[Classified, Matrix]]:
    """Whose confusions are shown: the best settings and the baselines."""
    known = [(s, s.confusion) for s in settings if s.confusion is not None]
    baselines = [pair for pair in known if pair[0].baseline]
    best = sorted((pair for pair in known if not pair[0].baseline), key=lambda pair: -pair[0].top1)
    return [*best[: max(1, MOST_MATRICES - len(baselines))], *baselines][:MOST_MATRICES]


def _by_class(settings: Sequence[Classified], names: tuple[str, ...]) -> Table:
    rows = [(cell(s.setting), *map(_shaded, s.per_class)) for s in settings]
    return Table("Accuracy by class", ("Setting", *names), tuple(rows), note=NOTE)


def _extremes(settings: Sequence[Classified], names: tuple[str, ...]) -> Table:
    def part(s: Classified, lowest: bool) -> Cell:
        known = [(value, name) for value, name in zip(s.per_class, names) if value is not None]
        ordered = sorted(known, reverse=not lowest)[:EXTREMES]
        return Cell(", ".join(f"{name} {value:.0f}" for value, name in ordered) or DASH)

    columns = {"Setting": lambda s: cell(s.setting), "Lowest": lambda s: part(s, True)}
    return tabulate("Accuracy by class", settings, columns | {"Highest": lambda s: part(s, False)}, note=NOTE)


def _matrix(classified: Classified, confusion: Matrix) -> Table:
    rows = []
    for name, counts in zip(classified.names, confusion):
        total = int(counts.sum())
        rows.append((cell(name), *(_shaded(100 * int(n) / total if total else None) for n in counts)))
    together = f"; {plural(classified.seeds, 'seed')} together" if classified.seeds > 1 else ""
    note = f"In percent of the images of the row's class{together}."
    title = f"Confusion matrix: {classified.setting}"
    return Table(title, ("True \\ predicted", *classified.names), tuple(rows), folded=True, note=note)


def _pairs(classified: Classified, confusion: Matrix) -> Table:
    """The most frequent confusions alone."""
    totals, names = confusion.sum(1), classified.names
    pairs = [(100 * n / totals[true], true, guess) for (true, guess), n in np.ndenumerate(confusion) if n]
    mistaken = sorted((pair for pair in pairs if pair[1] != pair[2]), key=lambda pair: (-pair[0], *pair[1:]))
    rows = tuple(
        (cell(names[i]), cell(names[j]), num(share, lambda v: percent(v, 1)), num(int(confusion[i, j]), count))
        for share, i, j in mistaken[:MOST_PAIRS]
    )
    headers = ("Class", "Predicted as", "Share of the class", "Images")
    return Table(f"Most frequent confusions: {classified.setting}", headers, rows, folded=True)


def _shaded(value: float | None) -> Cell:
    return Cell(plain(value, 1), value, None if value is None else value / 100)
