"""JPEG to pixels by libturbojpeg, which is found at run time: call `load` before `decode`.

Compiled code calls the library's functions by name. Without the library Pillow decodes, to the same bytes.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import glob
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
from numba import types

from pretrain.data.kernels.jit import kernel

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


_FUNCTIONS = {"tjInitDecompress": INIT_SYMBOL, "tjDecompress2": DECOMPRESS_SYMBOL, "tjDestroy": DESTROY_SYMBOL}


def _candidates() -> Iterator[str]:
    """Paths and names to try: $BIGBATCH_TURBOJPEG, the system's, conda's, and what ffcv was linked with."""
    if named := os.environ.get("BIGBATCH_TURBOJPEG"):
        yield named
        return
    if found := ctypes.util.find_library("turbojpeg"):
        yield found
    yield from ("libturbojpeg.so.0", "libturbojpeg.dylib")
    if prefix := os.environ.get("CONDA_PREFIX"):
        yield from glob.glob(f"{prefix}/lib/libturbojpeg.*")
    spec = importlib.util.find_spec("ffcv")  # found, not imported
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from map(str, Path(folder).parent.glob("ffcv/_libffcv*"))


@functools.cache
def load() -> bool:
    """Make libturbojpeg's functions known to compiled code; False when there is no such library.

    BIGBATCH_TURBOJPEG names the library to take; an empty or missing file there means none.
    """
    for name in _candidates():
        try:
            library = ctypes.CDLL(name)
            addresses = {symbol: getattr(library, function) for function, symbol in _FUNCTIONS.items()}
        except (OSError, AttributeError):
            continue
        for symbol, function in addresses.items():
            address = ctypes.cast(function, ctypes.c_void_p).value
            llvmlite.binding.add_symbol(symbol, address)
        _keep.append(library)
        return True
    return False


_keep: list[ctypes.CDLL] = []
