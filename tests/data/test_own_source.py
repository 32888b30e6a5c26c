"""A source of one's own, in a module outside of the project: planned, written, trained on and evaluated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pretrain.data.catalog import image_count, read_manifest
from pretrain.data.sources.registry import SOURCES, open_images, source_class, source_config
from pretrain.data.write_beton import main
from pretrain.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent
NAME = "own_images.stripes:Striped"
MODULE = '''"""Stripes of a chosen width, and their class."""

from pretrain.configio import PositiveInt, Section
from pretrain.data.sources.base import Source


class Striped(Source):
    label = "Stripes"
    images = {"train": 48, "test": 24}
    stored_as = "raw"

    class Config(Section):
        width_px: PositiveInt = 2

    def open(self, split):
        import numpy as np

        from pretrain.data.sources.images import Images

        labels = np.arange(self.images[split], dtype=np.int64) % 3

        def pixels(index):
            wave = (np.arange(16) // self.config.width_px) % 2 * (80 + 80 * labels[index])
            return np.repeat(np.repeat(wave[None, :, None], 16, 0), 3, 2).astype(np.uint8)

        return Images(labels, ("a", "b", "c"), pixels)


class NoSource:
    pass
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the module, which is on the path of Python."""
    package = tmp_path / "own_images"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "stripes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "own_images"]:
        del sys.modules[name]


def test_known_before_it_is_written(own: Path) -> None:
    assert image_count(NAME, own / "nowhere", "train") == 48
    assert source_class(NAME).label == "Stripes"


def test_settings_are_strict_and_remembered(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [NAME, str(own / "data"), "--set", "width_px=4"]
    assert main(command) == 0
    assert read_manifest(own / "data", "train").source_config == {"width_px": 4}
    assert main(command) == 0
    assert capsys.readouterr().out.count("already written, skipped") == 2
    assert main(command[:2]) == 1
    assert "was written with {'width_px': 4}, expected {'width_px': 2}" in capsys.readouterr().err
    narrow, wide = (open_images(NAME, "train", config=source_config(NAME, [f"width_px={w}"])) for w in (2, 4))
    assert (narrow.pixels(0) != wide.pixels(0)).any()
    for setting, message in (("widht_px=4", "did you mean 'width_px'"), ("width_px=0", "greater than 0")):
        with pytest.raises(ConfigError, match=message):
            source_config(NAME, [setting])
    assert main(["synthetic", str(own / "data"), "--set", "side=3"]) == 1
    assert "side: unknown key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("own_images.nothing:Striped", "cannot be imported"),
        ("own_images.stripes:Stripes", "has no 'Stripes'"),
        ("own_images.stripes:NoSource", r"derived from pretrain\.data\.sources\.base\.Source"),
    ],
)
def test_a_wrong_path_is_explained(own: Path, path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_count(path, own / "nowhere", "train")


def test_every_registered_source_says_what_it_is() -> None:
    for name, source in SOURCES.items():
        assert source.__doc__, name
        assert set(source.images) <= set(source.splits)


def test_plan_train_and_evaluate(own: Path) -> None:
    """The commands themselves, from another folder than the project's."""
    config = own / "config.yaml"
    settings = {
        "data": {"dataset": NAME, "directory": str(own / "data"), "loader": "beton"},
        "augmentation": {"crop_size_px": 16},
        "encoder": {"architecture": "resnet18", "width": 0.125, "stem": "small"},
        "objective": {"name": "simclr", "projector": {"hidden_width": 8, "output_width": 8}},
        "global_batch_size": 16, "epochs": 1, "device": "cpu", "schedule": {"warmup_epochs": 0.0},
        "log": {"wandb": "disabled"},
    }  # fmt: skip
    config.write_text(yaml.safe_dump(settings))
    study = {"name": "own", "title": "Own", "base": str(config), "seeds": [0], "target": {"name": "local"}}
    (own / "study.yaml").write_text(yaml.safe_dump({**study, "baselines": [{"name": "base", "title": "Base"}]}))

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=own, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    planned = run("launch", "plan", "study.yaml")
    assert "48" in planned
    run("pretrain.data.write_beton", NAME, "data")
    run("pretrain", "config.yaml", "run.directory=run")
    assert json.loads((own / "run" / "plan.json").read_text())["images"] == 48
    run("eval", "knn", "run")
    assert len(list((own / "run" / "eval").glob("knn-*/result.json"))) == 1
