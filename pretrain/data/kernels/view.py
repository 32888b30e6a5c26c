"""Whole views: from pixels to uint8 planes in one pass, all samples of a chunk per call. The GIL is released.

B samples of the chunk, V views, S side of a view. ``data`` is one-dimensional uint8 with a readable byte after the last
pixel; image b is data[offset_B[b]:] as (height, width, RGB).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pretrain.data.kernels.blur import blur_plane, blur_scratch
from pretrain.data.kernels.colour import change_colour
from pretrain.data.kernels.jit import inner, kernel
from pretrain.data.kernels.operations import DRAWN, change_levels, draw_view
from pretrain.data.kernels.randomness import view_key
from pretrain.data.kernels.resize import resize_scratch, resize_window
from pretrain.data.kernels.warp import warp_scratch, warp_view

_f32 = np.float32


class ViewScratch(NamedTuple):
    """Working memory of one call."""

    planes_3P: Any
    drawn: Any
    resize: Any
    blur: Any
    padded: Any


@inner
def _largest_radius(settings_V: Any) -> int:
    radius = 0
    for v in range(len(settings_V)):
        radius = max(radius, int(settings_V[v].blur_radius))
    return radius


@inner
def _view_scratch(side: int, longest: int, settings_V: Any) -> Any:
    radius = _largest_radius(settings_V)
    planes_3P = np.empty((3, side * side), np.float32)
    return ViewScratch(
        planes_3P,
        np.zeros(1, DRAWN),
        resize_scratch(side, longest),
        blur_scratch(side, radius),
        warp_scratch(side, settings_V),
    )


@inner
def _store(plane_P: Any, output_P: Any) -> None:
    for x in range(len(plane_P)):
        output_P[x] = np.uint8(plane_P[x] + _f32(0.5))


@kernel
def augment(
    data: Any,
    offset_B: Any,
    height_B: Any,
    width_B: Any,
    window_B4: Any,
    index_B: Any,
    seed: Any,
    epoch: Any,
    settings_V: Any,
    views_BV3SS: Any,
) -> None:
    """Random views: functions of (seed, epoch, index_B[b], view) and the settings alone.

    window_B4: top, left, height, width to take instead of the random crop; shape (0, 4) for random crops.
    """
    # One body instead of a function per view: LLVM would optimise the whole once more at each level of calls.
    side = views_BV3SS.shape[3]
    scratch = _view_scratch(side, max(height_B.max(), width_B.max()), settings_V)
    planes_3P, drawn = scratch.planes_3P, scratch.drawn[0]
    for b in range(len(index_B)):
        pixels = data[offset_B[b] :]
        for v in range(len(settings_V)):
            settings = settings_V[v]
            key = view_key(seed, epoch, np.uint64(index_B[b]), np.uint64(v))
            draw_view(key, height_B[b], width_B[b], settings, drawn)
            if len(window_B4) > 0:
                drawn.top, drawn.left = window_B4[b, 0], window_B4[b, 1]
                drawn.height, drawn.width = window_B4[b, 2], window_B4[b, 3]
            simclr = settings.simclr != 0
            resize_window(pixels, width_B[b], drawn, planes_3P, side, simclr, scratch.resize)
            warp_view(planes_3P, side, drawn, scratch.padded)
            change_colour(planes_3P, settings, drawn)
            levels_3P = views_BV3SS[b, v].reshape(3, side * side)
            for channel in range(3):
                output_P = levels_3P[channel]
                radius = int(settings.blur_radius)
                if drawn.blur_sigma_px > 0 and radius > 0:
                    sigma = drawn.blur_sigma_px
                    blur_plane(planes_3P[channel], side, sigma, radius, simclr, scratch.blur, output_P)
                else:
                    _store(planes_3P[channel], output_P)
            change_levels(levels_3P, settings, drawn)


@kernel
def draw(seed: Any, epoch: Any, index_B: Any, height: int, width: int, settings_V: Any, drawn_BV: Any) -> None:
    """The parameters that `augment` uses, for (height, width) images."""
    for b in range(len(index_B)):
        for v in range(len(settings_V)):
            key = view_key(seed, epoch, np.uint64(index_B[b]), np.uint64(v))
            draw_view(key, height, width, settings_V[v], drawn_BV[b, v])
