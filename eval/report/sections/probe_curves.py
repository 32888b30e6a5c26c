"""Train and test curves of everything that an evaluation trained: linear probes, fine-tuning, distillation."""

from __future__ import annotations

from collections.abc import Iterator

from eval.report.figures.model import Figure
from eval.report.format import percent
from eval.report.records import grouped
from eval.report.sections.base import Section
from eval.report.sections.curves import curve, curve_panels
from eval.report.table import ReportData
from eval.schema import Curves, DistillResult, EvaluationResult, FinetuneResult, LinearResult
from pretrain.format import plural

MOST_PANELS = 24
CURVE_POINTS = 60
METRICS = (("top1", "Accuracy of the probe (%)", True), ("loss", "Loss of the probe (nats)", False))
LEGEND = (("train", 0, "category"), ("test", 1, "category"))


def sections(data: ReportData) -> Iterator[Section]:
    """Train and test accuracy and loss by epoch of everything that was trained on the labels."""
    groups, figures = _groups(data), []
    for key, title, is_percent in METRICS:
        drawn = {
            label: [
                curve(
                    zip(curves.epoch or (), getattr(curves, f"{part}_{key}") or ()),
                    part if len(members) == 1 else f"{part}, seed {seed}",
                    colour,
                    points=CURVE_POINTS,
                )
                for seed, curves in members
                for part, colour, _ in LEGEND
            ]
            for label, members in list(groups.items())[:MOST_PANELS]
        }
        if panels := curve_panels(drawn, title, percent=is_percent):
            figures.append(Figure(f"probe_{key}", f"{title} by epoch, train and test", tuple(panels), 3, LEGEND))
    more = len(groups) - MOST_PANELS
    if figures:
        yield Section(
            anchor="probe-curves",
            title="Curves of the evaluations",
            remark="Test curves are a record only: the last epoch is what counts, and nothing is chosen by them.",
            figures=tuple(figures),
            notes=(f"{plural(more, 'more setting')} not drawn here.",) if more > 0 else (),
            folded_figures=True,
        )


def _groups(data: ReportData) -> dict[str, list[tuple[int, Curves]]]:
    """(seed, curves) by what a panel shows; evaluations with other settings get panels of their own."""
    parts = [
        (f"{row.label}: {what}", result.fingerprint[:4], (row.seed, curves))
        for row, result in data.of_trained_encoders
        for what, curves in _curves_of(result)
    ]
    marks = {label: {mark for _, mark, _ in own} for label, own in grouped(parts, lambda part: part[0]).items()}
    named = grouped(parts, lambda part: f"{part[0]} ({part[1]})" if len(marks[part[0]]) > 1 else part[0])
    return {label: [curves for _, _, curves in own] for label, own in named.items()}


def _curves_of(result: EvaluationResult) -> Iterator[tuple[str, Curves]]:
    if isinstance(result, LinearResult | DistillResult) and result.curves is not None:
        yield "linear probe" if isinstance(result, LinearResult) else "distillation", result.curves
    for row in result.rows if isinstance(result, FinetuneResult) else ():
        if row.curves is not None:
            yield f"{row.name}, {percent(100 * (row.label_fraction or 0.0), 0)} of labels", row.curves
