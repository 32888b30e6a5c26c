"""One big synthetic study, made once: grids of several axes, trouble, and every kind of evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.report.content import Report, make_report
from eval.report.records import StudyRecord, collect
from tests.eval.rich_studies import add_evaluations, add_trouble, grid_study


@pytest.fixture(scope="session")
def grid_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = grid_study(tmp_path_factory.mktemp("grid"))
    add_trouble(study)
    add_evaluations(study, [point.name for point in (*study.points[8:14], *study.points[-5:-3])])
    return study.write(name="grid", title="Batch size, learning rate and ablations")


@pytest.fixture(scope="session")
def grid(grid_directory: Path) -> StudyRecord:
    return collect(grid_directory)


@pytest.fixture(scope="session")
def grid_report(grid: StudyRecord) -> Report:
    return make_report(grid)
