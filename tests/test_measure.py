"""What the loss costs is measured beside the run: nothing that the run depends on moves."""

from typing import Any

import pytest
import torch

from pretrain.measure import measure_loss_seconds
from pretrain.models.sync_batch_norm import convert_sync_batch_norm
from pretrain.objectives.base import build_objective
from pretrain.objectives.config import ObjectiveConfig
from tests.ranks import Ranks
from tests.test_forward_backward import ENCODER, OBJECTIVES, name


def measured(group: Any, config: ObjectiveConfig) -> tuple[float, list[str]]:
    """Seconds, and what the measurement changed."""
    objective = build_objective(config, ENCODER, classes=4, seed=3)
    convert_sync_batch_norm(objective, group)
    objective.group = group
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    random_state = torch.get_rng_state()
    seconds = measure_loss_seconds(objective, images=24 // group.size(), views=2, size_px=16, classes=4)
    changed = [key for key, value in objective.state_dict().items() if not torch.equal(value, before[key])]
    changed += ["random state"] if not torch.equal(torch.get_rng_state(), random_state) else []
    changed += [key for key, parameter in objective.named_parameters() if parameter.grad is not None]
    changed += [key for key, module in objective.named_modules() if not module.training]
    return seconds, changed


@pytest.mark.parametrize("config", OBJECTIVES, ids=name)
@pytest.mark.parametrize("size", [1, 2])
def test_measuring_the_loss_changes_nothing(ranks: Ranks, config: Any, size: int) -> None:
    for seconds, changed in ranks(size).run(measured, config):
        assert 0 < seconds < 10
        assert changed == []
