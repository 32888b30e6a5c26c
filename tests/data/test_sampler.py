"""Order and sharing: every sample once, whatever the number of ranks; subsets nested; no seed leaks into another."""

from __future__ import annotations

import numpy as np
import pytest

from pretrain.data import sampler as order
from pretrain.data.sampler import RankOrder

IMAGES = 103


def ranks(world_size: int, epoch: int, batch: int = 24, first_batch: int = 0, seed: int = 1) -> list[np.ndarray]:
    index_n = order.subset(IMAGES, None)
    return [RankOrder(index_n, seed, batch, r, world_size).batches(epoch, first_batch) for r in range(world_size)]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_side_by_side_are_the_global_batches(world_size: int) -> None:
    permuted_n = order.permutation(1, 5, order.subset(IMAGES, None))
    shares = ranks(world_size, epoch=5)
    np.testing.assert_array_equal(np.concatenate(shares, axis=1).reshape(-1), permuted_n[: IMAGES // 24 * 24])
    assert order.is_partition(shares, permuted_n[: IMAGES // 24 * 24])


def test_partition_check_sees_faults() -> None:
    whole_n = np.arange(6)
    assert order.is_partition([np.array([5, 0, 1]), np.array([2, 4, 3])], whole_n)
    assert not order.is_partition([np.array([5, 0, 1]), np.array([2, 4, 4])], whole_n)
    assert not order.is_partition([np.array([5, 0, 1]), np.array([2, 4])], whole_n)
    assert not order.is_partition([], whole_n)


def test_a_resumed_epoch_is_the_rest_of_the_epoch() -> None:
    np.testing.assert_array_equal(ranks(1, 2, first_batch=3)[0], ranks(1, 2)[0][3:])
    assert ranks(2, 2, first_batch=4)[0].shape == (0, 12)


def test_permutations_are_unrelated() -> None:
    """Neighbouring seeds and epochs share nothing: not (seed + 1, epoch) with (seed, epoch + 1) either."""
    index_n = order.subset(IMAGES, None)
    seen = [order.permutation(seed, epoch, index_n) for seed in range(4) for epoch in range(4)]
    for k, first in enumerate(seen):
        assert order.is_partition([first], index_n)
        for second in seen[:k]:
            assert (first == second).mean() < 0.1


def test_subsets_are_nested_and_sorted() -> None:
    larger: set[int] = set(range(IMAGES))
    for images in (90, 40, 7, 1):
        chosen = order.subset(IMAGES, images)
        assert len(chosen) == images
        assert (np.diff(chosen) > 0).all()
        assert set(chosen) <= larger
        larger = set(chosen)
    assert order.subset(IMAGES, 40).mean() == pytest.approx(IMAGES / 2, abs=20)  # spread over the file


def test_order_of_a_subset_is_the_order_of_the_whole_without_the_rest() -> None:
    chosen = order.subset(IMAGES, 40)
    whole = order.permutation(3, 1, order.subset(IMAGES, None))
    np.testing.assert_array_equal(order.permutation(3, 1, chosen), whole[np.isin(whole, chosen)])


@pytest.mark.parametrize("world_size", [1, 3, 7, 200])
def test_evaluation_takes_every_sample_once_in_file_order(world_size: int) -> None:
    index_n = order.subset(IMAGES, None)
    parts = [order.evaluation_slice(index_n, rank, world_size) for rank in range(world_size)]
    np.testing.assert_array_equal(np.concatenate(parts), index_n)


def test_problems_are_told_together() -> None:
    with pytest.raises(
        ValueError, match=r"30 samples cannot be shared evenly by 4 ranks.*ranks 0 to 3.*more than the 9"
    ):
        RankOrder(np.arange(9), 0, 30, rank=4, world_size=4)
    with pytest.raises(ValueError, match="got 104, the file holds 103"):
        order.subset(IMAGES, 104)
