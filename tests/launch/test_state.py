"""The state of a half-done study, from its files."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import pytest

from eval.study_manifest import StudyManifest, read_manifest
from launch.plan.config import load_study
from launch.plan.graph import build_graph
from launch.run import write_study
from launch.snapshot import take_snapshot
from launch.state import PointState, TaskRecord, study_states, write_record
from pretrain.rundir import RunDirectory, write_json
from tests.launch.conftest import Workplace

PROGRESS = {"step": 300, "total_steps": 937, "state": "training", "images_per_second": 640.0, "loss": 3.25}


@pytest.fixture
def study(workplace: Workplace) -> tuple[Path, StudyManifest]:
    write_study(take_snapshot(build_graph(load_study(workplace.study), str(workplace.study))))
    return workplace.directory, read_manifest(workplace.directory)


def record(directory: Path, stage: str, state: str, **changes: Any) -> None:
    values = {
        "stage": stage,
        "state": state,
        "command": "x",
        "host": platform.node(),
        "pid": os.getpid(),
        "started": 0.0,
    }
    write_record(directory, TaskRecord.model_validate({**values, **changes}))


def runs(study: tuple[Path, StudyManifest]) -> list[RunDirectory]:
    return [RunDirectory(study[0] / point.directory) for point in study[1].points]


def states(study: tuple[Path, StudyManifest]) -> list[PointState]:
    return study_states(*study)


def finish(run: RunDirectory, fingerprint: str) -> None:
    write_json(run.result, {"fingerprint": fingerprint, "total_steps": 937, "images_per_second": 500.0,
                            "train_seconds": 120.0, "final": {"loss": 1.0}})  # fmt: skip


def test_every_stage_of_a_half_done_study(
    study: tuple[Path, StudyManifest], capsys: pytest.CaptureFixture[str]
) -> None:
    directory, manifest = study
    (probe,) = manifest.probes
    assert {state.stage for state in states(study)} == {"waiting"}
    training, failed, finished, trained = runs(study)
    write_json(training.progress, PROGRESS)
    record(training.path, "train", "running")
    record(failed.path, "train", "failed", exit_status=9)
    finish(finished, manifest.points[2].fingerprint)
    result = {"task": probe.task, "fingerprint": probe.fingerprint, "top1": 88.5, "knn_top1": 81.0}
    result["run"] = {"fingerprint": manifest.points[2].fingerprint, "step": 937, "finished": True}
    write_json(finished.evaluation(probe.task, probe.fingerprint) / "result.json", result)
    finish(trained, manifest.points[3].fingerprint)
    found = states(study)
    assert [state.stage for state in found] == ["training", "failed", "finished", "trained"]
    assert found[0].remaining_s == pytest.approx((937 - 300) * 64 / 640)
    assert found[1].detail == "train ended with exit status 9"
    assert (found[2].top1, found[2].knn_top1, found[2].train_seconds) == (88.5, 81.0, 120.0)
    assert found[3].top1 is None

    from launch.__main__ import main

    assert main(["status", str(directory)]) == 0
    printed = capsys.readouterr().out
    for expected in ("300 / 937", "640", "3.2500", "1 min 04 s", "88.50", "exit status 9", "1 trained"):
        assert expected in printed, expected


def test_a_probe_that_failed_or_runs(study: tuple[Path, StudyManifest]) -> None:
    run, stage = runs(study)[0], f"linear-{study[1].probes[0].fingerprint}"
    finish(run, study[1].points[0].fingerprint)
    record(run.path, stage, "failed", exit_status=1)
    assert (states(study)[0].stage, states(study)[0].detail) == ("failed", f"{stage} ended with exit status 1")
    record(run.path, stage, "running")
    assert states(study)[0].stage == "evaluating"


def test_a_job_whose_process_is_gone_is_stopped(study: tuple[Path, StudyManifest], dead_pid: int) -> None:
    run = runs(study)[0]
    record(run.path, "train", "running", pid=dead_pid)
    assert states(study)[0].stage == "stopped"
    record(run.path, "train", "running", pid=1, host="elsewhere")
    assert states(study)[0].stage == "stopped"  # no sign of it since 1970
    write_json(run.progress, PROGRESS)
    assert states(study)[0].stage == "training"
    os.utime(run.progress, (time.time() - 3600,) * 2)
    assert states(study)[0].stage == "stopped"


def test_a_run_that_somebody_started_by_hand(study: tuple[Path, StudyManifest]) -> None:
    run = runs(study)[0]
    write_json(run.progress, PROGRESS)
    assert states(study)[0].stage == "training"
    os.utime(run.progress, (time.time() - 3600,) * 2)
    assert states(study)[0].stage == "stopped"


def test_damage_is_shown_and_hides_nothing_else(study: tuple[Path, StudyManifest]) -> None:
    run = runs(study)[0]
    run.result.write_text("{")
    found = states(study)
    assert found[0].damaged
    assert str(run.result) in found[0].detail
    assert [state.stage for state in found[1:]] == ["waiting"] * 3


def test_missing_numbers_are_missing_and_not_zero(study: tuple[Path, StudyManifest]) -> None:
    write_json(runs(study)[0].progress, {"step": 0, "total_steps": 937, "images_per_second": None, "loss": None})
    state = states(study)[0]
    assert (state.images_per_second, state.loss, state.remaining_s) == (None, None, None)


@pytest.fixture
def dead_pid() -> int:
    import subprocess

    gone = subprocess.Popen(["true"])
    gone.wait()
    return gone.pid
