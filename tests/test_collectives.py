"""Differentiable collectives: values, gradients (mean over ranks = gradient of one global loss), a single rank."""

import pytest
import torch
import torch.distributed as dist

from pretrain import collectives as co
from tests.ranks import Ranks


def gradients(group: dist.ProcessGroup) -> dict[str, torch.Tensor]:
    """One shared scalar of x_r = w·(r + 1)."""
    rank, world_size = co.group_rank_and_size(group)
    out = {}
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    co.all_reduce_sum_shared(w * (rank + 1), group).square().sum().backward()
    assert w.grad is not None
    out["shared"], w.grad = w.grad, None
    rows = co.all_gather_rows_shared((w * (rank + 1))[None], group)
    (rows * torch.arange(1.0, world_size + 1, dtype=torch.float64)[:, None]).square().sum().backward()
    out["rows"] = w.grad
    return out


def values(group: dist.ProcessGroup) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rank, _ = co.group_rank_and_size(group)
    x = torch.tensor([[rank, -rank]], requires_grad=False)
    return co.all_gather_rows(x, group), co.all_reduce_(x.clone(), group), co.all_reduce_(x.clone(), group, op="max")


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_mean_over_ranks_is_the_gradient_of_the_global_loss(ranks: Ranks, world_size: int) -> None:
    results = ranks(world_size).run(gradients)
    mean = {name: torch.stack([result[name] for result in results]).mean(0) for name in results[0]}
    factors = torch.arange(1.0, world_size + 1, dtype=torch.float64)
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    total = sum(f * w for f in factors)
    expected = {
        "shared": total.square().sum(),
        "rows": sum((f * f * w).square().sum() for f in factors),
    }
    for name, loss in expected.items():
        (grad,) = torch.autograd.grad(loss, w, retain_graph=True)
        torch.testing.assert_close(mean[name], grad, rtol=1e-14, atol=0)


def test_values_in_rank_order(ranks: Ranks) -> None:
    for gathered, summed, largest in ranks(3).run(values):
        assert gathered.tolist() == [[0, 0], [1, -1], [2, -2]]
        assert summed.tolist() == [[3, -3]]
        assert largest.tolist() == [[2, 0]]


def test_without_a_process_group_there_is_one_rank() -> None:
    x = torch.ones(2, requires_grad=True)
    assert co.group_rank_and_size() == (0, 1)
    assert co.all_reduce_sum_shared(x) is x
    assert co.all_gather_rows_shared(x) is x
    assert not co.all_gather_rows(x).requires_grad
