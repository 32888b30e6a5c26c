"""The launcher against a real Slurm, with stand-ins for what the jobs run: it adopts, retries, cancels and refuses."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch.conftest import BASE, STUDY
from tests.launch.stub import BEHAVIOUR, COUNTER, write_data
from tests.slurm.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
TARGET = {
    "name": "slurm",
    "nodes": 1,
    "ranks_per_node": 2,
    "gpus_per_node": 0,
    "cpus_per_rank": 1,
    "evaluation": {"cpus": 1},
    "max_attempts": 2,
}


@pytest.fixture(scope="module")
def cluster(slurm_here: None) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o755)
        with Cluster(Path(folder) / "d", nodes=1, first_job=4000) as started:
            yield started


class Submitted:
    """A study of four points on the cluster, and the launcher."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster, self.home, self.directory = cluster, home, home / "out"
        self.behaviour = ""
        self.path = cluster.environment["PATH"]
        write_data(home / "data")
        (home / "base.yaml").write_text(yaml.safe_dump(BASE))
        self.file = home / "study.yaml"
        directories = {"directory": str(self.directory), "set": {"data.directory": str(home / "data")}}
        self.file.write_text(yaml.safe_dump({**STUDY, **directories, "target": TARGET, "name": home.name[:40]}))

    def launch(self, *arguments: str, expect: int = 0) -> str:
        own = {COUNTER: str(self.home / "counter"), BEHAVIOUR: self.behaviour, "DRIVER_MAY_IMPORT": "submitit"}
        done = subprocess.run(
            [sys.executable, "-m", "tests.launch.driver", *arguments],
            cwd=ROOT,
            env={**self.cluster.environment, **own, "PATH": self.path},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def study(self, *overrides: str, expect: int = 0) -> str:
        return self.launch("study", str(self.file), *overrides, expect=expect)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.directory / "jobs.json").read_text())["jobs"]
        return found

    def queue(self, *options: str) -> list[str]:
        return self.cluster.ask("squeue", "-h", "-r", *options, "-o", "%i %T").splitlines()

    def wait(self, happened: Callable[[], bool], what: str) -> None:
        self.cluster.until(happened, what, 120)


@pytest.fixture
def submitted(cluster: Cluster, tmp_path: Path) -> Iterator[Submitted]:
    study = Submitted(cluster, tmp_path)
    yield study
    cluster.ask("scancel", "--user", str(os.getuid()))
    study.wait(lambda: not study.queue(), "everything is cancelled")


def test_what_runs_is_adopted_and_can_be_cancelled(submitted: Submitted) -> None:
    submitted.behaviour = "hang"
    submitted.study()
    submitted.wait(lambda: sum(line.endswith("RUNNING") for line in submitted.queue()) == 4, "four runs")
    printed = submitted.study()
    assert "submitted: nothing" in printed
    assert "in Slurm already: 8" in printed
    assert len(submitted.jobs) == len(submitted.queue()) == 4 + 4 + 1
    submitted.wait(lambda: len(list(submitted.directory.glob("points/*/progress.json"))) == 4, "progress")
    status = submitted.launch("status", str(submitted.directory))
    assert "4 training" in status
    here = submitted.study("target={name: local}", expect=2)
    assert "9 jobs in Slurm" in here

    submitted.launch("cancel", str(submitted.directory), "negatives=8")
    assert len(submitted.queue()) == 9 - 2
    submitted.launch("cancel", str(submitted.directory))
    assert submitted.queue() == []
    submitted.behaviour = ""
    assert "submitted: 4 runs, 4 evaluations, 1 report" in submitted.study()
    submitted.wait((submitted.directory / "report/report.html").is_file, "the report")
    assert "submitted" not in submitted.study()
    assert "4 finished" in submitted.launch("status", str(submitted.directory))


def test_what_fails_is_tried_again_only_so_often(submitted: Submitted) -> None:
    submitted.behaviour = "fail:negatives_8"
    submitted.study()
    submitted.wait(lambda: not submitted.queue(), "the end")
    assert (submitted.directory / "report/report.html").is_file(), "the report waits for the others' end, however"
    status = submitted.launch("status", str(submitted.directory))
    assert "3 finished" in status
    assert "1 failed" in status
    assert "logs/train.log" in status
    assert "the planted cause" in submitted.launch("logs", str(submitted.directory), "negatives=8")
    assert "submitted: 1 runs, 1 evaluations, 1 report" in submitted.study()
    submitted.wait(lambda: not submitted.queue(), "the end")
    printed = submitted.study(expect=1)
    assert "train negatives=8,seed=0: not submitted, failed 2 times" in printed
    assert "1 runs" not in printed
    submitted.behaviour = ""
    printed = submitted.launch("retry", str(submitted.directory), "negatives=8")
    assert "2 failures reset" in printed
    assert "submitted: 1 runs, 1 evaluations, 1 report" in printed
    submitted.wait(lambda: not submitted.queue(), "the end")
    assert "4 finished" in submitted.launch("status", str(submitted.directory))


def test_a_launcher_that_could_not_note_its_jobs_finds_them_again(submitted: Submitted) -> None:
    submitted.behaviour = "hang"
    submitted.study()
    jobs, queue = submitted.jobs, sorted(line.split()[0] for line in submitted.queue())
    forgetful = [{**job, "job_id": None} if job["stage"] != "report" else job for job in jobs]
    (submitted.directory / "jobs.json").write_text(json.dumps({"jobs": forgetful}))
    assert "submitted: nothing" in submitted.study()
    assert submitted.jobs == jobs
    assert sorted(line.split()[0] for line in submitted.queue()) == queue


def test_accounting_that_hangs_is_not_waited_for(submitted: Submitted, tmp_path: Path) -> None:
    submitted.behaviour = "fail:negatives_8"
    submitted.study()
    submitted.wait(lambda: not submitted.queue(), "the end")
    sacct = tmp_path / "bin/sacct"
    sacct.parent.mkdir()
    sacct.write_text("#!/bin/sh\nexec sleep 1000\n")
    sacct.chmod(0o755)
    submitted.path = f"{sacct.parent}:{submitted.path}"
    before = time.monotonic()
    assert "1 failed" in submitted.launch("status", str(submitted.directory))
    assert time.monotonic() - before < 60


def test_everything_that_is_wrong_is_told_before_the_first_job(submitted: Submitted) -> None:
    jobs = len(submitted.queue("--states=all"))
    changes = ["target.partition=mian", "set.optimizer.momentun=0.5"]
    printed = submitted.study(*changes, f"directory={submitted.file}/inside", expect=2)
    assert "target.partition: got 'mian', expected one of low, main (did you mean 'main'?)" in printed
    assert "momentun" in printed
    assert f"{submitted.file} is not a directory" in printed
    printed = submitted.study("target.constraint=quantum", "target.sbatch={no-such-option: 1}", expect=2)
    assert "sbatch refuses such a job" in printed
    assert len(submitted.queue("--states=all")) == jobs
    assert not submitted.directory.exists()
