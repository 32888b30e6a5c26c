"""Colour operations on three planes of floats in 0..255, each clipped to 0..255 as torchvision v2 does on floats.

N pixels per plane. Brightness, contrast and saturation blend with black, the mean grey and the pixel's grey; hue turns
in HSV. The loops have no branches, so that they vectorise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pretrain.data.jit import inner
from pretrain.data.kernels_draw import BRIGHTNESS, CONTRAST, HUE, SATURATION

_f32 = np.float32
_RED, _GREEN, _BLUE = _f32(0.2989), _f32(0.587), _f32(0.114)
_ZERO, _ONE, _TWO, _FOUR, _SIX, _WHITE = _f32(0), _f32(1), _f32(2), _f32(4), _f32(6), _f32(255)
_SIXTH = _f32(1 / 6)
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
def _mean_grey(red_N: Any, green_N: Any, blue_N: Any) -> Any:
    """Mean of the grey image; sums of blocks keep float32 accurate."""
    pixels, total = len(red_N), 0.0
    for low in range(0, pixels, _BLOCK):
        red, green, blue = red_N[low : low + _BLOCK], green_N[low : low + _BLOCK], blue_N[low : low + _BLOCK]
        block: Any = _ZERO
        for x in range(len(red)):
            block += _RED * red[x] + _GREEN * green[x] + _BLUE * blue[x]
        total += block
    return _f32(total / pixels)


@inner
def contrast(red_N: Any, green_N: Any, blue_N: Any, factor: Any) -> None:
    offset = _mean_grey(red_N, green_N, blue_N) * (_ONE - factor)
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
def _hsv_channel(position: Any, value: Any, chroma: Any) -> Any:
    """value - chroma * clip(min(k, 4 - k), 0, 1) with k = position mod 6."""
    position -= _SIX * _f32(math.floor(position * _SIXTH))
    return value - chroma * max(min(min(position, _FOUR - position), _ONE), _ZERO)


@inner
def hue(red_N: Any, green_N: Any, blue_N: Any, turns: Any) -> None:
    """Turn the hue of every pixel by ``turns`` (1: once around)."""
    for x in range(len(red_N)):
        red, green, blue = red_N[x], green_N[x], blue_N[x]
        value = max(max(red, green), blue)
        chroma = value - min(min(red, green), blue)
        inverse = _ONE / (chroma if chroma > _TINY else _ONE)
        angle = (_TWO + (blue - red) * inverse) if green == value else (green - blue) * inverse
        angle = (_FOUR + (red - green) * inverse) if (blue == value and green != value) else angle
        angle = ((green - blue) * inverse) if red == value else angle
        angle += turns * _SIX
        red_N[x] = _hsv_channel(_f32(5) + angle, value, chroma)
        green_N[x] = _hsv_channel(_f32(3) + angle, value, chroma)
        blue_N[x] = _hsv_channel(_f32(1) + angle, value, chroma)


@inner
def grayscale(red_N: Any, green_N: Any, blue_N: Any) -> None:
    for x in range(len(red_N)):
        grey = _RED * red_N[x] + _GREEN * green_N[x] + _BLUE * blue_N[x]
        red_N[x] = grey
        green_N[x] = grey
        blue_N[x] = grey


@inner
def change_colour(planes_3N: Any, settings: Any, drawn: Any) -> None:
    """Jitter in the drawn order, then grey. An operation of strength 0 is left out, as torchvision does."""
    red, green, blue = planes_3N[0], planes_3N[1], planes_3N[2]
    if drawn.jitter:
        for k in range(4):
            operation = drawn.jitter_order[k]
            if operation == BRIGHTNESS and settings.brightness > 0:
                brightness(red, green, blue, _f32(drawn.brightness))
            elif operation == CONTRAST and settings.contrast > 0:
                contrast(red, green, blue, _f32(drawn.contrast))
            elif operation == SATURATION and settings.saturation > 0:
                saturation(red, green, blue, _f32(drawn.saturation))
            elif operation == HUE and settings.hue > 0:
                hue(red, green, blue, _f32(drawn.hue))
    if drawn.grayscale:
        grayscale(red, green, blue)
