"""Batch norm over some of the ranks, its cost, and the libraries that can do it."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from pretrain.dist import World, block_of_ranks
from pretrain.errors import ConfigError
from pretrain.measure import measure_sync_cost
from pretrain.models.sync_batch_norm import SyncBatchNorm, apex_parallel, synchronise_batch_norm
from tests.ranks import Ranks

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def blocks_of_two(group: dist.ProcessGroup) -> tuple[torch.Tensor, int]:
    """(output of a batch norm that two neighbours share, ranks of the block of all)."""
    world = World(dist.get_rank(), dist.get_world_size(), CPU)
    net = nn.Sequential(nn.BatchNorm1d(3))
    synchronise_batch_norm(net, library="bigbatch", group=block_of_ranks(world, 2), device=CPU)
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = block_of_ranks(world, world.size)
    return net.double()(x[world.rank]).detach(), -1 if whole is None else dist.get_world_size(whole)


def test_neighbouring_ranks_share_statistics(ranks: Ranks) -> None:
    results = ranks(4).run(blocks_of_two)
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for block in (0, 1):
        expected = nn.BatchNorm1d(3).double()(x[2 * block : 2 * block + 2].flatten(0, 1))
        found = torch.cat([results[2 * block][0], results[2 * block + 1][0]])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert results[0][1] == -1, "the block of all ranks is the default group"


def unequal_blocks(group: dist.ProcessGroup) -> str:
    with pytest.raises(ValueError, match="blocks of 3 ranks do not divide 4 ranks") as caught:
        block_of_ranks(World(dist.get_rank(), 4, CPU), 3)
    return str(caught.value)


def test_blocks_are_equal(ranks: Ranks) -> None:
    ranks(4).run(unequal_blocks)


def cost(group: dist.ProcessGroup) -> tuple[tuple[int, int, float], int]:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(4), nn.BatchNorm1d(5).requires_grad_(False))
    synchronise_batch_norm(net, library="bigbatch", group=group, device=CPU)
    cached = measure_sync_cost(net, CPU, micro_batches=4)
    return measure_sync_cost(net, CPU), cached.gathers


def test_the_gathers_of_a_step_are_counted_and_timed(ranks: Ranks) -> None:
    (layers, gathers, seconds), cached = ranks(2).run(cost)[0]
    assert (layers, gathers) == (3, 3 + 2)
    assert 0 < seconds < 10
    assert cached == 4 * (2 * 3 + 2), "gradient caching embeds twice"
    alone = nn.Sequential(nn.BatchNorm1d(3))
    synchronise_batch_norm(alone, library="bigbatch", group=None, device=CPU)
    assert isinstance(alone[0], SyncBatchNorm)
    assert measure_sync_cost(alone, CPU) == (1, 0, 0.0)


@pytest.mark.parametrize("library", ["torch", "apex"])
def test_other_libraries_are_refused_on_a_cpu(library: Any) -> None:
    with pytest.raises(ConfigError, match=f"got {library}, which normalises CUDA tensors only.*use bigbatch"):
        synchronise_batch_norm(nn.Sequential(nn.BatchNorm1d(3)), library=library, group=None, device=CPU)


def test_torchs_own_can_be_chosen() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3))
    weight = net[0].weight
    synchronise_batch_norm(net, library="torch", group=None, device=CUDA)
    assert isinstance(net[0], nn.SyncBatchNorm)
    assert net[0].weight is weight


def module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(content)
    return made


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ({"apex": None}, "cannot be imported"),
        ({"apex": module("apex"), "apex.parallel": None}, "cannot be imported.*on PyPI belongs to another project"),
        ({"apex": module("apex", __path__=[]), "apex.parallel": module("apex.parallel")}, "no SyncBatchNorm.*float16"),
    ],
)
def test_an_unusable_apex_is_explained(
    installed: dict[str, ModuleType | None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, found in installed.items():
        monkeypatch.setitem(sys.modules, name, found)
    with pytest.raises(ConfigError, match=f"batch_norm_library: got apex, .*{said}.*use bigbatch"):
        apex_parallel()


def test_an_apex_that_has_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[SimpleNamespace] = []

    def convert(net: nn.Module, *, process_group: Any, channel_last: bool) -> nn.Module:
        calls.append(SimpleNamespace(net=net, group=process_group, channel_last=channel_last))
        return net

    monkeypatch.setitem(sys.modules, "apex", module("apex", __path__=[]))
    monkeypatch.setitem(sys.modules, "apex.parallel", module("apex.parallel", convert_syncbn_model=convert))
    net = nn.Sequential(nn.BatchNorm1d(3))
    synchronise_batch_norm(net, library="apex", group=None, device=CUDA)
    assert [(call.net, call.group, call.channel_last) for call in calls] == [(net, None, False)]
