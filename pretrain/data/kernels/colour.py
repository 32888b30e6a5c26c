"""Colour operations on three planes of floats in 0..255, each clipped to 0..255 as torchvision v2 does on floats.

N pixels per plane. Brightness, contrast and saturation blend with black, the mean grey and the pixel's grey; hue turns
in HSV. SimCLR's code differs in two: contrast blends with each channel's own mean, saturation is scaled in HSV. The
loops have no branches, so that they vectorise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain.data.kernels.jit import exact, inner
from pretrain.data.kernels.operation import Operation, Stage, unit

if TYPE_CHECKING:
    from pretrain.config import ViewSettings

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0, 1, 2, 3  # torchvision's ColorJitter counts them so
SLOT_JITTER, SLOT_BRIGHTNESS, SLOT_CONTRAST, SLOT_SATURATION, SLOT_HUE = 2, 3, 4, 5, 6
SLOT_JITTER_ORDER = 7  # 7, 8, 9: the swaps of a Fisher-Yates shuffle of the four
SLOT_GRAYSCALE = 10

_f32 = np.float32
_RED, _GREEN, _BLUE = _f32(0.2989), _f32(0.587), _f32(0.114)  # torchvision's weights of grey (ITU-R BT.601)
_ZERO, _ONE, _TWO, _THREE, _FOUR, _SIX, _WHITE = (_f32(value) for value in (0, 1, 2, 3, 4, 6, 255))
_TINY = _f32(1e-20)  # a chroma below it is grey, whose hue is undefined
_BLOCK = 4096  # pixels: three planes of 16 KiB stay in cache


@inner
def _clip(value: Any) -> Any:
    return min(max(value, _ZERO), _WHITE)


@inner
def brightness(red_N: Any, green_N: Any, blue_N: Any, factor: Any) -> None:
    for x in range(len(red_N)):
        red_N[x] = min(red_N[x] * factor, _WHITE)
        green_N[x] = min(green_N[x] * factor, _WHITE)
        blue_N[x] = min(blue_N[x] * factor, _WHITE)


@inner
def _grey_sum(red_N: Any, green_N: Any, blue_N: Any) -> Any:
    total: Any = _ZERO
    for x in range(len(red_N)):
        total += _RED * red_N[x] + _GREEN * green_N[x] + _BLUE * blue_N[x]
    return total


@inner
def _sum(level_N: Any) -> Any:
    total: Any = _ZERO
    for x in range(len(level_N)):
        total += level_N[x]
    return total


@inner
def contrast(
    red_N: Any, green_N: Any, blue_N: Any, factor: Any, red_mean: Any, green_mean: Any, blue_mean: Any
) -> None:
    """Blends with the means: of the channels, or all three the mean grey of the image."""
    red_offset, green_offset, blue_offset = (
        _f32(red_mean * (1.0 - factor)),
        _f32(green_mean * (1.0 - factor)),
        _f32(blue_mean * (1.0 - factor)),
    )
    strength = _f32(factor)
    for x in range(len(red_N)):
        red_N[x] = _clip(red_N[x] * strength + red_offset)
        green_N[x] = _clip(green_N[x] * strength + green_offset)
        blue_N[x] = _clip(blue_N[x] * strength + blue_offset)


@inner
def saturation(red_N: Any, green_N: Any, blue_N: Any, factor: Any) -> None:
    for x in range(len(red_N)):
        red, green, blue = red_N[x], green_N[x], blue_N[x]
        offset = (_RED * red + _GREEN * green + _BLUE * blue) * (_ONE - factor)
        red_N[x] = _clip(red * factor + offset)
        green_N[x] = _clip(green * factor + offset)
        blue_N[x] = _clip(blue * factor + offset)


@inner
def saturation_in_hsv(red_N: Any, green_N: Any, blue_N: Any, factor: Any) -> None:
    """Chroma times ``factor``, at most all of the value; hue and value stay."""
    for x in range(len(red_N)):
        red, green, blue = red_N[x], green_N[x], blue_N[x]
        value = max(max(red, green), blue)
        chroma = value - min(min(red, green), blue)
        ratio = min(factor, value / (chroma if chroma > _TINY else _ONE))
        red_N[x] = value - (value - red) * ratio
        green_N[x] = value - (value - green) * ratio
        blue_N[x] = value - (value - blue) * ratio


@inner
def _unit(value: Any) -> Any:
    return min(max(value, _ZERO), _ONE)


@inner
def hue(red_N: Any, green_N: Any, blue_N: Any, turns: Any) -> None:
    """Turn the hue of every pixel by ``turns`` (1: once around), at most half to either side.

    With the hue as h in [0, 6), red 0, green 2, blue 4, the channels of full saturation and value are |h - 3| - 1,
    2 - |h - 2| and 2 - |h - 4|, clipped to 0 .. 1.
    """
    shift = _f32(6) * (turns if turns >= 0 else turns + _ONE)
    for x in range(len(red_N)):
        red, green, blue = red_N[x], green_N[x], blue_N[x]
        value = max(max(red, green), blue)
        chroma = value - min(min(red, green), blue)
        inverse = _ONE / (chroma if chroma > _TINY else _ONE)
        # The hue's distance from the largest channel's, -1 .. 1.
        difference = green - blue if red == value else (blue - red if green == value else red - green)
        start = _ZERO if red == value else (_TWO if green == value else _FOUR)
        h = start + shift + difference * inverse  # -1 .. 11
        h = h - _SIX if h >= _SIX else h
        h = h + _SIX if h < _ZERO else h
        floor = value - chroma
        red_N[x] = floor + chroma * _unit(abs(h - _THREE) - _ONE)
        green_N[x] = floor + chroma * _unit(_TWO - abs(h - _TWO))
        blue_N[x] = floor + chroma * _unit(_TWO - abs(h - _FOUR))


@inner
def grayscale(red_N: Any, green_N: Any, blue_N: Any) -> None:
    for x in range(len(red_N)):
        grey = _RED * red_N[x] + _GREEN * green_N[x] + _BLUE * blue_N[x]
        red_N[x] = grey
        green_N[x] = grey
        blue_N[x] = grey


@inner
def _place_of_contrast(settings: Any, drawn: Any) -> int:
    """Where in the drawn order contrast comes; 4: nowhere."""
    place = 4
    if drawn.jitter and settings.contrast > 0:
        for k in range(4):
            if drawn.jitter_order[k] == CONTRAST:
                place = k
    return place


@inner
def change_colour(planes_3N: Any, settings: Any, drawn: Any) -> None:
    """Jitter in the drawn order, then grey. An operation of strength 0 is left out, as torchvision does.

    Block by block, all operations on one while it is in cache; twice, because contrast needs the mean of what comes
    before it. Sums of blocks keep that mean accurate in float32.
    """
    red_N, green_N, blue_N = planes_3N[0], planes_3N[1], planes_3N[2]
    pixels, contrast_place, simclr = len(red_N), _place_of_contrast(settings, drawn), settings.simclr != 0
    red_mean, green_mean, blue_mean = 0.0, 0.0, 0.0
    for stage in range(2):
        last = stage == 1 or contrast_place == 4
        first_place, end_place = (0, contrast_place) if stage == 0 else (contrast_place, 4)
        for low in range(0, pixels, _BLOCK):
            red, green, blue = red_N[low : low + _BLOCK], green_N[low : low + _BLOCK], blue_N[low : low + _BLOCK]
            for k in range(first_place, end_place if drawn.jitter else first_place):
                operation = drawn.jitter_order[k]
                if operation == BRIGHTNESS and settings.brightness > 0:
                    brightness(red, green, blue, _f32(drawn.brightness))
                elif operation == CONTRAST and settings.contrast > 0:
                    contrast(red, green, blue, drawn.contrast, red_mean, green_mean, blue_mean)
                elif operation == SATURATION and settings.saturation > 0 and simclr:
                    saturation_in_hsv(red, green, blue, _f32(drawn.saturation))
                elif operation == SATURATION and settings.saturation > 0:
                    saturation(red, green, blue, _f32(drawn.saturation))
                elif operation == HUE and settings.hue > 0:
                    hue(red, green, blue, _f32(drawn.hue))
            if not last and simclr:
                red_mean += _sum(red) / pixels
                green_mean += _sum(green) / pixels
                blue_mean += _sum(blue) / pixels
            elif not last:
                red_mean += _grey_sum(red, green, blue) / pixels
                green_mean = blue_mean = red_mean
            elif drawn.grayscale:
                grayscale(red, green, blue)
        if last:
            break


@exact
def _factor(strength: float, unit: float) -> float:
    """U[max(0, 1 - strength), 1 + strength]."""
    low = max(0.0, 1.0 - strength)
    return low + (1.0 + strength - low) * unit


@exact
def _draw_jitter(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    drawn.jitter = unit(key, SLOT_JITTER) < settings.jitter_probability
    drawn.brightness = _factor(settings.brightness, unit(key, SLOT_BRIGHTNESS))
    drawn.contrast = _factor(settings.contrast, unit(key, SLOT_CONTRAST))
    drawn.saturation = _factor(settings.saturation, unit(key, SLOT_SATURATION))
    drawn.hue = settings.hue * (2.0 * unit(key, SLOT_HUE) - 1.0)
    order = drawn.jitter_order
    for k in range(4):
        order[k] = k
    for k in range(3):
        other = k + int(unit(key, SLOT_JITTER_ORDER + k) * (4 - k))
        order[k], order[other] = order[other], order[k]


def _jitter_in_words(drawn: Any, view: ViewSettings, side: int) -> str:
    names = [_JITTER[k] for k in drawn["jitter_order"]] if drawn["jitter"] else []
    parts = [(name, "+.2f" if name == "hue" else ".2f") for name in names if getattr(view, name) > 0]
    return ", ".join(f"{name[:3]} {drawn[name]:{form}}" for name, form in parts)


_JITTER = ("brightness", "contrast", "saturation", "hue")
JITTER = Operation(
    name="jitter",
    stage=Stage.COLOUR,
    slots=(
        *(SLOT_JITTER, SLOT_BRIGHTNESS, SLOT_CONTRAST, SLOT_SATURATION, SLOT_HUE),
        *range(SLOT_JITTER_ORDER, SLOT_JITTER_ORDER + 3),
    ),
    configured=("jitter_probability", *_JITTER),
    drawn={"jitter": np.int64, **dict.fromkeys(_JITTER, np.float64), "jitter_order": (np.int64, (4,))},
    draw=_draw_jitter,
    words=_jitter_in_words,
)


@exact
def _draw_grayscale(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    drawn.grayscale = unit(key, SLOT_GRAYSCALE) < settings.grayscale_probability


GRAYSCALE = Operation(
    name="grayscale",
    stage=Stage.COLOUR,
    slots=(SLOT_GRAYSCALE,),
    configured=("grayscale_probability",),
    drawn={"grayscale": np.int64},
    draw=_draw_grayscale,
    words=lambda drawn, view, side: "grey" if drawn["grayscale"] else "",
)
