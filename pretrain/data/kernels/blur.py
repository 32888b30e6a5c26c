"""Separable Gaussian blur in blocks of rows that stay in cache.

The borders are reflected (torchvision's gaussian_blur), or there is black beyond them (``black``: SimCLR's code).

S side of the planes, r radius of the kernel in pixels. Taps are added in pairs, so the radius is rounded up to even,
with a weight of zero.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pretrain.data.kernels.jit import exact, inner
from pretrain.data.kernels.operation import Operation, Stage, unit

if TYPE_CHECKING:
    from pretrain.config import ViewSettings

SLOT_BLUR, SLOT_BLUR_SIGMA = 11, 12

_f32 = np.float32
BLOCK_ROWS = 8  # blurred along y, then along x, while they are in cache
_SIGMAS = 3.5  # weights beyond are below 0.3 % of the centre's: 1/8 of a grey level in all


class BlurScratch(NamedTuple):
    """Working memory of one thread."""

    weight: Any  # (radius + 3,): weight of distance k
    block: Any  # (BLOCK_ROWS * S,): rows blurred along y
    padded: Any  # the same with reflected ends
    sum_: Any


@inner
def blur_scratch(side: int, radius: int) -> Any:
    """Memory for planes of ``side`` and kernels of at most ``radius``."""
    padded = BLOCK_ROWS * (side + 2 * radius + 4)
    return BlurScratch(
        np.empty(radius + 4, np.float32),
        np.empty(BLOCK_ROWS * side, np.float32),
        np.empty(padded, np.float32),
        np.empty(padded, np.float32),
    )


@inner
def gaussian_weights(sigma: float, radius: int, weight: Any) -> int:
    """Normalised weights of distance 0 .. r; returns r, at most ``radius`` and 3.5 sigma. The rest is zero."""
    r = min(radius, math.ceil(_SIGMAS * sigma))
    total = 0.0
    weight[:] = _f32(0)
    for k in range(r + 1):
        value = math.exp(-0.5 * (k / sigma) ** 2)
        weight[k] = _f32(value)
        total += value if k == 0 else 2 * value
    for k in range(r + 1):
        weight[k] = _f32(weight[k] / total)
    return r


@inner
def _add_pairs(target: Any, source: Any, first: int, count: int, step: int, radius: int, weight: Any) -> None:
    """target[x] += sum_{k=1..radius} weight[k] * (source[first + x - k*step] + source[first + x + k*step])."""
    for k in range(1, radius + 1, 2):
        near, far = k * step, (k + 1) * step
        a = source[first - near : first - near + count]
        b = source[first + near : first + near + count]
        c = source[first - far : first - far + count]
        d = source[first + far : first + far + count]
        weight_near, weight_far = weight[k], weight[k + 1]
        for x in range(count):
            target[x] += weight_near * (a[x] + b[x]) + weight_far * (c[x] + d[x])


@inner
def _blur_down(
    plane: Any, side: int, y: int, rows: int, radius: int, even: int, black: bool, weight: Any, blurred: Any
) -> None:
    """blurred = rows y .. y + rows - 1 of the plane, blurred along y."""
    centre = weight[0]
    count, first = rows * side, y * side
    block, own = blurred[:count], plane[first : first + count]
    for x in range(count):
        block[x] = centre * own[x]
    if y >= even and y + rows + even <= side:
        _add_pairs(block, plane, first, count, side, even, weight)
        return
    for row in range(rows):
        target = block[row * side : (row + 1) * side]
        for k in range(1, radius + 1 if not black else 1):
            above, below = abs(y + row - k), y + row + k
            if below >= side:
                below = 2 * (side - 1) - below
            a = plane[above * side : (above + 1) * side]
            b = plane[below * side : (below + 1) * side]
            w = weight[k]
            for x in range(side):
                target[x] += w * (a[x] + b[x])
        for distance in range(-radius, radius + 1 if black else -radius):
            other = y + row + distance
            if distance != 0 and 0 <= other < side:
                a, w = plane[other * side : (other + 1) * side], weight[abs(distance)]
                for x in range(side):
                    target[x] += w * a[x]


@inner
def _blur_across(
    side: int, rows: int, even: int, black: bool, weight: Any, block: Any, padded: Any, sum_: Any, output: Any
) -> None:
    """output = block blurred along x, rounded to uint8."""
    centre = weight[0]
    stride = side + 2 * even
    for row in range(rows):
        target = padded[row * stride : (row + 1) * stride]
        source = block[row * side : (row + 1) * side]
        middle = target[even : even + side]
        for x in range(side):
            middle[x] = source[x]
        for k in range(1, even + 1):
            reflected = min(k, side - 1)  # at most one past the radius, where the weight is zero
            target[even - k] = _f32(0) if black else source[reflected]
            target[even + side - 1 + k] = _f32(0) if black else source[side - 1 - reflected]
    count = rows * stride - 2 * even
    total, own = sum_[:count], padded[even : even + count]
    for x in range(count):
        total[x] = centre * own[x] + _f32(0.5)
    _add_pairs(total, padded, even, count, 1, even, weight)
    for row in range(rows):
        source = total[row * stride : row * stride + side]
        target = output[row * side : (row + 1) * side]
        for x in range(side):
            target[x] = np.uint8(source[x])


@inner
def blur_plane(plane: Any, side: int, sigma: float, radius: int, black: bool, scratch: Any, output: Any) -> None:
    """Blur ``plane`` (side*side floats in 0..255) into ``output`` (side*side uint8)."""
    weight, block, padded, sum_ = scratch.weight, scratch.block, scratch.padded, scratch.sum_
    r = gaussian_weights(sigma, min(radius, side - 1), weight)
    even = r + (r & 1)
    for y in range(0, side, BLOCK_ROWS):
        rows = min(BLOCK_ROWS, side - y)
        _blur_down(plane, side, y, rows, r, even, black, weight, block)
        low, high = y * side, (y + rows) * side
        _blur_across(side, rows, even, black, weight, block, padded, sum_, output[low:high])


@exact
def _draw_blur(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    drawn.blur_sigma_px = 0.0
    if unit(key, SLOT_BLUR) < settings.blur_probability:
        span = settings.sigma_high - settings.sigma_low
        drawn.blur_sigma_px = settings.sigma_low + span * unit(key, SLOT_BLUR_SIGMA)


def _radius_px(view: ViewSettings, side: int) -> int:
    """Pixels on either side of the kernel's centre, SimCLR's: its width is int(fraction * side)."""
    return int(view.blur_kernel_fraction * side) // 2


def _in_words(drawn: Any, view: ViewSettings, side: int) -> str:
    seen = drawn["blur_sigma_px"] > 0 and _radius_px(view, side) > 0
    return f"blur {drawn['blur_sigma_px']:.2f} px" if seen else ""


BLUR = Operation(
    name="blur",
    stage=Stage.FINISH,
    slots=(SLOT_BLUR, SLOT_BLUR_SIGMA),
    configured=("blur_probability",),
    derived={
        "sigma_low": lambda view, side: view.blur_sigma_px[0],
        "sigma_high": lambda view, side: view.blur_sigma_px[1],
        "blur_radius": _radius_px,
    },
    drawn={"blur_sigma_px": np.float64},  # 0: no blur
    draw=_draw_blur,
    words=_in_words,
)
