import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.checkpoint import (
    CheckpointError,
    CheckpointStore,
    checkpoints,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from pretrain.config import CheckpointConfig, PretrainConfig
from pretrain.dist import World
from pretrain.plan import make_plan
from pretrain.rundir import RunDirectory


def content(step: int) -> dict[str, object]:
    return {"step": step, "fingerprint": "f", "config": {}, "model": {"encoder.w": torch.full((3,), float(step))}}


def test_newest_is_found_and_old_ones_go(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    for step in (0, 9, 10, 100):
        write_checkpoint(tmp_path, content(step), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000010.pt", "step_00000100.pt"]
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert read_checkpoint(newest)["model"]["encoder.w"].tolist() == [100.0] * 3


def test_a_half_written_checkpoint_is_never_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, content(1), keep=2)

    def full_disk(value: object, file: object) -> None:
        file.write(b"part")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, content(2), keep=2)
    assert os.listdir(tmp_path) == ["step_00000001.pt"]


class Counter:
    """A state of one number."""

    step = 0

    def check(self) -> None:
        pass

    def content(self) -> dict[str, Any]:
        return {"step": self.step, "model": {"encoder.w": torch.zeros(2**16)}}

    def take(self, content: dict[str, Any]) -> None:
        self.step = content["step"]


@pytest.mark.parametrize("on_error", ["stop", "warn"])
def test_a_full_disk_is_told_in_one_line(
    tmp_path: Path, small_files: Callable[[int | None], None], on_error: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PretrainConfig(checkpoint=CheckpointConfig(on_error=on_error))
    plan = make_plan(config, images=5000, world_size=1)
    store, state = CheckpointStore(config, plan, RunDirectory(tmp_path), World(0, 1, torch.device("cpu"))), Counter()
    state.step = 1
    store.save(state)
    small_files(2**16)
    state.step = 2
    expected = r"checkpoint of step 2 cannot be written to .*: File too large; the last one there: step_00000001\.pt"
    if on_error == "stop":
        with pytest.raises(CheckpointError, match=expected):
            store.save(state)
    else:
        store.save(state)
        assert re.search(expected, capsys.readouterr().err)
        with pytest.raises(CheckpointError, match=expected):
            store.save(state, last=True)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001.pt"]


@pytest.mark.parametrize("damage", ["truncated", "foreign", "object", "format"])
def test_unusable_files_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = write_checkpoint(tmp_path, content(1), keep=2)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "foreign":
        torch.save({"state_dict": {}}, path)
    elif damage == "object":  # weights_only: nothing of a checkpoint is executed
        torch.save({"a": Path("/")}, path)
    else:
        torch.save({**content(1), "format": 99}, path)
    with pytest.raises(CheckpointError, match=r"step_00000001\.pt"):
        read_checkpoint(path)
