"""NT-Xent: against the naive matrix, across ranks, in float32, in bounded memory."""

import math
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.kernels import backend, contrastive_products, contrastive_work
from pretrain.losses import contrastive
from pretrain.losses.contrastive import ntxent_loss
from tests.losses.across_ranks import assert_close, assert_one_rank, make_views, through_layer
from tests.ranks import Ranks


def naive_ntxent(z_a: Tensor, z_b: Tensor, *, temperature: float | Tensor, negatives: int | None = None) -> Tensor:
    """The whole similarity matrix and torch's cross-entropy, one group of negatives after the other."""
    total = z_a.new_zeros(())
    for a, b in zip(z_a.split(negatives or len(z_a)), z_b.split(negatives or len(z_b)), strict=True):
        z = F.normalize(torch.cat((a, b)), dim=1)
        logits = (z @ z.t() / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool), -math.inf)
        total = total + F.cross_entropy(logits, torch.arange(len(z)).roll(len(a)), reduction="sum")
    return total / (2 * len(z_a))


def ntxent_with_a_shift_per_row(z_a: Tensor, z_b: Tensor, **options: Any) -> Tensor:
    """What temperatures below the range of a common shift take."""
    with mock.patch.object(contrastive, "_common_shift", return_value=None):
        return ntxent_loss(z_a, z_b, **options)


@pytest.mark.parametrize("loss", [ntxent_loss, ntxent_with_a_shift_per_row])
@pytest.mark.parametrize("temperature", [0.001, 0.01, 0.0128, 0.1, 0.5, 10.0])
@pytest.mark.parametrize(("pairs", "negatives"), [(2, None), (23, None), (24, 2), (24, 3), (24, 8), (24, 12)])
def test_one_rank_is_the_naive_matrix(loss: Any, pairs: int, negatives: int | None, temperature: float) -> None:
    options = {"temperature": temperature, "negatives": negatives}
    x_a, x_b = make_views(pairs, 7)
    actual = through_layer(lambda a, b: loss(a, b, **options), x_a, x_b)
    expected = through_layer(lambda a, b: naive_ntxent(a, b, **options), x_a, x_b)
    for name, value in actual.items():
        # Cross-entropy itself is exact to a rounding of its largest term, 1 / temperature.
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-13 * max(1.0, temperature**-2))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
def test_ranks_are_one_rank_and_the_backward_is_silent(ranks: Ranks, world_size: int, temperature: float) -> None:
    calls = assert_one_rank(ranks, world_size, ntxent_loss, naive_ntxent, pairs=36, temperature=temperature)
    assert calls == [{"forward": 0 if world_size == 1 else 2, "backward": 0}] * world_size


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_shift_per_row_is_exact_across_ranks(ranks: Ranks, world_size: int) -> None:
    loss = ntxent_with_a_shift_per_row
    calls = assert_one_rank(ranks, world_size, loss, naive_ntxent, pairs=24, temperature=0.1, negatives=None)
    assert calls == [{"forward": 3, "backward": 0}] * world_size
    assert_one_rank(ranks, world_size, loss, naive_ntxent, pairs=24, temperature=0.1, negatives=8)


# Groups within a rank, of a whole rank, of several ranks, and cut by the edges of ranks.
@pytest.mark.parametrize(
    ("world_size", "negatives"), [(2, 4), (2, 12), (2, 8), (3, 12), (3, 24), (4, 4), (4, 8), (4, 12)]
)
def test_groups_of_negatives_may_lie_anywhere(ranks: Ranks, world_size: int, negatives: int) -> None:
    assert_one_rank(ranks, world_size, ntxent_loss, naive_ntxent, pairs=24, temperature=0.2, negatives=negatives)


def temperature_gradient(group: dist.ProcessGroup, z_a: Tensor, z_b: Tensor) -> Tensor:
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    log_temperature = torch.tensor(-1.5, dtype=z_a.dtype, requires_grad=True)
    part_a, part_b = z_a.chunk(world_size)[rank], z_b.chunk(world_size)[rank]
    ntxent_loss(part_a, part_b, temperature=log_temperature.exp(), group=group).backward()
    assert log_temperature.grad is not None
    return log_temperature.grad


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_learned_temperature_gets_its_exact_gradient(ranks: Ranks, world_size: int) -> None:
    z_a, z_b = make_views(12, 5)
    log_temperature = torch.tensor(-1.5, dtype=z_a.dtype, requires_grad=True)
    naive_ntxent(z_a, z_b, temperature=log_temperature.exp()).backward()
    gradients = ranks(world_size).run(temperature_gradient, z_a, z_b)
    assert log_temperature.grad is not None
    assert_close(torch.stack(gradients).mean(0), log_temperature.grad, 1e-12, "temperature")


def clustered(pairs: int) -> tuple[Tensor, Tensor]:
    """Ten tight clusters and tighter pairs, as late in training: sums of near-equal terms, positives close to 1."""
    torch.manual_seed(0)
    centres = torch.randn(10, 128)
    images = centres[torch.arange(pairs) % 10] + 0.3 * torch.randn(pairs, 128)
    return images + 0.05 * torch.randn(pairs, 128), images + 0.05 * torch.randn(pairs, 128)


@pytest.mark.parametrize(
    ("temperature", "allowed"), [(0.5, 2e-6), (0.1, 2e-6), (0.05, 2e-6), (0.02, 1e-5), (0.01, 3e-5)]
)
@pytest.mark.parametrize("views", [clustered, lambda pairs: tuple(torch.randn(2, pairs, 128))])
def test_float32_gradients_are_close_to_float64(views: Any, temperature: float, allowed: float) -> None:
    z_a, z_b = views(400)
    results = []
    for dtype in (torch.float32, torch.float64):
        a, b = (z.clone().to(dtype).requires_grad_() for z in (z_a, z_b))
        ntxent_loss(a, b, temperature=temperature).backward()
        assert a.grad is not None
        assert b.grad is not None
        results.append(torch.cat((a.grad, b.grad)).double())
    assert results[0].isfinite().all()
    assert_close(results[0], results[1], allowed, "gradient")


@pytest.mark.parametrize("temperature", [0.01, 0.001])
def test_hopeless_rows_stay_finite(temperature: float) -> None:
    """All negatives opposite, also to the positive; identical rows; a row of zeros."""
    z_a = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    z_b = torch.tensor([[-1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [1.0, 1.0]], requires_grad=True)
    loss = ntxent_loss(z_a, z_b, temperature=temperature)
    loss.backward()
    expected = naive_ntxent(z_a.detach().double(), z_b.detach().double(), temperature=temperature)
    torch.testing.assert_close(loss.detach().double(), expected, rtol=1e-5, atol=1e-6)
    assert z_a.grad is not None
    assert z_a.grad.isfinite().all()


def test_one_pair_has_no_negatives_and_no_loss() -> None:
    assert ntxent_loss(torch.ones(1, 3), torch.ones(1, 3), temperature=0.1).item() == 0.0


def test_autocast_changes_nothing_and_half_precision_inputs_get_half_precision_gradients() -> None:
    z_a, z_b = (z.bfloat16().requires_grad_() for z in make_views(16, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ntxent_loss(z_a, z_b, temperature=0.1)
        loss.backward()
    a, b = (z.detach().float().requires_grad_() for z in (z_a, z_b))
    expected = ntxent_loss(a, b, temperature=0.1)
    expected.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    assert z_a.grad is not None
    assert a.grad is not None
    assert torch.equal(z_a.grad, a.grad.bfloat16())


class LargestTensor(TorchDispatchMode):
    """Remembers the most numbers in any tensor that an operation gives out."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize("loss", [ntxent_loss, ntxent_with_a_shift_per_row])
def test_no_tensor_is_larger_than_a_tile_or_the_rows(loss: Any) -> None:
    z_a, z_b = torch.randn(2, 1000, 16).requires_grad_()
    with mock.patch.object(contrastive_work, "TILE_ROWS_CPU", 64), LargestTensor() as largest:
        loss(z_a, z_b, temperature=0.1).backward()
        loss(z_a, z_b, temperature=0.1, negatives=2).backward()
    assert largest.numel == 2 * 1000 * 16


@pytest.mark.parametrize("negatives", [None, 4, 20])
def test_the_products_of_onednn_are_those_of_torch(negatives: int | None) -> None:
    linear = contrastive_products.onednn_linear()
    assert linear is not None, "this torch has lost the operation: drop the class that uses it"
    x_a, x_b = (x.float() for x in make_views(20, 7))
    options = {"temperature": 0.1, "negatives": negatives}
    with mock.patch.object(backend, "products_of", lambda u: contrastive_products.OneDnnProducts(u, linear)):
        actual = through_layer(lambda a, b: ntxent_loss(a, b, **options), x_a, x_b)
    expected = through_layer(lambda a, b: naive_ntxent(a, b, **options), x_a.double(), x_b.double())
    for name, value in actual.items():
        assert_close(value, expected[name], 5e-6, name)


def test_a_torch_without_the_private_operation_falls_back() -> None:
    contrastive_products.onednn_linear.cache_clear()
    with (
        mock.patch.object(torch.ops.mkldnn, "_linear_pointwise", mock.Mock(side_effect=RuntimeError)),
        mock.patch.object(torch.backends.cpu, "get_cpu_capability", return_value="AVX512"),
    ):
        assert type(contrastive_products.products_of(torch.ones(2, 2))) is contrastive_products.Products
    contrastive_products.onednn_linear.cache_clear()
    with mock.patch.object(torch.backends.cpu, "get_cpu_capability", return_value="AVX512"):
        assert type(contrastive_products.products_of(torch.ones(2, 2))) is contrastive_products.OneDnnProducts
        assert type(contrastive_products.products_of(torch.ones(2, 2).double())) is contrastive_products.Products


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((4, 3), (5, 3)), {"temperature": 0.1}, r"got z_a \(4, 3\) .* and z_b \(5, 3\) .*; expected two"),
        (((4, 3, 1), (4, 3, 1)), {"temperature": 0.1}, r"expected two floating point matrices \(B, D\)"),
        (((4, 3), (4, 3)), {"temperature": 0.0}, "got temperature=0.0; expected a positive number"),
        (((4, 3), (4, 3)), {"temperature": math.nan}, "got temperature=nan"),
        (((4, 3), (4, 3)), {"temperature": 0.1, "negatives": 3}, "negatives=3; expected .* divisor .* 4 pairs"),
        (((4, 3), (4, 3)), {"temperature": 0.1, "negatives": 1}, "negatives=1; expected at least 2"),
    ],
)
def test_what_does_not_fit_is_refused(shapes: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ntxent_loss(torch.ones(shapes[0]), torch.ones(shapes[1]), **options)
