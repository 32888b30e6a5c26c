"""Whole views: from stored pixels or JPEG bytes to uint8 planes in one pass, all samples of a chunk per call.

B samples of the chunk, V views, S side of a view. Every entry point releases the GIL and returns the position in the
chunk of the first sample that cannot be decoded, or -1. JPEG needs `turbojpeg.load` first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from pretrain.data.jit import inner, kernel
from pretrain.data.kernels_blur import blur_plane, blur_scratch
from pretrain.data.kernels_colour import change_colour
from pretrain.data.kernels_draw import DRAWN, draw_view
from pretrain.data.kernels_resize import resize_scratch, resize_window
from pretrain.data.randomness import view_key

RAW = 1  # ffcv's image modes: 0 JPEG, 1 raw pixels
_PADDING = 8  # readable bytes after the last pixel
_TJPF_RGB = np.int32(0)
_ACCURATE_DCT = np.int32(4096)  # the one that Pillow uses: both decode to equal bytes
_f32 = np.float32

# Symbols that `turbojpeg.load` gives to LLVM. Called by name, so that the machine code can be cached on disk.
INIT_SYMBOL, DECOMPRESS_SYMBOL, DESTROY_SYMBOL = "bigbatch_tj_init", "bigbatch_tj_decompress", "bigbatch_tj_destroy"
_tj_init = types.ExternalFunction(INIT_SYMBOL, types.intp())
_tj_destroy = types.ExternalFunction(DESTROY_SYMBOL, types.int32(types.intp))
_tj_decompress = types.ExternalFunction(
    DECOMPRESS_SYMBOL,
    types.int32(
        types.intp, types.intp, types.uintp, types.intp,
        types.int32, types.int32, types.int32, types.int32, types.int32,
    ),
)  # fmt: skip


class ViewScratch(NamedTuple):
    """Working memory of one call."""

    planes_3P: Any
    drawn: Any
    resize: Any
    blur: Any


@inner
def _view_scratch(side: int, longest: int, radius: int) -> Any:
    planes_3P = np.empty((3, side * side), np.float32)
    return ViewScratch(planes_3P, np.empty(1, DRAWN), resize_scratch(side, longest), blur_scratch(side, radius))


@inner
def _store(plane_P: Any, output_P: Any) -> None:
    for x in range(len(plane_P)):
        output_P[x] = np.uint8(plane_P[x] + _f32(0.5))


@inner
def _solarize(output_P: Any, threshold: float) -> None:
    for x in range(len(output_P)):
        output_P[x] = np.uint8(255 - output_P[x]) if output_P[x] >= threshold else output_P[x]


@inner
def _render(pixels: Any, image_width: int, settings: Any, drawn: Any, view_3SS: Any, scratch: Any) -> None:
    """One view with the parameters ``drawn``."""
    side = view_3SS.shape[1]
    planes_3P = scratch.planes_3P
    resize_window(
        pixels, image_width, drawn.top, drawn.left, drawn.height, drawn.width, drawn.flip != 0, planes_3P, side,
        scratch.resize,
    )  # fmt: skip
    change_colour(planes_3P, settings, drawn)
    radius = int(settings.blur_radius)
    for channel in range(3):
        output_P = view_3SS[channel].reshape(side * side)
        if drawn.blur_sigma_px > 0 and radius > 0:
            blur_plane(planes_3P[channel], side, drawn.blur_sigma_px, radius, scratch.blur, output_P)
        else:
            _store(planes_3P[channel], output_P)
        if drawn.solarize:
            _solarize(output_P, settings.solarize_threshold)


@inner
def _all_views(
    pixels: Any,
    height: int,
    width: int,
    seed: Any,
    epoch: Any,
    index: Any,
    settings_V: Any,
    views_V3SS: Any,
    scratch: Any,
) -> None:
    drawn = scratch.drawn[0]
    for v in range(len(settings_V)):
        settings = settings_V[v]
        draw_view(view_key(seed, epoch, np.uint64(index), np.uint64(v)), height, width, settings, drawn)
        _render(pixels, width, settings, drawn, views_V3SS[v], scratch)


@inner
def _largest_radius(settings_V: Any) -> int:
    radius = 0
    for v in range(len(settings_V)):
        radius = max(radius, int(settings_V[v].blur_radius))
    return radius


@inner
def _decode(data: Any, offset: int, size: int, height: int, width: int, handle: Any, buffer: Any) -> bool:
    status = _tj_decompress(
        handle, data.ctypes.data + offset, np.uint64(size), buffer.ctypes.data,
        np.int32(width), np.int32(0), np.int32(height), _TJPF_RGB, _ACCURATE_DCT,
    )  # fmt: skip
    return bool(status == 0)


@kernel
def augment_raw(
    data: Any,
    offset_B: Any,
    height_B: Any,
    width_B: Any,
    index_B: Any,
    seed: Any,
    epoch: Any,
    settings_V: Any,
    views_BV3SS: Any,
) -> int:
    """Random views of raw images: image b is data[offset_B[b]:] as (height, width, RGB)."""
    side = views_BV3SS.shape[3]
    longest = max(height_B.max(), width_B.max())
    scratch = _view_scratch(side, longest, _largest_radius(settings_V))
    for b in range(len(index_B)):
        pixels = data[offset_B[b] :]
        _all_views(pixels, height_B[b], width_B[b], seed, epoch, index_B[b], settings_V, views_BV3SS[b], scratch)
    return -1


@kernel
def augment_encoded(
    data: Any,
    offset_B: Any,
    size_B: Any,
    height_B: Any,
    width_B: Any,
    mode_B: Any,
    index_B: Any,
    seed: Any,
    epoch: Any,
    settings_V: Any,
    views_BV3SS: Any,
) -> int:
    """Random views of JPEG or raw images (mode_B); one decode serves all views of a sample."""
    side = views_BV3SS.shape[3]
    longest = max(height_B.max(), width_B.max())
    scratch = _view_scratch(side, longest, _largest_radius(settings_V))
    buffer = np.empty((height_B * width_B).max() * 3 + _PADDING, np.uint8)
    handle = _tj_init()
    bad = -1
    for b in range(len(index_B)):
        pixels = data[offset_B[b] :]
        height, width = height_B[b], width_B[b]
        if mode_B[b] != RAW:
            pixels = buffer
            if not _decode(data, offset_B[b], size_B[b], height, width, handle, buffer):
                bad = b
                break
        _all_views(pixels, height, width, seed, epoch, index_B[b], settings_V, views_BV3SS[b], scratch)
    _tj_destroy(handle)
    return bad


@kernel
def decode_images(data: Any, offset_B: Any, size_B: Any, height_B: Any, width_B: Any, start_B: Any, pixels: Any) -> int:
    """Decode JPEG images one after another: image b to pixels[start_B[b]:] as (height, width, RGB)."""
    handle = _tj_init()
    bad = -1
    for b in range(len(offset_B)):
        target = pixels[start_B[b] :]
        if not _decode(data, offset_B[b], size_B[b], height_B[b], width_B[b], handle, target):
            bad = b
            break
    _tj_destroy(handle)
    return bad


@kernel
def resize_raw(data: Any, offset_B: Any, width_B: Any, window_B4: Any, views_BV3SS: Any) -> int:
    """View 0 of every raw image from its window (top, left, height, width), without augmentation."""
    side = views_BV3SS.shape[3]
    scratch = _view_scratch(side, window_B4.max(), 0)
    planes_3P = scratch.planes_3P
    for b in range(len(offset_B)):
        top, left, height, width = window_B4[b, 0], window_B4[b, 1], window_B4[b, 2], window_B4[b, 3]
        pixels = data[offset_B[b] :]
        resize_window(pixels, width_B[b], top, left, height, width, False, planes_3P, side, scratch.resize)
        for channel in range(3):
            _store(planes_3P[channel], views_BV3SS[b, 0, channel].reshape(side * side))
    return -1


@kernel
def render_one(pixels: Any, image_width: int, settings_1: Any, drawn_1: Any, view_3SS: Any, longest: int) -> None:
    """One view with given parameters (DRAWN), for comparison with other implementations."""
    settings = settings_1[0]
    scratch = _view_scratch(view_3SS.shape[1], longest, int(settings.blur_radius))
    _render(pixels, image_width, settings, drawn_1[0], view_3SS, scratch)


@kernel
def draw_all(seed: Any, epoch: Any, index_B: Any, height: int, width: int, settings_V: Any, drawn_BV: Any) -> None:
    """The parameters that `augment_raw` uses, for (height, width) images."""
    for b in range(len(index_B)):
        for v in range(len(settings_V)):
            key = view_key(seed, epoch, np.uint64(index_B[b]), np.uint64(v))
            draw_view(key, height, width, settings_V[v], drawn_BV[b, v])
