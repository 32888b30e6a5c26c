"""One section for each question of a study: its figure, its findings, its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from eval.report import sentences
from eval.report import sentences as effect_sentences
from eval.report.effects import negative_shares, plateaus
from eval.report.factors import views
from eval.report.format import (
    DASH,
    interval,
    lower,
    percent,
    signed,
    without_unit,
)
from eval.report.records import StudyRecord
from eval.report.sections.base import Section, Table, text_table
from eval.report.sections.question_figure import view_figure
from eval.report.statistics import (
    BaselineAnalysis,
    QuestionAnalysis,
    analyse_view,
)

MOST_SLOPE_SENTENCES = 2  # more lines get a table


def questions(study: StudyRecord, baselines: Sequence[BaselineAnalysis]) -> list[Section]:
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


def share_section(study: StudyRecord, several: bool) -> Section | None:
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
