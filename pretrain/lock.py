"""One holder at a time for a directory: the job of a run, the launcher of a study, on whatever host. Torch-free.

The lock is an flock on the directory's lock file. It ends with the last process that has the file open, children of the
holder that inherited the descriptor included; a holder that was killed leaves nothing behind. The file names the
holder. Not every shared file system carries flock from host to host, so the holder also touches the file every few
seconds: one on another host that has stopped doing so is gone.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pretrain.errors import ConfigError, Problem
from pretrain.preemption import VARIABLE, job_state, signals_blocked

FILE_NAME = "lock"
# A job that was killed may take this long to end after its successor has started.
HANDOVER_S = 60.0
TOUCH_EVERY_S = 10.0
# After this long without a touch, the holder on another host is gone: four touches in a row would have been lost.
SILENT_S = 45.0
# How often a lock that is taken is tried again while its holder may still end.
RETRY_S = 0.2
# The start of a process is told in ticks of a hundredth of a second, from a boot time that is rounded.
SAME_START_S = 2.0


class DirectoryInUse(ConfigError):
    """Another process holds the directory; the message names it."""


@dataclass(frozen=True)
class Lock:
    """A lock that is held. Processes that inherit ``descriptor`` keep it held.

    predecessor: the holder before, where it ended without releasing the lock, e.g. because it was killed.
    """

    descriptor: int
    predecessor: str = ""


@contextlib.contextmanager
def hold_directory(
    directory: Path, *, where: str = "directory", handover_s: float = 0.0, silent_s: float = SILENT_S
) -> Iterator[Lock]:
    """Hold ``directory`` inside the block. Raises DirectoryInUse, naming the holder, where another process keeps it.

    where: configuration key of the directory, for the message. handover_s: how long to wait for a holder to end.
    silent_s: how long one on another host may be silent; where it is, this call waits so long to see it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILE_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    ended = threading.Event()
    heartbeat = threading.Thread(target=_touch, args=(descriptor, ended), daemon=True, name="lock")
    try:
        free, by_flock = _flock_within(descriptor, path, handover_s)
        owner = _read_owner(descriptor)
        if not free or not _is_gone(path, owner, silent_s, by_flock=by_flock):
            raise DirectoryInUse(str(directory), [Problem(where, _in_use(path, owner))])
        _write_owner(descriptor)
        with signals_blocked():
            heartbeat.start()
        try:
            yield Lock(descriptor, _name(owner) if owner else "")
        finally:
            ended.set()
            heartbeat.join()
            os.ftruncate(descriptor, 0)  # released: it names nobody
    finally:
        os.close(descriptor)


def lock_owner(directory: Path) -> dict[str, Any]:
    """The holder's pid, host, started (seconds since 1970) and job; empty where nobody holds ``directory``."""
    try:
        descriptor = os.open(directory / FILE_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return {}
    try:
        return _read_owner(descriptor)
    finally:
        os.close(descriptor)


def process_started(pid: int) -> float | None:
    """When the process ``pid`` of this host started, by the system's clock; None where there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def process_exists(pid: int, started: float | None = None) -> bool:
    """True when a process of this host has the number ``pid`` and has not ended (a zombie has).

    started: what `process_started` said of the process that is meant; one that started at another time is a stranger.
    """
    try:
        process = psutil.Process(pid)
        same = started is None or abs(process.create_time() - started) < SAME_START_S
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return started is None
    except psutil.Error:
        return False


def _read_owner(descriptor: int) -> dict[str, Any]:
    """Who wrote last; empty where it released the lock, or the file is damaged."""
    try:
        found = json.loads(os.pread(descriptor, 4096, 0).strip() or b"{}")
    except (ValueError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_owner(descriptor: int) -> None:
    job = os.environ.get(VARIABLE)
    owner = {"host": platform.node(), "pid": os.getpid(), "started": time.time(), "job": job}
    owner["process_started"] = process_started(os.getpid())
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _flock_within(descriptor: int, path: Path, seconds: float) -> tuple[bool, bool]:
    """(whether the flock is ours or this file system has none, whether it has one), after waiting ``seconds``."""
    deadline, announced = time.monotonic() + seconds, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True, True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False, True
            if not announced:
                print(f"waiting: {path.parent} {_in_use(path, _read_owner(descriptor))}", file=sys.stderr)
                announced = True
            time.sleep(RETRY_S)
        except OSError:
            return True, False


def _is_gone(path: Path, owner: dict[str, Any], silent_s: float, *, by_flock: bool) -> bool:
    """Whether the owner that the file names has ended, given that it holds no flock that can be seen from here."""
    if not owner or (by_flock and owner.get("host") == platform.node()):
        return True
    job = owner.get("job")
    # Slurm starts a job again only once it has ended.
    if job is not None and (job == os.environ.get(VARIABLE) or job_state(str(job)) == "PENDING"):
        return True
    print(f"waiting up to {silent_s:.0f} s for a sign of life from {_name(owner)}, named in {path}", file=sys.stderr)
    touched = path.stat().st_mtime_ns
    deadline = time.monotonic() + silent_s
    while time.monotonic() < deadline:
        time.sleep(min(1.0, silent_s / 10))
        with path.open("rb") as file:  # opening asks the server of a shared file system again
            if os.fstat(file.fileno()).st_mtime_ns != touched:
                return False
    return True


def _name(owner: dict[str, Any]) -> str:
    job = f" (Slurm job {owner['job']})" if owner.get("job") else ""
    return f"process {owner.get('pid')} on {owner.get('host')}{job}" if owner else "another process"


def _in_use(path: Path, owner: dict[str, Any]) -> str:
    pid = owner.get("pid")
    here = owner.get("host") == platform.node() and isinstance(pid, int)
    if here and not process_exists(owner["pid"], owner.get("process_started")):
        return (
            f"was in use by {_name(owner)}, which is gone, but a job that it started still runs; wait for it, or stop "
            f"it: fuser -k -TERM {path}"
        )
    return f"is in use by {_name(owner)}: one at a time"


def _touch(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(TOUCH_EVERY_S):
        with contextlib.suppress(OSError):  # one touch that fails is made up for by the next
            os.utime(descriptor)
