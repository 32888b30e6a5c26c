"""Holds a run at the step that <run directory>/brake names, until the file goes or the run is asked to stop.

Python imports this file by itself where its folder is on PYTHONPATH. It stands for a run that takes hours.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

NEVER = 1 << 60


def hold_runs() -> None:
    from pretrain import metrics
    from pretrain import preemption as preempt

    listening: list[preempt.Preemption] = []
    install, log = preempt.Preemption.install, metrics.MetricsLog.log

    def install_and_tell(self: preempt.Preemption) -> preempt.Preemption:
        listening.append(self)
        return install(self)

    def log_and_hold(self: metrics.MetricsLog, step: int, values: Mapping[str, float]) -> None:
        log(self, step, values)
        while self._writes and step >= held_from(self._directory.path) and not listening[0].requested:
            time.sleep(0.05)

    preempt.Preemption.install = install_and_tell  # type: ignore[method-assign]
    metrics.MetricsLog.log = log_and_hold  # type: ignore[method-assign]


def held_from(directory: Path) -> int:
    try:
        return int((directory / "brake").read_text())
    except (FileNotFoundError, ValueError):
        return NEVER


if "pretrain" in sys.orig_argv:
    hold_runs()
