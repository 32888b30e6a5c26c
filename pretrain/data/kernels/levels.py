"""Changes of the finished view: of each level 0..255 by itself, P = side * side pixels in each of three planes."""

from __future__ import annotations

from typing import Any

import numpy as np

from pretrain.data.kernels.jit import exact, inner
from pretrain.data.kernels.operation import Operation, Stage, unit

SLOT_SOLARIZE = 13
SLOT_INVERT = 25


@exact
def _draw_solarize(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    drawn.solarize = unit(key, SLOT_SOLARIZE) < settings.solarize_probability


@inner
def _solarize(levels_3P: Any, settings: Any, drawn: Any) -> None:
    if drawn.solarize:
        threshold = settings.solarize_threshold
        for channel in range(3):
            level_P = levels_3P[channel]
            for x in range(len(level_P)):
                level_P[x] = np.uint8(255 - level_P[x]) if level_P[x] >= threshold else level_P[x]


SOLARIZE = Operation(
    name="solarize",
    stage=Stage.FINISH,
    slots=(SLOT_SOLARIZE,),
    configured=("solarize_probability", "solarize_threshold"),
    drawn={"solarize": np.int64},
    draw=_draw_solarize,
    words=lambda drawn, view, side: "solarised" if drawn["solarize"] else "",
    on_levels=_solarize,
)


@exact
def _draw_invert(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    drawn.invert = unit(key, SLOT_INVERT) < settings.invert_probability


@inner
def _invert(levels_3P: Any, settings: Any, drawn: Any) -> None:
    if drawn.invert:
        for channel in range(3):
            level_P = levels_3P[channel]
            for x in range(len(level_P)):
                level_P[x] = np.uint8(255 - level_P[x])


INVERT = Operation(
    name="invert",
    stage=Stage.FINISH,
    slots=(SLOT_INVERT,),
    configured=("invert_probability",),
    drawn={"invert": np.int64},
    draw=_draw_invert,
    words=lambda drawn, view, side: "inverted" if drawn["invert"] else "",
    on_levels=_invert,
)
