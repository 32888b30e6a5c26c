"""Several studies side by side: the same figures with a colour and a mark for each study. They are never pooled:
each study's means and intervals are its own, and a difference is between two of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.report import sentences
from eval.report.factors import NO_FACTOR
from eval.report.figures.model import Figure
from eval.report.format import (
    DASH,
    DATASETS,
    count,
    interval,
    listed,
    lower,
    many,
    named,
    percent,
    quantity,
    setting,
    signed,
    without_unit,
)
from eval.report.records import StudyRecord
from eval.report.sections.base import Cell, Section, Table, cell
from eval.report.sections.question_figure import Trace, accuracy_figure
from eval.report.statistics import Condition, Interval, QuestionAnalysis, student_t
from eval.report.table import ReportData, grouped

MOST_VALUES = 8  # of one setting in the table of differences


@dataclass(frozen=True)
class Member:
    """One study's part of a compared figure; ``colour`` is the study's everywhere."""

    study: StudyRecord
    colour: int
    analysis: QuestionAnalysis

    def at(self, line_text: str, x_text: str) -> Condition | None:
        """The study's condition at a place."""
        found = (c for c in self.analysis.conditions if (c.line_text, c.x_text) == (line_text, x_text))
        return next(found, None)


def compared_sections(data: ReportData) -> Iterator[Section]:
    """A section for each figure that any of the studies has, all studies in it that have it too."""
    for members in _matched(data):
        yield _section(members, data.studies)


def differences_table(studies: Sequence[StudyRecord]) -> Table | None:
    """Settings in which the studies differ, and what they have in place of them."""
    keys = dict.fromkeys(
        key for study in studies for r in study.points.values() for key in (*r.config, *r.point.settings)
    )
    rows = []
    for key in keys:
        if key.partition(".")[0] in NO_FACTOR:
            continue
        found = [_values(study, key) for study in studies]
        if len({tuple(texts) for texts in found}) > 1:
            shown = (", ".join(texts[:MOST_VALUES]) + (", …" if len(texts) > MOST_VALUES else "") for texts in found)
            rows.append((cell(quantity(key)), *(cell(text or DASH) for text in shown)))
    ranks = [", ".join(sorted({str(r.point.world_size) for r in study.points.values()})) for study in studies]
    if len(set(ranks)) > 1:
        rows.append((cell("Ranks (speed only)"), *(cell(text) for text in ranks)))
    if not rows:
        return None
    headers = ("Setting", *(study.label for study in studies))
    return Table("What differs between the studies", headers, tuple(rows), note="Without what belongs to baselines.")


def _values(study: StudyRecord, key: str) -> list[str]:
    baselines = {name for baseline in study.manifest.baselines for name in baseline.points}
    records = [record for record in study.points.values() if record.name not in baselines] or list(
        study.points.values()
    )
    values = {repr(value): value for value in (study.value(record, key) for record in records)}
    numbers = all(isinstance(value, int | float) for value in values.values())
    ordered = sorted(values.values()) if numbers else [values[text] for text in sorted(values)]
    return [named(setting(value)) for value in ordered]


def _matched(data: ReportData) -> list[list[Member]]:
    """Views of the same name over the same axis belong together; so do views left over that show the same things."""
    every = [
        Member(study, colour, analysis)
        for colour, study in enumerate(data.studies)
        for analysis in data.analyses[study.label]
    ]
    groups = grouped(every, _key)
    merged: dict[tuple[str, ...], list[Member]] = {}
    for key, members in groups.items():
        alike = (*key[:2], *_kinds(members[0].analysis))
        other = merged.get(alike, [])
        single = len(members) == 1 and members[0].study not in [member.study for member in other]
        if single and len(other) < len(data.studies) and all(len(groups[_key(member)]) == 1 for member in other):
            merged.setdefault(alike, []).extend(members)
        else:
            merged[key] = members
    return [sorted(members, key=lambda member: member.colour) for members in merged.values()]


def _key(member: Member) -> tuple[str, ...]:
    return member.study.metric, member.analysis.view.x_key, member.analysis.view.name


def _kinds(analysis: QuestionAnalysis) -> tuple[str, ...]:
    """What the lines and panels are: ``epochs``, ``LR rule``."""
    texts = (*analysis.view.curves, *analysis.view.panels)
    return tuple(sorted({part.partition(" = ")[0] for text in texts for part in text.split(", ") if part}))


def _section(members: Sequence[Member], studies: Sequence[StudyRecord]) -> Section:
    view = members[0].analysis.view
    metric = "Top-1" if members[0].study.metric == "top1" else "Nearest-neighbour top-1"
    findings = [f"{m.study.label}: {sentences.findings(m.analysis, metric)[0]}" for m in members]
    lines = list(dict.fromkeys(c.line_text for m in members for c in m.analysis.conditions))
    for member in members[1:]:
        findings += _difference_sentences(members[0], member, lines)
    absent = [study.label for study in studies if study.label not in {m.study.label for m in members}]
    remarks = [f"Not part of {listed(absent)}."] if absent else []
    data = {str(m.study.config.get("data", {}).get("dataset")) for m in members}
    if len(data) > 1:
        remarks.append(f"The data differ ({listed(sorted(DATASETS.get(d, d) for d in data))}): levels do not compare.")
    remarks += [f"{m.study.label}: {remark}" for m in members for remark in m.analysis.view.remarks]
    missing = [record for m in members for record in m.analysis.missing]
    total = sum(len(c.records) for m in members for c in m.analysis.conditions)
    if missing:
        findings.append(sentences.missing(tuple(missing), total=total))
    if len(members) == 1:
        findings.insert(1, f"Only {members[0].study.label} asks this.")
    basis = sentences.basis_of_several({m.study.label: m.analysis for m in members})
    return Section(
        anchor=f"question-{view.name}",
        title=view.title,
        findings=tuple(findings),
        remark=" ".join(remarks),
        figures=(_figure(members, lines),) if any(c.mean for m in members for c in m.analysis.conditions) else (),
        basis=basis,
        tables=(_table(members, lines),),
        headline=not view.derived,
    )


def _figure(members: Sequence[Member], lines: Sequence[str]) -> Figure:
    """A panel for each line, in it a series for each study."""
    view, studies = members[0].analysis.view, [member.study.label for member in members]
    traces = [
        Trace(text, m.study.label, tuple(c for c in m.analysis.conditions if c.line_text == text), m.colour, who=who)
        for text in lines
        for m, who in zip(members, studies)
        if any(c.line_text == text for c in m.analysis.conditions)
    ]
    description = f"{view.title}: {listed(studies)} side by side"
    return accuracy_figure(view, members[0].study.metric_label, description, traces, _places(members))


def _places(members: Sequence[Member]) -> tuple[str, ...]:
    """Names along an axis without numbers, of all studies; empty where it has numbers."""
    if not any(member.analysis.view.categories for member in members):
        return ()
    return tuple(dict.fromkeys(c.x_text for m in members for c in m.analysis.conditions))


def _shared(members: Sequence[Member], lines: Sequence[str]) -> list[tuple[str, str]]:
    """(line, place) of every condition of any study, in order."""
    numeric = not _places(members)
    found = {(c.line_text, c.x_text): c.x for m in members for c in m.analysis.conditions}
    rank = {text: index for index, text in enumerate(lines)}
    return sorted(found, key=lambda key: (rank[key[0]], found[key] if numeric else 0.0))


def _difference(first: Member, other: Member, line: str, x: str) -> Interval | None:
    """other - first at one place, from both studies' own deviations (Welch and Satterthwaite)."""
    a, b = first.at(line, x), other.at(line, x)
    if a is None or b is None or a.mean is None or b.mean is None:
        return None
    value = b.mean.value - a.mean.value
    s_a, s_b = first.analysis.pooled_deviation, other.analysis.pooled_deviation
    if s_a is None or s_b is None:
        return Interval(value, None)
    v_a, v_b = s_a**2 / len(a.measured), s_b**2 / len(b.measured)
    freedom = (v_a + v_b) ** 2 / (
        v_a**2 / first.analysis.degrees_of_freedom + v_b**2 / other.analysis.degrees_of_freedom
    )
    return Interval(value, student_t(freedom) * math.sqrt(v_a + v_b))


def _difference_sentences(first: Member, other: Member, lines: Sequence[str]) -> Iterator[str]:
    label = lower(without_unit(first.analysis.view.x_label))
    found = [(place, _difference(first, other, *place)) for place in _shared((first, other), lines)]
    known = [(place, difference) for place, difference in found if difference is not None]
    who = f"{other.study.label} against {first.study.label}"
    if not known:
        yield f"{who}: no place has been measured in both."
        return
    (line, x), largest = max(known, key=lambda pair: abs(pair[1].value))
    at = ", ".join(part for part in (line, f"{label} = {x}") if part)
    text = f"{who}: {many(len(known), 'place')} in common, the largest gap {signed(largest.value)} points at {at}"
    if largest.low is None or largest.high is None:
        yield f"{text}, without an interval."
    else:
        sure = ", not distinguishable from 0" if largest.contains_zero else ""
        yield f"{text}{sure} (95 % interval {signed(largest.low)} to {signed(largest.high)}, of this place alone)."
    twins = {r.point.fingerprint for r in first.study.points.values()} & {
        r.point.fingerprint for r in other.study.points.values()
    }
    if twins:
        yield f"{who}: {many(len(twins), 'run')} of both studies are the same configuration and seed, not independent."


def _table(members: Sequence[Member], lines: Sequence[str]) -> Table:
    view, first = members[0].analysis.view, members[0]
    several = len(lines) > 1
    headers = [*(("Line",) if several else ()), view.x_label, *(m.study.label for m in members)]
    headers += [f"{m.study.label} − {first.study.label}" for m in members[1:]]
    rows = []
    for line, x in _shared(members, lines):
        condition = next(c for m in members if (c := m.at(line, x)) is not None)
        cells = [cell(line)] if several else []
        cells.append(Cell(x, condition.x if not view.categories else x))
        cells += [_mean_cell(m.at(line, x)) for m in members]
        for member in members[1:]:
            difference = _difference(first, member, line, x)
            text = DASH if difference is None else signed(difference.value)
            if difference is not None and difference.low is not None and difference.high is not None:
                text += f" ({signed(difference.low)} to {signed(difference.high)})"
            cells.append(Cell(text, None if difference is None else difference.value))
        rows.append(tuple(cells))
    return Table("Numbers", tuple(headers), tuple(rows), folded=True, note="Mean, 95 % interval, number of seeds.")


def _mean_cell(condition: Condition | None) -> Cell:
    if condition is None:
        return Cell(DASH)
    if condition.mean is None:
        return Cell(", ".join(sorted({record.status for record in condition.records})))
    mean = condition.mean
    within = "" if mean.low is None else f" ({interval(mean.low, mean.high)})"
    return Cell(f"{percent(mean.value)}{within}, {count(len(condition.measured))}", mean.value)
