"""One job at a time for a run's directory: the living keep it, the dead do not."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pretrain.errors import ConfigError
from pretrain.preemption import VARIABLE
from pretrain.runlock import FILE_NAME, hold_run

ROOT = Path(__file__).resolve().parent.parent
HOLDER = """
import sys, time
from pathlib import Path
from pretrain.runlock import hold_run
with hold_run(Path(sys.argv[1])):
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
        with pytest.raises(ConfigError, match=f"is being trained by process {holder.pid} on"):
            hold_run(tmp_path, handover_s=0.1).__enter__()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with hold_run(tmp_path, handover_s=5):
        assert json.loads((tmp_path / FILE_NAME).read_text())["pid"] == os.getpid()
    assert (tmp_path / FILE_NAME).read_text() == ""


def test_one_that_is_just_ending_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = hold_run(tmp_path)
    first.__enter__()
    threading.Timer(0.5, first.__exit__, (None, None, None)).start()
    with hold_run(tmp_path, handover_s=20):
        assert "waiting for the job that holds the run" in capsys.readouterr().err


@pytest.mark.parametrize("job", [None, "12_3"])
def test_a_silent_holder_on_another_host_is_gone(tmp_path: Path, job: str | None) -> None:
    write_owner(tmp_path, job=job)
    with hold_run(tmp_path, silent_s=0.2):
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
        with pytest.raises(ConfigError, match="process 7 on elsewhere"):
            hold_run(tmp_path, silent_s=5.0).__enter__()
    finally:
        ended.set()
        heartbeat.join()
    assert json.loads(path.read_text())["pid"] == 7, "the holder's name stays"


def test_a_requeued_job_takes_over_from_itself_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_owner(tmp_path, job="12_3")
    monkeypatch.setenv(VARIABLE, "12_3")
    before = time.monotonic()
    with hold_run(tmp_path, silent_s=30.0):
        assert time.monotonic() - before < 10
