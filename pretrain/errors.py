"""Errors that a person can act on: every problem at once, each with where it is, what was given, what is expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input.

    where: dotted path of the value, e.g. ``objective.temperature``.
    message: what was given and what is expected, one line.
    """

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class ConfigError(ValueError):
    """A configuration that cannot be run. ``problems`` lists everything that is wrong with it."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in problems)]))


class TrainingDiverged(RuntimeError):
    """Numbers of a training that are not finite; ``step``: the first step, counted from 1, in which they were seen."""

    def __init__(self, step: int, message: str) -> None:
        self.step = step
        super().__init__(message)


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """`` (did you mean 'temperature'?)`` if something valid is close to what was given, else ``""``."""
    close = difflib.get_close_matches(given, list(valid), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""
