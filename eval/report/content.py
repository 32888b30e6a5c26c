"""A report's content, before it is a page or a Markdown file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.config import EVALUATIONS
from eval.report import sentences
from eval.report.evaluations import evaluations
from eval.report.factors import views
from eval.report.figures.model import Figure
from eval.report.format import (
    DASH,
    DATASETS,
    ENCODERS,
    METHODS,
    listed,
    many,
    setting,
)
from eval.report.records import StudyRecord
from eval.report.sections.base import Picture, Section, Table, text_table
from eval.report.sections.classes import classes_section
from eval.report.sections.compare import compared_sections, differences_table
from eval.report.sections.curves import probe_curves_section, training_section
from eval.report.sections.efficiency import efficiency_section
from eval.report.sections.features import features_section
from eval.report.sections.protocols import protocols_section
from eval.report.sections.published import published_section
from eval.report.sections.questions import questions, share_section
from eval.report.sections.runs import RunRow, run_rows
from eval.report.sections.warnings import cautions
from eval.report.statistics import (
    analyse_baseline,
)


@dataclass(frozen=True)
class Report:
    """Everything that is rendered."""

    studies: tuple[StudyRecord, ...]
    title: str
    facts: tuple[tuple[str, str], ...]
    progress: str
    complete: bool
    overview: tuple[Table, ...]  # of several studies: what each is, and how they differ
    baselines: tuple[str, ...]
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]
    runs: tuple[RunRow, ...]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures; no two have the same name."""
        return tuple({figure.name: figure for section in self.sections for figure in section.figures}.values())

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return tuple({picture.name: picture for section in self.sections for picture in section.pictures}.values())


def make_report(*studies: StudyRecord) -> Report:
    """The report of one study, or of several side by side, as they stand."""
    several = len(studies) > 1
    analysed = [(study, analyse_baseline(study, b)) for study in studies for b in study.manifest.baselines]
    lines = [f"{study.label}: {sentences.baseline(b)}" if several else sentences.baseline(b) for study, b in analysed]
    asked_sections = compared_sections(studies) if several else questions(studies[0], [b for _, b in analysed])
    effects = [section for study in studies if (section := share_section(study, several)) is not None]
    asked = [(study, question) for study in studies for question in study.manifest.questions if question.published]
    keys = {view.x_key for study, question in asked for view in views(study, question)}
    found = evaluations(studies)
    rest = [
        published_section(keys),
        protocols_section(
            evaluations(studies, random=True),
            {probe.fingerprint for study in studies for probe in study.manifest.probes},
        ),
        classes_section(studies, found),
        probe_curves_section(found),
        features_section(found),
        efficiency_section(studies),
        training_section(studies),
    ]
    finished = all(study.count("finished") == len(study.points) for study in studies)
    together = listed([study.label for study in studies])
    titles = list(dict.fromkeys(study.manifest.title for study in studies))
    tables = (_studies_table(studies), differences_table(studies)) if several else ()
    return Report(
        studies=studies,
        title=titles[0] + (f": {together}" if several else "") if len(titles) == 1 else f"{together} side by side",
        facts=_facts(studies[0]) if not several else (),
        progress="; ".join(f"{study.label}: {_progress(study)}" if several else _progress(study) for study in studies),
        complete=finished,
        overview=tuple(table for table in tables if table is not None),
        baselines=tuple(lines),
        cautions=cautions(studies, found),
        sections=(*asked_sections, *effects, *(section for section in rest if section is not None)),
        runs=tuple(row for study in studies for row in run_rows(study)),
    )


def _progress(study: StudyRecord) -> str:
    total, finished = len(study.points), study.count("finished")
    if finished == total:
        return f"all {many(total, 'run')} finished"
    others: dict[str, int] = {}
    for record in study.points.values():
        if record.status != "finished":
            others[record.status] = others.get(record.status, 0) + 1
    rest = listed([f"{number} {status}" for status, number in others.items()])
    return f"{finished} of {many(total, 'run')} finished; {rest}"


def _studies_table(studies: Sequence[StudyRecord]) -> Table:
    facts = [dict(_facts(study)) for study in studies]
    names = list(dict.fromkeys(name for found in facts for name in found))
    rows = [("Study", "Title", "Progress", *names)]
    for study, found in zip(studies, facts):
        rows.append((study.label, study.manifest.title, _progress(study), *(found.get(n, DASH) for n in names)))
    return text_table("Studies", rows)


def _facts(study: StudyRecord) -> tuple[tuple[str, str], ...]:
    """What all runs share, as far as their configuration says."""
    config = study.config
    data, encoder, objective = (config.get(key) or {} for key in ("data", "encoder", "objective"))
    seeds = sorted({record.point.seed for record in study.points.values()})
    facts = [("Data", _named(DATASETS, data["dataset"]))] if data.get("dataset") else []
    if encoder.get("architecture"):
        width = encoder.get("width", 1.0)
        narrow = "" if width == 1 else f", width × {width:g}"
        facts.append(("Encoder", _named(ENCODERS, encoder["architecture"]) + narrow))
    if objective.get("name") and not _varies_in_questions(study, "objective.name"):
        facts.append(("Objective", _named(METHODS, objective["name"])))
    if config.get("epochs") is not None and not _varies_in_questions(study, "epochs"):
        facts.append(("Epochs", setting(config["epochs"])))
    facts.append(("Seeds", ", ".join(map(str, seeds))))
    facts.append(("Evaluation", ", ".join(_evaluation(probe.task) for probe in study.manifest.probes) or DASH))
    return tuple(facts)


def _varies_in_questions(study: StudyRecord, key: str) -> bool:
    names = {name for question in study.manifest.questions for curve in question.curves for name in curve.points}
    return len({repr(study.points[name].point.settings.get(key)) for name in names if name in study.points}) > 1


def _named(names: dict[str, str], value: object) -> str:
    return names.get(str(value), str(value))


def _evaluation(task: str) -> str:
    known = EVALUATIONS.get(task)
    return (known.label if known is not None else "") or task
