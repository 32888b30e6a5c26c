"""A report's content, before it is a page or a Markdown file, and the register of its sections.

A further section is a file in sections/ with a function ``sections`` and its line in SECTIONS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from eval.config import EVALUATIONS
from eval.describe import edges_of
from eval.report import sentences
from eval.report.figures.model import Figure
from eval.report.format import DASH, listed, named, setting
from eval.report.records import StudyRecord
from eval.report.sections import (
    classes,
    compare,
    curves,
    efficiency,
    features,
    probe_curves,
    protocols,
    published,
    questions,
)
from eval.report.sections.base import Picture, Section, Table, cell, tabulate
from eval.report.sections.runs import RunRow, provenance, run_row
from eval.report.table import ReportData
from eval.schema import Choice
from pretrain.format import plural

# In the order of the page. Each yields what it finds in the data, and nothing where there is nothing to show.
SECTIONS: tuple[Callable[[ReportData], Iterable[Section]], ...] = (
    questions.sections,
    published.sections,
    protocols.sections,
    classes.sections,
    probe_curves.sections,
    features.sections,
    efficiency.sections,
    curves.sections,
)


@dataclass(frozen=True)
class Report:
    """Everything that is rendered."""

    studies: tuple[StudyRecord, ...]
    title: str
    facts: dict[str, str]
    abstract: str  # a paragraph for a paper; empty for several studies, and before anything is measured
    progress: str
    complete: bool
    overview: tuple[Table, ...]  # of several studies: what each is, and how they differ
    baselines: tuple[str, ...]
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]
    runs: tuple[RunRow, ...]
    provenance: tuple[str, ...]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures; no two have the same name."""
        return tuple({figure.name: figure for section in self.sections for figure in section.figures}.values())

    @property
    def headline_figures(self) -> tuple[Figure, ...]:
        """Those that are files beside the page too."""
        return tuple(figure for figure in self.figures if figure.headline)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return tuple({picture.name: picture for section in self.sections for picture in section.pictures}.values())


def make_report(*studies: StudyRecord) -> Report:
    """The report of one study, or of several side by side, as they stand."""
    data = ReportData(studies)
    together = listed([study.label for study in studies])
    titles = list(dict.fromkeys(study.manifest.title for study in studies))
    tables = (_studies_table(studies), compare.differences_table(studies)) if data.several else ()
    return Report(
        studies=studies,
        title=titles[0] + (f": {together}" if data.several else "") if len(titles) == 1 else f"{together} side by side",
        facts={} if data.several else _facts(studies[0]),
        abstract="" if data.several else _abstract(data),
        progress="; ".join(data.who(study) + _progress(study) for study in studies),
        complete=all(record.status == "finished" for study in studies for record in study.points.values()),
        overview=tuple(table for table in tables if table is not None),
        baselines=tuple(data.who(study) + sentences.baseline(found) for study, found in data.baselines),
        cautions=tuple(_cautions(data)),
        sections=tuple(section for make in SECTIONS for section in make(data)),
        runs=tuple(map(run_row, data.rows)),
        provenance=tuple(provenance(data)),
    )


def _progress(study: StudyRecord) -> str:
    statuses = Counter(record.status for record in study.points.values())
    total, finished = sum(statuses.values()), statuses.pop("finished", 0)
    if finished == total:
        return f"all {plural(total, 'run')} finished"
    rest = listed([f"{number} {status}" for status, number in statuses.items()])
    return f"{finished} of {plural(total, 'run')} finished; {rest}"


def _cautions(data: ReportData) -> Iterator[str]:
    """What a reader should know before trusting the accuracies: choices that others might better, refused results."""
    asked = [result for _, result in data.of_trained_encoders if result.fingerprint in data.asked]
    parts = [part for result in asked for part in (result, *getattr(result, "rows", ()))]
    choices = [part for part in parts if isinstance(part, Choice) and part.grid]
    total = plural(len(choices), "evaluation")

    def of_all(number: int) -> str:
        return f"all {total}" if number == len(choices) else f"{number} of {total}"

    for edge, number in Counter(edge for choice in choices for edge in edges_of(choice)).most_common():
        yield f"In {of_all(number)} the chosen {edge.describe()}: {edge.untried} values may score higher."
    unfinished = sum(choice.converged is False for choice in choices)
    if unfinished:
        yield f"{of_all(unfinished)} had not converged when their iterations ended: raise max_iterations."
    for row in data.rows:
        if row.record.refused:
            reasons = (f"{found.path.parent.name}/{found.path.name} {found.why}" for found in row.record.refused)
            yield f"Not counted, of {row.study.label}: {row.record.name}: {'; '.join(reasons)}."


def _studies_table(studies: Sequence[StudyRecord]) -> Table:
    facts = {
        study.label: {
            "Study": study.label,
            "Title": study.manifest.title,
            "Progress": _progress(study),
            **_facts(study),
        }
        for study in studies
    }
    columns = {
        name: lambda own, name=name: cell(own.get(name, DASH))
        for name in dict.fromkeys(name for own in facts.values() for name in own)
    }
    return tabulate("Studies", facts.values(), columns)


def _facts(study: StudyRecord) -> dict[str, str]:
    """What all runs share, as far as their configuration says."""
    config, facts = study.config, {}
    if config.get("data.dataset"):
        facts["Data"] = named(str(config["data.dataset"]))
    if config.get("encoder.architecture"):
        width = config.get("encoder.width", 1.0)
        narrow = "" if width == 1 else f", width × {width:g}"
        facts["Encoder"] = named(str(config["encoder.architecture"])) + narrow
    if config.get("objective.name") and not _varies_in_questions(study, "objective.name"):
        facts["Objective"] = named(str(config["objective.name"]))
    if config.get("epochs") is not None and not _varies_in_questions(study, "epochs"):
        facts["Epochs"] = setting(config["epochs"])
    facts["Seeds"] = ", ".join(map(str, sorted({record.point.seed for record in study.points.values()})))
    tasks = [probe.task for probe in study.manifest.probes]
    facts["Evaluation"] = ", ".join((t in EVALUATIONS and EVALUATIONS[t].label) or t for t in tasks) or DASH
    return facts


def _abstract(data: ReportData) -> str:
    """What was done, and the main finding of each question that has one."""
    (study,) = data.studies
    asked = [analysis for analysis in data.analyses[study.label] if not analysis.view.derived]
    found = [sentences.main_finding(analysis, study.metric.name) for analysis in asked if analysis.contrast]
    if not found:
        return ""
    facts, runs = _facts(study), [row for row in data.rows if row.record.top1 is not None and not row.baseline]
    forms = {"Objective": " with {}", "Data": " on {}", "Epochs": " for {}"}
    if "Epochs" in facts:
        facts["Epochs"] += " epoch" if facts["Epochs"] == "1" else " epochs"
    made = "".join(form.format(facts[name]) for name, form in forms.items() if name in facts)
    settings = plural(len({row.setting for row in runs}), "setting")
    encoder = facts.get("Encoder", "several kinds")
    first = f"An encoder ({encoder}) was pretrained{made}, in {plural(len(runs), 'run')} of {settings}"
    return " ".join([f"{first}; evaluation: {facts['Evaluation']}.", *found])


def _varies_in_questions(study: StudyRecord, key: str) -> bool:
    names = {name for question in study.manifest.questions for curve in question.curves for name in curve.points}
    return len({repr(study.points[name].point.settings.get(key)) for name in names if name in study.points}) > 1
