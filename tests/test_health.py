"""Each planted fault is named before the tenth line of the log, and sound trainings are left alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretrain.batch import StepContext
from pretrain.health import judge
from pretrain.losses.diagnostics import embedding_diagnostics
from pretrain.metrics import in_order, legend
from pretrain.models.encoder import Encoder
from pretrain.objectives.byol import BYOL
from pretrain.objectives.config import BYOLConfig
from pretrain.rundir import read_json, read_json_lines
from tests.training import tiny, train_here, written

LINES = 9
PLAIN_HEAD = {"layers": 1, "output_width": 32, "last_batch_norm": False}
HEAD = {"layers": 2, "hidden_width": 64, "output_width": 32}
NOTHING = {
    "augmentation__crop_area": [1.0, 1.0],
    "augmentation__crop_aspect_ratio": [1.0, 1.0],
    **{f"augmentation__{name}_probability": 0.0 for name in ("flip", "jitter", "grayscale")},
}
SOUND: dict[str, Any] = {
    "global_batch_size": 64,
    "data__images": 64 * LINES,
    "encoder": {"architecture": "convnet4"},
    "objective": {"name": "simclr", "temperature": 0.2, "projector": {"hidden_width": 128, "output_width": 64}},
    "optimizer__trust_coefficient": 0.02,
    "schedule__base_learning_rate": 1.6,
}


class Unpredicting(BYOL):
    """BYOL whose predictor is missing and whose target follows at once."""

    class Config(BYOLConfig):
        name: str = ""  # type: ignore[assignment]

    def __init__(self, config: BYOLConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.predictor = Nothing()


class Nothing(nn.Module):
    """Passes embeddings on."""

    def forward(self, x: Tensor, context: StepContext) -> Tensor:
        return x


COLLAPSING = {
    "name": "tests.test_health:Unpredicting",
    "momentum": 0.5,
    "projector": PLAIN_HEAD,
    "predictor": PLAIN_HEAD,
}
FAULTS: dict[str, dict[str, Any]] = {
    "at chance": {"objective__temperature": 10.0},
    "diverging": {"schedule__base_learning_rate": 160.0},
    "trivial": NOTHING,
    "collapsed": {
        "objective": COLLAPSING,
        "optimizer": {"name": "adamw"},
        "schedule__base_learning_rate": 0.2,
        "schedule__warmup_epochs": 0.0,
    },
}
METHODS: dict[str, Any] = {
    "simclr": SOUND["objective"],
    "barlow_twins": {"name": "barlow_twins", "projector": HEAD},
    "byol": {"name": "byol", "projector": HEAD, "predictor": HEAD},
    "simsiam": {"name": "simsiam", "projector": HEAD, "predictor": HEAD},
    "supervised": {"name": "supervised"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("synthetic", tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_with_what_to_try(
    data: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here(tmp_path, tiny(data, **{**SOUND, **FAULTS[name]}))
    assert len(read_json_lines(tmp_path / "metrics.jsonl")) == LINES
    assert f"health: {name}: " in capsys.readouterr().err
    for file in ("result.json", "progress.json"):
        found = read_json(tmp_path / file)["health"]
        assert found["name"] == name
        assert found["why"]
        assert found["advice"]


@pytest.mark.parametrize("method", METHODS)
def test_sound_trainings_are_left_alone_and_tell_how_far_embeddings_differ(
    data: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here(tmp_path, tiny(data, **{**SOUND, "objective": METHODS[method]}))
    said = capsys.readouterr()
    assert "health:" not in said.err
    for row in read_json_lines(tmp_path / "metrics.jsonl"):
        assert 0 < row["embedding_spread"] <= 1
        assert 1 <= row["embedding_rank"] <= 64
        assert row["gradient_norm"] > 0
    steps = [line for line in said.err.splitlines() if line.startswith("step ")]
    assert len(steps) == LINES, "log.every_steps=1 prints each"
    assert steps[-1].split("  ")[1].startswith("loss ")
    assert steps[-1].split("  ")[2].startswith("online_probe_top1 ")
    assert f"weights: {tmp_path}/checkpoints/step_" in said.out
    assert f"linear {tmp_path}" in said.out


def test_a_loss_on_its_way_through_chance_is_no_fault() -> None:
    others = {"embedding_spread": 0.9, "embedding_rank": 9}
    rows = [{"step": step, "loss": 5.6 - 0.08 * step, **others} for step in range(30)]
    for end in range(len(rows)):
        assert judge(rows[:end], chance_loss=4.844, warmup_steps=2).name == "healthy"


def test_spread_and_rank_of_known_embeddings() -> None:
    same, axes = torch.ones(32, 8), torch.eye(8).repeat(8, 1)
    collapsed = embedding_diagnostics(same)
    assert (float(collapsed["embedding_spread"]), float(collapsed["embedding_rank"])) == pytest.approx((0, 1), abs=1e-3)
    even = embedding_diagnostics(torch.cat([axes, -axes]))
    assert (float(even["embedding_spread"]), float(even["embedding_rank"])) == pytest.approx((1, 8), abs=1e-3)


def test_each_metric_is_introduced_once_in_a_fixed_order() -> None:
    names = ["uniformity", "online_probe_top1", "loss", "alignment", "own_number"]
    assert in_order(names) == ["loss", "online_probe_top1", "alignment", "own_number", "uniformity"]
    told = legend(names, 4.844, 126).splitlines()
    assert told[0].split() == ["loss", *["lower", "is", "better;", "4.844", "at", "chance"]]
    assert len(told) == 4
