"""Crop and resize: a window of an RGB image to three planes of floats in 0..255.

The filter of torchvision's resize(antialias=True) and of Pillow: a triangle as wide as the reduction, normalised, cut
at the window. Or that of SimCLR's code (TensorFlow 2's bicubic): Keys' cubic with a = -1/2 over four pixels, however
large the reduction, normalised at the window's edges. S side of the output; K taps, equal for all outputs of an axis.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pretrain.data.kernels.jit import inner
from pretrain.data.kernels.simd import blend_rows, resize_row

_f32 = np.float32


class ResizeScratch(NamedTuple):
    """Working memory of one thread."""

    row_start_S: Any  # int64: first input row of an output row
    row_weight_SK: Any
    column_start_S: Any
    column_weight_SK: Any
    ring: Any  # (rows, 4S): input rows already resized along x
    sum_row: Any  # (4S,)
    column_byte_S: Any  # int32: first byte of an output column within the window's row
    column_weight: Any  # (S*K,), in the order of the outputs


@inner
def resize_scratch(side: int, longest: int) -> Any:
    """Memory for outputs of ``side`` from windows at most ``longest`` pixels long."""
    taps = 2 * (longest // side + 1) + 3
    return ResizeScratch(
        np.empty(side, np.int64),
        np.empty((side, taps), np.float32),
        np.empty(side, np.int64),
        np.empty((side, taps), np.float32),
        np.empty((taps + 1, 4 * side), np.float32),
        np.empty(4 * side, np.float32),
        np.empty(side, np.int32),
        np.empty(side * taps, np.float32),
    )


@inner
def _cubic(distance: float) -> float:
    """Keys' kernel (1981), a = -1/2."""
    d = abs(distance)
    if d < 1:
        return (1.5 * d - 2.5) * d * d + 1
    return ((-0.5 * d + 2.5) * d - 4) * d + 2 if d < 2 else 0.0


@inner
def filter_weights(length: int, side: int, cubic: bool, start_S: Any, weight_SK: Any) -> int:
    """Taps of a resize from ``length`` to ``side`` pixels: output o is sum_k weight[o, k] * input[start[o] + k].

    Returns the number of taps K. Windows at the far end are moved back inside, so that all have K taps.
    """
    scale = length / side
    support = 2.0 if cubic else max(1.0, scale)
    taps = 0
    for o in range(side):
        centre = (o + 0.5) * scale
        low = max(0, int(centre - support + 0.5))
        high = min(length, int(centre + support + 0.5))
        total = 0.0
        for k in range(low, high):
            weight = _cubic(k + 0.5 - centre) if cubic else max(0.0, 1.0 - abs((k + 0.5 - centre) / support))
            weight_SK[o, k - low] = weight
            total += weight
        for k in range(high - low):
            weight_SK[o, k] = _f32(weight_SK[o, k] / total)
        for k in range(high - low, weight_SK.shape[1]):
            weight_SK[o, k] = _f32(0)
        start_S[o] = low
        taps = max(taps, high - low)
    for o in range(side):
        excess = start_S[o] + taps - length
        if excess > 0:
            for k in range(taps - 1, -1, -1):
                weight_SK[o, k] = weight_SK[o, k - excess] if k >= excess else _f32(0)
            start_S[o] -= excess
    return taps


@inner
def _column_table(length: int, flip: bool, side: int, cubic: bool, scratch: Any) -> int:
    """Byte offsets and weights of all output columns, mirrored when ``flip``; returns the number of taps."""
    start_S, weight_SK = scratch.column_start_S, scratch.column_weight_SK
    byte_S, weight = scratch.column_byte_S, scratch.column_weight
    taps = filter_weights(length, side, cubic, start_S, weight_SK)
    for x in range(side):
        target = side - 1 - x if flip else x
        byte_S[target] = np.int32(3 * start_S[x])
        for k in range(taps):
            weight[target * taps + k] = weight_SK[x, k]
    return taps


@inner
def _output_row(
    ring: Any, weight_SK: Any, total: Any, first: int, y: int, taps: int, side: int, red: Any, green: Any, blue: Any
) -> None:
    """Output row y from the ring's rows first .. first + taps - 1."""
    rows = ring.shape[0]
    a = ring[first % rows]
    b = a
    weight_a, weight_b = weight_SK[y, 0], _f32(0)
    if taps == 2:
        b = ring[(first + 1) % rows]
        weight_b = weight_SK[y, 1]
    elif taps > 2:
        second = ring[(first + 1) % rows]
        weight_second = weight_SK[y, 1]
        for x in range(4 * side):
            total[x] = weight_a * a[x] + weight_second * second[x]
        for k in range(2, taps - 1):
            weight = weight_SK[y, k]
            if weight != 0:
                row = ring[(first + k) % rows]
                for x in range(4 * side):
                    total[x] += weight * row[x]
        a, weight_a = total, _f32(1)
        b, weight_b = ring[(first + taps - 1) % rows], weight_SK[y, taps - 1]
    blend_rows(a, b, weight_a, weight_b, red, green, blue, side)
    for x in range(side // 8 * 8, side):
        red[x] = weight_a * a[4 * x] + weight_b * b[4 * x]
        green[x] = weight_a * a[4 * x + 1] + weight_b * b[4 * x + 1]
        blue[x] = weight_a * a[4 * x + 2] + weight_b * b[4 * x + 2]


@inner
def resize_window(
    pixels: Any, image_width: int, window: Any, planes_3P: Any, side: int, cubic: bool, scratch: Any
) -> None:
    """Part of an image to planes_3P (3, side*side).

    pixels: uint8 RGB, one-dimensional, a byte readable after the end. window: top, left, height, width, and whether to
    flip (fields of `operations.DRAWN`). cubic: which filter.
    """
    # Out of the tuple once: every access to an array in it counts references.
    start_S, weight_SK, ring, total = scratch.row_start_S, scratch.row_weight_SK, scratch.ring, scratch.sum_row
    byte_S, column_weight = scratch.column_byte_S, scratch.column_weight
    row_taps = filter_weights(window.height, side, cubic, start_S, weight_SK)
    column_taps = _column_table(window.width, window.flip != 0, side, cubic, scratch)
    corner = window.top * image_width + window.left
    rows = ring.shape[0]
    done = 0
    red, green, blue = planes_3P[0], planes_3P[1], planes_3P[2]
    for y in range(side):
        first = start_S[y]
        while done < first + row_taps:
            if done >= first:
                byte = (corner + done * image_width) * 3
                resize_row(pixels, byte, byte_S, column_weight, column_taps, side, ring[done % rows])
            done += 1
        low, high = y * side, (y + 1) * side
        _output_row(
            ring, weight_SK, total, first, y, row_taps, side, red[low:high], green[low:high], blue[low:high]
        )  # fmt: skip
    if cubic:  # it overshoots
        for channel in range(3):
            plane = planes_3P[channel]
            for x in range(len(plane)):
                plane[x] = min(max(plane[x], _f32(0)), _f32(255))
