"""Submission through submitit: one executor for each kind of job, its sbatch text, its numbers. Torch-free."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from launch.plan.targets import SlurmTarget
from launch.slurm.jobs import FOLDER
from launch.slurm.rank import RankCommand
from launch.tasks import Kind, Task

SECONDS_BETWEEN_SUBMISSIONS = 0.02  # its default, 0.2 s, adds minutes to hundreds of evaluations


class NotSubmitted(RuntimeError):
    """sbatch refused; the message is sbatch's."""


class _Executor(SlurmExecutor):  # type: ignore[misc]
    """submitit's executor for Slurm alone: AutoExecutor silently runs jobs on this machine where srun is missing."""

    @classmethod
    def affinity(cls) -> int:
        return 1  # the text of a script can be shown anywhere; submitting checks for Slurm itself


def rank_command(task: Task, target: SlurmTarget) -> RankCommand:
    """The command of every process of the task's job."""
    train = task.kind == "train"
    cpus = target.cpus_per_rank if train else target.evaluation.cpus
    return RankCommand(
        arguments=task.command[1:],
        log=str(task.log.resolve()),
        distributed=(target.ranks if train else task.processes) > 1,
        preemptible=train,
        requeue=train and target.requeue,
        environment={"OMP_NUM_THREADS": str(cpus), "PYTHONUNBUFFERED": "1"},
    )


def sbatch_text(
    directory: Path,
    target: SlurmTarget,
    kind: Kind,
    *,
    name: str,
    count: int = 1,
    processes: int = 1,
    after: str | None = None,
) -> str:
    """The script that sbatch gets for ``count`` jobs of ``kind``, on one node of ``processes`` unless they are runs."""
    executor = _executor(directory, target, kind, name=name, processes=processes, after=after)
    if count > 1:
        executor.parameters["map_count"] = count
    return str(executor._make_submission_file_text(executor._submitit_command_str, ""))


def submit(
    directory: Path, target: SlurmTarget, tasks: Sequence[Task], *, name: str, after: str | None = None
) -> list[str]:
    """Submit ``tasks`` of one kind, as an array where there are several; returns their numbers in order.

    Raises NotSubmitted with sbatch's message.
    """
    processes = tasks[0].processes
    executor = _executor(directory, target, tasks[0].kind, name=name, processes=processes, after=after)
    executor._throttling = SECONDS_BETWEEN_SUBMISSIONS
    (directory / FOLDER).mkdir(parents=True, exist_ok=True)
    try:
        with _outside_of_any_job():
            jobs = executor.submit_array([rank_command(task, target) for task in tasks])
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        raise NotSubmitted(str(error)) from error
    return [str(job.job_id) for job in jobs]


def _executor(
    directory: Path, target: SlurmTarget, kind: Kind, *, name: str, processes: int, after: str | None
) -> _Executor:
    python = shlex.quote(target.python or sys.executable)
    # A signal that arrives while Python imports would end it, and with it the job.
    command = " ".join(["env --ignore-signal=USR2", *([target.container] if target.container else []), python])
    executor = _Executor(folder=(directory / FOLDER).resolve(), python=command)
    shared = {
        "job_name": name,
        "account": target.account,
        "qos": target.qos,
        "constraint": target.constraint,
        "setup": target.setup or None,
        "signal_delay_s": target.signal_delay_s,
        "dependency": after,
        "stderr_to_stdout": True,
        "wckey": None,
        "additional_parameters": _further_options(target),
    }
    single = _single_resources(target, processes, needs_gpu=kind == "probe")
    resources = _run_resources(target) if kind == "train" else single
    own = {key.replace("-", "_") for key in target.sbatch}  # these replace ours, or remove them
    options = {**shared, **resources}
    executor.update_parameters(**{key: value for key, value in options.items() if value is not None and key not in own})
    executor.parameters["wckey"] = None  # submitit's default is refused where keys are enforced
    return executor


def _run_resources(target: SlurmTarget) -> dict[str, Any]:
    return {
        "partition": target.partition,
        "time": target.time_limit_min,
        "nodes": target.nodes,
        "ntasks_per_node": target.ranks_per_node,
        "cpus_per_task": target.cpus_per_rank,
        "gpus_per_node": target.gpus or None,
        "mem": _memory(target.memory_gb),
        "array_parallelism": target.concurrent_runs,
        # If one rank ends, all do; srun does not take the number of cores from sbatch by itself.
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={target.cpus_per_rank}", *target.srun],
    }


def _single_resources(target: SlurmTarget, processes: int, *, needs_gpu: bool) -> dict[str, Any]:
    """The resources of what runs on one node."""
    own = target.evaluation
    gpus = (processes if target.gpus else 0) if own.gpus is None else own.gpus
    return {
        "partition": own.partition or target.partition,
        "time": own.time_limit_min,
        "nodes": 1,
        "ntasks_per_node": processes,
        "cpus_per_task": own.cpus,
        "gpus_per_node": gpus if gpus and needs_gpu else None,
        "mem": _memory(own.memory_gb),
        "srun_args": [
            *(["--kill-on-bad-exit=1"] if processes > 1 else []),
            f"--cpus-per-task={own.cpus}",
            *target.srun,
        ],
    }


def _memory(gigabytes: float | None) -> str | None:
    return None if gigabytes is None else f"{round(1024 * gigabytes)}M"


def _further_options(target: SlurmTarget) -> dict[str, Any]:
    """sbatch options of the target, and ours: Slurm cancels the jobs that wait for one that failed."""
    ours = {"requeue" if target.requeue else "no-requeue": True, "kill-on-invalid-dep": "yes"}
    return {key: value for key, value in {**ours, **target.sbatch}.items() if value is not None}


@contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """Hide the variables of the job that the launcher itself may run in: new jobs must not inherit them."""
    inherited = {key: value for key, value in os.environ.items() if key.startswith("SLURM_") and key != "SLURM_CONF"}
    for key in inherited:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(inherited)
