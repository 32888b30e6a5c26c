"""Hashes on tensors, from which random decisions are made: the same numbers wherever and whenever they are computed.

A decision is a hash of what it is about (seed, step, position in the global batch), so that neither the number of ranks
nor a restart changes it, and there is no generator whose state would have to be saved.

`mix64` is the function of that name of `pretrain.data.kernels.randomness`, which is compiled for images; a test holds
the two to each other. Words are int64 tensors: torch has no products of unsigned ones, and signed ones wrap alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The numbers of splitmix64 (Steele, Lea, Flood 2014), as signed ones. GOLDEN = 0x9E3779B97F4A7C15 is its step.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64
_LOW_32 = 0xFFFFFFFF


def mix64(word: Tensor) -> Tensor:
    """Scramble 64-bit words (int64, any shape): the finaliser of splitmix64, a bijection."""
    word = (word ^ shift_right(word, 30)) * _MULTIPLIER_1
    word = (word ^ shift_right(word, 27)) * _MULTIPLIER_2
    return word ^ shift_right(word, 31)


def shift_right(word: Tensor, bits: int) -> Tensor:
    """The words, as unsigned ones, without their last ``bits`` bits: torch's own shift copies the sign."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def signed(value: int) -> int:
    """The int64 with the bits of a number below 2^64."""
    return value - 2**64 if value >= 2**63 else value


def mix32(x: Tensor) -> Tensor:
    """32 well mixed bits of the low 32 bits of each word: half the work of `mix64` where there is a number a feature.

    Multipliers of Wellons' hash prospector ("lowbias32"). In int64, where no product overflows.
    """
    x = x & _LOW_32
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _LOW_32
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _LOW_32
    return x ^ (x >> 15)


def permutation(count: int, key: tuple[int | Tensor, ...], device: torch.device) -> Tensor:
    """A permutation (count,) of range(count), drawn again for every key: the order of the hashes of (key, index)."""
    hashes = torch.arange(count, device=device)
    for part in key:
        hashes = mix64(hashes * GOLDEN + part)
    return hashes.argsort(stable=True)
