"""augmentation.flavour: simclr, against what google-research/simclr's data_util.py does, written out with NumPy.

Bicubic resize of TensorFlow 2 (Keys' cubic, four pixels, weights renormalised at borders), contrast about each
channel's mean, saturation scaled in HSV, blur over black borders, 7/8 of every image at evaluation.
"""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain.config import AugmentationConfig, PretrainConfig, result_settings
from pretrain.data.beton.format import read_table
from pretrain.data.catalog import beton_path
from pretrain.data.kernels.colour import BRIGHTNESS, CONTRAST, SATURATION
from pretrain.data.loader import evaluation_batches
from pretrain.data.renderer import Renderer, centre_windows
from tests.data.conftest import JPEG_IMAGES
from tests.data.test_fidelity import NOTHING, ONLY, photograph, render


def keys(distance: np.ndarray) -> np.ndarray:
    d, a = np.abs(distance), -0.5
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def bicubic(length: int, side: int) -> np.ndarray:
    """(side, length): weights of a resize."""
    centre_S = (np.arange(side) + 0.5) * length / side
    weight_SL = keys(np.arange(length)[None] + 0.5 - centre_S[:, None])
    return weight_SL / weight_SL.sum(1, keepdims=True)


def cropped(image: np.ndarray, window: list[int], side: int) -> np.ndarray:
    top, left, height, width = window
    part = image[top : top + height, left : left + width] / 255
    return np.einsum("yr,rck,xc->yxk", bicubic(height, side), part, bicubic(width, side)).clip(0, 1)


def in_hsv(image: np.ndarray, turn: float, scale: float) -> np.ndarray:
    def pixel(red: float, green: float, blue: float) -> tuple[float, ...]:
        h, s, v = colorsys.rgb_to_hsv(red, green, blue)
        return colorsys.hsv_to_rgb((h + turn) % 1, min(s * scale, 1), v)

    return np.stack(np.vectorize(pixel)(*image.transpose(2, 0, 1)), axis=2)


def blurred(image: np.ndarray, sigma: float, radius: int) -> np.ndarray:
    x = np.arange(-radius, radius + 1)
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        image = np.apply_along_axis(lambda line: np.convolve(line, kernel, mode="same"), axis, image)
    return image


def reference(image: np.ndarray, drawn: Any, config: AugmentationConfig) -> np.ndarray:
    side = config.crop_size_px
    x = cropped(image, [int(drawn[name]) for name in ("top", "left", "height", "width")], side)
    if drawn["flip"]:
        x = x[:, ::-1]
    for operation in drawn["jitter_order"] if drawn["jitter"] else ():
        if operation == BRIGHTNESS and config.brightness:
            x = x * drawn["brightness"]
        elif operation == CONTRAST and config.contrast:
            mean = x.mean((0, 1))
            x = (x - mean) * drawn["contrast"] + mean
        elif operation == SATURATION and config.saturation:
            x = in_hsv(x, 0.0, drawn["saturation"])
        elif operation > SATURATION and config.hue:
            x = in_hsv(x, drawn["hue"], 1.0)
        x = x.clip(0, 1)
    if drawn["grayscale"]:
        x = np.repeat((x @ [0.2989, 0.5870, 0.1140])[:, :, None], 3, axis=2)
    radius = int(config.blur_kernel_fraction * side) // 2
    if drawn["blur_sigma_px"] > 0 and radius > 0:
        x = blurred(x, drawn["blur_sigma_px"], radius)
    return x.clip(0, 1).transpose(2, 0, 1) * 255


def apart(image: np.ndarray, config: AugmentationConfig, views: int) -> float:
    pairs = zip(*render(image, config, views), strict=True)
    return max(float(np.abs(got - reference(image, drawn, config)).max()) for got, drawn in pairs)


@pytest.mark.parametrize("operation", [name for name in ONLY if name not in ("solarize", "invert")])
@pytest.mark.parametrize(("size", "side"), [((96, 75), 40), ((28, 28), 28), ((21, 30), 40)])
def test_one_operation(operation: str, size: tuple[int, int], side: int) -> None:
    settings = {**NOTHING, **ONLY[operation], "blur_kernel_fraction": 0.3}
    config = AugmentationConfig(flavour="simclr", crop_size_px=side, number_of_views=1, **settings)
    assert apart(photograph(*size, seed=1), config, views=5) <= 1.0


@pytest.mark.parametrize(("size", "side"), [((150, 200), 96), ((32, 32), 32), ((300, 41), 29)])
def test_the_whole_chain(size: tuple[int, int], side: int) -> None:
    config = AugmentationConfig(flavour="simclr", crop_size_px=side, number_of_views=1)
    assert apart(photograph(*size, seed=2), config, views=5) <= 1.0


@pytest.mark.parametrize("operation", ["contrast", "saturation", "blur"])
def test_the_flavours_are_not_the_same(operation: str) -> None:
    """So that the oracle of one would notice the other."""
    image = photograph(32, 32, seed=3) // np.array([1, 2, 4], np.uint8)
    settings = {"crop_size_px": 32, "number_of_views": 1, "blur_kernel_fraction": 0.3, **NOTHING, **ONLY[operation]}
    simclr, plain = (render(image, AugmentationConfig(flavour=f, **settings), 4)[0] for f in ("simclr", "torchvision"))
    assert np.abs(simclr.astype(int) - plain).max() > 8


def test_evaluation_takes_seven_eighths_of_every_image(jpeg_directory: Path) -> None:
    """Of one of exactly the view's size too, but not of CIFAR's 32 px."""
    sides = np.array([256, 224, 225, 100])
    np.testing.assert_array_equal(centre_windows(sides, sides + 10, 224, "simclr")[:, 2], [224, 196, 197, 88])
    np.testing.assert_array_equal(centre_windows(sides, sides, 32, "simclr")[:, 2], sides)
    renderer = Renderer(read_table(beton_path(jpeg_directory, "train")), 1)
    (batch,) = evaluation_batches(jpeg_directory, "train", size_px=40, batch_size=JPEG_IMAGES, flavour="simclr")
    for index in range(JPEG_IMAGES):
        pixels = renderer.original(index)
        (window,) = centre_windows(*(np.array([size]) for size in pixels.shape[:2]), 40, "simclr")
        wanted = cropped(pixels, window.tolist(), 40).transpose(2, 0, 1) * 255
        assert np.abs(batch.views[index, 0].numpy() - wanted).max() <= 1.0


def test_views_may_differ_and_older_runs_stay() -> None:
    config = AugmentationConfig(view_overrides={1: {"flavour": "simclr"}})
    assert [config.for_view(view).flavour for view in (0, 1)] == ["torchvision", "simclr"]
    assert "flavour" not in result_settings(PretrainConfig())["augmentation"]
    simclr = PretrainConfig(augmentation=AugmentationConfig(flavour="simclr"))
    assert result_settings(simclr)["augmentation"]["flavour"] == "simclr"
