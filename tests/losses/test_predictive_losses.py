"""BYOL and SimSiam: against the cosine, no gradient to the target, the mean over ranks is the global batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from pretrain.losses.contrastive import ntxent_loss
from pretrain.losses.predictive import byol_loss, simsiam_loss
from tests.losses.across_ranks import make_views
from tests.ranks import Ranks


def naive_byol(prediction: Tensor, target: Tensor) -> Tensor:
    return (F.normalize(prediction, dim=1) - F.normalize(target, dim=1)).square().sum(1).mean()


def naive_simsiam(prediction: Tensor, target: Tensor) -> Tensor:
    return -F.cosine_similarity(prediction, target).mean()


def on_rank(group: dist.ProcessGroup, loss: Any, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Any]:
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    layer = torch.eye(prediction.shape[1], dtype=prediction.dtype).add(0.1).requires_grad_()
    target = target.chunk(world_size)[rank].clone().requires_grad_()
    value = loss(prediction.chunk(world_size)[rank] @ layer, target)
    value.backward()
    assert layer.grad is not None
    return value.detach(), layer.grad, target.grad


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("loss", "oracle"), [(byol_loss, naive_byol), (simsiam_loss, naive_simsiam)])
def test_ranks_are_one_rank(ranks: Ranks, world_size: int, loss: Any, oracle: Any) -> None:
    prediction, target = make_views(12, 5)
    layer = torch.eye(5, dtype=torch.float64).add(0.1).requires_grad_()
    expected = oracle(prediction @ layer, target)
    expected.backward()
    results = ranks(world_size).run(on_rank, loss, prediction, target)
    assert all(target_gradient is None for _, _, target_gradient in results)
    value, gradient = (torch.stack([result[i] for result in results]).mean(0) for i in (0, 1))
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gradient, layer.grad, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("loss", [byol_loss, simsiam_loss])
def test_float32_under_autocast_and_shapes_refused(loss: Any) -> None:
    prediction, target = (z.bfloat16() for z in make_views(6, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(prediction, target)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(prediction.float(), target.float()))
    with pytest.raises(ValueError, match=r"got prediction \(4, 3\) .* and target \(4, 2\)"):
        loss(torch.randn(4, 3), torch.randn(4, 2))


@pytest.mark.parametrize("loss", [byol_loss, simsiam_loss, partial(ntxent_loss, temperature=0.1)])
def test_embeddings_of_zero_have_no_gradient_rather_than_a_huge_one(loss: Callable[..., torch.Tensor]) -> None:
    a, b = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    a[3] = 0
    a.requires_grad_()
    value = loss(a, b)
    value.backward()
    assert value.isfinite()
    assert a.grad is not None
    assert a.grad[3].abs().max() == 0
    assert 0 < a.grad.abs().max() < 10
