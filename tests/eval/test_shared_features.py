"""Several ranks are one rank: the same features in the same place, the same trained networks, the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from eval.classifier import read_network
from eval.config import FeatureConfig, evaluation_config
from eval.encoder import load_encoder
from eval.evaluate import share_features
from eval.features import cached_features, extract_features, feature_source
from eval.images import ImageSet, crop_and_flip
from eval.result import EvaluationError, Stopwatch, open_evaluation
from eval.subject import open_subject
from pretrain.config import AugmentationConfig
from pretrain.dist import Groups, World
from tests.eval.runs import SIDE, result_of, write_run
from tests.ranks import Ranks


def share(group: dist.ProcessGroup, run: Path, task: str, overrides: list[str]) -> str | None:
    """On each rank; returns what it was refused with."""
    config = evaluation_config(task, overrides)
    assert isinstance(config, FeatureConfig)
    world = World(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), Groups(control=group))
    try:
        share_features(open_evaluation(task, run, config), world)
    except EvaluationError as error:
        return str(error)
    return None


def test_unequal_parts_of_three_ranks_give_the_features_of_one(small_data: Path, tmp_path: Path, ranks: Ranks) -> None:
    run = write_run(tmp_path / "run", small_data)
    assert ranks(3).run(share, run.path, "linear", ["train_images=100"]) == [None] * 3
    config = evaluation_config("linear", ["train_images=100"])
    assert isinstance(config, FeatureConfig)
    evaluation = open_evaluation("linear", run.path, config)
    encoder = load_encoder(run, evaluation.run_config, device=torch.device("cpu"))
    source = feature_source(encoder, config)
    for split, images in (("train", 100), ("test", 60)):
        shared = cached_features(run, source, split)
        assert shared is not None, f"{split} is where one rank looks for it"
        alone = extract_features(source, split, device=torch.device("cpu"))
        assert len(shared.x_ND) == images
        assert torch.equal(shared.indices_N, alone.indices_N)
        assert torch.equal(shared.labels_N, alone.labels_N)
        torch.testing.assert_close(shared.x_ND, alone.x_ND, atol=1e-5, rtol=1e-5)


def test_what_is_cached_is_not_computed_again_and_what_cannot_be_shared_is_refused(
    small_data: Path, tmp_path: Path, ranks: Ranks
) -> None:
    run = write_run(tmp_path / "run", small_data)
    directories = [f"directories=[{small_data}]"]
    assert ranks(2).run(share, run.path, "transfer", directories) == [None, None]
    written = {path: path.stat().st_mtime_ns for path in run.path.glob("eval/features-*/*")}
    assert len(written) == 6
    assert ranks(2).run(share, run.path, "transfer", directories) == [None, None]
    assert {path: path.stat().st_mtime_ns for path in run.path.glob("eval/features-*/*")} == written
    refused = ranks(2).run(share, run.path, "tsne", [])
    assert all("runs in one process; got 2 ranks" in text for text in refused)
    refused = ranks(2).run(share, run.path, "knn", ["cache=false"])
    assert all("cache=false" in text for text in refused)


# Rates at which rounding stays rounding: flat images leave batch norm little variance to divide by.
TRAINED = {
    "finetune": [
        "train_images=120",
        "label_fractions=[0.5]",
        "epochs=1",
        "encoder_learning_rates=[0.02]",
        "training={batch_size: 24}",
    ],
    "distill": [
        "train_images=120",
        "label_fraction=0.5",
        "epochs=1",
        "learning_rate=0.05",
        "training={batch_size: 24}",
    ],
    "linear": ["protocol=sgd", "sgd.epochs=1", "sgd.batch_size=24", "sgd.learning_rates=[0.5, 2.0]"],
}
TRAINED["finetune"] += ["head_learning_rates=[0.01, 0.02]", "l2=[1.0e-2]", "initialisations=[pretrained]"]


def train_together(group: dist.ProcessGroup | None, run: Path, task: str) -> dict[str, Any]:
    """The result, on each rank of all four, or on the only one."""
    config = evaluation_config(task, TRAINED[task])
    assert isinstance(config, FeatureConfig)
    assert config.trains_on_images
    evaluation = open_evaluation(task, run, config)
    if group is None:
        return config.evaluate(open_subject(evaluation, Stopwatch()))
    world = World(dist.get_rank(), dist.get_world_size(), torch.device("cpu"), Groups(control=group))
    share_features(evaluation, world)
    return config.evaluate(open_subject(evaluation, Stopwatch(), world))


def test_what_four_ranks_train_is_what_one_trains(small_data: Path, tmp_path: Path, ranks: Ranks) -> None:
    one, four = (write_run(tmp_path / name, small_data) for name in ("one", "four"))
    for task in TRAINED:
        expected = train_together(None, one.path, task)
        for found in ranks(4).run(train_together, four.path, task):
            assert_close(found, expected)
        assert_close(result_of(four, task), expected)
    for name in ("pretrained-0.5.pt", "student.pt"):
        networks = [read_network(next(run.path.glob(f"eval/*/networks/{name}"))) for run in (one, four)]
        for key, value in networks[0].module.state_dict().items():
            torch.testing.assert_close(networks[1].module.state_dict()[key], value, atol=1e-3, rtol=1e-3, msg=key)


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same chosen settings and, up to rounding, the same losses and accuracies."""
    for part, wanted in zip(parts_of(found), parts_of(expected), strict=True):
        assert part.get("hyperparameters") == wanted.get("hyperparameters")
        assert part["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-3)
        assert part["test_loss"] == pytest.approx(wanted["test_loss"], rel=1e-3)
        assert part["top1"] == pytest.approx(wanted["top1"], abs=2.0), "one image of 60 may change sides"


def parts_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    if "rows" in result:
        return list(result["rows"])
    return [result["student"], result["labels_only"]] if "student" in result else [result]


def test_ranks_that_cannot_share_a_batch_are_told_so(small_data: Path, tmp_path: Path) -> None:
    images = ImageSet(small_data, "train", images=100)
    try:
        views = crop_and_flip(AugmentationConfig(), size_px=SIDE)
        with pytest.raises(EvaluationError, match="3 ranks cannot share a batch of 32 images evenly"):
            images.augmented(images.index_N, views, batch_size=32, seed=0, rank=0, world_size=3)
    finally:
        images.close()
