from typing import Any

import pytest
import torch
from torch import nn

from pretrain.gradients import GradientAverager
from tests.ranks import Ranks


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 2)).double()
    net.add_module("unused", nn.Linear(3, 3).double())
    return net.to(memory_format=torch.channels_last)


def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    for name, layer in net.named_children():
        x = layer(x) if name != "unused" else x
    return x


def data(rank: int, step: int) -> torch.Tensor:
    return torch.randn(3, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(10 * step + rank))


def averaged(group: Any, bucket_bytes: int) -> list[list[torch.Tensor | None]]:
    net = network()
    averager = GradientAverager(list(net.parameters()), group, bucket_bytes)
    rank = torch.distributed.get_rank(group)
    steps = []
    for step in range(3):
        forward(net, data(rank, step)).square().sum().backward()
        averager.average_over_ranks()
        steps.append([None if p.grad is None else p.grad.clone() for p in net.parameters()])
        for parameter in net.parameters():
            parameter.grad = None
    return steps


@pytest.mark.parametrize("bucket_bytes", [1, 200, 25 * 2**20])
@pytest.mark.parametrize("world_size", [2, 3])
def test_mean_over_ranks_at_every_step(ranks: Ranks, world_size: int, bucket_bytes: int) -> None:
    results = ranks(world_size).run(averaged, bucket_bytes)
    for step in range(3):
        net = network()
        for rank in range(world_size):
            (forward(net, data(rank, step)).square().sum() / world_size).backward()
        for index, parameter in enumerate(net.parameters()):
            for of_rank in results:
                got = of_rank[step][index]
                expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def layout(group: Any) -> bool:
    net = network()
    averager = GradientAverager(list(net.parameters()), group)
    forward(net, data(0, 0)).sum().backward()
    averager.average_over_ranks()
    conv = net[0].weight  # type: ignore[index]
    return bool(conv.grad.stride() == conv.stride() and conv.is_contiguous(memory_format=torch.channels_last))


def test_gradients_keep_the_layout_of_their_parameters(ranks: Ranks) -> None:
    assert all(ranks(2).run(layout))


def test_one_rank_is_left_alone() -> None:
    net = network()
    averager = GradientAverager(list(net.parameters()))
    forward(net, data(0, 0)).sum().backward()
    before = [p.grad for p in net.parameters()]
    averager.average_over_ranks()
    assert all(a is b for a, b in zip(before, (p.grad for p in net.parameters()), strict=True))
