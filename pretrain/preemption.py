"""Signals that ask a run to stop, what ends with torchrun, and the requeueing of a Slurm job. Torch-free.

A signal handler only sets a flag; the loop saves and leaves at the next step boundary. Then the job is requeued, if the
launcher marked it so: a run started by hand inside an allocation must not requeue that allocation.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

from pretrain.ranks import rank_from_environment

# Slurm sends USR2 ahead of a time limit or a preemption (as submitit asks it to), and TERM at the end; Ctrl-C is INT.
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
# What a run that was asked to stop, and saved, exits with (EX_TEMPFAIL: try again later).
EXIT_CODE = 75
# What a command that keeps nothing, or has kept it all along, exits with after Ctrl-C, as a shell would say it.
INTERRUPTED = 128 + signal.SIGINT
# Set by the launcher to the job's number, e.g. 1234_5 for an element of an array.
VARIABLE = "BIGBATCH_REQUEUE_JOB"
ANSWER_S = 30.0  # how long a command of Slurm's may take; a controller that is slower counts as silent
END_S = 60.0  # Slurm ends a job that was requeued well within this time


class Preemption:
    """Whether this process was asked to stop (``requested``), and whether all ranks agreed to (``agreed``)."""

    def __init__(self) -> None:
        self.requested = False
        self.agreed = False
        self.signal_name: str | None = None

    def install(self) -> Preemption:
        """Listen for the signals from now on, and for those that were blocked so far; call from the main thread."""
        for number in SIGNALS:
            if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # a shell's background job
                signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # the second one is not a request
            if rank_from_environment() == 0:
                os.write(2, b"\nCtrl-C: saving after this step (once more: end at once, without saving)\n")
        self.requested = True
        self.signal_name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def interruptible(command: Callable[[], int]) -> int:
    """Exit status of ``command``; where Ctrl-C ends it, INTERRUPTED and one line in place of a traceback."""
    try:
        return command()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one does not wait for what is left to tidy up
        if rank_from_environment() == 0:
            print("\ninterrupted; rerun the same command to continue", file=sys.stderr)
        return INTERRUPTED


def end_with_torchrun() -> None:
    """From now on this process, if torchrun started it, is killed when torchrun dies, however that dies.

    It would hold the run's lock and wait for a store that is gone. Where torchrun was gone before, `open_world` raises.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def block_signals() -> None:
    """Block the signals from now on, also in the program that this process executes, until ``install``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Threads and processes that are started inside never see the signals, which Slurm sends to every process of a job.

    Loader threads and wandb's process must live until the rank's checkpoint is written.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def requeue_and_wait(*, first: bool) -> None:
    """Called by every rank after the checkpoint is written: the first rank requeues the job, the others wait.

    No rank may simply end: a job whose ranks end within the grace time before a preemption counts as completed, and
    Slurm does not start it again.
    """
    job = os.environ.get(VARIABLE)
    if not job:
        return
    if not first:
        time.sleep(END_S)
        return
    problem = requeue(job)
    if problem:
        print(f"job {job} is not requeued: {problem}", file=sys.stderr, flush=True)
        return
    print(f"job {job} is requeued and goes on from its checkpoint", file=sys.stderr, flush=True)
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline and job_state(job) == "RUNNING":
        time.sleep(0.5)


def requeue(job: str) -> str | None:
    """Requeue ``job`` if it is running; returns the reason where that failed, else None.

    Other states are refused here, because Slurm would also requeue a job that was cancelled or has ended.
    """
    state = job_state(job)
    if state != "RUNNING":
        return f"it is {state or 'unknown to squeue'}"
    try:
        done = _ask("scontrol", "requeue", job)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return (done.stderr or done.stdout).strip() or "scontrol refused" if done.returncode else None


def job_state(job: str) -> str | None:
    """State of ``job`` in Slurm's words, e.g. RUNNING; None where squeue does not say."""
    try:
        done = _ask("squeue", "--noheader", "--jobs", job, "--format", "%T")
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout.split() else None


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S)
