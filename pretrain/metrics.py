"""What a run tells while it trains. metrics.jsonl is the record; progress.json, console and wandb are copies of it."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pretrain.config import LogConfig, PretrainConfig
from pretrain.format import duration
from pretrain.plan import TrainPlan
from pretrain.rundir import RunDirectory, read_json_lines, write_json, write_text


class TrainingDiverged(RuntimeError):
    """A loss that is not a number; the message says at which step."""


class MetricsLog:
    """Rows of metrics by step. Silent on all ranks but the first."""

    def __init__(
        self, config: PretrainConfig, plan: TrainPlan, directory: RunDirectory, *, first_step: int, writes: bool
    ) -> None:
        self._plan, self._directory, self._writes = plan, directory, writes
        self._every_steps = config.log.every_steps
        self._last = (first_step, time.perf_counter())
        self._progress_written = -math.inf
        self._wandb: _WandbCopy | None = None
        if writes:
            self._forget_rows_after(first_step)
            self._file = directory.metrics.open("a", encoding="utf-8")
            self._wandb = _WandbCopy(config, plan, directory) if config.log.wandb != "disabled" else None
            self._write_progress({"state": "training", "step": first_step, "total_steps": plan.total_steps})

    def _forget_rows_after(self, step: int) -> None:
        """A resumed run repeats the steps after its checkpoint: their first rows go."""
        rows = read_json_lines(self._directory.metrics)
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows) or not self._directory.metrics.is_file():
            write_text(self._directory.metrics, "".join(json.dumps(row) + "\n" for row in kept))

    def due(self, step: int) -> bool:
        """Whether step number ``step`` (from 1) is one that is logged: the first, every so many, and the last."""
        return step == 1 or step % self._every_steps == 0 or step == self._plan.stop_step

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of step number ``step``. Raises TrainingDiverged where the loss is not finite."""
        now = time.perf_counter()
        last_step, last_time = self._last
        self._last = (step, now)
        images_per_second = (step - last_step) * self._plan.global_batch_size / max(now - last_time, 1e-9)
        finite = math.isfinite(metrics["loss"])
        if self._writes:
            measured = {
                "epoch": step / self._plan.steps_per_epoch,
                **metrics,
                "learning_rate": self._plan.learning_rate_at(step - 1),
                "images_per_second": images_per_second,
            }
            row = {"step": step, **{k: v if math.isfinite(v) else None for k, v in measured.items()}}  # JSON has no NaN
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            if self._wandb is not None:
                self._wandb.log(dict(metrics), step=step)
            progress = {
                "state": "training" if finite else "diverged",
                "step": step,
                "total_steps": self._plan.total_steps,
                "loss": row["loss"],
                "images_per_second": images_per_second,
            }
            if now - self._progress_written > 0.5 or not finite or step == self._plan.total_steps:
                self._progress_written = now
                self._write_progress(progress)
                self._show(step, metrics, images_per_second)
        if not finite:
            raise TrainingDiverged(
                f"the loss is {metrics['loss']} at step {step} of {self._plan.total_steps}; "
                f"try a smaller schedule.base_learning_rate (peak {self._plan.peak_learning_rate:g}) or more warm-up"
            )

    def _write_progress(self, values: dict[str, Any]) -> None:
        identity = {"updated": time.time(), "pid": os.getpid(), "host": platform.node()}
        write_json(self._directory.progress, {**values, **identity})

    def _show(self, step: int, metrics: Mapping[str, float], images_per_second: float) -> None:
        total = self._plan.total_steps
        eta_s = (total - step) * self._plan.global_batch_size / max(images_per_second, 1e-9)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        line = f"step {step}/{total}  {shown}  {images_per_second:,.0f} images/s  {duration(eta_s)} left"
        if sys.stderr.isatty():
            bar = "━" * round(20 * step / max(total, 1))
            end = "\n" if step == total else ""
            print(f"\r\x1b[K{bar:<20} {line}", end=end, file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self, state: str) -> None:
        """End the record; ``state`` is what progress.json says from now on."""
        if not self._writes:
            return
        self._file.close()
        self._write_progress({"state": state, "step": self._last[0], "total_steps": self._plan.total_steps})
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if state == "finished" else 1)


class _WandbCopy:
    """The run on wandb (offline: `wandb sync` sends it later), from a thread of its own: its start takes seconds."""

    def __init__(self, config: PretrainConfig, plan: TrainPlan, directory: RunDirectory) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wandb")
        self._run: Future[Any] = self._thread.submit(_start_wandb, config.log, config, plan, directory)

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        """Add a row once wandb is there."""
        self._thread.submit(lambda: self._run.result().log(metrics, step=step))

    def finish(self, *, exit_code: int) -> None:
        """Wait until all rows are written. A failure of wandb is printed and does not fail the run."""
        try:
            self._thread.submit(lambda: self._run.result().finish(exit_code=exit_code)).result()
        except Exception as error:
            print(f"wandb has no copy of this run: {error}", file=sys.stderr)
        self._thread.shutdown()


def _start_wandb(log: LogConfig, config: PretrainConfig, plan: TrainPlan, directory: RunDirectory) -> Any:
    import wandb  # a second to import, and only the first rank needs it

    return wandb.init(
        mode=log.wandb,
        project=log.wandb_project,
        name=directory.path.name,
        id=plan.fingerprint,
        resume="allow" if log.wandb == "online" else None,
        dir=directory.path,
        config={**config.model_dump(mode="json"), "plan": plan.to_json()},
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
    )
