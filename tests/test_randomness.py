"""The hashes on tensors: splitmix64 is the one that the kernels of the images compute, and a permutation is one."""

import numpy as np
import torch

from pretrain.data.kernels import randomness as compiled
from pretrain.randomness import GOLDEN, mix64, permutation, shift_right, signed

EDGES = [0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]


def words() -> np.ndarray:
    drawn = np.random.default_rng(0).integers(0, 2**64, 10_000, dtype=np.uint64)
    return np.concatenate([np.array(EDGES, dtype=np.uint64), drawn])


def test_mix64_is_the_compiled_one() -> None:
    with np.errstate(over="ignore"):
        expected = compiled.mix64(words())
    found = mix64(torch.from_numpy(words().view(np.int64))).numpy().view(np.uint64)
    assert np.array_equal(found, expected)
    assert signed(int(compiled.GOLDEN)) == GOLDEN


def test_a_shift_copies_no_sign_and_numbers_keep_their_bits() -> None:
    for bits in (1, 11, 31, 63):
        found = shift_right(torch.from_numpy(words().view(np.int64)), bits).numpy().view(np.uint64)
        assert np.array_equal(found, words() >> np.uint64(bits))
    assert [signed(value) % 2**64 for value in EDGES] == EDGES


def test_a_permutation_holds_every_index_once() -> None:
    order = permutation(100, (3, 5), torch.device("cpu"))
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() == permutation(100, (3, torch.tensor(5)), torch.device("cpu")).tolist()
    assert order.tolist() != permutation(100, (5, 3), torch.device("cpu")).tolist()
