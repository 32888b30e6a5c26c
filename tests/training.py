"""Real torchrun jobs on a small written data set, for tests of whole runs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pretrain.checkpoint import newest_checkpoint, read_checkpoint
from pretrain.rundir import read_json_lines

ROOT = Path(__file__).resolve().parent.parent


def torchrun(run_directory: Path, data: Path, ranks: int, *overrides: str) -> list[str]:
    """Command of a short run of the quick study's configuration on ``ranks`` ranks."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)),
        *("-m", "pretrain", "configs/pretrain/fashion_mnist.yaml"),
        *("data.dataset=synthetic", f"data.directory={data}", f"run.directory={run_directory}"),
        *("log.every_steps=1", "log.wandb=disabled", "data.loader=beton"),
        *overrides,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(command: list[str], *, timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout_s)


def run_ok(command: list[str]) -> str:
    done = run(command)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


def start(command: list[str], log: Path) -> subprocess.Popen[str]:
    with log.open("w") as file:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=file, stderr=file, text=True, start_new_session=True
        )


def wait_for_step(process: subprocess.Popen[str], run_directory: Path, step: int, log: Path) -> None:
    """Return once the run has recorded ``step``."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        rows = read_json_lines(run_directory / "metrics.jsonl")
        if rows and rows[-1]["step"] >= step:
            return
        assert process.poll() is None, f"ended before step {step}:\n{log.read_text()[-4000:]}"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError(f"no step {step} in time:\n{log.read_text()[-4000:]}")


def rank_pids(launcher_pid: int) -> list[int]:
    """Processes that torchrun started, in the order of their ranks."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(fields[1]) == launcher_pid:
            pids.append(int(stat.parent.name))
    return sorted(pids)


def final_weights(run_directory: Path) -> dict[str, torch.Tensor]:
    path = newest_checkpoint(run_directory / "checkpoints")
    assert path is not None
    model: dict[str, torch.Tensor] = read_checkpoint(path)["model"]
    return model


def losses(run_directory: Path) -> list[float]:
    rows: list[dict[str, Any]] = read_json_lines(run_directory / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def written(name: str, folder: Path) -> Path:
    """The directory of the data set ``name``, written below ``folder``."""
    run_ok([sys.executable, "-m", "pretrain.data.write_beton", name, str(folder / name)])
    return folder / name
