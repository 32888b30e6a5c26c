"""JPEG to pixels by libturbojpeg, whose functions compiled code calls by name: `turbojpeg.load` first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from pretrain.data.jit import kernel

# Names, not addresses, so that the machine code can be cached on disk.
INIT_SYMBOL, DECOMPRESS_SYMBOL, DESTROY_SYMBOL = "bigbatch_tj_init", "bigbatch_tj_decompress", "bigbatch_tj_destroy"
_init = types.ExternalFunction(INIT_SYMBOL, types.intp())
_destroy = types.ExternalFunction(DESTROY_SYMBOL, types.int32(types.intp))
_decompress = types.ExternalFunction(
    DECOMPRESS_SYMBOL,
    # handle, source, size, target, width, pitch, height, pixel format, flags
    types.int32(types.intp, types.intp, types.uintp, types.intp, *[types.int32] * 5),
)
_RGB = np.int32(0)
_ACCURATE_DCT = np.int32(4096)  # the one that Pillow uses: both decode to equal bytes


@kernel
def decode(data: Any, offset_B: Any, size_B: Any, height_B: Any, width_B: Any, start_B: Any, pixels: Any) -> int:
    """Decode B images: data[offset_B[b]:][:size_B[b]] to pixels[start_B[b]:] as (height, width, RGB).

    Returns the position of the first one that cannot be decoded whole, or -1.
    """
    handle = _init()
    bad = -1
    for b in range(len(offset_B)):
        status = _decompress(
            handle, data.ctypes.data + offset_B[b], np.uint64(size_B[b]), pixels.ctypes.data + start_B[b],
            np.int32(width_B[b]), np.int32(0), np.int32(height_B[b]), _RGB, _ACCURATE_DCT,
        )  # fmt: skip
        if status != 0:
            bad = b
            break
    _destroy(handle)
    return bad
