"""Checkpoints: written whole, the newest found by itself, read without running code from them."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from pretrain.rundir import whole_file

FORMAT = 1
_NAME = re.compile(r"step_(\d{8,})\.pt")
_KEYS = {"format", "step", "fingerprint", "config", "model"}


class CheckpointError(ValueError):
    """A file that is not a usable checkpoint, with what is wrong and what to do."""


def checkpoint_path(directory: Path, step: int) -> Path:
    """File of the checkpoint after ``step`` finished steps."""
    return directory / f"step_{step:08d}.pt"


def step_of(path: Path) -> int:
    """Finished steps that the name of a checkpoint tells."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path} is not named like a checkpoint: step_00000000.pt")
    return int(match[1])


def checkpoints(directory: Path) -> list[Path]:
    """Complete checkpoints in ``directory``, oldest first."""
    if not directory.is_dir():
        return []
    return sorted((path for path in directory.iterdir() if _NAME.fullmatch(path.name)), key=step_of)


def newest_checkpoint(directory: Path) -> Path | None:
    """The checkpoint with the most finished steps, or None."""
    found = checkpoints(directory)
    return found[-1] if found else None


def write_checkpoint(directory: Path, content: dict[str, Any], *, keep: int) -> Path:
    """Write ``content`` (with its "step") whole, then remove all but the newest ``keep``; returns the file."""
    path = checkpoint_path(directory, content["step"])
    with whole_file(path) as file:
        torch.save({"format": FORMAT, **content}, file)
    for old in checkpoints(directory)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint, tensors on the CPU: format, step, fingerprint, config, model, and the optimizer's state.

    Raises CheckpointError where the file is damaged, foreign, or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{path} cannot be read as a checkpoint ({first_line}); remove it to go on from the one before"
        raise CheckpointError(message) from error
    missing = _KEYS - set(content) if isinstance(content, dict) else _KEYS
    if missing:
        raise CheckpointError(f"{path} is not a checkpoint of this project: it lacks {', '.join(sorted(missing))}")
    if content["format"] != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {content['format']}; this version reads format {FORMAT}")
    return dict(content)
