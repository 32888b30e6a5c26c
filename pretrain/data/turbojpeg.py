"""libturbojpeg, found at run time and given to compiled code by name. Without it, Pillow decodes to the same bytes."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import glob
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding

from pretrain.data.kernels_jpeg import DECOMPRESS_SYMBOL, DESTROY_SYMBOL, INIT_SYMBOL

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
