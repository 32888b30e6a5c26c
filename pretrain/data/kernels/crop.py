"""Which part of an image a view shows, and whether it is mirrored: torchvision's RandomResizedCrop, and the flip."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain.data.kernels.jit import exact
from pretrain.data.kernels.operation import Operation, Stage, unit

if TYPE_CHECKING:
    from pretrain.config import ViewSettings

CROP_TRIES = 10  # RandomResizedCrop's
SLOT_FLIP = 1
SLOT_CROP = 64  # 64 + 4t + (0 area, 1 aspect ratio, 2 top, 3 left) of try t = 0 .. 9


@exact
def _draw_crop(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    """Crop of random area and aspect ratio in a (height, width) image; RandomResizedCrop's ten tries and fallback."""
    area = float(height) * float(width)
    for attempt in range(CROP_TRIES):
        slot = SLOT_CROP + 4 * attempt
        target = area * (settings.area_low + (settings.area_high - settings.area_low) * unit(key, slot))
        log_span = settings.log_aspect_high - settings.log_aspect_low
        aspect = math.exp(settings.log_aspect_low + log_span * unit(key, slot + 1))
        crop_width = round(math.sqrt(target * aspect))
        crop_height = round(math.sqrt(target / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            drawn.top = int(unit(key, slot + 2) * (height - crop_height + 1))
            drawn.left = int(unit(key, slot + 3) * (width - crop_width + 1))
            drawn.height = crop_height
            drawn.width = crop_width
            return
    crop_height, crop_width = height, width
    aspect = width / height
    if aspect < math.exp(settings.log_aspect_low):
        crop_height = min(height, round(width / math.exp(settings.log_aspect_low)))
    elif aspect > math.exp(settings.log_aspect_high):
        crop_width = min(width, round(height * math.exp(settings.log_aspect_high)))
    drawn.top = (height - crop_height) // 2
    drawn.left = (width - crop_width) // 2
    drawn.height = crop_height
    drawn.width = crop_width


def _crop_in_words(drawn: Any, view: ViewSettings, side: int) -> str:
    return f"crop {drawn['width']}x{drawn['height']} at {drawn['left']},{drawn['top']}"


CROP = Operation(
    name="crop",
    stage=Stage.CROP,
    slots=tuple(range(SLOT_CROP, SLOT_CROP + 4 * CROP_TRIES)),
    configured=(),
    derived={
        "simclr": lambda view, side: float(
            view.flavour == "simclr"
        ),  # also read by the resize, the colours and the blur
        "area_low": lambda view, side: view.crop_area[0],
        "area_high": lambda view, side: view.crop_area[1],
        "log_aspect_low": lambda view, side: math.log(view.crop_aspect_ratio[0]),
        "log_aspect_high": lambda view, side: math.log(view.crop_aspect_ratio[1]),
    },
    drawn=dict.fromkeys(("top", "left", "height", "width"), np.int64),  # in pixels of the stored image
    draw=_draw_crop,
    words=_crop_in_words,
)


@exact
def _draw_flip(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    drawn.flip = unit(key, SLOT_FLIP) < settings.flip_probability


FLIP = Operation(
    name="flip",
    stage=Stage.CROP,
    slots=(SLOT_FLIP,),
    configured=("flip_probability",),
    drawn={"flip": np.int64},
    draw=_draw_flip,
    words=lambda drawn, view, side: "flipped" if drawn["flip"] else "",
)
