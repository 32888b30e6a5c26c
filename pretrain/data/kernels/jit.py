"""Compilation by numba, typed for mypy and cached on disk without the two traps of numba's own cache.

numba keys its cache by the file of the one function; a change in another file that it calls goes unnoticed. Here the
key holds a digest of all kernel sources. And where no cache folder can be written, numba refuses; here it compiles.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from numba.core.caching import FunctionCache
from numba.extending import register_jitable
from numba.np import linalg

P = ParamSpec("P")
R = TypeVar("R")

# Reassociation and contraction let loops vectorise; NaN and infinity keep their meaning. One machine code serves all
# ranks, threads and batch positions, so results still do not depend on them.
_FAST_MATH = {"nsz", "arcp", "contract", "afn", "reassoc"}


def _import_without_scipy() -> None:
    """numba imports all of scipy.linalg when it starts, a third of a second, only to see that it is there.

    Code that does use linear algebra asks again when it is compiled, and then gets the import.
    """
    check = getattr(linalg, "ensure_blas", None)
    if check is None:  # another numba, which may do without
        return
    linalg.ensure_blas = lambda: None
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = check


_import_without_scipy()


def kernel_sources() -> list[Path]:
    """Every file that compiled code comes from."""
    return sorted(Path(__file__).parent.glob("*.py"))


@functools.cache
def sources_digest() -> str:
    """SHA-256 over every file that compiled code comes from."""
    digest = hashlib.sha256()
    for path in kernel_sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class _KernelCache(FunctionCache):  # type: ignore[misc]
    """numba's disk cache of one function, renewed when any kernel source changes."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), sources_digest())


def shared(function: Callable[P, R]) -> Callable[P, R]:
    """Callable from Python and numpy as it stands, and from compiled code."""
    registered: Callable[P, R] = register_jitable(function)
    return registered


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Part of a kernel, inlined: a call would push seven words for every array argument.

    Not cached itself: it is in the cache of the kernels that call it.
    """
    compiled: Callable[P, R] = numba.njit(forceinline=True, fastmath=_FAST_MATH, error_model="numpy")(function)
    return compiled


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """Part of a kernel in strict IEEE arithmetic: random parameters are equal on every machine."""
    compiled: Callable[P, R] = numba.njit(fastmath=False, error_model="numpy")(function)
    return compiled


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Entry point from Python: releases the GIL, cached on disk where a cache can be written."""
    dispatcher = numba.njit(nogil=True, fastmath=_FAST_MATH, error_model="numpy")(function)
    with contextlib.suppress(RuntimeError):  # no folder for a cache can be written: compile in every process
        dispatcher._cache = _KernelCache(function)
    compiled: Callable[P, R] = dispatcher
    return compiled
