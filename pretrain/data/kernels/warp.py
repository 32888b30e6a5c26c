"""Perspective and rotation of a view: bilinear, black where the view shows nothing (torchvision's with fill 0).

An output pixel (x, y) shows the point ((a x + b y + c) / w, (d x + e y + f) / w) of the view before, w = g x + h y + 1.
S side of the view. The planes are copied into a frame of zeros, so that points outside need no branch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pretrain.data.kernels.jit import exact, inner
from pretrain.data.kernels.operation import Operation, Stage, unit

SLOT_PERSPECTIVE = 14
SLOT_CORNERS = 15  # 15 .. 22: x and y of the top left, top right, bottom right, bottom left corner
SLOT_ROTATION, SLOT_ROTATION_ANGLE = 23, 24

_f32 = np.float32
_ZERO, _ONE = _f32(0), _f32(1)
_FRAME = 1  # zeros before the first row and column; two follow the last


@inner
def warp_scratch(side: int, settings_V: Any) -> Any:
    """Memory for planes of ``side``; none if no view is ever warped."""
    warped = False
    for v in range(len(settings_V)):
        warped |= settings_V[v].perspective_probability > 0 or settings_V[v].rotation_probability > 0
    stride = side + _FRAME + 2
    return np.zeros((3, stride * stride if warped else 0), np.float32)


@exact
def perspective_coefficients(side: int, corners: Any, a_to_h: Any) -> None:
    """Coefficients a .. h that bring ``corners`` (x, y, clockwise from the top left) to the corners of the view.

    Heckbert (1989): the map of the unit square to a quadrilateral in closed form, inverted by its adjugate.
    """
    x0, x1, x2, x3 = float(corners[0]), float(corners[2]), float(corners[4]), float(corners[6])
    y0, y1, y2, y3 = float(corners[1]), float(corners[3]), float(corners[5]), float(corners[7])
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / area, (dx1 * sy - sx * dy1) / area
    a, b, c = x1 - x0 + g * x1, x3 - x0 + h * x3, x0
    d, e, f = y1 - y0 + g * y1, y3 - y0 + h * y3, y0
    last = a * e - b * d
    scale = (side - 1) / last
    a_to_h[0], a_to_h[1], a_to_h[2] = (e - f * h) * scale, (c * h - b) * scale, (b * f - c * e) * scale
    a_to_h[3], a_to_h[4], a_to_h[5] = (f * g - d) * scale, (a - c * g) * scale, (c * d - a * f) * scale
    a_to_h[6], a_to_h[7] = (d * h - e * g) / last, (b * g - a * h) / last


@exact
def rotation_coefficients(side: int, degrees: float, a_to_h: Any) -> None:
    """Coefficients a .. h of an anticlockwise rotation about the middle; the view spans 0 to ``side``."""
    cosine, sine, middle = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.5 * side
    a_to_h[0], a_to_h[1], a_to_h[2] = cosine, -sine, middle * (1 - cosine + sine)
    a_to_h[3], a_to_h[4], a_to_h[5] = sine, cosine, middle * (1 - sine - cosine)
    a_to_h[6], a_to_h[7] = 0.0, 0.0


@inner
def _warp(planes_3P: Any, side: int, a_to_h: Any, padded: Any) -> None:
    stride = side + _FRAME + 2
    for channel in range(3):
        for y in range(side):
            start = (y + _FRAME) * stride + _FRAME
            row, target = planes_3P[channel, y * side : (y + 1) * side], padded[channel, start : start + side]
            for x in range(side):
                target[x] = row[x]
    red_in, green_in, blue_in = padded[0], padded[1], padded[2]
    a, d, g = _f32(a_to_h[0]), _f32(a_to_h[3]), _f32(a_to_h[6])
    low, high = _f32(-1), _f32(side)
    for y in range(side):
        # The middle of the row's first pixel; float64 until here, so that far rows lose nothing.
        across = _f32(a_to_h[0] * 0.5 + a_to_h[1] * (y + 0.5) + a_to_h[2])
        down = _f32(a_to_h[3] * 0.5 + a_to_h[4] * (y + 0.5) + a_to_h[5])
        weight = _f32(a_to_h[6] * 0.5 + a_to_h[7] * (y + 0.5) + 1.0)
        red, green = planes_3P[0, y * side : (y + 1) * side], planes_3P[1, y * side : (y + 1) * side]
        blue = planes_3P[2, y * side : (y + 1) * side]
        for x in range(side):
            step = _f32(x)
            inverse = _ONE / (weight + g * step)
            u = (across + a * step) * inverse - _f32(0.5)
            v = (down + d * step) * inverse - _f32(0.5)
            u = u if u > low else low  # in this form a NaN of a degenerate quadrilateral ends in the frame too
            v = v if v > low else low
            u = (u if u < high else high) + _ONE
            v = (v if v < high else high) + _ONE
            left, top = np.int32(u), np.int32(v)
            right, below = u - _f32(left), v - _f32(top)
            first = top * np.int32(stride) + left
            second = first + np.int32(stride)
            w00, w01 = (_ONE - below) * (_ONE - right), (_ONE - below) * right
            w10, w11 = below * (_ONE - right), below * right
            red[x] = (
                w00 * red_in[first] + w01 * red_in[first + 1] + w10 * red_in[second] + w11 * red_in[second + 1]
            )  # fmt: skip
            green[x] = (
                w00 * green_in[first] + w01 * green_in[first + 1] + w10 * green_in[second] + w11 * green_in[second + 1]
            )
            blue[x] = (
                w00 * blue_in[first] + w01 * blue_in[first + 1] + w10 * blue_in[second] + w11 * blue_in[second + 1]
            )


@inner
def warp_view(planes_3P: Any, side: int, drawn: Any, padded: Any) -> None:
    """Perspective, then rotation, of planes_3P (3, S*S) in place, as drawn; padded: `warp_scratch`."""
    a_to_h = np.empty(8, np.float64)
    for operation in range(2):  # one call of _warp, because it is inlined
        if operation == 0 and drawn.perspective:
            perspective_coefficients(side, drawn.corners, a_to_h)
        elif operation == 1 and drawn.rotation != 0:
            rotation_coefficients(side, drawn.rotation, a_to_h)
        else:
            continue
        _warp(planes_3P, side, a_to_h, padded)


@exact
def _draw_perspective(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    """RandomPerspective's: each corner moves inwards by U{0 .. distortion * half the side} along x and along y."""
    drawn.perspective = unit(key, SLOT_PERSPECTIVE) < settings.perspective_probability
    if drawn.perspective:
        side, corners = int(settings.side), drawn.corners
        bound = int(settings.perspective_distortion * (side // 2)) + 1
        for k in range(8):
            inwards = int(unit(key, SLOT_CORNERS + k) * bound)
            near = k in (0, 1, 3, 6)  # to 0: x of the left corners, y of the top ones
            corners[k] = inwards if near else side - bound + inwards


PERSPECTIVE = Operation(
    name="perspective",
    stage=Stage.WARP,
    slots=(SLOT_PERSPECTIVE, *range(SLOT_CORNERS, SLOT_CORNERS + 8)),
    configured=("perspective_probability", "perspective_distortion"),
    # corners: x, y in pixels of the view of where its corners go, clockwise from the top left.
    drawn={"perspective": np.int64, "corners": (np.int64, (8,))},
    draw=_draw_perspective,
    words=lambda drawn, view, side: "perspective" if drawn["perspective"] else "",
)


@exact
def _draw_rotation(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    drawn.rotation = 0.0
    if unit(key, SLOT_ROTATION) < settings.rotation_probability:
        drawn.rotation = settings.rotation_degrees * (2.0 * unit(key, SLOT_ROTATION_ANGLE) - 1.0)


ROTATION = Operation(
    name="rotation",
    stage=Stage.WARP,
    slots=(SLOT_ROTATION, SLOT_ROTATION_ANGLE),
    configured=("rotation_probability", "rotation_degrees"),
    drawn={"rotation": np.float64},  # degrees, anticlockwise
    draw=_draw_rotation,
    words=lambda drawn, view, side: f"rotated {drawn['rotation']:+.0f}°" if drawn["rotation"] else "",
)
