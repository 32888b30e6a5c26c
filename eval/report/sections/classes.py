"""Accuracy by class, and which class is taken for which: of the linear evaluations that a study asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.report.evaluations import Found
from eval.report.format import DASH, count, many, percent, plain
from eval.report.records import PointRecord, StudyRecord
from eval.report.sections.base import Cell, Section, Table, cell
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


def classes_section(studies: Sequence[StudyRecord], found: Found) -> Section | None:
    """None where no evaluation tells its classes apart."""
    settings = _classified(studies, found)
    if not settings:
        return None
    tables: list[Table] = []
    findings, left_out = [], 0
    for names in dict.fromkeys(s.names for s in settings):
        same = [s for s in settings if s.names == names]
        few, drawn = len(names) <= MOST_CLASSES_IN_A_ROW, _drawn(same)
        tables.append(_by_class(same, names) if few else _extremes(same, names))
        tables += [_matrix(s) if few else _pairs(s) for s in drawn]
        findings += [_hardest(same, names)]
        left_out += sum(s.confusion is not None for s in same) - len(drawn)
    others = f"The matrices of {many(left_out, 'more setting')} are in their evaluations' result.json."
    return Section(
        anchor="classes",
        title="Classes",
        findings=tuple(text for text in findings if text),
        tables=tuple(tables),
        notes=(others,) if left_out else (),
    )


def _classified(studies: Sequence[StudyRecord], found: Found) -> list[Classified]:
    kinds: dict[tuple[str, tuple[str, ...]], list[tuple[PointRecord, LinearResult]]] = {}
    probes = {probe.fingerprint for study in studies for probe in study.manifest.probes}
    seen: set[int] = set()
    for setting, record, result in found:
        if not isinstance(result, LinearResult) or result.fingerprint not in probes or not result.per_class:
            continue
        if record.top1 is None or id(record) in seen:
            continue
        seen.add(id(record))
        kinds.setdefault((setting, _names(result, len(result.per_class))), []).append((record, result))
    baselines = {name for study in studies for baseline in study.manifest.baselines for name in baseline.points}
    return [_one(setting, names, members, baselines) for (setting, names), members in kinds.items()]


def _one(
    setting: str, names: tuple[str, ...], members: list[tuple[PointRecord, LinearResult]], baselines: set[str]
) -> Classified:
    columns = zip(*(result.per_class or () for _, result in members))
    means = []
    for column in columns:
        values = [value for value in column if value is not None]
        means.append(sum(values) / len(values) if values else None)
    tops = [record.top1 for record, _ in members if record.top1 is not None]
    return Classified(
        setting=setting,
        baseline=all(record.name in baselines for record, _ in members),
        names=names,
        seeds=len(members),
        top1=sum(tops) / len(tops),
        per_class=tuple(means),
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


def _names(result: LinearResult, classes: int) -> tuple[str, ...]:
    names = result.data.class_names
    if names is not None and len(names) == classes:
        return names
    return tuple(f"class {label}" for label in range(classes))


def _hardest(settings: Sequence[Classified], names: tuple[str, ...]) -> str:
    """The class that trained encoders tell apart worst, in the mean over the settings."""
    trained = [s for s in settings if not s.baseline]
    means = []
    for label in range(len(names)):
        values = [value for s in trained if (value := s.per_class[label]) is not None]
        means.append((sum(values) / len(values), label) if values else (101.0, label))
    if not trained or min(means)[0] > 100:
        return ""
    mean, label = min(means)
    over = "" if len(trained) == 1 else f", in the mean of {many(len(trained), 'setting')}"
    sentence = f"Told apart worst: {names[label]}, {percent(mean, 1)} of whose images are recognised{over}"
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
