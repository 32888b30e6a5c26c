"""Accuracy by class, and which class is taken for which: of the linear evaluations that a study asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.report.format import DASH, count, many, percent, plain
from eval.report.sections.base import Cell, Section, Table, cell
from eval.report.table import ReportData, Row, grouped, mean
from eval.schema import LinearResult

MOST_CLASSES_IN_A_ROW = 20
MOST_MATRICES = 8
MOST_PAIRS = 15
EXTREMES = 5

Matrix = list[list[int]]


@dataclass(frozen=True)
class Classified:
    """A setting's seeds. per_class: mean over seeds in percent; confusion[class][guess]: images, all seeds together."""

    setting: str
    baseline: bool
    names: tuple[str, ...]
    seeds: int
    top1: float
    per_class: tuple[float | None, ...]
    confusion: Matrix | None

    def taken_for(self) -> list[tuple[float, int, int]]:
        """(share of the class's images in percent, class, other class), the largest first."""
        pairs = []
        for label, row in enumerate(self.confusion or []):
            total = sum(row)
            pairs += [(100 * n / total, label, guess) for guess, n in enumerate(row) if guess != label and n]
        return sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))


def sections(data: ReportData) -> Iterator[Section]:
    """One section, where an evaluation tells its classes apart."""
    tables: list[Table] = []
    findings, left_out = [], 0
    for names, same in grouped(_classified(data), lambda classified: classified.names).items():
        few, drawn = len(names) <= MOST_CLASSES_IN_A_ROW, _drawn(same)
        tables.append(_by_class(same, names) if few else _extremes(same, names))
        tables += [_matrix(s) if few else _pairs(s) for s in drawn]
        findings.append(_hardest(same, names))
        left_out += sum(s.confusion is not None for s in same) - len(drawn)
    others = f"The matrices of {many(left_out, 'more setting')} are in their evaluations' result.json."
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
    first: dict[str, tuple[Row, LinearResult]] = {}
    for found in data.of_trained_encoders:
        row, result = found.row, found.result
        asked = isinstance(result, LinearResult) and result.fingerprint in data.asked
        if asked and isinstance(result, LinearResult) and result.per_class and row.record.top1 is not None:
            first.setdefault(f"{row.study.label}/{row.record.name}", (row, result))
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
        confusion=_sum([result.confusion for _, result in members], len(names)),
    )


def _sum(matrices: Sequence[Sequence[Sequence[int]] | None], classes: int) -> Matrix | None:
    """All seeds together; None where one of them has no such table."""
    total = [[0] * classes for _ in range(classes)]
    for matrix in matrices:
        if matrix is None or len(matrix) != classes or any(len(row) != classes for row in matrix):
            return None
        for label, row in enumerate(matrix):
            total[label] = [before + value for before, value in zip(total[label], row)]
    return total


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
    over = "" if len(trained) == 1 else f", in the mean of {many(len(trained), 'setting')}"
    sentence = f"Told apart worst: {names[label]}, {percent(worst, 1)} of whose images are recognised{over}"
    confusion = _sum([s.confusion for s in trained], len(names))
    row = confusion[label] if confusion is not None else []
    others = [(n, guess) for guess, n in enumerate(row) if guess != label]
    if not others or not max(others)[0]:
        return f"{sentence}."
    images, guess = max(others)
    return f"{sentence}; most often taken for {names[guess]} ({percent(100 * images / sum(row), 1)})."


def _drawn(settings: Sequence[Classified]) -> list[Classified]:
    """Whose confusions are shown: the best settings and the baselines."""
    known = [s for s in settings if s.confusion is not None]
    baselines = [s for s in known if s.baseline]
    best = sorted((s for s in known if not s.baseline), key=lambda s: -s.top1)
    return [*best[: max(1, MOST_MATRICES - len(baselines))], *baselines][:MOST_MATRICES]


def _by_class(settings: Sequence[Classified], names: tuple[str, ...]) -> Table:
    rows = [(cell(s.setting), *(Cell(plain(v, 1), v, _shade(v)) for v in s.per_class)) for s in settings]
    note = "Share of each class's test images that is recognised, in percent; mean over seeds."
    return Table("Accuracy by class", ("Setting", *names), tuple(rows), note=note)


def _extremes(settings: Sequence[Classified], names: tuple[str, ...]) -> Table:
    rows = []
    for s in settings:
        ordered = sorted((value, name) for value, name in zip(s.per_class, names) if value is not None)
        low, high = ordered[:EXTREMES], ordered[: -EXTREMES - 1 : -1]
        texts = (", ".join(f"{name} {value:.0f}" for value, name in part) or DASH for part in (low, high))
        rows.append((cell(s.setting), *(Cell(text) for text in texts)))
    note = "Share of each class's test images that is recognised, in percent; mean over seeds."
    return Table("Accuracy by class", ("Setting", "Lowest", "Highest"), tuple(rows), note=note)


def _matrix(classified: Classified) -> Table:
    assert classified.confusion is not None, "only known confusions are drawn"
    rows = []
    for name, counts in zip(classified.names, classified.confusion):
        total = sum(counts)
        shares = [100 * n / total if total else None for n in counts]
        rows.append((cell(name), *(Cell(plain(value, 1), value, _shade(value)) for value in shares)))
    together = f"; {many(classified.seeds, 'seed')} together" if classified.seeds > 1 else ""
    note = f"In percent of the images of the row's class{together}."
    title = f"Confusion matrix: {classified.setting}"
    return Table(title, ("Class, taken for", *classified.names), tuple(rows), folded=True, note=note)


def _pairs(classified: Classified) -> Table:
    assert classified.confusion is not None, "only known confusions are drawn"
    rows = [
        (
            cell(classified.names[label]),
            cell(classified.names[guess]),
            Cell(percent(share, 1), share),
            Cell(count(images := classified.confusion[label][guess]), images),
        )
        for share, label, guess in classified.taken_for()[:MOST_PAIRS]
    ]
    title = f"Most frequent confusions: {classified.setting}"
    return Table(title, ("Class", "Taken for", "Share of the class", "Images"), tuple(rows), folded=True)


def _shade(value: float | None) -> float | None:
    return None if value is None else value / 100
