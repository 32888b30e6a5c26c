"""Decay and adaptation by the type of the owning module, and the optimizers built on it."""

from typing import Any

import pytest
import torch
from torch import nn

from pretrain.config import PretrainConfig
from pretrain.configio import validate
from pretrain.models.sync_batch_norm import convert_sync_batch_norm
from pretrain.optim.build import build_optimizer, parameter_groups
from pretrain.optim.lars import LARS

NUMBERS: dict[str, Any] = {
    "momentum": 0.8,
    "weight_decay": 0.01,
    "trust_coefficient": 0.002,
    "betas": (0.8, 0.9),
}


class Net(nn.Module):
    """Misleading names: a norm called conv, a convolution called bn, a shared weight, a frozen one, a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.Conv2d(3, 4, 3)
        self.conv = nn.BatchNorm2d(4)
        self.layer = nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(0.1))
        convert_sync_batch_norm(self)


def names(net: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    by_id = {id(parameter): name for name, parameter in net.named_parameters()}
    assert len({id(p) for p in parameters}) == len(parameters)
    return {by_id[id(parameter)] for parameter in parameters}


def test_biases_norms_and_scalars_are_left_alone() -> None:
    net = Net()
    decayed, plain = parameter_groups(net, 0.01)
    assert (decayed["weight_decay"], decayed["adapt"]) == (0.01, True)
    assert (plain["weight_decay"], plain["adapt"]) == (0.0, False)
    assert names(net, decayed["params"]) == {
        "bn.weight", "first.weight", "attention.in_proj_weight", "attention.out_proj.weight"
    }  # fmt: skip
    assert names(net, plain["params"]) == {
        "bn.bias", "conv.weight", "conv.bias", "layer.weight", "layer.bias", "attention.in_proj_bias",
        "attention.out_proj.bias", "second.bias", "temperature",
    }  # fmt: skip


def test_a_module_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no parameters that need a gradient"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1)
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("lars", LARS, {"lr": 0.3, "momentum": 0.8, "trust_coefficient": 0.002}),
        ("sgd", torch.optim.SGD, {"lr": 0.3, "momentum": 0.8, "nesterov": False}),
        ("adamw", torch.optim.AdamW, {"lr": 0.3, "betas": (0.8, 0.9)}),
    ],
)
def test_each_optimizer_gets_its_numbers_and_takes_a_step(name: Any, kind: type, expected: dict[str, Any]) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    settings = validate(PretrainConfig, {"optimizer": {"name": name, **NUMBERS}}, "").optimizer
    optimizer = build_optimizer(net, settings, lr=0.3)
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    for group in optimizer.param_groups:
        assert expected.items() <= group.items()
    before = net[0].weight.detach().clone()
    net(torch.randn(5, 3)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(before, net[0].weight)
