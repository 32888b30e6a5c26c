"""One job at a time for a run's directory, whoever started it and wherever it runs.

The lock is an flock, which ends with its holder; the file says who that is. Where a file system does not carry flock
from host to host, the file's age decides: the holder touches it every few seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pretrain.errors import ConfigError, Problem
from pretrain.preemption import VARIABLE, job_state, signals_blocked

# What a lock file says of its owner. The lock itself is an flock on the same file. Torch-free.


FILE_NAME = "lock"


def open_lock(directory: Path) -> int:
    """Descriptor of ``directory``'s lock file, which is made where it does not exist."""
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory / FILE_NAME, os.O_RDWR | os.O_CREAT, 0o666)


def ourselves() -> dict[str, Any]:
    """This process, as an owner."""
    return {"host": platform.node(), "pid": os.getpid(), "started": time.time()}


def read_owner(descriptor: int) -> dict[str, Any]:
    """Who wrote last; empty where the owner signed off, or the file is damaged."""
    try:
        found = json.loads(os.pread(descriptor, 4096, 0).strip() or b"{}")
    except (ValueError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def write_owner(descriptor: int, owner: dict[str, Any]) -> None:
    """``owner`` as all that the file says."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def sign_off(descriptor: int) -> None:
    """Nobody owns it any more."""
    os.ftruncate(descriptor, 0)


# A job that was killed may take so long to end after its successor has started.
HANDOVER_S = 60.0
TOUCH_EVERY_S = 10.0
# The holder on another host has not touched the file for so long: it is gone.
SILENT_S = 45.0


@contextlib.contextmanager
def hold_run(directory: Path, *, handover_s: float = HANDOVER_S, silent_s: float = SILENT_S) -> Iterator[None]:
    """Hold ``directory`` inside the block. Raises ConfigError, naming the holder, where somebody else keeps it."""
    descriptor = open_lock(directory)
    ended = threading.Event()
    heartbeat = threading.Thread(target=_touch, args=(descriptor, ended), daemon=True, name="run lock")
    try:
        path = directory / FILE_NAME
        if not _locked_within(descriptor, handover_s) or not _is_stale(path, read_owner(descriptor), silent_s):
            raise ConfigError(str(directory), [Problem("run.directory", _held(read_owner(descriptor)))])
        write_owner(descriptor, {**ourselves(), "job": os.environ.get(VARIABLE)})
        with signals_blocked():
            heartbeat.start()
        try:
            yield
        finally:
            ended.set()
            heartbeat.join()
            sign_off(descriptor)
    finally:
        os.close(descriptor)


def _locked_within(descriptor: int, seconds: float) -> bool:
    deadline, told = time.monotonic() + seconds, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if not told:
                holder = _held(read_owner(descriptor))
                print(f"waiting for the job that holds the run to end: {holder}", file=sys.stderr)
                told = True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        except OSError:  # this file system has no flock: the file's age must do
            return True


def _is_stale(path: Path, owner: dict[str, Any], silent_s: float) -> bool:
    """Whether the owner that the file names is gone, given that its flock is."""
    if not owner or owner.get("host") == platform.node():
        return True
    job = owner.get("job")
    # Slurm starts a job again only once it has ended.
    if job is not None and (job == os.environ.get(VARIABLE) or job_state(str(job)) == "PENDING"):
        return True
    touched = path.stat().st_mtime_ns
    deadline = time.monotonic() + silent_s
    while time.monotonic() < deadline:
        time.sleep(min(1.0, silent_s / 10))
        with path.open("rb") as file:  # opening asks the server of a shared file system again
            if os.fstat(file.fileno()).st_mtime_ns != touched:
                return False
    return True


def _held(owner: dict[str, Any]) -> str:
    job = f" (Slurm job {owner['job']})" if owner.get("job") else ""
    who = f"process {owner.get('pid')} on {owner.get('host')}{job}" if owner else "somebody"
    return f"is being trained by {who}; one job at a time"


def _touch(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(TOUCH_EVERY_S):
        with contextlib.suppress(OSError):
            os.utime(descriptor)
