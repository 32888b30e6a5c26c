"""What an augmentation is: one object with its settings, what is drawn, what it does and how it reads in a caption.

To add one: its settings go into `pretrain.config.ViewSettings` (and, with the value that switches it off, into the
table of settings that joined later there), its file here defines an `Operation`, and `operations.OPERATIONS` lists it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain.data.kernels.jit import exact
from pretrain.data.kernels.randomness import uniform

if TYPE_CHECKING:
    from pretrain.config import ViewSettings


class Stage(IntEnum):
    """Where in the chain an operation acts. A caption has a line for each stage."""

    CROP = 0  # which part of the stored image the view shows, and which way round
    WARP = 1  # geometry of the resized crop
    COLOUR = 2  # three planes of floats in 0..255
    FINISH = 3  # blur, then changes of the rounded levels


@dataclass(frozen=True)
class Operation:
    """One random change of a view.

    slots: the numbers of its draws under the view's key. They are part of what a seed means: never change them; a new
        operation takes numbers that no other has.
    configured: settings of `ViewSettings` that the kernels read as they are, as float64.
    derived: further numbers for the kernels, each from (settings of the view, side of the view in pixels).
    drawn: fields of the record of what was drawn, name to NumPy type. Zero in all of them: nothing happens.
    draw(key, height, width, settings, drawn): compiled by `jit.exact`; sets all its fields of ``drawn``, whatever they
        were, for a view of a (height, width) image.
    words(drawn, settings of the view, side): what was drawn, for a caption; "" if nothing happens.
    on_levels(levels_3P, settings, drawn): compiled by `jit.inner`; changes the finished view, (3, side * side) uint8,
        in place. None: the operation is part of a fused stage, which calls it by name.
    """

    name: str
    stage: Stage
    slots: tuple[int, ...]
    configured: tuple[str, ...]
    drawn: Mapping[str, Any]
    draw: Callable[..., None]
    words: Callable[[Any, ViewSettings, int], str]
    derived: Mapping[str, Callable[[ViewSettings, int], float]] = field(default_factory=dict)
    on_levels: Callable[..., None] | None = None


@exact
def unit(key: Any, slot: int) -> Any:
    """U[0, 1): draw number ``slot`` under ``key``."""
    return uniform(np.uint64(key), np.uint64(slot))
