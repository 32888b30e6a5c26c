"""Counter-based random numbers: every draw is a pure function of where it is used, never of who computes it or when.

    key      = fold(fold(fold(fold(stream, seed), epoch), sample index), view)
    word     = mix64(key + (slot + 1) * GOLDEN)          splitmix64 evaluated at counter `slot`
    uniform  = (word >> 11) / 2**53                      in [0, 1)

mix64 is the finaliser of splitmix64 (Steele, Lea, Flood 2014; Stafford's mix 13), a bijection of 64-bit words. This is
its definition in this project: the same functions run in Python, on numpy arrays and inside the compiled kernels, and
what computes it on torch tensors is tested against them. Slot numbers and streams are part of what a seed means: never
renumber them, only add.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.data.kernels.jit import shared

UInt64Array = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_ONE = np.uint64(1)
_MANTISSA_SHIFT = np.uint64(11)
_TO_UNIT = 1.0 / 9007199254740992.0  # 2**-53

# Streams: what a key is for. Equal counters in different streams are unrelated.
STREAM_VIEW = np.uint64(1)  # the augmentation of one view of one sample in one epoch; its slots: `Operation.slots`
STREAM_ORDER = np.uint64(2)  # the position of a sample in an epoch
STREAM_SUBSET = np.uint64(3)  # which samples a subset holds; takes no seed


@shared
def mix64(word: Any) -> Any:
    """Scramble 64-bit words; a bijection. uint64 in, uint64 out, of any shape."""
    word = (word ^ (word >> _SHIFT_1)) * _MULTIPLIER_1
    word = (word ^ (word >> _SHIFT_2)) * _MULTIPLIER_2
    return word ^ (word >> _SHIFT_3)


@shared
def fold(key: Any, value: Any) -> Any:
    """The key of ``value`` below ``key``; both uint64."""
    return mix64(key ^ mix64(value + GOLDEN))


@shared
def view_key(seed: Any, epoch: Any, index: Any, view: Any) -> Any:
    """The key under which all random decisions about one view are drawn; uint64 arguments."""
    return fold(fold(fold(fold(STREAM_VIEW, seed), epoch), index), view)


@shared
def uniform(key: Any, slot: Any) -> Any:
    """U[0, 1) with 53 bits: draw number ``slot`` under ``key``; uint64 arguments."""
    return (mix64(key + (slot + _ONE) * GOLDEN) >> _MANTISSA_SHIFT) * _TO_UNIT


def order_keys(seed: int, epoch: int, index_N: npt.NDArray[np.integer[Any]]) -> UInt64Array:
    """Sort keys (N,) of the samples ``index_N`` in epoch ``epoch``."""
    with np.errstate(over="ignore"):
        epoch_key = fold(fold(STREAM_ORDER, np.uint64(seed)), np.uint64(epoch))
        keys_N: UInt64Array = fold(epoch_key, index_N.astype(np.uint64))
    return keys_N


def subset_keys(index_N: npt.NDArray[np.integer[Any]]) -> UInt64Array:
    """Sort keys (N,) that choose nested subsets; no seed, so that every run of a study sees the same images."""
    with np.errstate(over="ignore"):
        keys_N: UInt64Array = fold(STREAM_SUBSET, index_N.astype(np.uint64))
    return keys_N
