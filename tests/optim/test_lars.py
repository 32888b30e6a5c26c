"""LARS: against ten lines of NumPy over a changing learning rate; groups, zero norms, state, refusals."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain.optim import lars as module
from pretrain.optim.lars import LARS

SHAPES = [(5, 3), (4, 2, 3, 3), (7,), (1, 1)]
RATES = [0.0, 0.1, 0.3, 0.25, 0.02]


def numpy_lars(w: Any, gradients: list[Any], *, momentum: float, wd: float, trust: float, adapt: bool) -> Any:
    v = np.zeros_like(w)
    for lr, g in zip(RATES, gradients, strict=True):
        u = g + wd * w
        norm_w, norm_u = np.sqrt((w * w).sum()), np.sqrt((u * u).sum())
        q = trust * norm_w / norm_u if adapt and norm_w > 0 and norm_u > 0 else 1.0
        v = momentum * v + lr * q * u
        w = w - v
    return w


def run(
    optimizer: torch.optim.Optimizer, weights: list[Tensor], gradients: list[list[Tensor]], steps: range = range(5)
) -> None:
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = RATES[step]
        for weight, gradient in zip(weights, gradients[step], strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
        assert all(torch.equal(w.grad, g) for w, g in zip(weights, gradients[step], strict=True) if w.grad is not None)


def make() -> tuple[list[Tensor], list[list[Tensor]]]:
    torch.manual_seed(0)
    weights = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in SHAPES]
    return weights, [[torch.randn_like(w) for w in weights] for _ in RATES]


@pytest.mark.parametrize("at_once", [1, 2**18])
@pytest.mark.parametrize("wd", [0.0, 0.05])
def test_it_is_the_recurrence_of_the_paper_s_code(monkeypatch: pytest.MonkeyPatch, at_once: int, wd: float) -> None:
    monkeypatch.setattr(module, "CPU_NUMBERS_AT_ONCE", at_once)
    weights, gradients = make()
    with torch.no_grad():
        weights[1].zero_()  # |w| = 0 at the first step
    gradients[1][0].zero_()  # |u| = 0 at one step, without decay
    start = [w.detach().numpy().copy() for w in weights]
    groups = [{"params": weights[:2]}, {"params": weights[2:], "weight_decay": 0.0, "adapt": False}]
    run(LARS(groups, lr=0.1, momentum=0.8, weight_decay=wd, trust_coefficient=0.02), weights, gradients)
    for index, weight in enumerate(weights):
        adapted = index < 2
        expected = numpy_lars(
            start[index],
            [step[index].numpy() for step in gradients],
            momentum=0.8,
            wd=wd if adapted else 0.0,
            trust=0.02,
            adapt=adapted,
        )
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-13, atol=1e-15)


def test_defaults_are_momentum_point_nine_trust_a_thousandth_and_no_decay() -> None:
    weights, gradients = make()
    start = weights[0].detach().numpy().copy()
    run(LARS(weights, 0.1), weights, gradients)
    first = [step[0].numpy() for step in gradients]
    expected = numpy_lars(start, first, momentum=0.9, wd=0.0, trust=1e-3, adapt=True)
    np.testing.assert_allclose(weights[0].detach().numpy(), expected, rtol=1e-13)


def test_state_goes_on_where_it_was_saved() -> None:
    weights, gradients = make()
    run(LARS(weights, 0.1, weight_decay=0.01), weights, gradients)
    expected = [w.detach() for w in weights]
    weights, gradients = make()
    interrupted = LARS(weights, 0.1, weight_decay=0.01)
    run(interrupted, weights, gradients, steps=range(3))
    resumed = LARS(weights, 0.7)
    resumed.load_state_dict(copy.deepcopy(interrupted.state_dict()))
    run(resumed, weights, gradients, steps=range(3, 5))
    torch.testing.assert_close([w.detach() for w in weights], expected, rtol=0, atol=0)


def test_parameters_without_gradient_stay() -> None:
    weights, _ = make()
    weights[0].grad = torch.ones_like(weights[0])
    before = copy.deepcopy(weights)
    optimizer = LARS(weights, 0.1, weight_decay=0.1)
    optimizer.step()
    assert not torch.equal(weights[0], before[0])
    assert all(torch.equal(a, b) for a, b in zip(weights[1:], before[1:], strict=True))
    assert list(optimizer.state) == weights[:1]


def test_all_values_out_of_range_are_named_at_once() -> None:
    weight = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=r"momentum=1\.0; expected at least 0 and less than 1; .* weight_decay=-1"):
        LARS([weight], 0.1, momentum=1.0, weight_decay=-1)
