"""Batch norm on a CPU, in float32, is as precise in channels_last as in the contiguous format."""

import pytest
import torch
from torch import Tensor, nn

from pretrain.models.sync_batch_norm import convert_sync_batch_norm

SHAPES = [(512, 8, 14, 14), (64, 64, 28, 28), (7, 3, 5, 11), (512, 64, 2, 2), (2, 5, 1, 3)]


def step(norm: nn.Module, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    y.backward(dy)
    assert x.grad is not None
    found = {"y": y.detach(), "dx": x.grad, **dict(norm.named_buffers())}
    return {**found, **{f"d{name}": p.grad for name, p in norm.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("beta", [True, False])
def test_float32_is_precise_in_channels_last(shape: tuple[int, ...], beta: bool) -> None:
    torch.manual_seed(0)
    x, dy = torch.randn(shape).relu() + 0.3, torch.randn(shape)
    plain = nn.BatchNorm2d(shape[1])
    nn.init.uniform_(plain.weight, 0.5, 1.5)
    if not beta:
        plain.register_parameter("bias", None)
    exact = nn.BatchNorm2d(shape[1]).double()
    exact.weight.data.copy_(plain.weight.double())
    if not beta:
        exact.register_parameter("bias", None)
    expected = step(exact, x.double(), dy.double())
    norm = convert_sync_batch_norm(plain)
    channels_last = torch.channels_last
    found = step(norm, x.contiguous(memory_format=channels_last), dy.contiguous(memory_format=channels_last))
    assert found["y"].is_contiguous(memory_format=channels_last)
    assert found["dx"].is_contiguous(memory_format=channels_last)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = (found[name].double() - value.double()).norm() / value.double().norm()
        assert error < 3e-6, f"{name}: {error:.1e}"


def test_the_output_may_be_changed_in_place_as_the_encoder_does() -> None:
    x = torch.randn(8, 4, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.relu_(convert_sync_batch_norm(nn.BatchNorm2d(4))(x)).sum().backward()
    assert x.grad is not None
