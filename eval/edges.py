"""Whether a chosen setting lies at the edge of the grid that it was chosen from: beyond it may be a better one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

NAMES = {"l2": "L2", "weight_decay": "weight decay"}


class Edge(NamedTuple):
    """A chosen setting, and where nothing was tried: ``smaller`` or ``larger`` values."""

    setting: str
    value: float
    untried: str

    def describe(self) -> str:
        """``L2 0.0001 is the smallest of the grid``."""
        return f"{name_of(self.setting)} {self.value:g} is the {self.untried.removesuffix('r')}st of the grid"


def name_of(setting: str) -> str:
    """What a setting is called in print."""
    return NAMES.get(setting, setting.replace("_", " "))


def edges_of(measured: Mapping[str, Any]) -> list[Edge]:
    """The chosen hyper-parameters of a result (or of a row of one) that are the smallest or largest tried.

    One that had no alternative is not among them, nor is 0, which nothing is smaller than.
    """
    grid = [row for row in measured.get("grid") or [] if isinstance(row, Mapping)]
    found = []
    for setting, value in (measured.get("hyperparameters") or {}).items():
        tried = {row[setting] for row in grid if isinstance(row.get(setting), int | float)}
        if len(tried) < 2 or not isinstance(value, int | float):
            continue
        if value == min(tried) and value > 0:
            found.append(Edge(setting, float(value), "smaller"))
        elif value == max(tried):
            found.append(Edge(setting, float(value), "larger"))
    return found
