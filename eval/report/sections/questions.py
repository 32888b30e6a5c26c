"""A section for each figure of a study's questions: its findings, its numbers; and batch size beside negatives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.report import sentences
from eval.report.effects import MARGIN, negatives_effects, plateaus
from eval.report.format import DASH, interval, lower, signed, without_unit
from eval.report.records import StudyRecord
from eval.report.sections.base import Column, Section, Table, cell, num, tabulate
from eval.report.sections.compare import compared_sections
from eval.report.sections.question_figure import view_figure
from eval.report.statistics import Condition, QuestionAnalysis, Slope
from eval.report.table import ReportData

MOST_SLOPE_SENTENCES = 2  # more lines get a table


def sections(data: ReportData) -> Iterator[Section]:
    """The questions of one study, or of several side by side; then the effect of negatives alone where it is known."""
    if data.several:
        yield from compared_sections(data)
    else:
        (study,), baselines = data.studies, [baseline for _, baseline in data.baselines]
        yield from (_question(study, analysis, baselines) for analysis in data.analyses[study.label])
    for study in data.studies:
        effects = negatives_effects(study, data.analyses[study.label])
        if effects:
            yield Section(
                anchor=f"negatives-{study.manifest.name}",
                title=f"Batch size or negatives{f': {study.label}' if data.several else ''}",
                findings=tuple(map(sentences.negatives_effect, effects)),
                remark="What else comes with the batch size: fewer steps, another learning rate, batch norm over more "
                "images. Negatives between two measured numbers are read off a straight line over their logarithm.",
                headline=True,
            )


def _question(study: StudyRecord, analysis: QuestionAnalysis, baselines: Sequence[Condition]) -> Section:
    view, few = analysis.view, len(analysis.slopes) <= MOST_SLOPE_SENTENCES
    findings = [sentences.main_finding(analysis, study.metric.name), sentences.best(analysis) if view.mark_best else ""]
    if few:
        findings += [sentences.plateau(analysis, end) for end in plateaus(analysis)]
        findings += [sentences.slope(analysis, slope) for slope in analysis.slopes if not view.mark_best]
    findings.append(sentences.missing(analysis.conditions, view.x_label))
    return Section(
        anchor=f"question-{view.name}",
        title=view.title,
        findings=tuple(filter(None, findings)),
        remark=" ".join(view.remarks),
        figures=(view_figure(study, analysis, baselines),) if analysis.measured else (),
        basis=sentences.basis(analysis),
        tables=(*([] if few or view.mark_best else [_slope_table(analysis)]), _conditions(analysis)),
        headline=not view.derived,
    )


def _conditions(analysis: QuestionAnalysis) -> Table:
    best = list(analysis.best_of_lines.values()) if analysis.view.mark_best else []
    columns: dict[str, Column[Condition]] = {
        "Line": lambda c: cell(c.line_text),
        analysis.view.x_label: lambda c: cell(
            c.x_text + (" (best)" if c in best else ""), None if analysis.view.categories else c.x
        ),
        "Mean": lambda c: num(c.mean.value if c.mean else None, lambda _: sentences.top1_of(c)),
        "95 % interval": lambda c: cell(interval(c.mean.ends if c.mean else None)),
        "Seeds": lambda c: cell(", ".join(f"{r.top1:.2f}" if r.top1 is not None else r.status for r in c.records)),
    }
    if not any(condition.line_text for condition in analysis.conditions):
        del columns["Line"]
    return tabulate("Numbers", analysis.conditions, columns, folded=True)


def _slope_table(analysis: QuestionAnalysis) -> Table:
    """Slope of every line, and the smallest place that comes close to its best."""
    label = lower(without_unit(analysis.view.x_label))
    ends = {end.line_text: end.enough for end in plateaus(analysis)}
    per = f"Points per {'doubling' if analysis.slopes[0].per_doubling else 'unit'} of {label}"

    def close(slope: Slope) -> str:
        enough = ends.get(slope.line_text)
        return DASH if enough is None else enough.x_text

    columns: dict[str, Column[Slope]] = {
        "Line": lambda s: cell(s.line_text),
        per: lambda s: num(s.slope.value, lambda _: signed(s.slope.value)),
        "95 % interval": lambda s: cell(sentences.ends_of(s.slope) or DASH),
        "Straight line": lambda s: cell(DASH if s.bent is None else "no" if s.bent else "not rejected"),
    }
    if ends:
        columns["Close to the best from"] = lambda s: cell(close(s))
    note = (
        "Slopes by least squares, t-tests. Straight line: whether the conditions leave it by more than chance (F test)."
    )
    if ends:
        note += f" Close to the best: shown to be within {MARGIN:g} point of it (Hsu's test)."
    return tabulate("Slopes", analysis.slopes, columns, note=note)
