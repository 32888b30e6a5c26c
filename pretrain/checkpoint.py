"""Checkpoints: written whole, the newest found by itself, read without running code from them."""

from __future__ import annotations

import pickle
import re
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pretrain.config import PretrainConfig
from pretrain.configio import validate
from pretrain.dist import World, agree_on
from pretrain.models.encoder import Encoder, build_encoder
from pretrain.plan import TrainPlan
from pretrain.rundir import RunDirectory, whole_file

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


class Saved(Protocol):
    """What a checkpoint keeps: knows its own content, and takes one back."""

    step: int

    def check(self) -> None:
        """Raises, on every rank, where this must not be kept."""

    def content(self) -> dict[str, Any]:
        """Everything that changes while training, as tensors and plain values."""

    def take(self, content: dict[str, Any]) -> None:
        """Go on from the content of a checkpoint."""


class CheckpointStore:
    """Saves on the first rank, restores on all."""

    def __init__(self, config: PretrainConfig, plan: TrainPlan, directory: RunDirectory, world: World) -> None:
        self._config, self._plan, self._world = config, plan, world
        self._directory = directory.checkpoints
        self._saved_step = -1
        self._saved_at = time.monotonic()

    def is_late(self) -> bool:
        """Whether the last checkpoint (or the start) is so long ago that the next step boundary should bring one."""
        every_s = self._config.checkpoint.every_s
        return every_s is not None and time.monotonic() - self._saved_at > every_s

    def save(self, state: Saved, *, last: bool = False) -> None:
        """Write a checkpoint of ``state`` unless this step has one. Collective: every rank calls this.

        Raises TrainingDiverged where ``state`` holds numbers that are not finite, and CheckpointError where it cannot
        be written, unless that is to be no more than told and this is not the ``last``; what was saved before stays.
        """
        if state.step == self._saved_step:
            return
        state.check()
        problem = self._written(state) if self._world.is_first else ""
        self._saved_at = time.monotonic()
        if agree_on(self._world, int(not problem)):
            self._saved_step = state.step
        elif last or self._config.checkpoint.on_error == "stop":
            raise CheckpointError(problem or "the first rank could not write a checkpoint")
        elif problem:
            print(f"{problem}; training goes on (checkpoint.on_error=warn)", file=sys.stderr, flush=True)

    def _written(self, state: Saved) -> str:
        """What is wrong with the disk; empty where the checkpoint is there."""
        try:
            self._write(state)
        except (OSError, RuntimeError) as error:  # torch's writer raises its own error about what the file raised
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            newest = newest_checkpoint(self._directory)
            return (
                f"the checkpoint of step {state.step} cannot be written to {self._directory}: "
                f"{cause.strerror or cause}; the last one there: {newest.name if newest else 'none'}"
            )
        return ""

    def _write(self, state: Saved) -> None:
        content = {
            "fingerprint": self._plan.fingerprint,
            "config": self._config.model_dump(mode="json"),
            **state.content(),
        }
        write_checkpoint(self._directory, content, keep=self._config.checkpoint.keep)

    def restore(self, state: Saved) -> None:
        """Continue from the newest checkpoint, if there is one. Collective: every rank calls this."""
        path = newest_checkpoint(self._directory)
        step = agree_on(self._world, step_of(path) if path else -1)
        if step < 0:
            return
        content = read_checkpoint(checkpoint_path(self._directory, step))
        if content["fingerprint"] != self._plan.fingerprint:
            raise ValueError(
                f"{self._directory} holds checkpoints of another run (fingerprint {content['fingerprint']}; this is "
                f"{self._plan.fingerprint}); choose another run.directory"
            )
        state.take(content)
        self._saved_step = state.step


def encoder_weights(content: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict of the encoder alone, out of what `read_checkpoint` gave."""
    prefix = "encoder."
    return {key.removeprefix(prefix): value for key, value in content["model"].items() if key.startswith(prefix)}


def load_encoder(run: str | Path, *, checkpoint: str | Path | None = None) -> Encoder:
    """The encoder of a run directory's newest checkpoint (or of ``checkpoint``) on the CPU, frozen, in eval mode.

    It takes RGB images (N, 3, S, S), float in [0, 1], and gives features (N, feature_width).
    Raises CheckpointError where there is none or it cannot be read.

    >>> from pretrain import load_encoder
    >>> encoder = load_encoder("runs/quick")  # doctest: +SKIP
    >>> features = encoder(images)  # doctest: +SKIP
    """
    path = Path(checkpoint) if checkpoint is not None else newest_checkpoint(RunDirectory(Path(run)).checkpoints)
    if path is None:
        raise CheckpointError(f"{run} has no checkpoint: expected the directory of a run that has saved one")
    content = read_checkpoint(path)
    config = validate(PretrainConfig, content["config"], f"configuration in {path}")
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(config.encoder)
    encoder.load_state_dict(encoder_weights(content))
    return encoder.requires_grad_(False).eval()
