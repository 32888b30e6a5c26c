"""The pool of ranks: results in order, failures with their traceback, dead and hung ranks end within a deadline."""

import os
import time

import pytest
import torch
import torch.distributed as dist

from tests.ranks import Ranks, RanksFailed


def rank_times(group: dist.ProcessGroup, factor: int) -> int:
    return factor * dist.get_rank(group)


def summed(group: dist.ProcessGroup, value: torch.Tensor) -> torch.Tensor:
    value = value + dist.get_rank(group)
    dist.all_reduce(value, group=group)
    return value


def raise_on_last(group: dist.ProcessGroup) -> None:
    if dist.get_rank(group) == dist.get_world_size(group) - 1:
        raise ValueError("planted fault")


def die_on_first(group: dist.ProcessGroup) -> None:
    if dist.get_rank(group) == 0:
        os._exit(7)
    dist.barrier(group=group)


def sleep_on_first(group: dist.ProcessGroup) -> None:
    if dist.get_rank(group) == 0:
        time.sleep(600)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_results_come_in_rank_order(ranks: Ranks, world_size: int) -> None:
    assert ranks(world_size).run(rank_times, 10) == [10 * rank for rank in range(world_size)]
    for result in ranks(world_size).run(summed, torch.ones(2)):
        torch.testing.assert_close(result, torch.full((2,), float(sum(range(1, world_size + 1)))))


def test_an_exception_comes_back_with_its_traceback_and_the_pool_lives_on(ranks: Ranks) -> None:
    with pytest.raises(RanksFailed, match=r"rank 2: Traceback[\s\S]*raise_on_last[\s\S]*planted fault"):
        ranks(3).run(raise_on_last)
    assert ranks(2).run(rank_times, 1) == [0, 1]


@pytest.mark.slow
def test_dead_and_hung_ranks_fail_within_the_deadline_and_the_pool_comes_back() -> None:
    own = Ranks()
    try:
        with pytest.raises(RanksFailed, match="rank 0: died with exit code 7"):
            own(2).run(die_on_first)
        assert own(2).run(rank_times, 1) == [0, 1]
        started = time.monotonic()
        with pytest.raises(RanksFailed, match=r"no answer within the deadline of 0\.5 s.*\[0\]"):
            own(2, deadline_s=0.5).run(sleep_on_first)
        assert time.monotonic() - started < 60
    finally:
        own.close()
