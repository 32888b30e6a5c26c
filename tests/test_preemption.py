"""Signals that ask a run to stop: early ones wait, helpers never see them, only a running job goes back to Slurm."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain import preemption as requeue
from pretrain.__main__ import gave_up_before
from pretrain.preemption import EXIT_CODE, SIGNALS, signals_blocked
from pretrain.rundir import RunDirectory, write_json

ROOT = Path(__file__).resolve().parent.parent

EARLY = """
import os
from pretrain.preemption import block_signals
block_signals()
os.execv({python!r}, [{python!r}, "-c", '''
import os, signal
os.kill(os.getpid(), signal.SIGUSR2)   # in the middle of the imports
from pretrain.preemption import Preemption
found = Preemption().install()
print(found.requested, found.signal_name, found.agreed)
'''])
"""


def test_a_signal_during_imports_is_seen_once_the_run_listens() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY.format(python=sys.executable)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()) == (0, ["True", "SIGUSR2", "False"]), done.stderr


TWICE = """
import os, signal
from pretrain.preemption import Preemption
found = Preemption().install()
os.kill(os.getpid(), signal.SIGINT)
print(found.requested, found.signal_name, flush=True)
os.kill(os.getpid(), signal.SIGINT)
print("still here")
"""
QUIET = """
import sys, time
from pretrain.preemption import interruptible
sys.exit(interruptible(lambda: print("started", flush=True) or time.sleep(30)))
"""


def test_the_second_ctrl_c_ends_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "True Ctrl-C\n")
    assert done.stderr.count("\n") == 2


@pytest.mark.parametrize("rank", ["0", "1"])
def test_other_commands_end_in_one_line_of_one_rank(rank: str) -> None:
    environment = {**os.environ, "RANK": rank}
    command = [sys.executable, "-c", QUIET]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert said.strip() == ("interrupted; rerun the same command to continue" if rank == "0" else "")


@pytest.mark.parametrize(
    ("restart", "state", "expected"),
    [("0", "diverged", None), ("1", "diverged", 1), ("1", "stopped", EXIT_CODE), ("1", "training", None)],
)
def test_torchrun_restarts_only_what_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: str, state: str, expected: int | None
) -> None:
    run = RunDirectory(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restart)
    assert gave_up_before(run) is None, "nothing is known of a run that did not start"
    write_json(run.progress, {"state": state})
    assert gave_up_before(run) == expected


def test_helpers_outlive_the_signals() -> None:
    with signals_blocked():
        helper = subprocess.Popen(["sleep", "30"])
    try:
        for number in SIGNALS:
            helper.send_signal(number)
        time.sleep(0.2)
        assert helper.poll() is None
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(SIGNALS), "the run itself listens again"
    finally:
        helper.kill()
        helper.wait()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A squeue that says what is given, and a scontrol that records what it was asked for."""

    def install(state: str) -> Path:
        asked = tmp_path / "asked"
        scripts = {
            "squeue": f'[ ! -e "{asked}" ] || exit 0\necho {state}',
            "scontrol": f'echo "$@" > "{asked}"',
        }
        for name, body in scripts.items():
            path = tmp_path / name
            path.write_text(f"#!/bin/sh\n{body}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setenv(requeue.VARIABLE, "12_3")
        return asked

    return install


def test_the_first_rank_requeues_a_running_job(slurm: Callable[[str], Path]) -> None:
    asked = slurm("RUNNING")
    requeue.requeue_and_wait(first=True)
    assert asked.read_text() == "requeue 12_3\n"


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", ""])
def test_a_cancelled_job_is_not_revived(
    slurm: Callable[[str], Path], state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = slurm(state)
    requeue.requeue_and_wait(first=True)
    assert not asked.exists()
    assert f"it is {state or 'unknown to squeue'}" in capsys.readouterr().err


def test_the_other_ranks_wait_and_ask_for_nothing(
    slurm: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, slept = slurm("RUNNING"), []
    monkeypatch.setattr(time, "sleep", slept.append)
    requeue.requeue_and_wait(first=False)
    assert slept == [requeue.END_S]
    assert not asked.exists()


def test_outside_a_marked_job_nothing_happens(slurm: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = slurm("RUNNING")
    monkeypatch.delenv(requeue.VARIABLE)
    requeue.requeue_and_wait(first=True)
    requeue.requeue_and_wait(first=False)
    assert not asked.exists()


def test_a_controller_that_never_answers_is_waited_for_only_so_long(
    slurm: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = slurm("RUNNING")
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(requeue, "ANSWER_S", 0.3)
    before = time.monotonic()
    requeue.requeue_and_wait(first=True)
    assert time.monotonic() - before < 10
    assert not asked.exists()
