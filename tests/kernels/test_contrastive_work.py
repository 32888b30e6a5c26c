"""The division of the similarities among ranks: each pair once in the forward, all of its own rows in the backward."""

import itertools

import pytest

from pretrain.kernels.contrastive_work import Between, Within, divide_work


def pairs_within(item: Within) -> list[tuple[int, int]]:
    blocks = [range(item.start + c * item.rows, item.start + (c + 1) * item.rows) for c in range(item.count)]
    return [pair for block in blocks for pair in itertools.combinations(block, 2)]


def pairs_between(item: Between) -> list[tuple[int, int]]:
    sides = range(item.a_start, item.a_stop), range(item.b_start, item.b_stop)
    return [(min(pair), max(pair)) for pair in itertools.product(*sides)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("pairs_per_rank", [1, 4, 6])
def test_each_pair_once(world_size: int, pairs_per_rank: int) -> None:
    total = world_size * pairs_per_rank
    for group_pairs in (k for k in range(1, total + 1) if total % k == 0):
        expected = {
            pair
            for start in range(0, 2 * total, 2 * group_pairs)
            for pair in itertools.combinations(range(start, start + 2 * group_pairs), 2)
        }
        forward: list[tuple[int, int]] = []
        for rank in range(world_size):
            work = divide_work(rank, world_size, pairs_per_rank, group_pairs)
            own_pairs = [pair for item in work.within for pair in pairs_within(item)]
            forward += own_pairs + [pair for item in work.between for pair in pairs_between(item)]
            own = range(2 * rank * pairs_per_rank, 2 * (rank + 1) * pairs_per_rank)
            backward = own_pairs + [pair for item in work.others for pair in pairs_between(item)]
            assert all(item.a_start in own and item.a_stop - 1 in own for item in work.others)
            assert sorted(backward) == sorted(pair for pair in expected if pair[0] in own or pair[1] in own)
        assert sorted(forward) == sorted(expected), f"groups of {group_pairs}"


@pytest.mark.parametrize("world_size", [2, 3, 4, 7, 8])
def test_equal_ranks_have_equal_work(world_size: int) -> None:
    sizes = set()
    for rank in range(world_size):
        work = divide_work(rank, world_size, 8, 8 * world_size)
        sizes.add(sum(len(pairs_between(item)) for item in work.between))
    assert len(sizes) == 1
