"""A choice at the edge of its grid is told, and so is a fit that did not converge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval.describe import describe, edges_of
from eval.report.build import build_report
from eval.report.content import make_report
from eval.report.records import collect
from eval.schema import Choice, parse_result
from tests.eval.studies import quick_study


def chosen(**settings: float) -> dict[str, Any]:
    rows = [{"learning_rate": r, "weight_decay": d} for r in (0.1, 0.3, 1.0) for d in (0.0, 1e-4)]
    return {"hyperparameters": settings, "grid": rows}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (chosen(learning_rate=0.3, weight_decay=0.0), []),
        (chosen(learning_rate=0.1, weight_decay=0.0), ["learning rate 0.1 is the smallest of the grid"]),
        (
            chosen(learning_rate=1.0, weight_decay=1e-4),
            ["learning rate 1 is the largest of the grid", "weight decay 0.0001 is the largest of the grid"],
        ),
        ({"hyperparameters": {"l2": 1e-4}, "grid": [{"l2": 1e-4}]}, []),
        ({"hyperparameters": {"l2": None}, "grid": [{"l2": 1e-4}, {"l2": None}]}, []),
        ({"hyperparameters": {"l2": 1e-4}, "grid": []}, []),
        ({}, []),
    ],
)
def test_edges(measured: dict[str, Any], expected: list[str]) -> None:
    assert [edge.describe() for edge in edges_of(Choice(**measured))] == expected


def test_the_report_tells_how_many_chose_the_edge(tmp_path: Path) -> None:
    study = quick_study(tmp_path)
    grid = [{"l2": l2, "held_out": 80.0} for l2 in (0.01, 0.001, 0.0001)]
    for number, point in enumerate(study.points):
        l2 = 0.0001 if number else 0.001
        study.edit(
            study.probe_result(point.name),
            lambda value, l2=l2: value.update(hyperparameters={"l2": l2}, grid=grid, converged=l2 < 0.001),
        )
    report = make_report(collect(study.write()))
    total = len(study.points)
    assert report.cautions == (
        f"In {total - 1} of {total} evaluations the chosen L2 0.0001 is the smallest of the grid: smaller values may "
        "score higher.",
        f"1 of {total} evaluations had not converged when their iterations ended: raise max_iterations.",
    )
    page = build_report(tmp_path)
    assert "Caveats" in page.read_text()
    assert "## Caveats" in (page.parent / "report.md").read_text()


def test_a_person_is_told_at_the_end_of_the_evaluation() -> None:
    grid = [{"l2": l2, "held_out": 80.0, "converged": True} for l2 in (0.1, 0.01)]
    result = {
        "task": "linear",
        "top1": None,
        "l2": 0.01,
        "hyperparameters": {"l2": 0.01},
        "grid": grid,
        "data": {},
        "fingerprint": "0123456789ab",
        "run": {"fingerprint": "ba9876543210", "step": 3, "finished": True},
        "seconds": {},
        "settings": {},
    }
    assert "L2 0.01 is the smallest of the grid: try smaller ones" in describe(parse_result(result))
