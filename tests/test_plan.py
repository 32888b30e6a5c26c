from typing import Any

import pytest

from pretrain.config import BatchConfig, PretrainConfig, ScheduleConfig
from pretrain.errors import ConfigError
from pretrain.objectives.config import SimCLRConfig, SupervisedConfig
from pretrain.plan import make_plan


def test_derived_numbers_of_simclr_on_imagenet() -> None:
    config = PretrainConfig(global_batch_size=4096, epochs=100, schedule=ScheduleConfig(rule="linear"))
    plan = make_plan(config, images=1_281_167, world_size=32)
    assert plan.batch_size_per_rank == 128
    assert plan.steps_per_epoch == 312
    assert plan.total_steps == 31_200
    assert plan.warmup_steps == 3_120
    assert plan.peak_learning_rate == pytest.approx(4.8)
    assert plan.negatives_per_anchor == 8190
    sqrt = config.model_copy(update={"schedule": ScheduleConfig(rule="sqrt", base_learning_rate=0.075)})
    assert make_plan(sqrt, images=1_281_167, world_size=32).peak_learning_rate == pytest.approx(4.8), "the rules meet"


def test_only_the_share_of_a_rank_depends_on_the_ranks() -> None:
    config = PretrainConfig(global_batch_size=512)
    one, four = (make_plan(config, images=5000, world_size=w).to_json() for w in (1, 4))
    assert {k for k in one if one[k] != four[k]} == {
        "world_size",
        "batch_size_per_rank",
        "batch_norm_ranks",
        "loss_bytes_per_rank",
    }


def test_batch_norm_may_be_shared_by_some_ranks() -> None:
    def images_of(setting: Any, ranks: int = 16, **batch: Any) -> tuple[int, int]:
        config = PretrainConfig(global_batch_size=512, sync_batch_norm=setting, batch=BatchConfig(**batch))
        plan = make_plan(config, images=5000, world_size=ranks, ranks_per_node=8)
        return plan.batch_norm_ranks, plan.batch_norm_images

    assert images_of("global") == (16, 512)
    assert images_of("node") == (8, 256)
    assert images_of("node", ranks=4) == (4, 512)
    assert images_of(4) == (4, 128)
    assert images_of("off") == (1, 32)
    assert images_of(4, micro_batch_size=256) == (4, 64)
    with pytest.raises(ConfigError, match=r"sync_batch_norm: got 3 ranks .* valid: 1, 2, 4, 8, 16"):
        images_of(3)


def test_a_statistic_of_few_images_is_warned_of() -> None:
    def plan(setting: Any) -> str:
        config = PretrainConfig(global_batch_size=256, sync_batch_norm=setting)
        return make_plan(config, images=5000, world_size=16).describe()

    assert "warning: batch norm's statistics rest on 16 images, fewer than 32" in plan("off")
    assert "16 images at a time (each rank's own: the result depends on the number of ranks)" in plan("off")
    assert "warning" not in plan(2)
    assert "warning" not in plan("global")


def test_everything_that_cannot_run_is_named_with_the_nearest_valid_values() -> None:
    config = PretrainConfig(
        global_batch_size=255, epochs=3, schedule=ScheduleConfig(warmup_epochs=4.0), objective=SimCLRConfig(negatives=7)
    )
    with pytest.raises(ConfigError) as caught:
        make_plan(config, images=100, world_size=2, source="x.yaml")
    text = str(caught.value)
    assert "not a multiple of 2 ranks; nearest: 254 or 256" in text
    assert "more than the 100 images" in text
    assert "longer than the 3 epochs" in text
    assert "nearest: 3 or 5" in text
    assert len(caught.value.problems) == 4


def test_negatives_of_a_group_and_of_none() -> None:
    grouped = PretrainConfig(global_batch_size=256, objective=SimCLRConfig(negatives=8))
    assert make_plan(grouped, images=1000, world_size=1).negatives_per_anchor == 14
    supervised = PretrainConfig(global_batch_size=256, objective=SupervisedConfig())
    assert make_plan(supervised, images=1000, world_size=1).negatives_per_anchor == 0


def test_no_epochs_is_the_random_encoder() -> None:
    plan = make_plan(PretrainConfig(epochs=0), images=1000, world_size=1)
    assert plan.total_steps == plan.warmup_steps == 0


def test_position_in_epochs() -> None:
    plan = make_plan(PretrainConfig(global_batch_size=10, epochs=20), images=35, world_size=1)
    assert plan.images_dropped_per_epoch == 5
    assert [plan.position(step) for step in (0, 2, 3, 7)] == [(0, 0), (0, 2), (1, 0), (2, 1)]
