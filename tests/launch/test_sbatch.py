"""sbatch gets the text of its golden file (UPDATE_GOLDEN=1 writes them again); what a task of a job becomes."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from launch.plan.targets import SlurmTarget
from launch.slurm.rank import FIRST_PORT, PORTS, RankCommand, job_id
from launch.slurm.sbatch import rank_command, sbatch_text
from launch.tasks import Kind, Task
from tests.launch.conftest import Workplace

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/sbatch"
EVERY_OPTION: dict[str, Any] = {
    "name": "slurm",
    "nodes": 4,
    "ranks_per_node": 8,
    "cpus_per_rank": 12,
    "memory_gb": 900.5,
    "time_limit_min": 600,
    "signal_delay_s": 300,
    "partition": "gpu",
    "account": "vision",
    "qos": "high",
    "constraint": "h100&ib",
    "requeue": False,
    "concurrent_runs": 3,
    "sbatch": {"exclude": "n17", "exclusive": True, "kill-on-invalid-dep": None},
    "srun": ["--mpi=none"],
    "setup": ["module load cuda", "export NCCL_DEBUG=WARN"],
    "container": "apptainer exec --nv image.sif",
    "python": "python3",
    "evaluation": {"gpus": 2, "cpus": 4, "memory_gb": 64, "time_limit_min": 30, "partition": "small"},
}
# Options of the target that replace ours.
GRES = {"name": "slurm", "sbatch": {"gpus-per-node": None, "gres": "gpu:h100:8", "time": "1-00:00:00"}}
CASES: dict[str, tuple[dict[str, Any], Kind, int, str | None]] = {
    "plain_train": ({"name": "slurm", "nodes": 2}, "train", 4, None),
    "plain_probe": ({"name": "slurm", "nodes": 2}, "probe", 1, "afterok:1234_0"),
    "plain_report": ({"name": "slurm", "nodes": 2}, "report", 1, "afterany:1234_0:1235"),
    "cpu_train": ({"name": "slurm", "gpus_per_node": 0, "ranks_per_node": 2}, "train", 1, "afterok:1233"),
    "gres_train": (GRES, "train", 2, None),
    "shared_probe": ({"name": "slurm", "evaluation": {"ranks": 4}}, "probe", 1, "afterok:1234_0"),
    "every_option_train": (EVERY_OPTION, "train", 24, None),
    "every_option_probe": (EVERY_OPTION, "probe", 1, "afterok:1234_0"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_script_is_the_golden_one(name: str, tmp_path: Path) -> None:
    options, kind, count, after = CASES[name]
    target = SlurmTarget(**options)
    processes = target.evaluation_ranks if kind == "probe" else 1
    name_of_job = f"quick-{kind}-01234567"
    text = sbatch_text(tmp_path, target, kind, name=name_of_job, count=count, processes=processes, after=after)
    text = text.replace(str(tmp_path.resolve()), "/STUDY").replace(sys.executable, "/VENV/bin/python")
    golden = GOLDEN / f"{name}.sh"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(
    ("kind", "processes", "expected"), [("probe", 1, False), ("probe", 2, True), ("train", 4, True)]
)
def test_several_processes_are_told_their_ranks(tmp_path: Path, kind: Kind, processes: int, expected: bool) -> None:
    command = ("python", "-m", "eval")
    task = Task("key", kind, "stage", "label", command, tmp_path, processes=processes)
    assert rank_command(task, SlurmTarget(name="slurm", ranks_per_node=4)).distributed is (processes > 1)


def test_dry_run_shows_every_script_and_writes_nothing(
    workplace: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from launch.__main__ import main

    monkeypatch.setenv("PATH", "")  # no Slurm needed
    path = workplace.write(target={"name": "slurm", "nodes": 2, "ranks_per_node": 1})
    assert main(["study", str(path), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("#!/bin/bash") == 4
    assert "#SBATCH --array=0-3%4" in printed
    assert "# 4 x train: python -m pretrain" in printed
    assert "--dependency='afterok:<train>'" in printed
    assert not workplace.directory.exists()


def test_without_slurm_everything_is_refused_at_once(
    workplace: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from launch.__main__ import main

    path = workplace.write(target={"name": "slurm"}, directory=str(workplace.path / "base.yaml/out"))
    monkeypatch.setenv("PATH", str(workplace.path))
    assert main(["study", str(path), "set.epochz=3"]) == 2
    printed = capsys.readouterr().err
    assert "3 problems" in printed
    assert "epochz: unknown key (did you mean 'epochs'?)" in printed
    assert f"{workplace.path / 'base.yaml'} is not a directory" in printed
    assert "Slurm's sbatch, srun, squeue, scancel, scontrol is not on PATH" in printed


def test_a_directory_that_cannot_be_written_is_refused(
    workplace: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from launch.__main__ import main

    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert main(["study", str(workplace.study)]) == 2
    assert "; expected another path" in capsys.readouterr().err


PRINT = "import os, signal; print({k: os.environ.get(k) for k in KEYS}, signal.pthread_sigmask(signal.SIG_BLOCK, []), "
PRINT += "signal.getsignal(signal.SIGUSR2), signal.getsignal(signal.SIGTERM))"
KEYS = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS"]
KEYS += ["BIGBATCH_REQUEUE_JOB", "CUDA_VISIBLE_DEVICES"]
SLURM = {
    "SUBMITIT_EXECUTOR": "slurm",
    "SLURM_JOB_ID": "1240",
    "SLURM_ARRAY_JOB_ID": "1234",
    "SLURM_ARRAY_TASK_ID": "5",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "4",
    "SLURM_NODEID": "1",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "CUDA_VISIBLE_DEVICES": "2,3",
    "RANK": "77",
}


def become(task: RankCommand, **changes: str) -> subprocess.CompletedProcess[str]:
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())()"
    command = ["env", "--ignore-signal=USR2", sys.executable, "-c", code]
    environment = {**os.environ, **SLURM, **changes}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, input=cloudpickle.dumps(task))
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_rank_of_a_run_is_told_who_it_is_and_holds_signals_back(tmp_path: Path) -> None:
    program = PRINT.replace("KEYS", repr(KEYS))
    environment = {"OMP_NUM_THREADS": "12"}
    task = RankCommand(("-c", program), str(tmp_path / "logs/train.log"), True, True, True, environment)
    done = become(task)
    assert done.returncode == 0, done.stderr
    told = dict(zip(KEYS, ["3", "4", "1", "2", "gpu07", str(FIRST_PORT + 1240 % PORTS), "12", "1234_5", "2,3"]))
    assert str(told) in done.stdout
    assert "SIGUSR2" in done.stdout
    assert "SIGTERM" in done.stdout, "both wait until the run listens"
    assert not (tmp_path / "logs").exists(), "only the first rank writes the log"


def test_the_first_task_of_an_evaluation_writes_the_log_and_ignores_usr2(tmp_path: Path) -> None:
    log = tmp_path / "logs/linear.log"
    task = RankCommand(("-c", PRINT.replace("KEYS", "['RANK']")), str(log))
    done = become(task, SLURM_PROCID="0")
    assert done.returncode == 0, done.stderr
    first, second = log.read_text().splitlines()
    assert first.startswith("$ python -c")
    assert first.endswith("(Slurm job 1234_5)")
    assert second == f"{{'RANK': '77'}} set() {signal.SIG_IGN} {signal.SIG_DFL}"


def test_a_job_without_array_has_its_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    assert job_id() == "8"


def test_a_task_is_pickled_by_name() -> None:
    """A job that is started again months later takes the code of that day, and needs only its words."""
    text = cloudpickle.dumps(RankCommand(("-c", "pass"), "log"))
    assert isinstance(pickle.loads(text), RankCommand)
    assert b"execv" not in text
