"""Real torchrun jobs on a small written data set, for tests of whole runs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pretrain.__main__ import prepare
from pretrain.checkpoint import newest_checkpoint, read_checkpoint
from pretrain.config import PretrainConfig
from pretrain.configio import deep_copy, set_by_path, validate
from pretrain.dist import World
from pretrain.plan import make_plan
from pretrain.preemption import Preemption
from pretrain.rundir import RunDirectory, read_json_lines
from pretrain.train import train

ROOT = Path(__file__).resolve().parent.parent


# A network and rates under which rounding grows slowly, so that bounds can be tight over twenty steps.
STEADY = (
    "encoder={architecture: resnet18, width: 0.125, stem: strided}",
    "objective.temperature=0.2",
    "augmentation.crop_area=[0.2, 1.0]",
    "augmentation.saturation=0.4",
    "augmentation.hue=0.1",
    "augmentation.grayscale_probability=0.2",
    "schedule.warmup_epochs=0.4",
)


def torchrun(run_directory: Path, data: Path, ranks: int, *overrides: str, steady: bool = True) -> list[str]:
    """Command of a short run on ``ranks`` ranks: the shipped configuration, `STEADY` by default, then ``overrides``."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)),
        *("-m", "pretrain", "configs/pretrain/fashion_mnist.yaml"),
        *("data.dataset=synthetic", f"data.directory={data}", f"run.directory={run_directory}"),
        *("log.every_steps=1", "log.wandb=disabled", "data.loader=beton", "data.images=10240"),
        *(STEADY if steady else ()),
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


# Ten steps of a second in all, in the process of the test.
TINY: dict[str, Any] = {
    "global_batch_size": 16,
    "epochs": 1,
    "device": "cpu",
    "data": {"dataset": "synthetic", "images": 160, "loader": "beton"},
    "augmentation": {"crop_size_px": 16, "blur_probability": 0.0},
    "encoder": {"architecture": "tests.objectives.own_code:Shallow"},
    "objective": {"name": "simclr", "projector": {"hidden_width": 32, "output_width": 16}},
    "schedule": {"base_learning_rate": 0.1, "warmup_epochs": 0.2},
    "log": {"every_steps": 1, "wandb": "disabled"},
}


def tiny(data: Path, **changes: Any) -> PretrainConfig:
    """`TINY` with ``section__key`` set."""
    settings = deep_copy(TINY)
    for key, value in {"data__directory": str(data), **changes}.items():
        set_by_path(settings, key.replace("__", "."), deep_copy(value) if isinstance(value, dict) else value)
    return validate(PretrainConfig, settings, "tiny")


def train_here(run: Path, config: PretrainConfig, world: World | None = None) -> bool:
    """Train in this process; True when finished."""
    world = world or World(0, 1, torch.device("cpu"))
    plan, directory = make_plan(config, images=1024, world_size=world.size), RunDirectory(run)
    if world.is_first:
        prepare(directory, config, plan)
    return train(config, plan, directory, world, Preemption())
