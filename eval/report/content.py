"""A report's content, before it is a page or a Markdown file."""

from __future__ import annotations

from dataclasses import dataclass

from eval.report import sentences
from eval.report.analysis import BaselineAnalysis, QuestionAnalysis, analyse_baseline, analyse_question
from eval.report.collect import StudyRecord
from eval.report.figures import question_figure, training_figures
from eval.report.names import DATASETS, ENCODERS, METHODS, TASKS
from eval.report.panels import Figure
from eval.report.published import PublishedRow, published_elsewhere, published_figure
from eval.report.runs import RunRow, run_rows
from eval.report.text import DASH, listed, many, percent, setting

PUBLISHED_REMARK = (
    "Copied from their sources for orientation: other data, encoders, budgets and code. "
    "Nothing in these panels was measured here, and levels do not compare."
)


@dataclass(frozen=True)
class QuestionSection:
    """One question: its figure, what was measured, and the numbers behind it."""

    analysis: QuestionAnalysis
    figure: Figure | None  # None while nothing has been measured
    findings: tuple[str, ...]
    basis: str
    table: tuple[tuple[str, ...], ...]  # first row: headers


@dataclass(frozen=True)
class Report:
    """Everything that is rendered."""

    study: StudyRecord
    facts: tuple[tuple[str, str], ...]
    progress: str
    complete: bool
    baselines: tuple[tuple[BaselineAnalysis, str], ...]
    questions: tuple[QuestionSection, ...]
    published: Figure | None
    published_elsewhere: tuple[PublishedRow, ...]
    training: tuple[Figure, ...]
    runs: tuple[RunRow, ...]


def make_report(study: StudyRecord) -> Report:
    """The report of ``study`` as it stands."""
    baselines = tuple(analyse_baseline(study, baseline) for baseline in study.manifest.baselines)
    published = any(question.published for question in study.manifest.questions)
    finished = study.count("finished")
    return Report(
        study=study,
        facts=_facts(study),
        progress=_progress(study),
        complete=finished == len(study.points),
        baselines=tuple((analysis, sentences.baseline(analysis)) for analysis in baselines),
        questions=tuple(_question(study, analyse_question(study, q), baselines) for q in study.manifest.questions),
        published=published_figure() if published else None,
        published_elsewhere=published_elsewhere() if published else (),
        training=training_figures(study),
        runs=run_rows(study),
    )


def _question(
    study: StudyRecord, analysis: QuestionAnalysis, baselines: tuple[BaselineAnalysis, ...]
) -> QuestionSection:
    metric = "Top-1" if study.metric == "top1" else "Nearest-neighbour top-1"
    return QuestionSection(
        analysis=analysis,
        figure=question_figure(study, analysis, baselines) if any(c.mean for c in analysis.conditions) else None,
        findings=tuple(sentences.findings(analysis, metric)),
        basis=sentences.basis(analysis),
        table=_conditions(analysis),
    )


def _conditions(analysis: QuestionAnalysis) -> tuple[tuple[str, ...], ...]:
    curves = any(condition.curve for condition in analysis.conditions)
    rows = [(*(("Curve",) if curves else ()), analysis.question.x_label, "Mean", "95 % interval", "Seeds")]
    for condition in analysis.conditions:
        mean = condition.mean
        interval = DASH
        if mean is not None and mean.low is not None and mean.high is not None:
            interval = f"{mean.low:.2f} {DASH} {mean.high:.2f}"
        values = [f"{r.top1:.2f}" if r.top1 is not None else r.status for r in condition.records]
        where = ((condition.curve,) if curves else ()) + (
            f"{condition.x:,.6g}" if condition.x < 1e6 else f"{condition.x:,.0f}",
        )
        rows.append((*where, percent(mean.value if mean else None), interval, ", ".join(values)))
    return tuple(rows)


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
    if objective.get("name"):
        facts.append(("Objective", _named(METHODS, objective["name"])))
    varied = {key for record in study.points.values() for key in record.point.settings}
    if config.get("epochs") is not None and "epochs" not in {k for k in varied if _varies_in_questions(study, k)}:
        facts.append(("Epochs", setting(config["epochs"])))
    facts.append(("Seeds", ", ".join(map(str, seeds))))
    facts.append(("Evaluation", ", ".join(_named(TASKS, probe.task) for probe in study.manifest.probes) or DASH))
    return tuple(facts)


def _varies_in_questions(study: StudyRecord, key: str) -> bool:
    names = {name for question in study.manifest.questions for curve in question.curves for name in curve.points}
    return len({repr(study.points[name].point.settings.get(key)) for name in names if name in study.points}) > 1


def _named(names: dict[str, str], value: object) -> str:
    return names.get(str(value), str(value))
