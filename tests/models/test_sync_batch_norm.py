"""Sync batch norm on W ranks against plain batch norm on the concatenated batch: outputs, gradients, statistics."""

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pretrain.models.sync_batch_norm import SyncBatchNorm, convert_sync_batch_norm
from tests.ranks import Ranks

UNEQUAL = {1: [11], 2: [8, 3], 3: [1, 6, 4], 4: [2, 5, 1, 3]}


def plain_net(channels_last: bool = False, momentum: float | None = 0.1) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=momentum), nn.ReLU(), nn.Conv2d(5, 4, 3),
        nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6),
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return net.to(memory_format=torch.channels_last) if channels_last else net


def step(net: nn.Module, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    x = x.requires_grad_()
    y = net(x)
    y.backward(dy)
    assert x.grad is not None
    out = {"y": y.detach(), "dx": x.grad}
    out |= {f"grad {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return out | {f"state {name}": value for name, value in net.state_dict().items()}


def on_rank(
    group: dist.ProcessGroup, x: Tensor, dy: Tensor, sizes: list[int], channels_last: bool, momentum: float | None
) -> dict[str, Tensor]:
    rank = dist.get_rank(group)
    net = convert_sync_batch_norm(plain_net(channels_last, momentum), group)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    result = {}
    for part_x, part_dy in zip(x, dy, strict=True):
        net.zero_grad()
        result = step(net, part_x.split(sizes)[rank].clone(memory_format=memory_format), part_dy.split(sizes)[rank])
    return result


@pytest.mark.parametrize(
    ("world_size", "channels_last", "momentum"),
    [(1, False, 0.1), (2, False, 0.1), (2, True, 0.1), (3, False, None), (4, True, 0.1)],
)
def test_ranks_of_unequal_size_are_one_rank(
    ranks: Ranks, world_size: int, channels_last: bool, momentum: float | None
) -> None:
    torch.manual_seed(1)
    sizes = UNEQUAL[world_size]
    # Each sample has its own mean, so that local and global moments differ.
    x = torch.randn(2, sum(sizes), 3, 8, 8, dtype=torch.float64) + 3 * torch.arange(sum(sizes)).view(-1, 1, 1, 1)
    dy = torch.randn(2, sum(sizes), 6, dtype=torch.float64)
    net = plain_net(channels_last, momentum)
    for part_x, part_dy in zip(x, dy, strict=True):
        net.zero_grad()
        expected = step(net, part_x.clone(), part_dy)
    results = ranks(world_size).run(on_rank, x, dy, sizes, channels_last, momentum)
    for name, value in expected.items():
        if name in ("y", "dx"):
            actual = torch.cat([result[name] for result in results])
        elif name.startswith("grad"):
            actual = torch.stack([result[name] for result in results]).sum(0)
        else:
            actual = results[-1][name]
        torch.testing.assert_close(actual, value, rtol=1e-10, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


def far_from_zero(group: dist.ProcessGroup, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, list[bool]]:
    bn = convert_sync_batch_norm(nn.BatchNorm2d(x.shape[1], momentum=1.0), group)
    part = x.chunk(dist.get_world_size(group))[dist.get_rank(group)].to(dtype, memory_format=torch.channels_last)
    part.requires_grad_()
    y = bn(part)
    y.sum().backward()
    assert part.grad is not None
    assert y.dtype == part.grad.dtype == dtype
    kept = [t.is_contiguous(memory_format=torch.channels_last) for t in (y, part.grad)]
    return bn.running_mean, bn.running_var, kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_are_stable_in_float32_and_keep_the_memory_format(ranks: Ranks, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 2, 8, 8, dtype=torch.float64) + 1000.0
    x = x.to(dtype).double()
    for mean, var, kept in ranks(2).run(far_from_zero, x, dtype):
        assert mean.dtype == var.dtype == torch.float32
        torch.testing.assert_close(mean.double(), x.mean((0, 2, 3)), rtol=1e-6, atol=0)
        torch.testing.assert_close(var.double(), x.var((0, 2, 3)), rtol=1e-3, atol=0)
        assert all(kept)


def count_collectives(group: dist.ProcessGroup) -> list[int]:
    calls = []
    originals = dist.all_reduce, dist.all_gather_into_tensor
    dist.all_reduce = lambda *a, **k: (calls.append("reduce"), originals[0](*a, **k))  # type: ignore[assignment]
    dist.all_gather_into_tensor = lambda *a, **k: (calls.append("gather"), originals[1](*a, **k))
    try:
        bn = convert_sync_batch_norm(nn.BatchNorm1d(4), group)
        y = bn(torch.randn(5, 4, requires_grad=True))
        forward = len(calls)
        y.sum().backward()
        bn.eval()(torch.randn(5, 4))
    finally:
        dist.all_reduce, dist.all_gather_into_tensor = originals
    return [forward, len(calls) - forward]


def test_one_collective_each_way_and_none_in_evaluation(ranks: Ranks) -> None:
    assert ranks(2).run(count_collectives) == [[1, 1], [1, 1]]
    assert ranks(1).run(count_collectives) == [[0, 0]]


def test_conversion_keeps_keys_parameters_and_mode_and_survives_copies() -> None:
    net = plain_net()
    keys, parameters = list(net.state_dict()), list(net.parameters())
    net[1].eval()
    converted = convert_sync_batch_norm(net, group=None)
    assert converted is net
    assert list(net.state_dict()) == keys
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert [type(m).__name__ for m in net if isinstance(m, nn.modules.batchnorm._BatchNorm)] == ["SyncBatchNorm"] * 3
    assert not net[1].training
    assert net[4].training
    assert isinstance(convert_sync_batch_norm(nn.BatchNorm1d(3)), SyncBatchNorm)
    for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert list(again.state_dict()) == keys


def test_a_copy_and_a_pickled_one_keep_the_group(ranks: Ranks) -> None:
    assert ranks(2).run(copied_and_used) == [True, True]


def copied_and_used(group: dist.ProcessGroup) -> bool:
    bn = convert_sync_batch_norm(nn.BatchNorm1d(2, momentum=1.0), group)
    same = []
    for again in (copy.deepcopy(bn), pickle.loads(pickle.dumps(bn))):
        again(torch.full((2, 2), float(dist.get_rank(group))))
        same.append(again.running_mean.tolist() == [0.5, 0.5])
    return all(same)


def pickled(group: dist.ProcessGroup) -> bytes:
    return pickle.dumps(convert_sync_batch_norm(nn.BatchNorm1d(2), group))


def test_a_process_without_the_group_can_evaluate_and_is_told_why_it_cannot_train(ranks: Ranks) -> None:
    bn = pickle.loads(ranks(2).run(pickled)[0])
    assert bn.eval()(torch.ones(3, 2)).shape == (3, 2)
    with pytest.raises(RuntimeError, match="process group"):
        bn.train()(torch.ones(3, 2))


def test_on_one_rank_it_is_plain_batch_norm_bit_for_bit() -> None:
    x, dy = torch.randn(4, 3, 8, 8), torch.randn(4, 6)
    expected, actual = (
        step(plain_net().float(), x.clone(), dy),
        step(convert_sync_batch_norm(plain_net().float()), x, dy),
    )
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def test_a_wrong_number_of_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        convert_sync_batch_norm(nn.BatchNorm2d(3))(torch.randn(4, 3))
