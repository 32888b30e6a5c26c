"""An objective and an encoder by dotted path: strict settings, a fingerprint, every command, the certificate."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.forecast.communication import model_size
from pretrain import load_encoder
from pretrain.config import PretrainConfig, run_fingerprint
from pretrain.configio import dump_yaml, parse_yaml, validate
from pretrain.errors import ConfigError
from pretrain.objectives.base import build_objective
from pretrain.plan import make_plan
from tests.certify.test_certify import failed, found
from tests.ranks import Ranks
from tests.training import ROOT, run_ok, torchrun, written

OBJECTIVE, ENCODER = "tests.objectives.own_code:Sharp", "tests.objectives.own_code:Shallow"
OWN = {"objective": {"name": OBJECTIVE}, "encoder": {"architecture": ENCODER}}


def config_of(**objective: Any) -> PretrainConfig:
    return validate(PretrainConfig, {**OWN, "objective": {"name": OBJECTIVE, **objective}}, "own.yaml")


def problem(**sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(PretrainConfig, {**OWN, **sections}, "own.yaml")
    assert len(caught.value.problems) == 1
    return str(caught.value.problems[0])


def test_settings_are_read_written_and_fingerprinted() -> None:
    config = config_of(sharpness=2.0)
    again = validate(PretrainConfig, parse_yaml(dump_yaml(config), "own.yaml"), "own.yaml")
    assert again == config
    assert run_fingerprint(again) == run_fingerprint(config) != run_fingerprint(config_of())
    assert config.objective.title == f"{OBJECTIVE}, sharpness 2"
    assert config.encoder.feature_width == 32
    built = build_objective(config.objective, config.encoder, classes=4, seed=0)
    assert type(built).__name__ == "Sharp"
    assert type(built.encoder).__name__ == "Shallow"
    assert model_size(config).embedding_width == 16


def test_mistakes_are_named_where_they_are() -> None:
    path = "tests.objectives.own_code"
    said = problem(objective={"name": OBJECTIVE, "sharpnes": 2.0})
    assert said == "objective.sharpnes: unknown key (did you mean 'sharpness'?); valid here: name, projector, sharpness"
    said = problem(objective={"name": OBJECTIVE, "projector": {"layer": 2}})
    assert said.startswith("objective.projector.layer: unknown key (did you mean 'layers'?)")
    assert "got 'sharp'; input should be a valid number" in problem(objective={"name": OBJECTIVE, "sharpness": "sharp"})
    assert "has no 'Shap' (did you mean 'Sharp'?)" in problem(objective={"name": f"{path}:Shap"})
    said = problem(objective={"name": "nowhere.at_all:Sharp"})
    assert (
        said
        == "objective.name: got 'nowhere.at_all:Sharp', but there is no module 'nowhere' on the path of this Python"
    )
    said = problem(objective={"name": f"{path}:NoSettings"})
    assert "expected a class with a Config, its settings, derived from pretrain.objectives.settings" in said
    assert "encoder.depth: unknown key" in problem(encoder={"architecture": ENCODER, "depth": 3})
    assert "has no 'Shalow' (did you mean 'Shallow'?)" in problem(encoder={"architecture": f"{path}:Shalow"})
    with pytest.raises(ConfigError, match=r"augmentation.number_of_views: got 1, expected 2"):
        make_plan(
            validate(PretrainConfig, {**OWN, "augmentation": {"number_of_views": 1}}, ""), images=5000, world_size=1
        )


def test_settings_beside_the_objective_are_planned_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pretrain.config import PretrainConfig; from pretrain.configio import validate\n"
        "from pretrain.plan import make_plan\n"
        "config = validate(PretrainConfig, {'objective': {'name': 'tests.objectives.own_settings:Sharp'}}, 'x')\n"
        "print(make_plan(config, images=5000, world_size=2).describe())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config = validate(PretrainConfig, {"objective": {"name": "tests.objectives.own_settings:Sharp"}}, "x")
    assert type(build_objective(config.objective, config.encoder, classes=4, seed=0)).__name__ == "Sharp"


def test_the_certificate_judges_it_like_ours(ranks: Ranks) -> None:
    def judged(name: str) -> Any:
        own = {"objective": {"name": f"tests.objectives.own_code:{name}"}, "encoder": OWN["encoder"]}
        return found(ranks, {"nothing": None}, ["gradient", "three steps"], **own)

    assert not failed(judged("Sharp"))
    forgetful = judged("Forgetful")
    assert failed(forgetful) == {"gradient", "three steps"}
    assert forgetful[0].subject == "tests.objectives.own_code:Forgetful, sharpness 5"


@pytest.mark.slow
def test_it_runs_in_every_command(tmp_path: Path) -> None:
    data, directory = written("synthetic", tmp_path), tmp_path / "run"
    head = f"objective={{name: '{OBJECTIVE}', sharpness: 4.0}}"
    encoder = f"encoder={{architecture: '{ENCODER}'}}"
    run_ok(torchrun(directory, data, 2, head, encoder, "epochs=1", "schedule.warmup_epochs=0", "data.images=512"))
    config = yaml.safe_load((directory / "config.yaml").read_text())
    assert config["objective"]["sharpness"] == 4.0
    assert load_encoder(directory).feature_width == 32
    run_ok([sys.executable, "-m", "eval", "knn", str(directory)])
    run_ok([sys.executable, "-m", "eval", "export", str(directory)])
    results = [json.loads(path.read_text()) for path in directory.glob("eval/*/result.json")]
    assert {result["task"] for result in results} == {"knn", "export"}
    card = next(directory.glob("eval/export-*/README.md")).read_text()
    assert f"torchvision has no {ENCODER}" in card
