"""What submitit runs in each process of a Slurm job: it executes the command that the manifest names. Torch-free."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from pretrain.preemption import SIGNALS, VARIABLE, block_signals

# Linux gives outgoing connections the ports from 32,768 on; these lie below.
FIRST_PORT, PORTS = 20_000, 12_000


@dataclass(frozen=True)
class RankCommand:
    """The command that every process of a job executes. ``arguments`` follow the name of the Python that runs there.

    log: where the first process writes; the output of the others is beside submitit's files. distributed: set the
    variables that tell torch the rank. preemptible: the command handles signals itself, once it has started.
    """

    arguments: tuple[str, ...]
    log: str
    distributed: bool = False
    preemptible: bool = False
    requeue: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self) -> None:
        """Execute the command in place of this process; never returns."""
        if self.preemptible:
            block_signals()
        for number in (
            *SIGNALS,
            signal.SIGCONT,
        ):  # submitit would requeue the job before the run has saved
            signal.signal(number, signal.SIG_DFL)
        if not self.preemptible:
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        os.environ.update(self.environment)
        if self.distributed:
            export_rank()
        if self.requeue:
            os.environ[VARIABLE] = job_id()
        command = [sys.executable, *self.arguments]
        if os.environ.get("SLURM_PROCID", "0") == "0":
            _write_to(self.log, f"$ {shlex.join(['python', *self.arguments])} (Slurm job {job_id()})\n")
        os.execv(command[0], command)


def job_id() -> str:
    """Number of this job: 1234, or 1234_5 for an element of an array, whose SLURM_JOB_ID may name the whole array."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ["SLURM_JOB_ID"]


def export_rank() -> None:
    """Set the variables that torch reads (RANK, WORLD_SIZE, MASTER_ADDR, ...) from those of Slurm and submitit."""
    from submitit.helpers import TorchDistributedEnvironment

    os.environ["MASTER_PORT"] = str(FIRST_PORT + int(os.environ["SLURM_JOB_ID"]) % PORTS)
    # Slurm decides which GPUs a task sees; torch takes the one of its local rank among them.
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)


def _write_to(path: str, first_line: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(descriptor, first_line.encode())
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
