"""Several studies side by side: the same figures with a colour and a mark for each study. They are never pooled:
each study's means and intervals are its own, and a difference is between the same seeds of two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from eval.report import sentences
from eval.report.factors import NO_FACTOR
from eval.report.figures.model import Figure
from eval.report.format import (
    DASH,
    DATASETS,
    interval,
    listed,
    lower,
    named,
    quantity,
    setting,
    signed,
    without_unit,
)
from eval.report.records import StudyRecord, grouped
from eval.report.sections.base import Cell, Section, Table, cell
from eval.report.sections.question_figure import Trace, accuracy_figure
from eval.report.statistics import Condition, Fit, Interval, QuestionAnalysis, by_seed
from eval.report.table import ReportData
from pretrain.format import plural

MOST_VALUES = 8  # of one setting in the table of differences

Spot = tuple[str, str]  # what line and place are called: what two studies have in common


class Member(NamedTuple):
    """One study's part of a compared figure; ``colour`` is the study's everywhere."""

    study: StudyRecord
    colour: int
    analysis: QuestionAnalysis

    @property
    def key(self) -> tuple[str, ...]:
        return self.study.metric.task, self.analysis.view.x_key, self.analysis.view.name

    @property
    def spots(self) -> dict[Spot, Condition]:
        return {(c.line_text, c.x_text): c for c in self.analysis.conditions}


def compared_sections(data: ReportData) -> Iterator[Section]:
    """A section for each figure that any of the studies has, all studies in it that have it too."""
    figures = _matched(data)
    names = Counter(members[0].analysis.view.name for members in figures)
    for members in figures:
        name = members[0].analysis.view.name
        # The same name over another axis is another question.
        yield _section(members, data.studies, name if names[name] == 1 else f"{name}-{members[0].study.label}")


def differences_table(studies: Sequence[StudyRecord]) -> Table | None:
    """Settings in which the studies differ, and what they have in place of them."""
    every = [record for study in studies for record in study.points.values()]
    keys = dict.fromkeys(key for record in every for key in (*record.config, *record.point.settings))
    found = {quantity(k): [_values(s, k) for s in studies] for k in keys if k.partition(".")[0] not in NO_FACTOR}
    found["Ranks (speed only)"] = [sorted({str(r.point.world_size) for r in s.points.values()}) for s in studies]
    rows = [
        (cell(what), *(cell(", ".join(texts[:MOST_VALUES] + ["…"] * bool(texts[MOST_VALUES:]))) for texts in values))
        for what, values in found.items()
        if any(texts != values[0] for texts in values)
    ]
    if not rows:
        return None
    headers = ("Setting", *(study.label for study in studies))
    return Table("What differs between the studies", headers, tuple(rows), note="Without what belongs to baselines.")


def _values(study: StudyRecord, key: str) -> list[str]:
    records = [r for r in study.points.values() if not study.compared(r)] or list(study.points.values())
    values = {repr(value): value for value in (study.value(record, key) for record in records)}
    numbers = all(isinstance(value, int | float) for value in values.values())
    ordered = sorted(values.values()) if numbers else [values[text] for text in sorted(values)]
    return [named(setting(value)) for value in ordered]


def _matched(data: ReportData) -> list[list[Member]]:
    """Views of the same name over the same axis belong together; so do views left over that show the same things."""
    groups = grouped(
        (Member(study, i, found) for i, study in enumerate(data.studies) for found in data.analyses[study.label]),
        lambda member: member.key,
    )
    merged: dict[tuple[str, ...], list[Member]] = {}
    for key, members in groups.items():
        alike = (*key[:2], *_kinds(members[0].analysis))
        other = merged.get(alike, [])
        single = len(members) == 1 and members[0].study not in [member.study for member in other]
        if single and len(other) < len(data.studies) and all(len(groups[member.key]) == 1 for member in other):
            merged.setdefault(alike, []).extend(members)
        else:
            merged[key] = members
    return [sorted(members, key=lambda member: member.colour) for members in merged.values()]


def _kinds(analysis: QuestionAnalysis) -> tuple[str, ...]:
    """What the lines and panels are: ``epochs``, ``LR rule``."""
    texts = (*analysis.view.curves, *analysis.view.panels)
    return tuple(sorted({part.partition(" = ")[0] for text in texts for part in text.split(", ") if part}))


def _section(members: Sequence[Member], studies: Sequence[StudyRecord], name: str) -> Section:
    first, view = members[0], members[0].analysis.view
    findings = [f"{m.study.label}: {sentences.main_finding(m.analysis, m.study.metric.name)}" for m in members]
    if len(members) == 1:
        findings.append(f"Only in {first.study.label}.")
    for member in members[1:]:
        findings += _difference_sentences(first, member)
    findings.append(sentences.missing([c for m in members for c in m.analysis.conditions], view.x_label))
    absent = [study.label for study in studies if study.label not in {m.study.label for m in members}]
    remarks = [f"Not part of {listed(absent)}."] if absent else []
    data = {str(m.study.config.get("data.dataset")) for m in members}
    if len(data) > 1:
        remarks.append(f"The data differ ({listed(sorted(DATASETS.get(d, d) for d in data))}): levels do not compare.")
    remarks += [f"{m.study.label}: {remark}" for m in members for remark in m.analysis.view.remarks]
    return Section(
        anchor=f"question-{name}",
        title=view.title,
        findings=tuple(filter(None, findings)),
        remark=" ".join(remarks),
        figures=(_figure(members, name),) if any(m.analysis.measured for m in members) else (),
        basis=sentences.basis_of_several({m.study.label: m.analysis for m in members}),
        tables=(_table(members),),
        headline=not view.derived,
    )


def _figure(members: Sequence[Member], name: str) -> Figure:
    """A panel for each line, in it a series for each study."""
    view, studies = members[0].analysis.view, [member.study.label for member in members]
    lines = dict.fromkeys(c.line_text for m in members for c in m.analysis.conditions)
    traces = [
        Trace(text, m.study.label, own, m.colour, who=m.study.label)
        for text in lines
        for m in members
        if (own := tuple(c for c in m.analysis.conditions if c.line_text == text))
    ]
    description = f"{view.title}: {listed(studies)} side by side"
    label = members[0].study.metric_label
    return accuracy_figure(replace(view, name=name), label, description, traces, _places(members))


def _places(members: Sequence[Member]) -> tuple[str, ...]:
    """Names along an axis without numbers, of all studies; empty where it has numbers."""
    if not any(member.analysis.view.categories for member in members):
        return ()
    return tuple(dict.fromkeys(c.x_text for m in members for c in m.analysis.conditions))


def _differences(first: Member, other: Member) -> dict[Spot, Interval]:
    """other - first at each place that both have measured: of the same seeds, intervals that hold all together."""
    ours, theirs = first.spots, other.spots
    both = {s: (a, b) for s, a in ours.items() if (b := theirs.get(s)) is not None and a.mean and b.mean}
    pairs = {spot: (by_seed(a.records), by_seed(b.records)) for spot, (a, b) in both.items()}
    fit = Fit({spot: {seed: b[seed] - a[seed] for seed in a if seed in b} for spot, (a, b) in pairs.items()})
    apart = {spot: Interval(b.mean.value - a.mean.value) for spot, (a, b) in both.items() if a.mean and b.mean}
    return {spot: fit.mean(spot, len(fit.values)) or apart[spot] for spot in both}


def _difference_sentences(first: Member, other: Member) -> Iterator[str]:
    label = lower(without_unit(first.analysis.view.x_label))
    known = _differences(first, other)
    who = f"{other.study.label} against {first.study.label}"
    if not known:
        yield f"{who}: no place has been measured in both."
        return
    (line, x), largest = max(known.items(), key=lambda pair: abs(pair[1].value))
    at = ", ".join(part for part in (line, f"{label} = {x}") if part)
    test = f"paired t-test, allowing for the choice among {plural(len(known), 'place')}"
    yield (
        f"{who}: {plural(len(known), 'place')} in common, the largest gap {signed(largest.value)} points at {at}"
        f"{sentences.tested(largest, test if len(known) > 1 else 'paired t-test')}."
    )
    twins = len(_fingerprints(first) & _fingerprints(other))
    if twins:
        yield f"{who}: {plural(twins, 'run')} of both studies are the same configuration and seed, not independent."


def _fingerprints(member: Member) -> set[str]:
    return {record.point.fingerprint for record in member.study.points.values()}


def _table(members: Sequence[Member]) -> Table:
    first, *others = members
    view, numeric = first.analysis.view, not _places(members)
    spots = {spot: condition for m in members for spot, condition in m.spots.items()}
    lines = list(dict.fromkeys(c.line_text for m in members for c in m.analysis.conditions))
    known = [_differences(first, member) for member in others]
    headers = ["Line", view.x_label, *(m.study.label for m in members)]
    headers += [f"{m.study.label} − {first.study.label}" for m in others]
    rows = []
    for spot in sorted(spots, key=lambda spot: (lines.index(spot[0]), spots[spot].x if numeric else 0.0)):
        cells = [cell(spot[0]), Cell(spot[1], spots[spot].x if numeric else spot[1])]
        cells += [_mean_cell(m.spots.get(spot)) for m in members]
        cells += [_difference_cell(differences.get(spot)) for differences in known]
        rows.append(tuple(cells if len(lines) > 1 else cells[1:]))
    note = "Mean, 95 % interval, number of seeds. Differences are paired by seed; their intervals hold all together."
    return Table("Numbers", tuple(headers if len(lines) > 1 else headers[1:]), tuple(rows), folded=True, note=note)


def _difference_cell(difference: Interval | None) -> Cell:
    if difference is None:
        return Cell(DASH)
    ends = f" ({sentences.ends_of(difference)})" if difference.ends else ""
    return Cell(signed(difference.value) + ends, difference.value)


def _mean_cell(condition: Condition | None) -> Cell:
    if condition is None:
        return Cell(DASH)
    if condition.mean is None:
        return Cell(", ".join(sorted({record.status for record in condition.records})))
    within = f" ({interval(condition.mean.ends)})" if condition.mean.ends else ""
    return Cell(f"{sentences.top1_of(condition)}{within}, {len(condition.measured)}", condition.mean.value)
