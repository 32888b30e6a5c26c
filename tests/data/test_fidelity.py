"""The kernels against torchvision v2 on float tensors with the same parameters: at most one grey level apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from pretrain.config import AugmentationConfig
from pretrain.data.kernels import view as view_kernels
from pretrain.data.kernels.colour import BRIGHTNESS, CONTRAST, SATURATION
from pretrain.data.kernels.operations import DRAWN
from pretrain.data.renderer import RenderSettings

SEED, EPOCH = 5, 2
NOTHING = {
    "crop_area": (1.0, 1.0), "crop_aspect_ratio": (1.0, 1.0), "flip_probability": 0.0, "jitter_probability": 0.0,
    "grayscale_probability": 0.0, "blur_probability": 0.0, "solarize_probability": 0.0,
}  # fmt: skip
ONLY: dict[str, dict[str, Any]] = {
    "crop": {"crop_area": (0.08, 1.0), "crop_aspect_ratio": (3 / 4, 4 / 3)},
    "flip": {"flip_probability": 1.0},
    "brightness": {"jitter_probability": 1.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
    "contrast": {"jitter_probability": 1.0, "brightness": 0.0, "saturation": 0.0, "hue": 0.0},
    "saturation": {"jitter_probability": 1.0, "brightness": 0.0, "contrast": 0.0, "hue": 0.0},
    "hue": {"jitter_probability": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.5},
    "grayscale": {"grayscale_probability": 1.0},
    "blur": {"blur_probability": 1.0},
    "solarize": {"solarize_probability": 1.0},
    "invert": {"invert_probability": 1.0},
}
WARPS: dict[str, dict[str, Any]] = {
    "perspective": {"perspective_probability": 1.0},
    "slight perspective": {"perspective_probability": 1.0, "perspective_distortion": 0.1},
    "rotation": {"rotation_probability": 1.0, "rotation_degrees": 45.0},
    "any rotation": {"rotation_probability": 1.0, "rotation_degrees": 180.0},
}


def photograph(height: int, width: int, seed: int) -> np.ndarray:
    """Edges, gradients, saturated colours and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / random.uniform(2, 9) + y / random.uniform(2, 9) + c) for c in range(3)], axis=2)
    image = 128 + 140 * waves + random.normal(0, 12, (height, width, 3))
    image[height // 3 : height // 2, width // 4 : width // 2] = random.integers(0, 2, 3) * 255
    return np.clip(image, 0, 255).astype(np.uint8)


def render(image: np.ndarray, config: AugmentationConfig, views: int) -> tuple[np.ndarray, np.ndarray]:
    """(samples, 3, S, S) from the kernels, and the parameters of each."""
    settings = RenderSettings.of(config, SEED)
    height, width = image.shape[:2]
    index_B = np.arange(views)
    data = np.concatenate([image.reshape(-1), np.zeros(8, np.uint8)])
    data.setflags(write=False)  # as the mapped file: the same compiled code
    views_BV = np.empty((views, 1, 3, settings.side, settings.side), np.uint8)
    drawn_BV = np.zeros((views, 1), DRAWN)
    counters = (np.uint64(SEED), np.uint64(EPOCH))
    height_B, width_B, offset_B = np.full(views, height), np.full(views, width), np.zeros(views, np.int64)
    images = (data, offset_B, height_B, width_B, np.empty((0, 4), np.int64))
    view_kernels.augment(*images, index_B, *counters, settings.settings_V, views_BV)
    view_kernels.draw(*counters, index_B, height, width, settings.settings_V, drawn_BV)
    return views_BV[:, 0], drawn_BV[:, 0]


def corners(drawn: Any) -> list[list[int]]:
    """Where the corners of the view go, as torchvision takes them."""
    return drawn["corners"].reshape(4, 2).tolist()


def reference(image: np.ndarray, drawn: Any, config: AugmentationConfig) -> torch.Tensor:
    """torchvision v2 on floats, in 0..255; without solarizing and inverting."""
    side = config.crop_size_px
    x = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    window = [int(drawn[name]) for name in ("top", "left", "height", "width")]
    x = F.resized_crop(x, *window, [side, side], interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    if drawn["flip"]:
        x = F.horizontal_flip(x)
    if drawn["perspective"]:
        x = F.perspective(x, [[0, 0], [side - 1, 0], [side - 1, side - 1], [0, side - 1]], corners(drawn))
    if drawn["rotation"]:
        x = F.rotate(x, float(drawn["rotation"]), interpolation=v2.InterpolationMode.BILINEAR)
    if drawn["jitter"]:
        for operation in drawn["jitter_order"]:
            if operation == BRIGHTNESS and config.brightness:
                x = F.adjust_brightness(x, float(drawn["brightness"]))
            elif operation == CONTRAST and config.contrast:
                x = F.adjust_contrast(x, float(drawn["contrast"]))
            elif operation == SATURATION and config.saturation:
                x = F.adjust_saturation(x, float(drawn["saturation"]))
            elif operation > SATURATION and config.hue:
                x = F.adjust_hue(x, float(drawn["hue"]))
    if drawn["grayscale"]:
        x = F.rgb_to_grayscale(x, num_output_channels=3)
    radius = int(config.blur_kernel_fraction * side) // 2
    if drawn["blur_sigma_px"] > 0 and radius > 0:
        x = F.gaussian_blur(x, [2 * radius + 1] * 2, [float(drawn["blur_sigma_px"])] * 2)
    return x * 255


def compare(image: np.ndarray, config: AugmentationConfig, views: int) -> float:
    """Largest difference of any pixel, in grey levels."""
    worst = 0.0
    for got, drawn in zip(*render(image, config, views), strict=True):
        wanted = reference(image, drawn, config)
        pixels = torch.from_numpy(got).float()
        if drawn["solarize"]:
            threshold = config.solarize_threshold
            sure = (wanted - threshold).abs() > 1  # on the threshold, rounding decides
            wanted = torch.where(wanted >= threshold, 255 - wanted, wanted)
            wanted, pixels = wanted[sure], pixels[sure]
        if drawn["invert"]:
            wanted = 255 - wanted
        worst = max(worst, float((pixels - wanted).abs().max()))
    return worst


@pytest.mark.parametrize("operation", ONLY)
@pytest.mark.parametrize(("size", "side"), [((96, 75), 40), ((28, 28), 28), ((21, 30), 40)])
def test_one_operation(operation: str, size: tuple[int, int], side: int) -> None:
    config = AugmentationConfig(
        crop_size_px=side, number_of_views=1, blur_kernel_fraction=0.3, **{**NOTHING, **ONLY[operation]}
    )
    assert compare(photograph(*size, seed=1), config, views=6) <= 1.0


@pytest.mark.parametrize(("size", "side"), [((150, 200), 224), ((200, 150), 96), ((32, 32), 32), ((300, 41), 29)])
def test_the_whole_chain(size: tuple[int, int], side: int) -> None:
    config = AugmentationConfig(crop_size_px=side, number_of_views=1, solarize_probability=0.0)
    assert compare(photograph(*size, seed=2), config, views=6) <= 1.0


def test_the_comparison_sees_a_small_fault() -> None:
    """A hue two hundredths of a turn off, or a crop one pixel off, is more than a grey level."""
    image = photograph(60, 60, seed=3)
    config = AugmentationConfig(crop_size_px=32, number_of_views=1, **{**NOTHING, **ONLY["hue"], **ONLY["crop"]})
    (got,), (drawn,) = render(image, config, 1)
    for name, change in (("hue", 0.02), ("left", 1), ("height", -1)):
        wrong = drawn.copy()
        wrong[name] += change
        assert (torch.from_numpy(got).float() - reference(image, wrong, config)).abs().max() > 1.0, name


@pytest.mark.parametrize("operation", WARPS)
@pytest.mark.parametrize(("size", "side"), [((96, 75), 40), ((28, 28), 28), ((250, 200), 224)])
def test_warps(operation: str, size: tuple[int, int], side: int) -> None:
    """Within a hundredth of a grey level inside; at the edges and where a point is a rounding away from them, more."""
    config = AugmentationConfig(crop_size_px=side, number_of_views=1, **{**NOTHING, **ONLY["crop"], **WARPS[operation]})
    image = photograph(*size, seed=4)
    for got, drawn in zip(*render(image, config, 6), strict=True):
        apart = (torch.from_numpy(got).float() - reference(image, drawn, config)).abs()
        assert apart.mean() <= 0.5  # half a grey level: what rounding to whole levels alone may cost
        assert apart.quantile(0.99) <= 1.0


def test_every_operation_at_once() -> None:
    """Perspective and rotation come before the colours and the blur, inversion comes last."""
    certain = {name: 1.0 for name in AugmentationConfig.model_fields if name.endswith("_probability")}
    certain |= {"grayscale_probability": 0.5, "solarize_probability": 0.0}
    config = AugmentationConfig(crop_size_px=64, number_of_views=1, **certain)
    image = photograph(150, 200, seed=6)
    for got, drawn in zip(*render(image, config, 8), strict=True):
        assert drawn["perspective"] == drawn["invert"] == 1
        apart = (torch.from_numpy(got).float() - (255 - reference(image, drawn, config))).abs()
        assert apart.mean() <= 0.5
        assert apart.quantile(0.99) <= 1.0


def test_a_quadrilateral_without_area_is_no_crash() -> None:
    """Whatever distortion 1 draws: every pixel is black or a mean of pixels."""
    config = AugmentationConfig(crop_size_px=8, number_of_views=1, **{**NOTHING, "perspective_probability": 1.0},
                                perspective_distortion=1.0)  # fmt: skip
    image = np.full((20, 20, 3), 200, np.uint8)
    views, drawn = render(image, config, 3000)
    flat = drawn["corners"].reshape(-1, 4, 2)
    degenerate = np.array([len({tuple(point) for point in four}) < 4 for four in flat.tolist()])
    assert degenerate.sum() > 10
    assert views.max() <= 200
