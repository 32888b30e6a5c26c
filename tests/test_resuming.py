"""Which runs a directory's next start may go on with."""

from pathlib import Path

import numpy as np
import pytest

from pretrain.__main__ import main, plan_of, prepare
from pretrain.config import PretrainConfig
from pretrain.data.sources.images import Images
from pretrain.data.write_beton import Storage, write_split
from pretrain.errors import ConfigError
from pretrain.plan import TrainPlan, make_plan
from pretrain.rundir import RunDirectory, read_json, write_json

SMALL = {"global_batch_size": 8, "augmentation": {"crop_size_px": 8}}


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


def test_other_images_are_refused_and_the_same_elsewhere_are_not(tmp_path: Path) -> None:
    """Every folder of images is called imagefolder: what tells them apart is what they hold."""

    def prepared_on(folder: str, colour: int) -> None:
        config = PretrainConfig.model_validate({**SMALL, "data": {"directory": str(tmp_path / folder)}})
        images = Images(np.arange(32) % 2, ("a", "b"), lambda index: np.full((8, 8, 3), colour, np.uint8))
        write_split(images, tmp_path / folder, dataset="fashion_mnist", split="train", storage=Storage("raw"))
        prepare(RunDirectory(tmp_path / "run"), config, plan_of(config, 1, "test"))

    prepared_on("one", 1)
    prepared_on("moved", 1)
    with pytest.raises(ConfigError, match=r"data\.directory: holds other images or labels"):
        prepared_on("two", 2)
    plan = read_json(tmp_path / "run" / "plan.json")
    del plan["data"]  # as older runs have it
    write_json(tmp_path / "run" / "plan.json", plan)
    prepared_on("two", 2)


def test_another_run_is_refused(tmp_path: Path) -> None:
    config, directory = PretrainConfig(), RunDirectory(tmp_path)
    prepare(directory, config, plan_on(config, 1))
    other = PretrainConfig(seed=1)
    with pytest.raises(ConfigError, match="holds another run"):
        prepare(directory, other, plan_on(other, 1))


def test_a_finished_directory_does_not_pass_as_another_configurations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain.__main__.image_count", lambda *_: 5000)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    config, directory = PretrainConfig(), RunDirectory(tmp_path / "run")
    prepare(directory, config, plan_on(config, 1))
    write_json(directory.result, {"fingerprint": plan_on(config, 1).fingerprint, "total_steps": 1900})
    (tmp_path / "base.yaml").write_text("objective: {name: simclr}")
    command = [str(tmp_path / "base.yaml"), f"run.directory={directory.path}"]
    assert main(command) == 0
    assert "is finished" in capsys.readouterr().out
    assert main([*command, "seed=7", "objective.temperature=1.0"]) == 2
    said = capsys.readouterr()
    assert "is finished" not in said.out
    assert "objective.temperature: 0.1 there, 1.0 here" in said.err
    assert "seed: 0 there, 7 here" in said.err
