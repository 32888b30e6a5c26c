"""Studies on a real Slurm (2 nodes x 2 ranks, gloo) without accounting: after whatever happens, the same weights."""

import re
from pathlib import Path

import pytest

from pretrain.checkpoint import read_checkpoint
from pretrain.rundir import read_json
from tests.slurm.conftest import Scenarios
from tests.slurm.scenarios import Study, losses, weights_file


def point_of(study: Study, temperature: float) -> Path:
    (found,) = [point for point in study.points() if point.name.startswith(f"temperature_{temperature}-")]
    return found


def assert_same_run(point: Path, reference: Path) -> None:
    import torch

    expected = read_checkpoint(weights_file(reference))["model"]
    found = read_checkpoint(weights_file(point))["model"]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected), "weights differ from the undisturbed run"
    assert losses(point) == losses(reference)


@pytest.fixture
def steady(happened: Scenarios) -> Study:
    return happened.undisturbed.result()


def test_a_study_with_evaluations_and_report(steady: Study) -> None:
    assert len(steady.points()) == 4
    for point in steady.points():
        assert read_json(point / "result.json")["world_size"] == 4
        assert list(point.glob("eval/linear-*/result.json"))
    stages = [job["stage"].split("-")[0] for job in steady.jobs]
    assert stages == ["data", *["train"] * 4, *["linear"] * 4, "report"]
    numbers = {job["point"]: job["job_id"] for job in steady.jobs if job["stage"] == "train"}
    assert len({number.split("_")[0] for number in numbers.values()}) == 1, "one array"
    for job in steady.jobs:
        if job["stage"].startswith("linear"):
            assert job["after"] == [numbers[job["point"]]], "an evaluation waits for its own run alone"
        if job["stage"] == "train":
            assert job["fingerprint"]
            assert job["git_revision"]
            assert job["command"].startswith("python -m pretrain ")


def test_a_finished_study_starts_no_job_and_asks_slurm_nothing(steady: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(steady.jobs)
    assert "submitted" not in steady.start()
    assert len(steady.jobs) == before
    finished = steady.launch("status", str(steady.directory))
    assert "4 finished" in finished


def test_preemption_requeue_and_a_lost_node_change_nothing(happened: Scenarios, steady: Study) -> None:
    study = happened.signalled.result()
    (point,) = study.points()
    assert_same_run(point, point_of(steady, 0.2))
    assert read_json(point / "result.json")["restarts"] == 3
    assert len([job for job in study.jobs if job["stage"] == "train"]) == 1, "one job all along"


def test_a_time_limit_cancellation_and_term_change_nothing(happened: Scenarios, steady: Study) -> None:
    study = happened.stopped.result()
    (point,) = study.points()
    assert_same_run(point, point_of(steady, 0.3))
    assert read_json(point / "result.json")["restarts"] == 3
    trainings = [job for job in study.jobs if job["stage"] == "train"]
    assert [job["ending"] for job in trainings] == ["stopped", None]
    assert not re.search(r"weights|diverged", study.launch("status", str(study.directory)))
