"""A report's content, before it is a page or a Markdown file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.report import effect_sentences, sentences
from eval.report.analysis import (
    BaselineAnalysis,
    QuestionAnalysis,
    analyse_baseline,
    analyse_view,
)
from eval.report.cautions import cautions
from eval.report.classes import classes_section
from eval.report.collect import StudyRecord
from eval.report.compare import compared_sections, differences_table
from eval.report.effects import negative_shares, plateaus
from eval.report.efficiency import efficiency_section
from eval.report.evaluations import evaluations
from eval.report.feature_space import features_section
from eval.report.figures import view_figure
from eval.report.names import DATASETS, ENCODERS, METHODS, TASKS
from eval.report.panels import Figure
from eval.report.probe_curves import probe_curves_section
from eval.report.protocols import protocols_section
from eval.report.published import published_section
from eval.report.runs import RunRow, run_rows
from eval.report.sections import Picture, Section, Table, text_table
from eval.report.text import DASH, interval, listed, lower, many, percent, setting, signed, without_unit
from eval.report.training import training_section
from eval.report.views import views

MOST_SLOPE_SENTENCES = 2  # more lines get a table


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
    questions = compared_sections(studies) if several else _questions(studies[0], [b for _, b in analysed])
    effects = [section for study in studies if (section := _share_section(study, several)) is not None]
    asked = [(study, question) for study in studies for question in study.manifest.questions if question.published]
    keys = {view.x_key for study, question in asked for view in views(study, question)}
    found = evaluations(studies)
    rest = [
        published_section(keys),
        protocols_section(found, {probe.fingerprint for study in studies for probe in study.manifest.probes}),
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
        sections=(*questions, *effects, *(section for section in rest if section is not None)),
        runs=tuple(row for study in studies for row in run_rows(study)),
    )


def _questions(study: StudyRecord, baselines: Sequence[BaselineAnalysis]) -> list[Section]:
    every = [view for question in study.manifest.questions for view in views(study, question)]
    return [_question(study, analyse_view(study, view), baselines) for view in every]


def _question(study: StudyRecord, analysis: QuestionAnalysis, baselines: Sequence[BaselineAnalysis]) -> Section:
    view = analysis.view
    metric = "Top-1" if study.metric == "top1" else "Nearest-neighbour top-1"
    few = len(analysis.slopes) <= MOST_SLOPE_SENTENCES
    findings = sentences.findings(analysis, metric, slopes=few and not view.mark_best)
    if few:
        findings[1:1] = [effect_sentences.plateau(analysis, end) for end in plateaus(analysis)]
    best = effect_sentences.best(analysis, without_unit(view.x_label)) if view.mark_best else ""
    tables = [] if few or view.mark_best else [_slope_table(analysis)]
    return Section(
        anchor=f"question-{view.name}",
        title=view.title,
        findings=(*findings[:1], *([best] if best else []), *findings[1:]),
        remark=" ".join(view.remarks),
        figures=(view_figure(study, analysis, baselines),) if any(c.mean for c in analysis.conditions) else (),
        basis=sentences.basis(analysis),
        tables=(*tables, _conditions(analysis)),
        in_summary=not view.derived,
    )


def _conditions(analysis: QuestionAnalysis) -> Table:
    lines = any(condition.line_text for condition in analysis.conditions)
    best = analysis.best_of_lines if analysis.view.mark_best else frozenset()
    rows = [(*(("Line",) if lines else ()), analysis.view.x_label, "Mean", "95 % interval", "Seeds")]
    for condition in analysis.conditions:
        mean = condition.mean
        values = [f"{r.top1:.2f}" if r.top1 is not None else r.status for r in condition.records]
        ringed = " (best)" if (condition.line, condition.x) in best else ""
        rows.append(
            (
                *((condition.line_text,) if lines else ()),
                condition.x_text + ringed,
                percent(mean.value if mean else None),
                interval(mean.low, mean.high) if mean else DASH,
                ", ".join(values),
            )
        )
    return text_table("Numbers", rows, folded=True)


def _slope_table(analysis: QuestionAnalysis) -> Table:
    """Slope and end of the gain of every line."""
    label = lower(without_unit(analysis.view.x_label))
    ends = {end.line_text: end for end in plateaus(analysis)}
    per = f"Points per {'doubling' if analysis.slopes[0].per_doubling else 'unit'} of {label}"
    rows = [("Line", per, "95 % interval", "Straight line", *(["No sure gain beyond"] if ends else []))]
    for slope in analysis.slopes:
        end = ends.get(slope.line_text)
        beyond = () if not ends else (DASH if end is None else "no end seen" if end.is_last else end.enough.x_text,)
        low, high = slope.slope.low, slope.slope.high
        within = DASH if low is None or high is None else f"{signed(low)} to {signed(high)}"
        bent = DASH if low is None else "no" if slope.lack_of_fit else "yes"
        rows.append((slope.line_text, signed(slope.slope.value), within, bent, *beyond))
    note = "Slopes by least squares. Straight line: whether the conditions leave it by more than the seeds differ."
    return text_table("Slopes", rows, note=note)


def _share_section(study: StudyRecord, several: bool) -> Section | None:
    """How much of the batch-size effect the number of negatives explains, where both were varied."""
    analyses = [analyse_view(study, views(study, question)[0]) for question in study.manifest.questions]
    shares = negative_shares(study, analyses)
    if not shares:
        return None
    return Section(
        anchor=f"share-{study.manifest.name}",
        title=f"Batch size or negatives{f': {study.label}' if several else ''}",
        findings=tuple(effect_sentences.share(share) for share in shares),
        remark="The rest is what else comes with the batch size: fewer steps, another learning rate, batch norm over "
        "more images. Negatives between two measured numbers are read off a straight line over their logarithm.",
        in_summary=True,
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
    facts.append(("Evaluation", ", ".join(_named(TASKS, probe.task) for probe in study.manifest.probes) or DASH))
    return tuple(facts)


def _varies_in_questions(study: StudyRecord, key: str) -> bool:
    names = {name for question in study.manifest.questions for curve in question.curves for name in curve.points}
    return len({repr(study.points[name].point.settings.get(key)) for name in names if name in study.points}) > 1


def _named(names: dict[str, str], value: object) -> str:
    return names.get(str(value), str(value))
