"""python -m pretrain.wandb_copy RUN_DIR: copy a run's metrics to wandb while they grow, from a process of its own.

Whatever befalls wandb, its network or its key then befalls this process, and never the training. It reads the record,
metrics.jsonl, and begins where the server's copy of the run ends: what an earlier session could not send follows. An
offline copy always holds the whole run. Standard input says when the run has ended, and how.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from pretrain.config import LogConfig, PretrainConfig
from pretrain.configio import load
from pretrain.rundir import RunDirectory, read_json

POLL_S = 1.0
# How long the end of a run waits for the copy: one that was asked to stop has seconds, see `pretrain.preemption`.
FINISHED_WAIT_S, STOPPED_WAIT_S = 30.0, 5.0
END_S = 120.0  # how long the copy may outlive the run
LOG = "wandb.log"


def wandb_mode(log: LogConfig) -> str:
    """What the environment's WANDB_MODE says, else the configuration."""
    return os.environ.get("WANDB_MODE") or log.wandb


class WandbCopy:
    """The copying process, seen from the run. Nothing here waits, but `finish`, for a stated time."""

    def __init__(self, directory: RunDirectory) -> None:
        self._log = directory.path / LOG
        self._told = False
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pretrain.wandb_copy", str(directory.path)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C is the run's
            )

    def look(self) -> None:
        """Say so, once, where the copy has failed."""
        if not self._told and self._process.poll():
            self._told = True
            lines = self._log.read_text(errors="replace").strip().splitlines() or ["it ended without a word"]
            print(f"wandb gets no copy ({lines[-1]}); the run goes on, its record is metrics.jsonl", file=sys.stderr)

    def finish(self, state: str) -> None:
        """Let the copy end, with the run's ``state``; say so where it has not ended in time."""
        wait_s = FINISHED_WAIT_S if state == "finished" else STOPPED_WAIT_S
        try:
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate(state.encode(), timeout=wait_s)
        except subprocess.TimeoutExpired:
            print(
                f"wandb has not sent everything within {wait_s:.0f} s and is left behind; what is missing is sent by "
                f"the next start, or by: wandb sync {self._log.parent}/wandb/*run-*",
                file=sys.stderr,
            )
            return
        self.look()


def copy(directory: RunDirectory) -> None:
    """Copy until standard input ends."""
    import wandb  # a second to import

    config = load(PretrainConfig, directory.config)
    run = wandb.init(
        mode=wandb_mode(config.log),  # type: ignore[arg-type]
        project=config.log.wandb_project,
        name=directory.path.name,
        id=read_json(directory.plan)["fingerprint"],
        resume="allow" if wandb_mode(config.log) == "online" else None,
        dir=directory.path,
        config={**config.model_dump(mode="json"), "plan": read_json(directory.plan)},
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
    )
    first, position, state = run.step, 0, None
    while state is None:
        state = _ended()
        position = _send(run, directory.metrics, position, first)
    threading.Timer(END_S, os._exit, (1,)).start()
    run.finish(exit_code=0 if state == "finished" else 1)
    os._exit(0)  # neither the timer nor wandb's own end is waited for


def _ended() -> str | None:
    """How the run ended; None where it has not, after a moment. One that was killed has said nothing."""
    ready, _, _ = select.select([sys.stdin], [], [], POLL_S)
    return sys.stdin.read() if ready else None


def _send(run: Any, metrics: Path, position: int, first: int) -> int:
    """Log the whole rows after byte ``position`` from step ``first`` on; returns where the next one begins."""
    with contextlib.suppress(FileNotFoundError), metrics.open("rb") as file:
        file.seek(position)
        lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        for row in map(json.loads, whole.splitlines()):
            if row["step"] >= first:
                run.log({k: v for k, v in row.items() if k != "step" and v is not None}, step=row["step"])
        position += len(whole)
    return position


if __name__ == "__main__":
    try:
        copy(RunDirectory(Path(sys.argv[1])))
    except Exception as error:
        print(f"{type(error).__name__}: {error}".splitlines()[0], file=sys.stderr, flush=True)
        os._exit(1)
