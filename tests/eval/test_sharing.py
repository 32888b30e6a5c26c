"""Features by several ranks are the features by one, in the same order, in the same place."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from eval.config import FeatureConfig, evaluation_config
from eval.encoder import load_encoder
from eval.errors import EvaluationError
from eval.features import cached_features, extract_features, feature_source
from eval.result import open_evaluation
from eval.sharing import share_features
from pretrain.dist import World
from tests.eval.runs import write_run
from tests.ranks import Ranks


def share(group: dist.ProcessGroup, run: Path, task: str, overrides: list[str]) -> str | None:
    """On each rank; returns what it was refused with."""
    config = evaluation_config(task, overrides)
    assert isinstance(config, FeatureConfig)
    world = World(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), group)
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
    refused = ranks(2).run(share, run.path, "finetune", [])
    assert all("runs in one process; got 2 ranks" in text for text in refused)
    refused = ranks(2).run(share, run.path, "knn", ["cache=false"])
    assert all("cache=false" in text for text in refused)
