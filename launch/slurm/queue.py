"""Slurm's own commands, each with a deadline. No answer within it is None, never a guess. Torch-free."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ANSWER_S = 10.0  # a loaded controller takes seconds
SACCT_S = 5.0  # accounting is optional, and often down: without it, files decide
_FORMAT = "%i|%T|%N|%r|%j"


class SchedulerSilent(RuntimeError):
    """Slurm did not answer, so that it is not known what runs."""


@dataclass(frozen=True)
class QueueRow:
    """A job as squeue shows it. state: in Slurm's words. reason: why it waits. nodes: where it runs."""

    id: str
    state: str
    nodes: str
    reason: str
    name: str

    @property
    def runs(self) -> bool:
        """True when it has its nodes."""
        return self.state not in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")

    @property
    def is_ending(self) -> bool:
        """True while Slurm cleans up: it may still go back into the queue."""
        return self.state == "COMPLETING"


Queue = dict[str, QueueRow]


def read_queue(known: Iterable[str | None] = ()) -> Queue | None:
    """Jobs that have not ended, by id (1234, or 1234_5 for an element of an array); None: no answer.

    They are this user's, and those of ``known``, which may be other users': a study may belong to several people.
    """
    own = _squeue(f"--user={os.getuid()}")
    if own is None:
        return None
    others = [number for number in known if number is not None and number not in own]
    # squeue exits with an error if it knows none of them any more, which is no reason to doubt the rest.
    return {**own, **(_squeue(f"--jobs={','.join(others)}") or {})} if others else own


def _squeue(whose: str) -> Queue | None:
    done = ask(["squeue", "--noheader", "--array", whose, f"--format={_FORMAT}"], ANSWER_S)
    if done is None or done.returncode:
        return None
    rows = [line.split("|", 4) for line in done.stdout.splitlines()]
    return {row[0]: QueueRow(*row) for row in rows if len(row) == 5}


def accounting(job_ids: Sequence[str]) -> dict[str, str]:
    """How each of the jobs ended in Slurm's words, e.g. FAILED; empty where there is no accounting."""
    if not job_ids:
        return {}
    fields = ["--noheader", "--parsable2", "--allocations", "--format=JobID,State"]
    done = ask(["sacct", *fields, f"--jobs={','.join(job_ids)}"], SACCT_S)
    if done is None or done.returncode:
        return {}
    rows = [line.split("|") for line in done.stdout.splitlines()]
    return {row[0]: row[1].split()[0] for row in rows if len(row) == 2 and row[1]}


def partitions() -> list[str] | None:
    """Names of the partitions; None: no answer."""
    done = ask(["sinfo", "--noheader", "--format=%R"], ANSWER_S)
    return None if done is None or done.returncode else sorted(set(done.stdout.split()))


def refusal(text: str) -> str | None:
    """Why sbatch would refuse the script ``text``; None where it would accept it, or does not answer."""
    done = ask(["sbatch", "--test-only"], ANSWER_S, text)
    if done is None or done.returncode == 0:
        return None
    lines = [re.sub(r"^(sbatch|allocation failure)(: error)?: ", "", line) for line in done.stderr.splitlines()]
    return lines[-1] if lines else f"sbatch ended with {done.returncode}"


def cancel_jobs(job_ids: Iterable[str]) -> bool:
    """Cancel the jobs; False where Slurm does not answer."""
    ids = list(job_ids)
    return not ids or ask(["scancel", *ids], ANSWER_S) is not None


def missing_commands() -> list[str]:
    """Commands of Slurm's that are not on PATH."""
    return [name for name in ("sbatch", "srun", "squeue", "scancel", "scontrol") if shutil.which(name) is None]


def ask(command: Sequence[str], deadline_s: float, text: str = "") -> subprocess.CompletedProcess[str] | None:
    """Run ``command`` with ``text`` as its input; None where it is missing or takes longer than ``deadline_s``."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=deadline_s, input=text)
    except (OSError, subprocess.TimeoutExpired):
        return None
