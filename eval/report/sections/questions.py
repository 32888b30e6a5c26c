"""A section for each figure of a study's questions: its findings, its numbers; and what negatives alone explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.report import sentences
from eval.report.effects import negative_shares, plateaus
from eval.report.format import DASH, interval, lower, percent, signed, without_unit
from eval.report.records import StudyRecord
from eval.report.sections.base import Section, Table, text_table
from eval.report.sections.compare import compared_sections
from eval.report.sections.question_figure import view_figure
from eval.report.statistics import BaselineAnalysis, QuestionAnalysis
from eval.report.table import ReportData

MOST_SLOPE_SENTENCES = 2  # more lines get a table


def sections(data: ReportData) -> Iterator[Section]:
    """The questions of one study, or of several side by side; then the share of negatives where it is known."""
    if data.several:
        yield from compared_sections(data)
    else:
        (study,), baselines = data.studies, [baseline for _, baseline in data.baselines]
        yield from (_question(study, analysis, baselines) for analysis in data.analyses[study.label])
    for study in data.studies:
        shares = negative_shares(study, data.analyses[study.label])
        if shares:
            yield Section(
                anchor=f"share-{study.manifest.name}",
                title=f"Batch size or negatives{f': {study.label}' if data.several else ''}",
                findings=tuple(sentences.share(share) for share in shares),
                remark="The rest is what else comes with the batch size: fewer steps, another learning rate, batch "
                "norm over more images. Negatives between two measured numbers are read off a straight line over "
                "their logarithm.",
                headline=True,
            )


def _question(study: StudyRecord, analysis: QuestionAnalysis, baselines: Sequence[BaselineAnalysis]) -> Section:
    view = analysis.view
    metric = "Top-1" if study.metric == "top1" else "Nearest-neighbour top-1"
    few, ends = len(analysis.slopes) <= MOST_SLOPE_SENTENCES, plateaus(analysis)
    first, *more = sentences.findings(analysis, metric, slopes=few and not view.mark_best)
    best = sentences.best(analysis, without_unit(view.x_label)) if view.mark_best else ""
    turns = [sentences.plateau(analysis, end) for end in ends] if few else []
    slopes = [] if few or view.mark_best else [_slope_table(analysis)]
    return Section(
        anchor=f"question-{view.name}",
        title=view.title,
        findings=(first, *([best] if best else []), *turns, *more),
        remark=" ".join(view.remarks),
        figures=(view_figure(study, analysis, baselines),) if any(c.mean for c in analysis.conditions) else (),
        basis=sentences.basis(analysis),
        tables=(*slopes, _conditions(analysis)),
        headline=not view.derived,
    )


def _conditions(analysis: QuestionAnalysis) -> Table:
    lines = any(condition.line_text for condition in analysis.conditions)
    best = analysis.best_of_lines if analysis.view.mark_best else frozenset()
    rows: list[tuple[str, ...]] = [("Line", analysis.view.x_label, "Mean", "95 % interval", "Seeds")]
    for condition in analysis.conditions:
        mean = condition.mean
        values = [f"{r.top1:.2f}" if r.top1 is not None else r.status for r in condition.records]
        ringed = " (best)" if (condition.line, condition.x) in best else ""
        within = interval(mean.low, mean.high) if mean else DASH
        top1 = percent(mean.value if mean else None)
        rows.append((condition.line_text, condition.x_text + ringed, top1, within, ", ".join(values)))
    return text_table("Numbers", rows if lines else [row[1:] for row in rows], folded=True)


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
