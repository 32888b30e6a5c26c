"""Peak learning rates by the global batch, warm-up and cosine by the step."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from pretrain.config import PretrainConfig, result_settings
from pretrain.configio import validate
from pretrain.errors import ConfigError
from pretrain.optim.config import learning_rate, lr_at
from pretrain.plan import make_plan


def test_linear_and_square_root_meet_at_4096() -> None:
    assert learning_rate("linear", 0.3, 256) == 0.3
    assert learning_rate("linear", 0.3, 4096) == pytest.approx(4.8)
    assert learning_rate("sqrt", 0.075, 4096) == pytest.approx(4.8)
    assert learning_rate("sqrt", 0.075, 1024) == pytest.approx(2.4)
    assert learning_rate("none", 0.3, 4096) == 0.3


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


def test_other_decays() -> None:
    def rates(decay: Any, steps: Sequence[int], **options: Any) -> list[float]:
        return [lr_at(s, peak=2.0, warmup_steps=2, total_steps=12, decay=decay, **options) for s in steps]

    assert rates("none", [0, 1, 2, 7, 11]) == [0.0, 1.0, 2.0, 2.0, 2.0]
    assert rates("linear", [2, 7, 12]) == [2.0, 1.0, 0.0]
    assert rates("steps", [2, 5, 6, 9], steps_at=(0.5, 0.75)) == pytest.approx([2.0, 2.0, 0.2, 0.02])


@pytest.mark.parametrize(("earlier", "now"), [("linear", "linear"), ("sqrt", "sqrt"), ("constant", "none")])
def test_the_earlier_name_is_understood_and_fingerprints_stay(earlier: str, now: str) -> None:
    old = validate(PretrainConfig, {"schedule": {"rule": earlier}}, "old.yaml")
    assert old.schedule.scaling == now
    assert result_settings(old)["schedule"] == {"rule": earlier, "base_learning_rate": 0.3, "warmup_epochs": 10.0}
    with pytest.raises(ConfigError, match="got both scaling and rule, its earlier name"):
        validate(PretrainConfig, {"schedule": {"rule": earlier, "scaling": now}}, "both.yaml")


def test_the_plan_tells_the_decay_and_the_targets_momentum() -> None:
    def plan(**settings: Any) -> str:
        return make_plan(validate(PretrainConfig, settings, "x"), images=5000, world_size=1).describe()

    assert "0.3, cosine to 0" in plan()
    assert "0.3, constant after the warm-up" in plan(schedule={"decay": "none"})
    assert "0.3, a tenth from 60%, 80% of the steps on, each" in plan(schedule={"decay": "steps"})
    byol = {"name": "byol", "momentum": 0.996}
    assert "momentum of the target rises from 0.996 to 1 by a cosine" in plan(objective=byol)
