"""What the console shows while a study runs, in a pipe."""

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from launch.local.process import Outcome
from launch.local.progress import Progress
from launch.plan.config import load_study
from launch.plan.graph import build_graph
from launch.snapshot import take_snapshot
from launch.tasks import Task
from tests.launch.conftest import Workplace


class Shown:
    """The progress of a study of two runs, on a clock that the test moves."""

    def __init__(self, place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
        question = {"name": "q", "title": "Q", "x": "global_batch_size", "x_label": "B"}
        path = place.write(questions=[{**question, "grid": {"global_batch_size": [64, 256]}}], baselines=[])
        snapshot = take_snapshot(build_graph(load_study(path), str(path)))
        self.now = time.monotonic()
        monkeypatch.setattr("launch.local.progress.time.monotonic", lambda: self.now)
        self.text = io.StringIO()
        self.progress = Progress(snapshot, Console(file=self.text, width=200))
        self.first, self.second = (task for task in snapshot.missing if task.kind == "train")
        self.evaluation = next(task for task in snapshot.missing if task.kind == "probe")

    def tick(self, running: list[Task], after_s: float) -> str:
        """What is printed ``after_s`` seconds later."""
        self.now += after_s
        self.text.seek(0)
        self.text.truncate()
        self.progress.tick(running)
        return self.text.getvalue()


@pytest.fixture
def shown(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Shown:
    return Shown(workplace, monkeypatch)


def write(path: Path, **values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def test_the_time_left_is_shown_from_the_first_finished_run_on(shown: Shown) -> None:
    first, second = shown.first, shown.second
    assert first.point is not None
    progress = {"total_steps": 100, "images_per_second": 64.0, "loss": 2.5}
    write(first.directory / "progress.json", step=50, **progress)
    early = shown.tick([first], 60)
    assert "step 50/100, loss 2.5000, 64 images/s" in early
    assert "left" not in early, "the first minutes are start-up"
    write(first.directory / "result.json", fingerprint=first.point.entry.fingerprint, total_steps=100)
    shown.progress.ended(first, Outcome(first, "finished", 0, 120.0))
    for _ in range(2):
        write(second.directory / "progress.json", step=1, **progress)
        assert ", about " in shown.tick([second], 60)


def test_an_evaluation_shows_its_own_accuracy(shown: Shown, workplace: Workplace) -> None:
    first, probe = shown.first, shown.evaluation
    assert first.point is not None
    assert probe.result is not None
    fingerprint = first.point.entry.fingerprint
    write(first.directory / "result.json", fingerprint=fingerprint, total_steps=100)
    run = {"fingerprint": fingerprint, "step": 100, "finished": True}
    task, _, evaluation = probe.stage.rpartition("-")
    write(probe.result, task=task, fingerprint=evaluation, run=run, top1=87.25, knn_top1=80.5)
    shown.progress.ended(probe, Outcome(probe, "finished", 0, 4.2))
    assert "linear global_batch_size=64,seed=0: done in 4.2 s, top-1 87.25 %" in shown.text.getvalue()
