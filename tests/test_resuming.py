"""Which runs a directory's next start may go on with."""

from pathlib import Path

import pytest

from pretrain.__main__ import prepare
from pretrain.config import PretrainConfig
from pretrain.errors import ConfigError
from pretrain.plan import TrainPlan, make_plan
from pretrain.rundir import RunDirectory


def plan_on(config: PretrainConfig, ranks: int) -> TrainPlan:
    return make_plan(config, images=5000, world_size=ranks)


def test_other_ranks_go_on_where_they_share_batch_norm(tmp_path: Path) -> None:
    config, directory = PretrainConfig(), RunDirectory(tmp_path)
    prepare(directory, config, plan_on(config, 4))
    prepare(directory, config, plan_on(config, 2))


def test_other_ranks_are_refused_where_batch_norm_would_see_another_batch(tmp_path: Path) -> None:
    config, directory = PretrainConfig(sync_batch_norm="off"), RunDirectory(tmp_path)
    prepare(directory, config, plan_on(config, 4))
    prepare(directory, config, plan_on(config, 4))
    with pytest.raises(ConfigError, match=r"saw 64 images at a time so far, and would see 128 .* start on 4 ranks"):
        prepare(directory, config, plan_on(config, 2))


def test_another_run_is_refused(tmp_path: Path) -> None:
    config, directory = PretrainConfig(), RunDirectory(tmp_path)
    prepare(directory, config, plan_on(config, 1))
    other = PretrainConfig(seed=1)
    with pytest.raises(ConfigError, match="holds another run"):
        prepare(directory, other, plan_on(other, 1))
