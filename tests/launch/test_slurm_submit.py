"""What is submitted, adopted, left alone: never two jobs for one task, never a job that waits for nothing."""

from pathlib import Path
from typing import Any

import pytest

from launch.plan.config import load_study
from launch.plan.graph import build_graph
from launch.slurm.jobs import SlurmJob, attempts, found_again, job_name, read_jobs, with_endings, write_jobs
from launch.slurm.queue import QueueRow
from launch.slurm.submit import Decision, decide, dependency
from launch.snapshot import take_snapshot
from launch.tasks import Task
from pretrain.rundir import write_json
from tests.launch.conftest import Workplace
from tests.launch.stub import write_data

TARGET = {"name": "slurm", "nodes": 2, "ranks_per_node": 1, "gpus_per_node": 0}


@pytest.fixture
def tasks(workplace: Workplace) -> list[Task]:
    """One run and its evaluation; the data is there."""
    write_data(workplace.path / "data")
    path = workplace.write(target=TARGET, questions=[])
    graph = build_graph(load_study(path), str(path))
    found = list(take_snapshot(graph).missing)
    assert [task.kind for task in found] == ["train", "probe"]
    return found


def job(task: Task, number: str | None, **changes: Any) -> SlurmJob:
    point = task.point
    assert point is not None
    return SlurmJob(
        key=task.key,
        stage=task.stage,
        point=point.entry.name,
        directory=point.entry.directory,
        result=f"{point.entry.directory}/result.json",
        command="python",
        fingerprint=point.entry.fingerprint,
        git_revision=None,
        attempt=1,
        name="small-train-0",
        job_id=number,
        submitted=0.0,
        **changes,
    )


def queue(**states: str) -> dict[str, QueueRow]:
    numbers = {number.removeprefix("j"): state for number, state in states.items()}
    return {number: QueueRow(number, state, "n1", "", "small-train-0") for number, state in numbers.items()}


def sorted_out(decision: Decision) -> tuple[list[str], list[str], list[str]]:
    return (
        [task.kind for task in decision.submit],
        [task.kind for task in decision.adopted],
        [task.kind for task, _ in decision.refused],
    )


def test_nothing_was_submitted_yet(tasks: list[Task]) -> None:
    assert sorted_out(decide(tasks, [], {}, max_attempts=3)) == (["train", "probe"], [], [])


def test_what_is_in_the_queue_is_adopted(tasks: list[Task]) -> None:
    run, probe = tasks
    jobs = [job(run, "5_0"), job(probe, "6", after=("5_0",))]
    decision = decide(tasks, jobs, queue(j5_0="RUNNING", j6="PENDING"), max_attempts=3)
    assert sorted_out(decision) == ([], ["train", "probe"], [])
    assert decision.alive == {run.key: "5_0", probe.key: "6"}


def test_an_evaluation_that_waits_for_a_run_that_is_gone_is_replaced(tasks: list[Task]) -> None:
    run, probe = tasks
    jobs = [job(run, "5_0", ending="failed"), job(probe, "6", after=("5_0",))]
    decision = decide(tasks, jobs, queue(j6="PENDING"), max_attempts=3)
    assert sorted_out(decision) == (["train", "probe"], [], [])
    assert decision.cancel == ["6"]


def test_failures_are_tried_again_only_so_often_and_leave_alone_what_needs_them(tasks: list[Task]) -> None:
    run, _ = tasks
    twice = [job(run, "5", ending="failed"), job(run, "7", ending="failed")]
    assert sorted_out(decide(tasks, twice, {}, max_attempts=3))[0] == ["train", "probe"]
    decision = decide(tasks, [*twice, job(run, "9", ending="failed")], {}, max_attempts=3)
    assert sorted_out(decision) == ([], [], ["train", "probe"])
    assert "failed 3 times" in decision.refused[0][1]
    assert "which is not submitted" in decision.refused[1][1]


@pytest.mark.parametrize("ending", ["stopped", "reset", "finished"])
def test_what_did_not_fail_does_not_count(tasks: list[Task], ending: str) -> None:
    jobs = [job(tasks[0], str(number), ending=ending) for number in range(9)]
    assert attempts(jobs, tasks[0].key) == 0
    assert sorted_out(decide(tasks, jobs, {}, max_attempts=1))[0] == ["train", "probe"]


def test_dependencies_are_on_what_has_a_number(tasks: list[Task]) -> None:
    run, probe = tasks
    assert dependency(probe, {run.key: "5_0"}) == ("5_0",)
    assert dependency(probe, {}) == ()


def test_a_launcher_that_was_killed_after_submitting_finds_its_job_again(tasks: list[Task]) -> None:
    lost = job(tasks[0], None, index=1)
    assert found_again([lost], queue(j5_0="RUNNING", j5_1="PENDING"))[0].job_id == "5_1"
    assert found_again([lost], queue(j5_0="RUNNING")) == [], "it was never submitted"
    single = job(tasks[0], None)
    assert found_again([single], queue(j8="RUNNING"))[0].job_id == "8"


def test_how_a_job_ended(tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tasks[0]
    one = job(run, "5")
    place = tmp_path / one.directory
    monkeypatch.setattr("launch.slurm.jobs.accounting", lambda numbers: {})

    def ending() -> str | None:
        return with_endings(tmp_path, [one], {})[0].ending

    assert ending() == "failed"
    assert with_endings(tmp_path, [one], queue(j5="PENDING"))[0].ending is None
    write_json(place / "progress.json", {"state": "stopped"})
    assert ending() == "stopped"
    write_json(place / "progress.json", {"state": "training"})
    monkeypatch.setattr("launch.slurm.jobs.accounting", lambda numbers: {"5": "CANCELLED"})
    assert ending() == "stopped"
    write_json(place / "result.json", {})
    assert ending() == "finished"


def test_jobs_survive_their_file(tasks: list[Task], tmp_path: Path) -> None:
    jobs = [job(tasks[0], "5_0"), job(tasks[1], None, after=("5_0", "6"), ending="failed")]
    write_jobs(tmp_path, jobs)
    assert read_jobs(tmp_path) == jobs
    assert read_jobs(tmp_path / "elsewhere") == []


def test_names_of_submissions_differ_by_study_tasks_and_number(tmp_path: Path) -> None:
    names = {
        job_name("small", "train", tmp_path / where, keys, number)
        for where in ("a", "b")
        for keys in (["x"], ["x", "y"])
        for number in (0, 1)
    }
    assert len(names) == 8
    assert job_name("small", "train", tmp_path, ["x"], 0) == job_name("small", "train", tmp_path, ["x"], 0)
