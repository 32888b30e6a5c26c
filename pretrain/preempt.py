"""Signals that ask a run to stop. A handler only sets a flag; the loop saves and leaves at the next step boundary."""

from __future__ import annotations

import signal
from types import FrameType

# Slurm sends USR2 ahead of a time limit or a preemption (as submitit asks it to), and TERM at the end.
SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
# What a run that was asked to stop, and saved, exits with (EX_TEMPFAIL: try again later).
EXIT_CODE = 75


class Preemption:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.requested = False
        self.signal_name: str | None = None

    def install(self) -> Preemption:
        """Listen for the signals from now on; call from the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.signal_name = signal.Signals(number).name
