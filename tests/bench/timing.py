"""Honest numbers on a shared machine: candidates take turns, medians are compared, peaks come from fresh processes."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from pretrain.measure import peak_growth_bytes


def interleaved(candidates: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each candidate, after one warm-up; each round runs all of them."""
    for run in candidates.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


def peak_growth_mib(prepare: Callable[..., Callable[[], Any]], *args: Any) -> float:
    """How far the peak of resident memory of a fresh process rises while it runs what prepare(*args) gives. Linux."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_peak_growth, (prepare, args)))


def _peak_growth(prepare: Callable[..., Callable[[], Any]], args: tuple[Any, ...]) -> float:
    return peak_growth_bytes(prepare(*args)) / 2**20


def report(what: str, value: float, unit: str, gate: float, at_least: bool) -> None:
    held = value >= gate if at_least else value <= gate
    sign = ">=" if at_least else "<="
    print(f"{what}: {value:.2f}{unit}  (gate {sign} {gate:g}{unit}: {'held' if held else 'MISSED'})")


class Rate(NamedTuple):
    """Medians of several rounds."""

    per_second: float
    cpu_us: float  # processor time per item, of this process and its children


def rates(runs: dict[str, Callable[[], int]], rounds: int) -> dict[str, Rate]:
    """Items per second of each run, which returns how many items it made; one warm-up, then they take turns."""
    for run in runs.values():
        run()
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), _cpu_seconds()
            items = run()
            wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
            measured[name].append((items / wall, 1e6 * cpu / items))
    return {name: Rate(*(median(column) for column in zip(*rows))) for name, rows in measured.items()}


def _cpu_seconds() -> float:
    """Processor time of this process and of its living children. Linux."""
    ticks = 0
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")
