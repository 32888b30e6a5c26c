"""What is drawn is distributed as torchvision v2 draws it: two-sample Kolmogorov-Smirnov tests, at 0.1 % each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from pretrain.config import AugmentationConfig
from pretrain.data.kernels import view as view_kernels
from pretrain.data.kernels.operations import DRAWN
from pretrain.data.kernels.warp import perspective_coefficients
from pretrain.data.renderer import RenderSettings

SAMPLES, HEIGHT, WIDTH, SIDE = 3000, 60, 90, 32
IMAGE = torch.empty(3, HEIGHT, WIDTH)


def draw(**settings: Any) -> np.ndarray:
    """SAMPLES drawn parameters of a (HEIGHT, WIDTH) image's single view."""
    config = AugmentationConfig(crop_size_px=SIDE, number_of_views=1, **settings)
    drawn_BV = np.zeros((SAMPLES, 1), DRAWN)
    counters = (np.uint64(5), np.uint64(2))
    view_kernels.draw(*counters, np.arange(SAMPLES), HEIGHT, WIDTH, RenderSettings.of(config, 5).settings_V, drawn_BV)
    return drawn_BV[:, 0]


def theirs(transform: Any, image: torch.Tensor = IMAGE) -> list[dict[str, Any]]:
    """SAMPLES of what torchvision's transform draws."""
    torch.manual_seed(0)
    return [transform.make_params([image]) for _ in range(SAMPLES)]


def agree(ours: Any, reference: Any) -> bool:
    return bool(stats.ks_2samp(np.asarray(ours, float), np.asarray(reference, float)).pvalue > 1e-3)


@pytest.mark.parametrize("area", [(0.08, 1.0), (0.5, 1.0)])
def test_crops(area: tuple[float, float]) -> None:
    ours, reference = draw(crop_area=area), theirs(v2.RandomResizedCrop(SIDE, scale=area))
    for name in ("top", "left", "height", "width"):
        assert agree(ours[name], [each[name] for each in reference]), name
    ratio = np.log(ours["height"] / ours["width"])
    assert agree(ratio, np.log([each["height"] / each["width"] for each in reference]))


def test_jitter() -> None:
    strengths = {"brightness": 0.4, "contrast": 1.3, "saturation": 0.8, "hue": 0.2}
    ours, reference = draw(**strengths), theirs(v2.ColorJitter(**strengths))
    for name in strengths:
        assert agree(ours[name], [each[f"{name}_factor"] for each in reference]), name
    theirs_order = np.array([each["fn_idx"].tolist() for each in reference])
    for place in range(4):
        table = [np.bincount(order[:, place], minlength=4) for order in (ours["jitter_order"], theirs_order)]
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_blur() -> None:
    ours = draw(blur_probability=1.0)["blur_sigma_px"]
    assert agree(ours, [each["sigma"][0] for each in theirs(v2.GaussianBlur(3, (0.1, 2.0)))])


def test_rotation() -> None:
    ours = draw(rotation_probability=1.0, rotation_degrees=30.0)["rotation"]
    assert agree(ours, [each["angle"] for each in theirs(v2.RandomRotation(30.0))])


@pytest.mark.parametrize("distortion", [0.3, 0.5])
def test_perspective(distortion: float) -> None:
    """torchvision keeps only the coefficients; so ours are compared, from the compiled code's own formula."""
    drawn = draw(perspective_probability=1.0, perspective_distortion=distortion)
    ours = np.empty((SAMPLES, 8))
    for row, corners in zip(ours, drawn["corners"], strict=True):
        perspective_coefficients(SIDE, corners, row)
    reference = theirs(v2.RandomPerspective(distortion), torch.empty(3, SIDE, SIDE))
    theirs_N8 = np.array([each["coefficients"] for each in reference])
    for k in range(8):
        # Rounded, because zeros are common and torchvision's least squares miss them by 1e-9.
        assert agree(ours[:, k].round(5), theirs_N8[:, k].round(5)), k


def test_how_often() -> None:
    """Every switch at its own rate, and independent of the others (4 sigma)."""
    rates = {"flip": 0.5, "jitter": 0.8, "grayscale": 0.2, "solarize": 0.3, "perspective": 0.4, "invert": 0.1}
    drawn = draw(**{f"{name}_probability": rate for name, rate in rates.items()}, rotation_probability=0.7)
    happened = {name: drawn[name] != 0 for name in (*rates, "rotation")}
    for name, rate in (*rates.items(), ("rotation", 0.7)):
        assert abs(happened[name].mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / SAMPLES), name
    correlation = np.corrcoef(np.array(list(happened.values())))
    assert np.abs(correlation - np.eye(len(happened))).max() < 4 / np.sqrt(SAMPLES)


def test_the_test_sees_a_small_fault() -> None:
    """A fifth more rotation, crops that start at 12 % of the area instead of 8 %: each is noticed."""
    rotated = draw(rotation_probability=1.0, rotation_degrees=36.0)["rotation"]
    assert not agree(rotated, [each["angle"] for each in theirs(v2.RandomRotation(30.0))])
    crops = draw(crop_area=(0.12, 1.0))
    assert not agree(crops["height"], [each["height"] for each in theirs(v2.RandomResizedCrop(SIDE))])
