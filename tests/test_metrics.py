"""Logging never stops, stalls or loses a run: full disks, a wandb that fails, hangs, or comes back."""

import errno
import json
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from pretrain import metrics, wandb_copy
from pretrain.__main__ import prepare
from pretrain.config import LogConfig, PretrainConfig
from pretrain.metrics import MetricsLog, RowFile
from pretrain.plan import make_plan
from pretrain.rundir import RunDirectory, read_json, read_json_lines
from pretrain.wandb_copy import WandbCopy, wandb_mode

FAKE_WANDB = """
import json, os, time
from pathlib import Path
FOLDER = Path(__file__).parent
def Settings(**options): return options
def init(*, id, mode, resume, **options):
    match os.environ.get("FAKE_WANDB"):
        case "wrong key": raise PermissionError("API key must have 40+ characters, has 3.")
        case "no network": time.sleep(60)
    return Run(id)
class Run:
    def __init__(self, id):
        self.path = FOLDER / id
        rows = self.path.read_text().splitlines() if self.path.exists() else []
        self.step = 1 + max([json.loads(row)[0] for row in rows], default=-1)
    def log(self, row, step):
        with self.path.open("a") as file: file.write(json.dumps([step, row]) + "\\n")
    def finish(self, exit_code):
        (FOLDER / "ended").write_text(str(exit_code))
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a wandb whose server it is."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "wandb.py").write_text(textwrap.dedent(FAKE_WANDB))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    config, directory = PretrainConfig(log=LogConfig(wandb="online")), RunDirectory(tmp_path / "run")
    prepare(directory, config, make_plan(config, images=5000, world_size=1))
    return directory


def append(directory: RunDirectory, *steps: int) -> None:
    with directory.metrics.open("a") as file:
        file.writelines(json.dumps({"step": step, "loss": float(step), "gap": None}) + "\n" for step in steps)


def session(directory: RunDirectory, *steps: int) -> str:
    """Copies a session that logs these steps; returns what the server then has."""
    append(directory, *steps)
    WandbCopy(directory).finish("finished")
    server = directory.path.parent / "server"
    found = [json.loads(line) for line in (server / read_json(directory.plan)["fingerprint"]).read_text().splitlines()]
    assert all(row == {"loss": step} for step, row in found)
    return " ".join(str(step) for step, _ in found) + ", ended with " + (server / "ended").read_text()


def test_a_resumed_run_continues_its_copy_and_sends_what_is_missing(
    server: Path, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert session(directory, 1, 2) == "1 2, ended with 0"
    monkeypatch.setenv("FAKE_WANDB", "wrong key")
    append(directory, 3)
    copy = WandbCopy(directory)
    copy.finish("stopped")
    copy.look()
    said = capsys.readouterr().err
    assert said.count("wandb gets no copy (PermissionError: API key must have 40+ characters, has 3.)") == 1
    monkeypatch.delenv("FAKE_WANDB")
    assert session(directory, 4) == "1 2 3 4, ended with 0"


def test_no_network_holds_nobody_up(
    server: Path, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_WANDB", "no network")
    monkeypatch.setattr(wandb_copy, "STOPPED_WAIT_S", 0.3)
    copy, before = WandbCopy(directory), time.monotonic()
    copy.look()
    copy.finish("stopped")
    assert time.monotonic() - before < 5
    assert "is left behind" in capsys.readouterr().err
    copy._process.kill()


def test_switching_wandb_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert LogConfig.model_validate({"wandb": "off"}).wandb == "disabled"
    assert wandb_mode(LogConfig()) == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(LogConfig(wandb="online")) == "disabled"


def test_rows_that_a_full_disk_refuses_are_written_later(tmp_path: Path, small_files: Any) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = RowFile(path)
    rows.add({"step": 1})
    small_files(path.stat().st_size + 5)
    for step in (2, 3):
        with pytest.raises(OSError, match="File too large"):
            rows.add({"step": step})
        assert path.read_text() == '{"step": 1}\n'
    small_files(None)
    rows.add({"step": 4})
    assert [row["step"] for row in read_json_lines(path)] == [1, 2, 3, 4]


def test_a_full_disk_does_not_stop_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PretrainConfig(log=LogConfig(wandb="disabled"))
    plan = make_plan(config, images=5000, world_size=1)
    log = MetricsLog(config, plan, RunDirectory(tmp_path), first_step=0, writes=True)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(metrics, "write_json", full)
        patch.setattr(RowFile, "add", full)
        for step in (1, 10):
            log.log(step, {"loss": 1.0})
        log.close("stopped")
    assert capsys.readouterr().err.count("No space left on device; training goes on") == 1
