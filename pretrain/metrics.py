"""What a run tells while it trains. metrics.jsonl is the record; progress.json, console and wandb are copies of it.

Nothing here stops a run: what cannot be written is told once.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pretrain.config import PretrainConfig
from pretrain.format import duration
from pretrain.health import KEPT_ROWS, Verdict, judge
from pretrain.plan import TrainPlan
from pretrain.rundir import RunDirectory, read_json_lines, write_json, write_text
from pretrain.wandb_copy import WandbCopy, wandb_mode


class MetricsLog:
    """Rows of metrics by step. Silent on all ranks but the first."""

    def __init__(
        self, config: PretrainConfig, plan: TrainPlan, directory: RunDirectory, *, first_step: int, writes: bool
    ) -> None:
        self._plan, self._directory, self._writes = plan, directory, writes
        self._every_steps = config.log.every_steps
        self._last = (first_step, time.perf_counter())
        self._progress_written = -math.inf
        self._wandb: WandbCopy | None = None
        self._told: set[str] = set()
        self._chance = config.objective.chance_loss(plan.global_batch_size)
        self.health, self._recent = Verdict("healthy"), list[dict[str, Any]]()
        if writes:
            self._recent = self._forget_rows_after(first_step)
            self._rows = RowFile(directory.metrics)
            self._wandb = WandbCopy(directory) if wandb_mode(config.log) != "disabled" else None
            self._write_progress({"state": "training", "step": first_step, "total_steps": plan.total_steps})

    def _forget_rows_after(self, step: int) -> list[dict[str, Any]]:
        """A resumed run repeats the steps after its checkpoint: their first rows go. Returns the others."""
        rows = read_json_lines(self._directory.metrics)
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows) or not self._directory.metrics.is_file():
            write_text(self._directory.metrics, "".join(json.dumps(row) + "\n" for row in kept))
        return kept

    def due(self, step: int) -> bool:
        """Whether step number ``step`` (from 1) is one that is logged: the first, every so many, and the last."""
        return step == 1 or step % self._every_steps == 0 or step == self._plan.stop_step

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of step number ``step``."""
        now = time.perf_counter()
        last_step, last_time = self._last
        self._last = (step, now)
        images_per_second = (step - last_step) * self._plan.global_batch_size / max(now - last_time, 1e-9)
        if self._writes:
            measured = {
                "epoch": step / self._plan.steps_per_epoch,
                **metrics,
                "learning_rate": self._plan.learning_rate_at(step - 1),
                "images_per_second": images_per_second,
            }
            row = {"step": step, **{k: v if math.isfinite(v) else None for k, v in measured.items()}}  # JSON has no NaN
            with self._told_not_raised():
                self._rows.add(row)
            if self._wandb is not None:
                self._wandb.look()
            self._show(step, metrics, images_per_second)
            self._judge(row)
            progress = {
                "state": "training",
                "step": step,
                "total_steps": self._plan.total_steps,
                "loss": row["loss"],
                "images_per_second": images_per_second,
                "health": self.health._asdict(),
            }
            if now - self._progress_written > 0.5 or step == self._plan.total_steps:
                self._progress_written = now
                self._write_progress(progress)

    def _judge(self, row: dict[str, Any]) -> None:
        """Say so where the verdict is another than before. The first row and the latest are all that it takes."""
        self._recent = [*self._recent[:1], *self._recent[1:][-KEPT_ROWS:], row]
        verdict = judge(self._recent, chance_loss=self._chance, warmup_steps=self._plan.warmup_steps)
        if verdict.name != self.health.name:
            print(f"health: {verdict.describe()}", file=sys.stderr, flush=True)
        self.health = verdict

    def _write_progress(self, values: dict[str, Any]) -> None:
        identity = {"updated": time.time(), "pid": os.getpid(), "host": platform.node()}
        with self._told_not_raised():
            write_json(self._directory.progress, {**values, **identity})

    @contextlib.contextmanager
    def _told_not_raised(self) -> Iterator[None]:
        """A disk that is full, or away, is told once of each kind."""
        try:
            yield
        except OSError as error:
            problem = error.strerror or str(error)
            if problem not in self._told:
                print(f"{self._directory.path}: {problem}; training goes on, rows wait for room", file=sys.stderr)
            self._told.add(problem)

    def _show(self, step: int, metrics: Mapping[str, float], images_per_second: float) -> None:
        total = self._plan.total_steps
        eta_s = (total - step) * self._plan.global_batch_size / max(images_per_second, 1e-9)
        if "legend" not in self._told:
            self._told.add("legend")
            print(legend(metrics, self._chance, self._plan.negatives_per_anchor), file=sys.stderr)
        shown = "  ".join(f"{name} {_shown(name, metrics[name])}" for name in in_order(metrics))
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
        self._rows.close()
        ended = {"state": state, "step": self._last[0], "total_steps": self._plan.total_steps}
        self._write_progress({**ended, "health": self.health._asdict()})
        if self._wandb is not None:
            self._wandb.finish(state)


MEANING = {
    "online_probe_top1": "of a linear classifier that learns beside the encoder; higher is better",
    "train_top1": "on the training images; higher is better",
    "contrastive_top1": "of the positives are nearer than every negative; higher is better",
    "contrastive_entropy": "nats, of the choice among all; lower is surer",
    "alignment": "0 where both views of an image are the same; lower is better",
    "uniformity": "lower is more even over the sphere, about -4 at best",
    "embedding_spread": "1 in all directions alike, 0 collapsed",
    "embedding_rank": "dimensions that embeddings fill; 1 collapsed",
    "gradient_norm": "steady or falling; 100 times the first is diverging",
}
FIRST_SHOWN = ("loss", "online_probe_top1")


def in_order(names: Iterable[str]) -> list[str]:
    """The loss, the probe's accuracy, then the others by name."""
    return sorted(names, key=lambda name: (name not in FIRST_SHOWN, name != "loss", name))


def legend(names: Iterable[str], chance_loss: float | None, negatives: int) -> str:
    """A line for each metric: its direction or level of chance."""
    meaning = dict(MEANING)
    meaning["loss"] = "lower is better" + ("" if chance_loss is None else f"; {chance_loss:.3f} at chance")
    if negatives:
        meaning["contrastive_top1"] += f"; {100 / (negatives + 1):.2g} % at chance"
        meaning["contrastive_entropy"] += f"; {math.log(negatives + 1):.3f} at chance"
    return "\n".join(f"  {name:<22}{meaning[name]}" for name in in_order(names) if name in meaning)


def _shown(name: str, value: float) -> str:
    return f"{100 * value:.1f} %" if name.endswith("_top1") else f"{value:.4g}"


class RowFile:
    """A .jsonl file as it grows. Rows that a full disk refuses are kept, and written once there is room."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._end = self._file.seek(0, os.SEEK_END)
        self._waiting: list[bytes] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row. Raises OSError where it has to wait; the rows before it are whole all the same."""
        self._waiting.append(json.dumps(row).encode() + b"\n")
        rest = b"".join(self._waiting)
        length = len(rest)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._end)  # half a row must not stand before the next
            raise
        self._end += length
        self._waiting.clear()

    def close(self) -> None:
        """End it."""
        self._file.close()
