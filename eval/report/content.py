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
from eval.report.format import DASH, DATASETS, ENCODERS, METHODS, listed, many, setting
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
from eval.report.sections.base import Picture, Section, Table, text_table
from eval.report.sections.runs import RunRow, provenance, run_row
from eval.report.table import ReportData
from eval.schema import Choice, EvaluationResult

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
    facts: tuple[tuple[str, str], ...]
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
    said = (sentences.baseline(baseline) for _, baseline in data.baselines)
    owners = (f"{study.label}: " if data.several else "" for study, _ in data.baselines)
    together = listed([study.label for study in studies])
    titles = list(dict.fromkeys(study.manifest.title for study in studies))
    tables = (_studies_table(studies), compare.differences_table(studies)) if data.several else ()
    return Report(
        studies=studies,
        title=titles[0] + (f": {together}" if data.several else "") if len(titles) == 1 else f"{together} side by side",
        facts=_facts(studies[0]) if not data.several else (),
        progress="; ".join((f"{study.label}: " if data.several else "") + _progress(study) for study in studies),
        complete=all(study.count("finished") == len(study.points) for study in studies),
        overview=tuple(table for table in tables if table is not None),
        baselines=tuple(owner + sentence for owner, sentence in zip(owners, said)),
        cautions=tuple(_cautions(data)),
        sections=tuple(section for make in SECTIONS for section in make(data)),
        runs=tuple(map(run_row, data.rows)),
        provenance=tuple(provenance(data)),
    )


def _progress(study: StudyRecord) -> str:
    statuses = Counter(record.status for record in study.points.values())
    total, finished = sum(statuses.values()), statuses.pop("finished", 0)
    if finished == total:
        return f"all {many(total, 'run')} finished"
    rest = listed([f"{number} {status}" for status, number in statuses.items()])
    return f"{finished} of {many(total, 'run')} finished; {rest}"


def _cautions(data: ReportData) -> Iterator[str]:
    """What a reader should know before trusting the accuracies: choices that others might better, refused results."""
    asked = [found.result for found in data.of_trained_encoders if found.result.fingerprint in data.asked]
    choices = [choice for result in asked for choice in _choices(result)]
    total = many(len(choices), "evaluation")

    def of_all(number: int) -> str:
        return f"all {total}" if number == len(choices) else f"{number} of {total}"

    for edge, number in Counter(edge for choice in choices for edge in edges_of(choice)).most_common():
        yield f"In {of_all(number)} the chosen {edge.describe()}: {edge.untried} values may give more."
    unfinished = sum(choice.converged is False for choice in choices)
    if unfinished:
        yield f"{of_all(unfinished)} had not converged when their iterations ended: raise max_iterations."
    for row in data.rows:
        if row.record.refused:
            who = f"{row.study.label}: {row.record.name}"
            reasons = (f"{found.path.parent.name}/{found.path.name} {found.why}" for found in row.record.refused)
            yield f"Not counted, of {who}: {'; '.join(reasons)}."


def _choices(result: EvaluationResult) -> list[Choice]:
    """The parts of a result that chose something."""
    parts = (result, *getattr(result, "rows", ()))
    return [part for part in parts if isinstance(part, Choice) and part.grid]


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
