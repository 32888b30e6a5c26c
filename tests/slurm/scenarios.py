"""What a study goes through on a real Slurm: nothing, or one disturbance after another, each while it trains."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pretrain.rundir import read_json, read_json_lines
from tests.slurm.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20
BASE: dict[str, Any] = {
    "global_batch_size": 64,
    "epochs": 2,
    "data": {"dataset": "synthetic", "images": 640, "loader": "beton"},
    "augmentation": {"crop_size_px": 32},
    "encoder": {"architecture": "resnet18", "width": 0.125, "stem": "strided"},
    "objective": {"name": "simclr", "temperature": 0.2},
    "schedule": {"base_learning_rate": 0.1, "warmup_epochs": 1},
    "log": {"every_steps": 1, "wandb": "disabled"},
    # Only the clock brings checkpoints, at every step: what a node takes with it when it dies is one step.
    "checkpoint": {"every_steps": 1000, "every_s": 0.001},
}
TARGET: dict[str, Any] = {
    "name": "slurm",
    "nodes": 2,
    "ranks_per_node": 2,
    "gpus_per_node": 0,
    "cpus_per_rank": 1,
    "time_limit_min": 60,
    "evaluation": {"cpus": 1, "time_limit_min": 10},
}
# Slow machines: what does not happen in this time is taken for a hang.
PATIENCE_S = 900.0


class Study:
    """A study in a directory of its own, on one cluster; its points differ in temperature."""

    def __init__(
        self, cluster: Cluster, home: Path, name: str, temperatures: list[float], *, probed: bool, **target: Any
    ) -> None:
        self.cluster, self.directory = cluster, home / name
        self.file = home / f"{name}.yaml"
        question = {"name": "t", "title": "T", "x": "objective.temperature", "x_label": "T"}
        study = {
            "name": name,
            "title": name,
            "base": "base.yaml",
            "directory": str(self.directory),
            "set": {"data.directory": str(home / "data")},
            "seeds": [0],
            "questions": [{**question, "grid": {"objective.temperature": temperatures}}],
            "probes": [{"task": "linear", "set": {"train_images": 256, "l2": [1.0e-2]}}] if probed else [],
            "target": {**TARGET, "setup": [f"export PYTHONPATH={ROOT / 'tests/slurm/brake'}:{ROOT}"], **target},
        }
        self.file.write_text(yaml.safe_dump(study))
        (home / "base.yaml").write_text(yaml.safe_dump(BASE))

    def launch(self, *arguments: str, expect: int = 0) -> str:
        """Run a command of the launcher; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "launch", *arguments],
            cwd=ROOT,
            env=self.cluster.environment,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *overrides: str) -> str:
        return self.launch("study", str(self.file), *overrides)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """Every submission, as jobs.json tells them."""
        found: list[dict[str, Any]] = read_json(self.directory / "jobs.json")["jobs"]
        return found

    def number(self, stage: str) -> str:
        """Number of the newest job of ``stage``."""
        return str([job["job_id"] for job in self.jobs if job["stage"].startswith(stage)][-1])

    def points(self) -> list[Path]:
        return sorted((self.directory / "points").iterdir())

    def state(self, job: str) -> str:
        """Slurm's word for the state of ``job``."""
        return self.cluster.ask("squeue", "-h", "--states=all", "-j", job, "-o", "%T")

    def wait(self, happened: Callable[[], bool], what: str) -> None:
        try:
            self.cluster.until(happened, f"{self.file.stem}: {what}", PATIENCE_S)
        except AssertionError as error:
            logs = [*self.directory.glob("**/*.log"), *(self.directory / "slurm").glob("*.out")]
            ends = "\n".join(f"--- {log}\n{log.read_text(errors='replace')[-600:]}" for log in sorted(logs))
            raise AssertionError(f"{error}\n{self.launch('status', str(self.directory))}\n{ends}") from None


class HeldRun:
    """The one run of a study, held at chosen steps."""

    def __init__(self, study: Study) -> None:
        self.study = study
        (self.path,) = study.points() if (study.directory / "points").is_dir() else (study.directory,)

    def hold(self, step: int | None) -> None:
        """Hold the run from ``step`` on the next time that it gets there; None: never again."""
        (self.path / "brake").write_text("" if step is None else str(step))

    def wait_until_held(self, step: int, *, starts: int) -> None:
        """Return once the run is at ``step`` in its ``starts``-th start."""

        def held() -> bool:
            rows = read_json_lines(self.path / "metrics.jsonl")
            return self.starts() == starts and bool(rows) and rows[-1]["step"] == step

        self.study.wait(held, f"step {step} of start {starts}")

    def starts(self) -> int:
        try:
            return len(read_json(self.path / "environment.json")["sessions"])
        except FileNotFoundError:
            return 0

    def wait_until_back(self, job: str) -> None:
        """Return once ``job`` waits in the queue to be started again."""
        self.study.wait(lambda: self.study.state(job) == "PENDING", f"job {job} goes back into the queue")

    def wait_until_finished(self) -> None:
        self.study.wait((self.path / "result.json").is_file, "its result")

    def log(self) -> str:
        return (self.path / "logs/train.log").read_text()


def undisturbed(cluster: Cluster, home: Path) -> Study:
    """Four points, with their data, evaluations and report."""
    study = Study(cluster, home, "steady", [0.1, 0.2, 0.3, 0.5], probed=True, concurrent_runs=1)
    printed = study.start()
    assert "submitted: 1 data sets, 4 runs, 4 evaluations, 1 report" in printed, printed
    study.wait((study.directory / "report/report.html").is_file, "the report")
    return study


def preempted_requeued_and_a_node_lost(cluster: Cluster, home: Path) -> Study:
    """Preemption with a signal ahead, `scontrol requeue` from outside, and a node that dies."""
    study = _held_study(cluster, home, "signalled", 0.2, partition="low")
    run, job = HeldRun(study), study.number("train")
    run.wait_until_held(3, starts=1)
    preemptor = _preempt(cluster)
    run.wait_until_back(job)
    assert "SIGUSR2: saved" in run.log()
    assert f"job {job} is requeued and goes on" in run.log()
    run.hold(8)
    cluster.ask("scancel", preemptor)
    run.wait_until_held(8, starts=2)
    cluster.ask("scontrol", "requeue", job)
    run.hold(13)
    run.wait_until_held(13, starts=3)
    node = cluster.ask("squeue", "-h", "-j", job, "-o", "%N").removeprefix("n[").split("-")[0].split(",")[0]
    cluster.kill_node(f"n{node}")
    run.wait_until_back(job)
    run.hold(None)
    run.wait_until_finished()
    assert run.starts() == 4
    return study


def out_of_time_cancelled_and_terminated(cluster: Cluster, home: Path) -> Study:
    """A time limit, `scancel` and a new `launch study`, and preemption with TERM alone."""
    study = _held_study(cluster, home, "stopped", 0.3, partition="low", time_limit_min=3, signal_delay_s=90)
    run, job = HeldRun(study), study.number("train")
    study.wait(lambda: run.starts() == 1, "its first start")
    run.wait_until_back(job)
    assert f"job {job} is requeued and goes on" in run.log()
    run.hold(8)
    run.wait_until_held(8, starts=2)
    cluster.ask("scancel", job)
    printed = study.start("target.time_limit_min=60")
    assert "submitted: 1 runs, 1 report" in printed, printed
    assert study.state(job) == "CANCELLED"
    again = study.number("train")
    run.hold(13)
    run.wait_until_held(13, starts=3)
    preemptor = _preempt(cluster)
    run.wait_until_back(again)
    assert "SIGTERM: saved" in run.log()
    run.hold(None)
    cluster.ask("scancel", preemptor)
    run.wait_until_finished()
    assert run.starts() == 4
    return study


def _held_study(cluster: Cluster, home: Path, name: str, temperature: float, **target: Any) -> Study:
    """A study of one point, submitted, whose run will hold at step 3."""
    study = Study(cluster, home, name, [temperature], probed=False, **target)
    deadline = time.monotonic() + PATIENCE_S
    while not (home / "data/train.beton").is_file() or not (home / "data/test.beton").is_file():
        assert time.monotonic() < deadline, "the first study writes no data"
        time.sleep(0.2)
    study.start("target.sbatch={hold: true}")
    HeldRun(study).hold(3)
    cluster.ask("scontrol", "release", study.number("train"))
    return study


def _preempt(cluster: Cluster) -> str:
    """Let a job that goes first have all nodes; its number."""
    nodes = len(cluster.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%N").split())
    command = ["sbatch", "--parsable", "--partition=main", f"--nodes={nodes}", "--exclusive", "--wrap=sleep 1000"]
    return cluster.ask(*command, f"--output={cluster.home}/preemptor.out")


def weights_file(point: Path) -> Path:
    """The last checkpoint of a point."""
    return sorted((point / "checkpoints").glob("step_*.pt"))[-1]


def losses(point: Path) -> list[float]:
    """Loss of every step."""
    rows = [json.loads(line) for line in (point / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [row["loss"] for row in rows]
