"""What every loss is held to: W ranks with different data, a shared linear layer in front, against one rank.

The gradient that counts is the mean over the ranks of the shared layer's, as DistributedDataParallel takes it.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.kernels import contrastive_work
from tests.ranks import Ranks

Loss = Callable[..., Tensor]


def make_views(pairs: int, dimensions: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two noisy views (pairs, dimensions) in float64, every image with its own mean."""
    generator = torch.Generator().manual_seed(seed)
    images = 2 * torch.randn(pairs, dimensions, generator=generator, dtype=torch.float64) + 0.5
    noise = torch.randn(2, pairs, dimensions, generator=generator, dtype=torch.float64)
    return images + noise[0], images + noise[1]


def through_layer(loss: Loss, x_a: Tensor, x_b: Tensor, output_width: int = 5) -> dict[str, Any]:
    """Value, and gradients by the layer and by the inputs, of loss(layer(x_a), layer(x_b)).

    Contrastive tiles are so small here that there are many, and unequal ones.
    """
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(output_width, x_a.shape[1], generator=generator, dtype=torch.float64)
    weight = weight.to(x_a.dtype).requires_grad_()
    x_a, x_b = x_a.clone().requires_grad_(), x_b.clone().requires_grad_()
    with mock.patch.object(contrastive_work, "TILE_ROWS_CPU", 6):
        value = loss(x_a @ weight.t(), x_b @ weight.t())
        value.backward()
    gradients = (weight.grad, x_a.grad, x_b.grad)
    return {"loss": value.detach(), **dict(zip(("weight", "x_a", "x_b"), gradients, strict=True))}


def on_rank(group: dist.ProcessGroup, loss: Loss, x_a: Tensor, x_b: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    """through_layer on this rank's part, with the number of collectives started in forward and backward."""
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    calls = {"forward": 0, "backward": 0}
    phase = "forward"

    def counted(name: str) -> Any:
        original = getattr(dist, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls[phase] += 1
            return original(*args, **kwargs)

        return mock.patch.object(dist, name, call)

    def grouped(z_a: Tensor, z_b: Tensor) -> Tensor:
        nonlocal phase
        phase = "forward"
        value = loss(z_a, z_b, group=group, **options)
        phase = "backward"
        return value

    with counted("all_reduce"), counted("all_gather_into_tensor"), counted("reduce_scatter_tensor"):
        result: dict[str, Any] = through_layer(grouped, x_a.chunk(world_size)[rank], x_b.chunk(world_size)[rank])
    return result | {"calls": calls}


def assert_one_rank(
    ranks: Ranks, world_size: int, loss: Loss, oracle: Loss, pairs: int, tolerance: float = 1e-12, **options: Any
) -> list[dict[str, int]]:
    """loss on `world_size` ranks = oracle on the whole batch, value and gradients; returns the counts of collectives.

    Tolerances are relative to the largest entry.
    """
    x_a, x_b = make_views(pairs, 7)
    expected = through_layer(lambda z_a, z_b: oracle(z_a, z_b, **options), x_a, x_b)
    results = ranks(world_size).run(on_rank, loss, x_a, x_b, options)
    for result in results:
        assert_close(result["loss"], expected["loss"], tolerance, "loss")
    assert_close(torch.stack([r["weight"] for r in results]).mean(0), expected["weight"], tolerance, "weight")
    for name in ("x_a", "x_b"):
        assert_close(torch.cat([r[name] for r in results]) / world_size, expected[name], tolerance, name)
    return [result["calls"] for result in results]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, name: str) -> None:
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"{name}: relative error {error:.2e}, allowed {tolerance:.0e}"
