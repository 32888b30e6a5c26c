"""Train and test curves of everything that an evaluation trained: linear probes, fine-tuning, distillation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from eval.report.collect import number
from eval.report.evaluations import Found, rows_of
from eval.report.panels import Figure, Series
from eval.report.sections import Section
from eval.report.text import many, percent
from eval.report.training import curve, curve_panels

MOST_PANELS = 24
METRICS = (("top1", "Accuracy of the probe (%)", True), ("loss", "Loss of the probe (nats)", False))


def probe_curves_section(found: Found) -> Section | None:
    """Train and test accuracy and loss by epoch of everything that was trained on the labels."""
    groups = _groups(found)
    figures = []
    for key, title, percents in METRICS:
        drawn: dict[str, list[Series]] = {}
        for label, members in list(groups.items())[:MOST_PANELS]:
            series = [
                curve(zip(curves.get("epoch") or (), curves.get(f"{part}_{key}") or ()), _line(part, seed, members), i)
                for seed, curves in members
                for i, part in enumerate(("train", "test"))
            ]
            series = [s for s in series if len(s.marks) > 1]
            if series:
                drawn[label] = series
        if drawn:
            panels = curve_panels(drawn, title, percent=percents)
            legend = (("train", 0, "category"), ("test", 1, "category"))
            figures.append(Figure(f"probe_{key}", f"{title} by epoch, train and test", tuple(panels), 3, legend))
    if not figures:
        return None
    more = len(groups) - MOST_PANELS
    return Section(
        anchor="probe-curves",
        title="Curves of the evaluations",
        remark="Test curves are a record only: the last epoch is what counts, and nothing is chosen by them.",
        figures=tuple(figures),
        notes=(f"{many(more, 'more setting')} not drawn here.",) if more > 0 else (),
        folded_figures=True,
    )


def _groups(found: Found) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """(seed, curves) by what a panel shows; evaluations with other settings get panels of their own."""
    marks: dict[str, set[str]] = {}
    parts = [
        (f"{setting}: {what}", str(result.get("fingerprint", ""))[:4], record.point.seed, curves)
        for setting, record, result in found
        for what, curves in _curves_of(result)
    ]
    for label, mark, _, _ in parts:
        marks.setdefault(label, set()).add(mark)
    groups: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for label, mark, seed, curves in parts:
        groups.setdefault(f"{label} ({mark})" if len(marks[label]) > 1 else label, []).append((seed, curves))
    return groups


def _curves_of(result: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    task = str(result.get("task", "evaluation"))
    if isinstance(result.get("curves"), dict):
        yield {"linear": "linear probe", "distill": "distillation"}.get(task, task), result["curves"]
    for row in rows_of(result):
        if isinstance(row.get("curves"), dict):
            fraction = percent(100 * (number(row.get("label_fraction")) or 0.0), 0)
            yield f"{row.get('name', task)}, {fraction} of labels", row["curves"]


def _line(part: str, seed: int, members: Sequence[tuple[int, Any]]) -> str:
    return part if len(members) == 1 else f"{part}, seed {seed}"
