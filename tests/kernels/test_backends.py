"""What a backend is held to: the same functions as the one in use, and whole losses and norms on top of it."""

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pretrain.kernels.backend import ANYWHERE, BACKENDS, NormOperands, backend_of, backends_on
from pretrain.kernels.contrastive_work import divide_work, tile_rows
from pretrain.losses.contrastive import dcl_loss, ntxent_loss
from pretrain.models.sync_batch_norm import convert_sync_batch_norm
from tests.losses.across_ranks import make_views, through_layer
from tests.models.test_sync_batch_norm import plain_net, step
from tests.ranks import Ranks

USERS = ("pretrain.losses.contrastive.backend_of", "pretrain.models.sync_batch_norm.backend_of")


@pytest.fixture
def anywhere() -> Iterator[None]:
    """Everything on the backend that runs on any device."""
    with mock.patch(USERS[0], return_value=ANYWHERE), mock.patch(USERS[1], return_value=ANYWHERE):
        yield


def test_each_device_has_one_backend_and_an_unknown_one_runs_too() -> None:
    assert [backend_of(torch.device(name)).name for name in ("cpu", "cuda", "meta")] == ["cpu", "cuda", "torch"]
    assert [backend.name for backend in backends_on(torch.device("cpu"))] == ["cpu", "torch"]
    assert (tile_rows("cpu"), tile_rows("cuda"), tile_rows("torch")) == (512, 4096, 4096)


@pytest.mark.parametrize("shared_shift", [True, False])
def test_the_contrastive_functions_are_the_same(shared_shift: bool) -> None:
    u_MD = torch.randn(48, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    work = divide_work(1, 3, 8, 12)
    shift: float | Tensor = 0.5 if shared_shift else torch.linspace(0, 1, 48, dtype=torch.float64)
    weight_M = torch.linspace(0.5, 1.5, 48, dtype=torch.float64) if shared_shift else None
    visits = (*work.within, *work.between)
    found = []
    for backend in (BACKENDS["cpu"], ANYWHERE):
        gradient = backend.negative_gradient(u_MD, work.within, work.others, (16, 32), shift, weight_M)
        found.append((backend.negative_maxima(u_MD, visits), backend.negative_sums(u_MD, visits, shift), gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 6, 7)], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_the_passes_of_batch_norm_are_the_same(dtype: torch.dtype, shape: tuple[int, ...], affine: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    dy, x = torch.randn(2, *shape, generator=generator, dtype=torch.float64).to(dtype)
    if x.dim() == 4:
        dy, x = (t.contiguous(memory_format=torch.channels_last) for t in (dy, x))
    statistics = torch.float64 if dtype == torch.float64 else torch.float32
    weight_C = torch.linspace(0.5, 1.5, 3, dtype=statistics) if affine else None
    found = []
    for backend in (BACKENDS["cpu"], ANYWHERE):
        mean_C, var_C = backend.moments(x)
        operands = NormOperands(dy, x, weight_C, mean_C, (var_C + 1e-5).rsqrt())
        sums_2C = torch.stack(backend.gradient_sums(operands))
        y = backend.normalise(x, mean_C, operands.invstd_C, weight_C, weight_C)
        dx = backend.gradient_of_input(operands, sums_2C, torch.tensor([x.numel() // 3], dtype=statistics))
        assert mean_C.dtype == var_C.dtype == sums_2C.dtype == statistics
        assert y.dtype == dx.dtype == dtype
        assert y.stride() == dx.stride() == x.stride()
        found.append((mean_C, var_C, sums_2C, y, dx))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("loss", [ntxent_loss, dcl_loss])
@pytest.mark.parametrize("negatives", [None, 4])
def test_a_loss_is_the_same_on_both(loss: object, negatives: int | None) -> None:
    def value(z_a: Tensor, z_b: Tensor) -> Tensor:
        return loss(z_a, z_b, temperature=0.1, negatives=negatives)  # type: ignore[operator,no-any-return]

    x_a, x_b = make_views(12, 7)
    expected = through_layer(value, x_a, x_b)
    with mock.patch(USERS[0], return_value=ANYWHERE):
        found = through_layer(value, x_a, x_b)
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, rtol=1e-11, atol=1e-13)


def norm_on_rank(group: dist.ProcessGroup, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    with mock.patch(USERS[1], return_value=ANYWHERE):
        net = convert_sync_batch_norm(plain_net(channels_last=True), group)
        part = x.chunk(size)[rank].clone(memory_format=torch.channels_last)
        return step(net, part, dy.chunk(size)[rank])


def test_ranks_are_one_rank_on_any_device(ranks: Ranks) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=generator) + torch.arange(6).view(-1, 1, 1, 1)
    dy = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    expected, found = step(plain_net(), x.clone(), dy), ranks(2).run(norm_on_rank, x, dy)
    for name, value in expected.items():
        parts = [result[name] for result in found]
        actual = torch.cat(parts) if name in ("y", "dx") else sum(parts) if name.startswith("grad") else parts[0]
        torch.testing.assert_close(actual, value, rtol=1e-10, atol=1e-10, msg=name)


def test_the_output_may_be_changed_in_place(anywhere: None) -> None:
    x = torch.randn(8, 4, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    with mock.patch.object(ANYWHERE, "plain_is_precise", return_value=False):
        torch.relu_(convert_sync_batch_norm(nn.BatchNorm2d(4))(x)).sum().backward()
    assert x.grad is not None
