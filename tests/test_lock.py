"""One holder at a time for a directory: the living keep it, the dead do not."""

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pretrain.lock import FILE_NAME, DirectoryInUse, hold_directory
from pretrain.preemption import VARIABLE

ROOT = Path(__file__).resolve().parent.parent
HOLDER = """
import sys, time
from pathlib import Path
from pretrain.lock import hold_directory
with hold_directory(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def write_owner(directory: Path, **changes: object) -> Path:
    path = directory / FILE_NAME
    path.write_text(json.dumps({"host": "elsewhere", "pid": 7, "job": None, "started": 0.0, **changes}))
    return path


def test_the_second_is_told_who_holds_it_and_the_dead_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(DirectoryInUse, match=f"is in use by process {holder.pid} on"):
            hold_directory(tmp_path, handover_s=0.1).__enter__()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with hold_directory(tmp_path, handover_s=5):
        assert json.loads((tmp_path / FILE_NAME).read_text())["pid"] == os.getpid()
    assert (tmp_path / FILE_NAME).read_text() == ""


def test_one_that_is_just_ending_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = hold_directory(tmp_path)
    first.__enter__()
    threading.Timer(0.5, first.__exit__, (None, None, None)).start()
    with hold_directory(tmp_path, handover_s=20):
        assert f"waiting: {tmp_path} is in use by" in capsys.readouterr().err


@pytest.mark.parametrize("job", [None, "12_3"])
def test_a_silent_holder_on_another_host_is_gone(tmp_path: Path, job: str | None) -> None:
    write_owner(tmp_path, job=job)
    with hold_directory(tmp_path, silent_s=0.2):
        pass


@pytest.mark.parametrize("job", [None, "12_3"])
def test_a_holder_on_another_host_that_gives_signs_of_life_keeps_it(tmp_path: Path, job: str | None) -> None:
    path, ended = write_owner(tmp_path, job=job), threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            os.utime(path, ns=(time.time_ns(), time.time_ns()))

    heartbeat = threading.Thread(target=beat)
    heartbeat.start()
    try:
        with pytest.raises(DirectoryInUse, match="process 7 on elsewhere"):
            hold_directory(tmp_path, silent_s=5.0).__enter__()
    finally:
        ended.set()
        heartbeat.join()
    assert json.loads(path.read_text())["pid"] == 7, "the holder's name stays"


def test_a_requeued_job_takes_over_from_itself_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_owner(tmp_path, job="12_3")
    monkeypatch.setenv(VARIABLE, "12_3")
    before = time.monotonic()
    with hold_directory(tmp_path, silent_s=30.0):
        assert time.monotonic() - before < 10


def test_a_holder_that_was_killed_is_named_once(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    write_owner(tmp_path, host=platform.node(), pid=gone.pid)
    with hold_directory(tmp_path) as lock:
        assert lock.predecessor == f"process {gone.pid} on {platform.node()}"
    with hold_directory(tmp_path) as lock:
        assert lock.predecessor == ""


def test_two_locks_on_one_directory(tmp_path: Path) -> None:
    with hold_directory(tmp_path), pytest.raises(DirectoryInUse, match="is in use by"), hold_directory(tmp_path):
        pass


def test_a_child_of_the_holder_keeps_the_directory(tmp_path: Path) -> None:
    inherit = HOLDER.replace("(Path(sys.argv[1])):", "(Path(sys.argv[1])) as lock:")
    inherit = inherit.replace("time.sleep(60)", "subprocess.run(['sleep', '60'], pass_fds=[lock.descriptor])")
    command = [sys.executable, "-c", inherit.replace("import sys, time", "import subprocess, sys"), str(tmp_path)]
    holder = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        time.sleep(0.5)  # the child needs a moment to start
        holder.kill()
        holder.wait()
        with pytest.raises(DirectoryInUse, match="is gone, but a job that it started still runs"):
            hold_directory(tmp_path).__enter__()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
    with hold_directory(tmp_path, handover_s=5) as lock:
        assert str(holder.pid) in lock.predecessor


def test_without_flock_the_age_of_the_file_decides_on_one_host_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("pretrain.lock.fcntl.flock", refuse)
    monkeypatch.setattr("pretrain.lock.TOUCH_EVERY_S", 0.05)
    with hold_directory(tmp_path), pytest.raises(DirectoryInUse, match=f"process {os.getpid()}"):
        hold_directory(tmp_path, silent_s=5.0).__enter__()
    write_owner(tmp_path, host=platform.node())
    with hold_directory(tmp_path, silent_s=0.2) as lock:
        assert "process 7" in lock.predecessor
