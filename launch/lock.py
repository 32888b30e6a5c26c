"""One launcher at a time for a study's directory.

The lock is an flock of the kernel's, which every job inherits: it ends with the last of them, so a launcher that was
killed leaves no lock behind, and one whose jobs live on still holds it. The file says who the owner is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launch.state import process_exists
from pretrain.runlock import FILE_NAME, open_lock, ourselves, read_owner, sign_off, write_owner


class StudyLocked(RuntimeError):
    """Another launcher, or a job that one left behind, works on the study."""


@dataclass(frozen=True)
class Lock:
    """A held lock. ``descriptor`` goes to every job; ``note`` tells of an owner who vanished."""

    descriptor: int
    note: str = ""


@contextlib.contextmanager
def study_lock(directory: Path) -> Iterator[Lock]:
    """Hold the lock of the study in ``directory``. Raises StudyLocked, naming the owner, where somebody else does."""
    descriptor = open_lock(directory)
    try:
        owner = read_owner(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyLocked(_held(directory, owner)) from None
        note = _take_over(directory / FILE_NAME, owner)
        write_owner(descriptor, ourselves())
        yield Lock(descriptor, note)
        sign_off(descriptor)
    finally:
        os.close(descriptor)


def lock_owner(directory: Path) -> dict[str, object]:
    """Who holds the study's lock: pid, host, started; empty where nobody does."""
    try:
        descriptor = os.open(directory / FILE_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return {}
    try:
        return read_owner(descriptor)
    finally:
        os.close(descriptor)


def _take_over(path: Path, owner: dict[str, object]) -> str:
    """What to say of an owner who did not sign off. Raises StudyLocked where it may be alive on another host."""
    if not owner:
        return ""
    who = f"process {owner.get('pid')} on {owner.get('host')}"
    if owner.get("host") != platform.node():  # not every shared file system carries flock from host to host
        raise StudyLocked(f"the study is locked by {who}, which cannot be checked from here; if it is gone, rm {path}")
    return f"the launcher that held this study ({who}) ended without signing off; going on from its files"


def _held(directory: Path, owner: dict[str, object]) -> str:
    pid, host = owner.get("pid"), owner.get("host")
    who = f"process {pid} on {host}" if owner else "somebody"
    if host == platform.node() and isinstance(pid, int) and not process_exists(pid):
        return (
            f"the launcher of {directory} ({who}) is gone, but a job that it started still runs; wait for it "
            f"(`launch status {directory}`), or stop it: fuser -k -TERM {directory / FILE_NAME}"
        )
    return f"{directory} is being worked on by {who}; watch it with `launch status {directory}`"
