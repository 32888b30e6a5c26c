"""Where a job stands: Slurm's word, the job's own files, and which of them is newer."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from eval.study_manifest import StudyManifest
from launch.commands.study_dir import show_logs
from launch.plan.config import load_study
from launch.plan.graph import build_graph
from launch.run import write_study
from launch.slurm.jobs import SILENT, SlurmJob, study_records, write_jobs
from launch.slurm.queue import QueueRow, ask, read_queue
from launch.snapshot import take_snapshot
from launch.state import PointState, TaskRecord, study_states, write_record
from pretrain.rundir import write_json
from tests.launch.conftest import Workplace

PROGRESS = {"step": 3, "total_steps": 10, "images_per_second": 64.0, "loss": 2.0, "host": "n7"}


class Study:
    """One point whose training is job 5 of Slurm's."""

    def __init__(self, place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
        path = place.write(questions=[])
        graph = build_graph(load_study(path), str(path))
        write_study(take_snapshot(graph))
        self.directory, self.manifest, self.monkeypatch = place.directory, graph.manifest, monkeypatch
        self.point = graph.points[0].entry
        self.run = place.directory / self.point.directory
        monkeypatch.setattr("launch.slurm.jobs.accounting", lambda numbers: {})

    def submitted(self, **changes: Any) -> None:
        known = {"key": "k", "stage": "train", "point": self.point.name, "directory": self.point.directory}
        known |= {"result": f"{self.point.directory}/result.json", "command": "python", "fingerprint": "f"}
        known |= {"git_revision": None, "attempt": 1, "name": "n", "job_id": "5", "submitted": time.time()}
        write_jobs(self.directory, [SlurmJob.model_validate({**known, **changes})])

    def queue(self, state: str | None, reason: str = "") -> None:
        """What squeue says of job 5; an empty state: it is not there; None: no answer."""
        job = QueueRow("5", state or "", "n7", reason, "n")
        found = None if state is None else {"5": job} if state else {}
        self.monkeypatch.setattr("launch.slurm.jobs.read_queue", lambda known: found)

    def state(self) -> PointState:
        manifest: StudyManifest = self.manifest
        (found,) = study_states(self.directory, manifest, study_records(self.directory))
        return found


@pytest.fixture
def study(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Study:
    return Study(workplace, monkeypatch)


@pytest.mark.parametrize(
    ("said", "expected"), [("PENDING", "queued"), ("RUNNING", "training"), ("COMPLETING", "training"), ("", "failed")]
)
def test_squeue_decides(study: Study, said: str, expected: str) -> None:
    study.submitted()
    study.queue(said, "Priority")
    state = study.state()
    assert state.stage == expected
    if expected == "queued":
        assert state.detail == "Priority"
    if expected == "failed":
        assert state.detail == "train (Slurm job 5) ended without a result"


def test_a_requeued_run_shows_where_it_was(study: Study) -> None:
    study.submitted()
    study.queue("PENDING")
    write_json(study.run / "progress.json", PROGRESS)
    write_json(study.run / "environment.json", {"sessions": [{}, {}, {}]})
    state = study.state()
    assert (state.stage, state.step, state.host, state.restarts) == ("queued", 3, "n7", 2)


def test_silence_is_not_taken_for_an_end(study: Study) -> None:
    study.submitted()
    study.queue(None)
    assert (study.state().stage, study.state().detail) == ("queued", SILENT)
    write_json(study.run / "progress.json", PROGRESS)
    assert study.state().stage == "training"


def test_a_finished_run_asks_nobody(study: Study) -> None:
    study.submitted(ending="finished")
    study.monkeypatch.setattr("launch.slurm.jobs.read_queue", lambda known: pytest.fail("asked"))
    (study.run / "result.json").write_text(json.dumps({"fingerprint": study.point.fingerprint, "total_steps": 10}))
    assert study.state().stage == "trained"


def test_the_newer_start_counts(study: Study) -> None:
    study.submitted(submitted=100.0)
    study.queue("")
    here = {"stage": "train", "command": "python", "host": "h", "pid": 0, "started": 200.0, "exit_status": 3}
    write_record(study.run, TaskRecord.model_validate({**here, "state": "failed"}))
    assert study.state().detail == "train ended with exit status 3"
    study.submitted(submitted=300.0)
    assert "Slurm job 5" in study.state().detail


def test_logs_show_what_only_another_rank_said(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.submitted()
    outputs = {
        "5_0": "submitit INFO starting\n",
        "5_3": "submitit INFO starting\nMemoryError on rank 3\n",
        "6_0": "else",
    }
    for name, text in outputs.items():
        path = study.directory / f"slurm/{name}_log.out"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    show_logs(study.directory, study.point.name, 5)
    printed = capsys.readouterr().out
    assert "MemoryError on rank 3" in printed
    assert printed.count("==>") == 1


def test_an_answer_has_a_deadline_and_may_be_missing(tmp_path: Path) -> None:
    assert ask([str(tmp_path / "sacct")], 5.0) is None, "not installed"
    assert ask(["sleep", "60"], 0.2) is None, "no answer in time"
    answer = ask(["cat"], 5.0, "text")
    assert answer is not None
    assert answer.stdout == "text"


def test_jobs_of_somebody_else_are_found_by_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"--user": "5|RUNNING|n1|None|mine\n", "--jobs": "7_1|PENDING||Priority|theirs\n"}
    lines = "".join(f"*{option}=*) printf '{text}';;" for option, text in answers.items())
    (tmp_path / "squeue").write_text(f'#!/bin/sh\ncase "$*" in {lines} esac\n')
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert set(read_queue() or {}) == {"5"}
    assert set(read_queue(["5"]) or {}) == {"5"}
    found = read_queue(["5", "7_1", None])
    assert found is not None
    assert found["7_1"] == QueueRow("7_1", "PENDING", "", "Priority", "theirs")
