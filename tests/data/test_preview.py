"""The contact sheet shows what training uses, and says what was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.config import AugmentationConfig
from pretrain.data.beton.format import read_table
from pretrain.data.catalog import beton_path
from pretrain.data.kernels.operations import DRAWN
from pretrain.data.preview import describe, main
from pretrain.data.renderer import Renderer, RenderSettings


@pytest.fixture
def config_file(jpeg_directory: Path, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    text = f"data: {{dataset: imagefolder, directory: {jpeg_directory}}}\naugmentation: {{crop_size_px: 32}}\n"
    path.write_text(text + "global_batch_size: 4\n")
    return path


def test_a_sheet(config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "sheet.png"
    command = [str(config_file), "augmentation.number_of_views=3", "--output", str(output), "--images", "2"]
    assert main(command) == 0
    assert capsys.readouterr().out.strip() == str(output)
    with Image.open(output) as image:
        sheet = np.asarray(image.convert("RGB"))
    assert sheet.shape[1] / sheet.shape[0] == pytest.approx(4 * 2.6 / (2 * 3.1), rel=0.1)
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000  # pictures, not blank paper
    first = output.read_bytes()
    assert main(command) == 0
    assert output.read_bytes() == first
    assert main([*command, "--epoch", "1"]) == 0
    assert output.read_bytes() != first


def test_what_it_says_is_what_training_draws(jpeg_directory: Path) -> None:
    """The parameters of a sample in a file of many sizes, against a view rendered without any of the others."""
    augmentation = AugmentationConfig(crop_size_px=32, number_of_views=2, invert_probability=0.5)
    renderer = Renderer(read_table(beton_path(jpeg_directory, "train")), 1)
    settings = RenderSettings.of(augmentation, seed=3)
    plain = RenderSettings.of(augmentation.model_copy(update={"invert_probability": 0.0}), seed=3)
    for index in range(12):
        views, unchanged = (renderer.augmented(np.array([index]), each, 5).views[0] for each in (settings, plain))
        for view, drawn in enumerate(renderer.drawn(index, settings, 5)):
            assert bool((views[view] != unchanged[view]).any()) == (
                "inverted" in str(describe(drawn, augmentation, view))
            )


def test_words() -> None:
    drawn = np.zeros(1, DRAWN)[0]
    drawn["width"], drawn["height"], drawn["left"], drawn["flip"] = 20, 10, 3, 1
    augmentation = AugmentationConfig(crop_size_px=32, view_overrides={1: {"hue": 0.0}})
    assert describe(drawn, augmentation, 0) == ["crop 20x10 at 3,0, flipped"]
    drawn["jitter"], drawn["jitter_order"], drawn["hue"], drawn["contrast"] = 1, [3, 1, 2, 0], -0.1, 1.25
    drawn["perspective"], drawn["rotation"], drawn["solarize"], drawn["blur_sigma_px"] = 1, -9.6, 1, 1.5
    lines = describe(drawn, augmentation, 0)
    assert lines[1:] == [
        "perspective, rotated -10°", "hue -0.10, con 1.25, sat 0.00, bri 0.00", "blur 1.50 px, solarised",
    ]  # fmt: skip
    assert describe(drawn, augmentation, 1)[2] == "con 1.25, sat 0.00, bri 0.00"


def test_problems_are_told(config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(config_file), "augmentation.hues=1"]) == 1
    assert "did you mean 'hue'" in capsys.readouterr().err
    assert main([str(config_file), f"data.directory={tmp_path}"]) == 1
    assert "write it with: bigbatch data write" in capsys.readouterr().err
