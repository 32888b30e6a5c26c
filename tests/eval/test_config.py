"""Evaluation settings: strict, torch-free, and a fingerprint of what changes the result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eval.config import LinearConfig, evaluation_config, evaluation_fingerprint
from pretrain.configio import read_yaml
from pretrain.errors import ConfigError

CONFIGS = sorted(Path("configs/eval").glob("*.yaml"))


def test_every_file_loads_and_there_are_some() -> None:
    assert {path.stem for path in CONFIGS} >= {"linear", "linear_wide", "knn"}
    for path in CONFIGS:
        evaluation_config(path.stem.partition("_")[0], [f"config={path}"])


@pytest.mark.parametrize("task", ["linear", "finetune", "distill", "tsne"])
def test_yaml_called_like_its_task_writes_out_the_defaults(task: str) -> None:
    path = Path(f"configs/eval/{task}.yaml")
    defaults = evaluation_config(task, [])
    assert evaluation_config(task, [f"config={path}"]) == defaults
    common = {"directory", "train_split", "test_split", "train_images", "size_px", "batch_size", "workers", "device"}
    assert set(read_yaml(path)) >= set(type(defaults).model_fields) - common - {
        "cache",
        "allow_unfinished",
        "initialisation",
    }


def test_overrides_replace_the_file() -> None:
    config = evaluation_config("linear", ["seed=3", "config=configs/eval/linear_wide.yaml"])
    assert isinstance(config, LinearConfig)
    assert (config.seed, len(config.l2)) == (3, 45)


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        evaluation_config("linear", ["train_image=3", "l2=[]", "held_out_fraction=1"])
    text = str(caught.value)
    assert "3 problems" in text
    assert "did you mean 'train_images'" in text


def test_unknown_task_and_equal_splits() -> None:
    with pytest.raises(ConfigError, match="did you mean 'linear'"):
        evaluation_config("lineer", [])
    with pytest.raises(ConfigError, match="two different splits"):
        evaluation_config("knn", ["train_split=test"])


@pytest.mark.parametrize("override", ["batch_size=7", "device=cpu", "cache=false", "allow_unfinished=true"])
def test_fingerprint_ignores_speed(override: str) -> None:
    assert fingerprint_of("linear", override) == fingerprint_of("linear")


@pytest.mark.parametrize(
    "override", ["seed=1", "train_images=10", "l2=[0.1]", "knn=false", "directory=elsewhere", "neighbours.neighbours=3"]
)
def test_fingerprint_covers_what_changes_the_result(override: str) -> None:
    assert fingerprint_of("linear", override) != fingerprint_of("linear")


def test_fingerprint_of_equal_meanings() -> None:
    assert fingerprint_of("linear", "l2=[0.1, 0.01]") == fingerprint_of("linear", "l2=[0.01, 0.1]")
    assert fingerprint_of("linear") != fingerprint_of("knn")


def test_help_and_settings_need_no_torch() -> None:
    code = "import sys, eval.__main__, eval.config, eval.report.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def fingerprint_of(task: str, *overrides: str) -> str:
    return evaluation_fingerprint(task, evaluation_config(task, overrides))
