"""Peak learning rates by the global batch, warm-up and cosine by the step."""

import math

import pytest

from pretrain.optim.config import learning_rate, lr_at


def test_linear_and_square_root_meet_at_4096() -> None:
    assert learning_rate("linear", 0.3, 256) == 0.3
    assert learning_rate("linear", 0.3, 4096) == pytest.approx(4.8)
    assert learning_rate("sqrt", 0.075, 4096) == pytest.approx(4.8)
    assert learning_rate("sqrt", 0.075, 1024) == pytest.approx(2.4)
    assert learning_rate("constant", 0.3, 4096) == 0.3


def test_warm_up_from_zero_then_cosine_to_zero() -> None:
    rates = [lr_at(step, peak=2.0, warmup_steps=4, total_steps=12) for step in range(13)]
    assert rates[:5] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert rates[8] == pytest.approx(1.0)
    assert rates[12] == pytest.approx(0.0, abs=1e-15)
    assert rates[6] == pytest.approx(1 + math.cos(math.pi / 4))
    assert lr_at(20, peak=2.0, warmup_steps=4, total_steps=12) == pytest.approx(0.0, abs=1e-15)


def test_no_warm_up_and_only_warm_up() -> None:
    assert lr_at(0, peak=2.0, warmup_steps=0, total_steps=10) == 2.0
    assert lr_at(9, peak=2.0, warmup_steps=10, total_steps=10) == 1.8
