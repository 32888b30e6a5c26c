"""Accuracy by class and confusions: of the evaluations that were asked for, and nothing that is not there."""

from __future__ import annotations

from pathlib import Path

from eval.report.records import collect
from eval.report.sections import classes
from eval.report.sections.base import Section
from eval.report.table import ReportData
from tests.eval.studies import Place, SyntheticStudy


def study_in(directory: Path) -> SyntheticStudy:
    study = SyntheticStudy(directory)
    places = [Place(b, {"global_batch_size": b}, [70.0, 72.0 + b / 64]) for b in (64, 256)]
    study.question("batch_size", places, x_key="global_batch_size")
    study.baseline("random", "Random encoder", [47.0, 47.0], {"epochs": 0})
    study.write()
    return study


def section_of(study: SyntheticStudy) -> Section | None:
    return next(iter(classes.sections(ReportData((collect(study.directory),)))), None)


def test_by_class_and_confusions(tmp_path: Path) -> None:
    found = section_of(study_in(tmp_path))
    assert found is not None
    by_class, *matrices = found.tables
    assert by_class.headers == ("Setting", "shirt", "coat", "bag", "<boot>")
    assert [cell.text for cell in by_class.rows[0]] == ["batch 64", "59.5", "75.5", "74.5", "76.5"]
    assert found.findings == (
        "Hardest class: shirt, 60.2 % correct, in the mean of 2 settings; most often predicted as coat (39.8 %).",
    )
    titles = [table.title for table in matrices]
    assert titles == [f"Confusion matrix: {name}" for name in ("batch 256", "batch 64", "Random encoder")]
    assert [cell.text for cell in matrices[1].rows[0]] == ["shirt", "59.5", "40.5", "0.0", "0.0"]
    assert [cell.shade for cell in matrices[1].rows[0]] == [None, 0.595, 0.405, 0.0, 0.0]
    assert "2 seeds together" in matrices[1].note


def test_many_classes_are_told_by_their_extremes(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    many = [[0] * 30 for _ in range(30)]
    for label in range(30):
        many[label][label], many[label][(label + 7) % 30] = 50 + label, 50 - label
    for point in study.points:
        study.edit(
            study.probe_result(point.name),
            lambda value: value.update(per_class=[50.0 + k for k in range(30)], confusion=many, data={}),
        )
    found = section_of(study)
    assert found is not None
    by_class, first, *_ = found.tables
    assert by_class.rows[0][1].text.startswith("class 0 50, class 1 51")
    assert by_class.rows[0][2].text.startswith("class 29 79, class 28 78")
    assert [cell.text for cell in first.rows[0]] == ["class 0", "class 7", "50.0 %", "100"]


def test_nothing_that_is_not_there(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    damaged = {study.points[0].name: [[1, 2]], study.points[1].name: None}
    for name, confusion in damaged.items():
        study.edit(
            study.probe_result(name),
            lambda value, matrix=confusion: value.update(per_class=[float("nan"), None, 70.0, 80.0], confusion=matrix),
        )
    found = section_of(study)
    assert found is not None
    assert [cell.text for cell in found.tables[0].rows[0]] == ["batch 64", "–", "–", "70.0", "80.0"]
    assert not any(table.title.endswith("batch 64") for table in found.tables)
    for point in study.points:
        study.edit(study.probe_result(point.name), lambda value: value.pop("per_class", None))
    assert section_of(study) is None
