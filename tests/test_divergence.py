"""Numbers that are not finite: never saved, told in one line, found again by replay, left out where that is allowed."""

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor

from pretrain import replay
from pretrain.batch import StepContext
from pretrain.checkpoint import checkpoints, read_checkpoint
from pretrain.config import PretrainConfig
from pretrain.data.loader import build_loader
from pretrain.dist import Groups, World
from pretrain.errors import TrainingDiverged
from pretrain.objectives.base import ObjectiveOutput, ProjectedObjective
from pretrain.rundir import read_json, read_json_lines
from tests.objectives.own_code import Sharp, SharpSettings
from tests.ranks import Ranks
from tests.training import final_weights, tiny, train_here, written

POISONED = "tests.test_divergence:Poisoned"


class Poisoned(Sharp):
    """Its loss, or its gradient alone, is not a number in these steps (from 1), on the last rank."""

    class Config(SharpSettings):
        steps: Annotated[tuple[int, ...], Field(strict=False)] = ()
        gradient_alone: bool = False

    def __init__(self, config: Config, encoder: Any) -> None:
        ProjectedObjective.__init__(self, config.projector, encoder)
        self.sharpness, self.config = config.sharpness, config

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        output = super().loss(embeddings, labels, context)
        last = not dist.is_initialized() or dist.get_rank(self.group) == dist.get_world_size(self.group) - 1
        if context.step + 1 not in self.config.steps or not last:
            return output
        if self.config.gradient_alone:  # the derivative of the root at 0, times 0
            return ObjectiveOutput(output.loss + (0 * embeddings).square().sum().sqrt(), output.metrics)
        return ObjectiveOutput(output.loss * torch.nan, {"loss": output.loss.detach() * torch.nan})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("synthetic", tmp_path_factory.mktemp("data"))


def poisoned(data: Path, steps: list[int], **changes: Any) -> PretrainConfig:
    own = {"name": POISONED, "steps": steps, "projector": {"hidden_width": 32, "output_width": 16}}
    options = {"log__every_steps": 50, "checkpoint__every_steps": 5, "checkpoint__keep": 2, **changes}
    return tiny(data, objective=own, **options)


def saved_steps(run: Path) -> list[int]:
    found = checkpoints(run / "checkpoints")
    for path in found:
        assert all(value.isfinite().all() for value in read_checkpoint(path)["model"].values()), path
    return [read_checkpoint(path)["step"] for path in found]


@pytest.mark.parametrize("gradient_alone", [False, True])
def test_a_diverged_run_keeps_its_good_checkpoints_and_says_where(
    data: Path, tmp_path: Path, gradient_alone: bool
) -> None:
    config = poisoned(data, [7], objective__gradient_alone=gradient_alone)
    with pytest.raises(TrainingDiverged) as caught:
        train_here(tmp_path, config)
    assert saved_steps(tmp_path) == [5]
    told = read_json(tmp_path / "divergence.json")
    loader = build_loader(config.data, config.augmentation, seed=0, global_batch_size=16)
    batch = list(loader.epoch(0))[6]
    assert told["samples"] == batch.indices.tolist()
    assert (told["step"], told["epoch"], told["batch"]) == (7, 0, 6)
    assert told["last_good_checkpoint"] == "checkpoints/step_00000005.pt"
    said = str(caught.value)
    for part in ("step 7 of 10", "step_00000005.pt", str(batch.indices[0].item()), f"pretrain.replay {tmp_path}"):
        assert part in said
    assert "\n" not in said
    assert read_json(tmp_path / "progress.json")["state"] == "diverged"


def test_weights_that_overflow_in_the_last_step_are_not_saved(data: Path, tmp_path: Path) -> None:
    huge = {"schedule__base_learning_rate": 4.8e39, "optimizer__trust_coefficient": 100.0}
    with pytest.raises(TrainingDiverged, match="step 1 of 1: the weights are not finite"):
        train_here(tmp_path, poisoned(data, [], data__images=16, schedule__warmup_epochs=0.0, **huge))
    assert saved_steps(tmp_path) == []


def test_replay_finds_the_step_the_layer_and_the_samples(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(TrainingDiverged):
        train_here(tmp_path, poisoned(data, [7]))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    capsys.readouterr()
    assert replay.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "from step 5 " in said
    assert "step 6  loss" in said
    assert "step 7  loss nan" in said
    assert "the gradient of" in said
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_replay_names_the_layer_and_the_samples_of_an_activation() -> None:
    watch = replay.Watch()
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    x = torch.ones(6, 2)
    x[4] = torch.inf
    with watch.over(network):
        network(x)
    batch = replay.Batch(torch.empty(0), torch.empty(0), torch.tensor([10, 11, 12]))
    assert (watch.first_bad, watch.samples(batch)) == ("0", " for 1 of 3 samples: 11")


def test_steps_are_left_out_as_if_they_had_not_been(data: Path, tmp_path: Path) -> None:
    config = poisoned(data, [4, 7], precision__skip_nonfinite_steps=2)
    assert train_here(tmp_path, config)
    assert saved_steps(tmp_path) == [5, 10]
    assert read_json(tmp_path / "result.json")["skipped_steps"] == 2
    with pytest.raises(TrainingDiverged, match=r"step 9 .*after 2 such steps were left out"):
        train_here(tmp_path / "more", poisoned(data, [4, 7, 9], precision__skip_nonfinite_steps=2))
    # Nothing of a step that is left out stays, batch norm's statistics included.
    kept = {}
    for name, steps in (("poisoned", [1]), ("plain", [])):
        run = tmp_path / name
        train_here(run, poisoned(data, steps, data__images=16, precision__skip_nonfinite_steps=1))
        kept[name] = final_weights(run)
    fresh = final_weights_of_fresh(data, tmp_path / "fresh")
    assert all(torch.equal(kept["poisoned"][name], fresh[name]) for name in fresh)
    assert not all(torch.equal(kept["plain"][name], fresh[name]) for name in fresh)


def final_weights_of_fresh(data: Path, run: Path) -> dict[str, Tensor]:
    train_here(run, poisoned(data, [], epochs=0, schedule__warmup_epochs=0.0))
    return final_weights(run)


def on_ranks(group: dist.ProcessGroup, run: Path, config: PretrainConfig) -> tuple[str, list[dict[str, Any]]]:
    world = World(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), Groups(*[group] * 4))
    try:
        train_here(run, config, world)
        said = "finished"
    except TrainingDiverged as error:
        said = str(error)
    return said, read_json_lines(run / "metrics.jsonl") if world.is_first else []


@pytest.mark.parametrize(("skips", "expected"), [(0, "step 7 of 10"), (1, "finished")])
def test_all_ranks_decide_alike_on_what_one_of_them_saw(
    ranks: Ranks, data: Path, tmp_path: Path, skips: int, expected: str
) -> None:
    config = poisoned(data, [7], precision__skip_nonfinite_steps=skips)
    said: list[tuple[str, Any]] = ranks(2).run(on_ranks, tmp_path, config)
    assert all(expected in text for text, _ in said), said


def test_the_setting_leaves_old_fingerprints_alone(data: Path) -> None:
    from pretrain.config import result_settings

    assert "skip_nonfinite_steps" not in json.dumps(result_settings(tiny(data)))
    assert "skip_nonfinite_steps" in json.dumps(result_settings(tiny(data, precision__skip_nonfinite_steps=1)))
