"""A run repeated on other ranks is set beside itself, in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eval.report.records import PointRecord, StudyRecord, collect
from eval.report.sections.efficiency import repeated
from eval.report.table import ReportData
from tests.eval.studies import quick_study

NAME = "global_batch_size=256,seed=0"


def again(record: PointRecord, *, from_step: int, error: float) -> PointRecord:
    """The same run on 4 ranks, whose losses are wrong by ``error`` from a step on."""
    rows = [{**r, "loss": r["loss"] * (1 + (error if r["step"] >= from_step else 1e-7))} for r in record.curves]
    assert record.training is not None
    return replace(
        record,
        point=record.point.model_copy(update={"name": "again", "world_size": 4}),
        training=record.training.model_copy(update={"world_size": 4}),
        top1=83.30,
        curves=tuple(rows),
    )


def said(study: StudyRecord, other: PointRecord) -> str:
    (section,) = repeated(ReportData((replace(study, points={**study.points, "again": other}),)))
    (sentence,) = section.findings
    return sentence


def test_agreement_of_ranks_is_said_with_losses_accuracies_and_the_scatter_of_seeds(tmp_path: Path) -> None:
    study = collect(quick_study(tmp_path).write())
    assert not list(repeated(ReportData((study,))))
    record = study.points[NAME]
    steps = [row["step"] for row in record.curves]
    assert said(study, again(record, from_step=steps[100], error=2e-3)) == (
        f"batch 256, seed 0, on 2 ranks and on 4: the losses agree to 0.0001 up to step {steps[99]} and are 0.20 % "
        f"apart at the last recorded step, {steps[-1]}; 83.35 % and 83.30 % accuracy, 0.05 points apart (seeds "
        "differ by 0.21, their standard deviation)."
    )
    assert "every recorded loss agrees to 1e-07; 83.35 %" in said(study, again(record, from_step=10**6, error=1))
    unmeasured = replace(again(record, from_step=0, error=0.5), top1=None, curves=())
    assert said(study, unmeasured).endswith("on 4: not measured yet.")
