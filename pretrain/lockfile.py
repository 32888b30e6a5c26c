"""What a lock file says of its owner. The lock itself is an flock on the same file. Torch-free."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

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
