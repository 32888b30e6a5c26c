"""Colour operations on three planes of floats in 0..255, each clipped to 0..255 as torchvision v2 does on floats.

N pixels per plane. Brightness, contrast and saturation blend with black, the mean grey and the pixel's grey; hue turns
in HSV. The loops have no branches, so that they vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pretrain.data.kernels.draw import BRIGHTNESS, CONTRAST, HUE, SATURATION
from pretrain.data.kernels.jit import inner

_f32 = np.float32
_RED, _GREEN, _BLUE = _f32(0.2989), _f32(0.587), _f32(0.114)
_ZERO, _ONE, _TWO, _THREE, _FOUR, _SIX, _WHITE = (_f32(value) for value in (0, 1, 2, 3, 4, 6, 255))
_TINY = _f32(1e-20)
_BLOCK = 4096


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
def contrast(red_N: Any, green_N: Any, blue_N: Any, factor: Any, offset: Any) -> None:
    """offset: (1 - factor) * the mean grey of the image."""
    for x in range(len(red_N)):
        red_N[x] = _clip(red_N[x] * factor + offset)
        green_N[x] = _clip(green_N[x] * factor + offset)
        blue_N[x] = _clip(blue_N[x] * factor + offset)


@inner
def saturation(red_N: Any, green_N: Any, blue_N: Any, factor: Any) -> None:
    for x in range(len(red_N)):
        red, green, blue = red_N[x], green_N[x], blue_N[x]
        offset = (_RED * red + _GREEN * green + _BLUE * blue) * (_ONE - factor)
        red_N[x] = _clip(red * factor + offset)
        green_N[x] = _clip(green * factor + offset)
        blue_N[x] = _clip(blue * factor + offset)


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
    pixels, contrast_place, mean = len(red_N), _place_of_contrast(settings, drawn), 0.0
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
                    contrast(red, green, blue, _f32(drawn.contrast), _f32(mean * (1.0 - drawn.contrast)))
                elif operation == SATURATION and settings.saturation > 0:
                    saturation(red, green, blue, _f32(drawn.saturation))
                elif operation == HUE and settings.hue > 0:
                    hue(red, green, blue, _f32(drawn.hue))
            if not last:
                mean += _grey_sum(red, green, blue) / pixels
            elif drawn.grayscale:
                grayscale(red, green, blue)
        if last:
            break
