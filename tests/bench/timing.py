"""Honest numbers on a shared machine: candidates take turns, medians are compared, peaks come from fresh processes."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any


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
    run = prepare(*args)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status_kib("VmRSS")
    run()
    return (_status_kib("VmHWM") - before) / 1024


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def report(what: str, value: float, unit: str, gate: float, at_least: bool) -> None:
    held = value >= gate if at_least else value <= gate
    sign = ">=" if at_least else "<="
    print(f"{what}: {value:.2f}{unit}  (gate {sign} {gate:g}{unit}: {'held' if held else 'MISSED'})")
