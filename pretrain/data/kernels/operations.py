"""Every augmentation, and what the kernels are compiled from: their records, the drawing, the changes of levels.

Distributions are torchvision's and SimCLR's (arXiv:2002.05709, appendix A).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pretrain.data.kernels.blur import BLUR
from pretrain.data.kernels.colour import GRAYSCALE, JITTER
from pretrain.data.kernels.crop import CROP, FLIP
from pretrain.data.kernels.jit import exact, inner
from pretrain.data.kernels.levels import INVERT, SOLARIZE
from pretrain.data.kernels.operation import Operation, Stage
from pretrain.data.kernels.warp import PERSPECTIVE, ROTATION

if TYPE_CHECKING:
    from pretrain.config import ViewSettings

# In the order in which they are applied.
OPERATIONS: tuple[Operation, ...] = (
    CROP,
    FLIP,
    PERSPECTIVE,
    ROTATION,
    JITTER,
    GRAYSCALE,
    BLUR,
    SOLARIZE,
    INVERT,
)


def check_slots(operations: tuple[Operation, ...]) -> None:
    """Raises ValueError where two operations would share a random number; names them and the next free slot."""
    owner: dict[int, str] = {}
    for operation in operations:
        for slot in operation.slots:
            if slot in owner:
                free = next(number for number in range(1, 2**16) if all(number not in o.slots for o in operations))
                raise ValueError(
                    f"slot {slot} of {operation.name} belongs to {owner[slot]}; the first free number is {free}"
                )
            owner[slot] = operation.name


check_slots(OPERATIONS)

# What the configuration says about a view, and what was drawn for one, as the compiled code reads and writes them.
SETTINGS = np.dtype(
    [("side", np.float64)]
    + [(name, np.float64) for operation in OPERATIONS for name in (*operation.configured, *operation.derived)]
)
DRAWN = np.dtype([(name, kind) for operation in OPERATIONS for name, kind in operation.drawn.items()])


def settings_record(view: ViewSettings, side: int) -> npt.NDArray[np.void]:
    """One row of SETTINGS, shape (1,), from the configuration's settings of a view of ``side`` pixels."""
    record = np.zeros(1, SETTINGS)
    record["side"] = side
    for operation in OPERATIONS:
        for name in operation.configured:
            record[name] = getattr(view, name)
        for name, derive in operation.derived.items():
            record[name] = derive(view, side)
    return record


def in_words(drawn: Any, view: ViewSettings, side: int) -> list[str]:
    """What was drawn (a row of DRAWN) in the order in which it is applied, a line for each stage that has something."""
    lines = (
        ", ".join(filter(None, (each.words(drawn, view, side) for each in OPERATIONS if each.stage == stage)))
        for stage in Stage
    )
    return [line for line in lines if line]


# Compiled code cannot loop over functions, so each function calls the ones before it and then its own.


def _draw_both(first: Any, second: Any) -> Any:
    @exact
    def draw(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
        first(key, height, width, settings, drawn)
        second(key, height, width, settings, drawn)

    return draw


def _apply_both(first: Any, second: Any) -> Any:
    @inner
    def apply(levels_3P: Any, settings: Any, drawn: Any) -> None:
        first(levels_3P, settings, drawn)
        second(levels_3P, settings, drawn)

    return apply


# draw_view(key, height, width, settings, drawn) fills a row of DRAWN for a view of a (height, width) image.
draw_view: Any = functools.reduce(_draw_both, (operation.draw for operation in OPERATIONS))
# change_levels(levels_3P, settings, drawn) changes a finished view in place.
change_levels: Any = functools.reduce(_apply_both, (each.on_levels for each in OPERATIONS if each.on_levels))
