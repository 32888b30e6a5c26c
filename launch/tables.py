"""Tables of a study for a person: its plan, its state, its results. Torch-free.

`TextTable` is a plain table of aligned columns; rich's own takes seconds for hundreds of rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import assert_never

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from eval.study_manifest import StudyManifest
from launch.plan.command_lines import command_line
from launch.plan.targets import LocalTarget, SlurmTarget, Target, TorchrunTarget, overlaps, side_by_side
from launch.snapshot import Snapshot
from launch.state import PointState, log_path
from pretrain.format import DASH, duration, number, plural

Cell = str | tuple[str, str]  # text, or (text, style)

GAP = "   "
NARROWEST_NAME = 16  # of the first column; narrower, a name would fold into a column of single words
LEFT_ALIGNED = ("state", "fingerprint", "host")  # columns of text; all others but the first hold numbers
PIPE_WIDTH = 240  # wider than any table, so that a file or a pipe gets whole lines
STYLES = {
    "failed": "red",
    "stopped": "yellow",
    "queued": "blue",
    "finished": "green",
    "training": "cyan",
    "evaluating": "cyan",
}


class TextTable:
    """Rows under a header. The first column holds names, which are folded where the terminal is narrow."""

    def __init__(self, *columns: str) -> None:
        self._columns = columns
        self._right = [index > 0 and name not in LEFT_ALIGNED for index, name in enumerate(columns)]
        self._rows: list[tuple[Cell, ...]] = []

    def add_row(self, *cells: Cell) -> None:
        """Add one row; as many cells as there are columns."""
        assert len(cells) == len(self._columns), f"got {len(cells)} cells for {len(self._columns)} columns"
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = [self._columns, *([_text(cell) for cell in row] for row in self._rows)]
        widths = [max(map(len, column)) for column in zip(*plain, strict=True)]
        others = sum(widths[1:]) + len(GAP) * len(widths[1:])
        if console.is_terminal:
            widths[0] = max(NARROWEST_NAME, min(widths[0], options.max_width - others))
        lines = [Text(), *self._lines(self._columns, widths), Text("─" * (widths[0] + others))]
        for row in self._rows:
            lines += self._lines(row, widths)
        yield Text("\n", no_wrap=True, overflow="ignore", end="\n\n").join(lines)

    def _lines(self, cells: Sequence[Cell], widths: Sequence[int]) -> list[Text]:
        name = _text(cells[0])
        parts = [name[start : start + widths[0]] for start in range(0, len(name), widths[0])] or [""]
        first = Text(parts[0].ljust(widths[0]))
        for cell, width, right in zip(cells[1:], widths[1:], self._right[1:], strict=True):
            text = _text(cell)
            first.append(GAP + (text.rjust(width) if right else text.ljust(width)), None if cell is text else cell[1])
        return [first, *(Text(part) for part in parts[1:])]


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]


def make_console() -> Console:
    """The terminal; in a pipe or a file, lines wide enough that no table is folded."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def plan_table(snapshot: Snapshot) -> TextTable:
    """Every derived number of every point."""
    table = TextTable(
        "point",
        "ranks",
        "batch/rank",
        "batch",
        "images",
        "steps",
        "warm-up",
        "peak LR",
        "negatives",
        "features",
        "loss memory",
        "fingerprint",
        "state",
    )
    for point, state in zip(snapshot.graph.points, snapshot.states, strict=True):
        plan = point.plan
        table.add_row(
            point.entry.name,
            str(plan.world_size),
            f"{plan.batch_size_per_rank:,}",
            f"{plan.global_batch_size:,}",
            f"{plan.images:,}",
            f"{plan.total_steps:,}",
            f"{plan.warmup_steps:,}",
            f"{plan.peak_learning_rate:.4g}",
            f"{plan.negatives_per_anchor:,}" if plan.negatives_per_anchor else DASH,
            f"{plan.feature_width:,}",
            f"{plan.loss_bytes_per_rank / 2**20:,.1f} MiB" if plan.loss_bytes_per_rank else DASH,
            plan.fingerprint,
            _stage(state),
        )
    return table


def plan_summary(snapshot: Snapshot) -> str:
    """The size of the study, and how much of it is left; one line each."""
    graph, tasks = snapshot.graph, snapshot.missing
    total = sum(point.images_seen for point in graph.points)
    left = sum(task.point.images_seen for task in tasks if task.kind == "train" and task.point is not None)
    runs = sum(task.kind == "train" for task in tasks)
    probes = sum(task.kind == "probe" for task in tasks)
    asked = sum(len(curve.points) for question in graph.manifest.questions for curve in question.curves)
    asked += sum(len(baseline.points) for baseline in graph.manifest.baselines)
    lines = [
        f"{graph.manifest.title} ({graph.manifest.source} -> {graph.directory})",
        f"{plural(len(graph.points), 'run')} fill {asked} figure entries; {total:,} images in total",
        f"left to do: {plural(runs, 'run')} ({left:,} images), {plural(probes, 'evaluation')}",
        _target_line(graph.config.target),
    ]
    return "\n".join(lines + [f"first: {command_line(task.command)}" for task in tasks if task.kind == "data"])


def _target_line(target: Target) -> str:
    nodes = f"{target.ranks // target.ranks_per_node} nodes x {target.ranks_per_node} ranks"
    match target:
        case LocalTarget():
            beside = "evaluations beside training" if overlaps(target) else "evaluations between runs"
            return f"target: local, {plural(target.ranks, 'rank')} a run, {side_by_side(target)} at a time, {beside}"
        case TorchrunTarget():
            return f"target: torchrun, {nodes}, {target.rendezvous} at {target.master_address}:{target.master_port}"
        case SlurmTarget():
            where = f"partition {target.partition}" if target.partition else "default partition"
            return f"target: slurm, {nodes} a run, {target.concurrent_runs} at a time, {where}"
        case _:
            assert_never(target)


def status_table(states: Sequence[PointState]) -> TextTable:
    """How far every point is."""
    columns = ("step", "images/s", "loss", "time left", "host", "restarts", "updated", "top-1 %", "kNN %")
    table = TextTable("point", "state", *columns)
    now = time.time()
    for state in states:
        table.add_row(
            state.point.name,
            _stage(state),
            DASH if state.step is None else f"{state.step:,} / {state.total_steps or 0:,}",
            number(state.images_per_second, ",.0f"),
            number(state.loss, ".4f"),
            duration(state.remaining_s),
            state.host or DASH,
            number(state.restarts, "d"),
            DASH if state.updated is None else f"{duration(now - state.updated)} ago",
            number(state.top1, ".2f"),
            number(state.knn_top1, ".2f"),
        )
    return table


def result_table(states: Sequence[PointState]) -> TextTable:
    """The accuracies and the time of every point."""
    table = TextTable("point", "seed", "top-1 %", "kNN %", "time", "images/s", "state")
    for state in states:
        table.add_row(
            state.point.name.replace(f",seed={state.point.seed}", ""),
            str(state.point.seed),
            number(state.top1, ".2f"),
            number(state.knn_top1, ".2f"),
            duration(state.train_seconds),
            number(state.images_per_second, ",.0f"),
            _stage(state),
        )
    return table


def status_summary(directory: Path, manifest: StudyManifest, states: Sequence[PointState]) -> str:
    """One line: how many points are in which state, and how much of all images is done."""
    counts = {stage: sum(state.stage == stage for state in states) for stage in dict.fromkeys(s.stage for s in states)}
    total = sum(int(state.point.plan["total_steps"]) * int(state.point.plan["global_batch_size"]) for state in states)
    share = f", {sum(state.images_seen for state in states) / total:.0%} of {total:,} images" if total else ""
    return f"{manifest.title} ({directory}): {', '.join(f'{n} {stage}' for stage, n in counts.items())}{share}"


def failures(directory: Path, states: Sequence[PointState]) -> Iterator[str]:
    """One line for each point that failed: why, and the log to read."""
    for state in states:
        if state.stage == "failed" and not state.damaged:
            stage = state.detail.split(" ", 1)[0]
            yield f"{state.point.name}: {state.detail}; see {log_path(directory / state.point.directory, stage)}"
        elif state.damaged:
            yield f"{state.point.name}: {state.detail}"


def _stage(state: PointState) -> Cell:
    style = STYLES.get(state.stage)
    return (state.stage, style) if style else state.stage
