"""The exact command lines of a study. Whatever starts a job, starts one of these. Torch-free."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pretrain.config import DataConfig

# The configuration that a point was asked to run with, in its directory; config.yaml is what the run itself writes.
REQUESTED_FILE = "requested.yaml"


def training_command(directory: Path, ranks: int) -> tuple[str, ...]:
    """The run whose ``requested.yaml`` lies in ``directory``, on ``ranks`` processes of one machine.

    One rank needs no torchrun, whose start costs about as long as the run's own.
    """
    several = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}") if ranks > 1 else ()
    target = (str(directory / REQUESTED_FILE), f"run.directory={directory}")
    return (sys.executable, *several, "-m", "pretrain", *target)


def probe_command(run_directory: Path, task: str, overrides: Sequence[str]) -> tuple[str, ...]:
    """One evaluation of the run in ``run_directory``."""
    return (sys.executable, "-m", "eval", task, str(run_directory), *overrides)


def report_command(study_directory: Path) -> tuple[str, ...]:
    """The report of the study."""
    return (sys.executable, "-m", "eval", "report", str(study_directory))


def data_command(data: DataConfig) -> tuple[str, ...]:
    """What writes the data that a run reads."""
    return (sys.executable, "-m", "pretrain.data.write_beton", data.dataset, str(data.directory))


def command_line(command: Sequence[str]) -> str:
    """``command`` as one line for a shell, with whatever Python is active there."""
    return shlex.join(["python" if part == sys.executable else part for part in command])


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> tuple[str, ...]:
    """Names of the GPUs that a job started here would see; empty where there is none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip())
    found = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(sorted(found, key=int))


def job_environment(*, processes: int, side_by_side: int = 1, first_gpu: int | None = None) -> dict[str, str]:
    """Variables of a job of ``processes`` processes, one of ``side_by_side`` such jobs on this machine.

    Each process gets its share of the cores, at least one. Where there are GPUs and ``first_gpu`` is given, the job
    sees only its own: as many as it has processes, from that one on, counted round where there are fewer.
    """
    variables = {
        "OMP_NUM_THREADS": str(max(1, cores() // (processes * side_by_side))),
        "PYTHONUNBUFFERED": "1",
    }
    gpus = visible_gpus()
    if gpus and first_gpu is not None:
        own = [gpus[(first_gpu + number) % len(gpus)] for number in range(processes)]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(own))
    return variables
