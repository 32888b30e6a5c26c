"""The random parameters of one view, drawn from its key. Distributions are torchvision's and SimCLR's (appendix A)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.data.kernels.jit import exact
from pretrain.data.kernels.randomness import (
    SLOT_BLUR,
    SLOT_BLUR_SIGMA,
    SLOT_BRIGHTNESS,
    SLOT_CONTRAST,
    SLOT_CROP,
    SLOT_FLIP,
    SLOT_GRAYSCALE,
    SLOT_HUE,
    SLOT_INVERT,
    SLOT_JITTER,
    SLOT_JITTER_ORDER,
    SLOT_PERSPECTIVE,
    SLOT_PERSPECTIVE_CORNERS,
    SLOT_ROTATION,
    SLOT_ROTATION_ANGLE,
    SLOT_SATURATION,
    SLOT_SOLARIZE,
    uniform,
)

CROP_TRIES = 10
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0, 1, 2, 3

# What the configuration says about a view.
_RANGES = (
    "area_low",
    "area_high",
    "log_aspect_low",
    "log_aspect_high",
    "sigma_low",
    "sigma_high",
    "blur_radius",
    "side",
)
_AS_CONFIGURED = (
    *("flip_probability", "jitter_probability", "brightness", "contrast", "saturation", "hue"),
    *("grayscale_probability", "blur_probability", "solarize_probability", "solarize_threshold"),
    *("perspective_probability", "perspective_distortion", "rotation_probability", "rotation_degrees"),
    "invert_probability",
)
SETTINGS = np.dtype([(name, np.float64) for name in (*_RANGES, *_AS_CONFIGURED)])

# What was drawn for a view. Crop in pixels of the stored image; hue in turns; blur_sigma_px 0 means no blur; rotation
# in degrees, anticlockwise; corners: x, y in pixels of the view of where its corners go, clockwise from the top left.
DRAWN = np.dtype(
    [(name, np.int64) for name in ("top", "left", "height", "width", "flip", "jitter", "grayscale", "solarize")]
    + [(name, np.int64) for name in ("perspective", "invert")]
    + [(name, np.float64) for name in ("brightness", "contrast", "saturation", "hue", "blur_sigma_px", "rotation")]
    + [("jitter_order", np.int64, (4,)), ("corners", np.int64, (8,))]
)


@exact
def _uniform(key: Any, slot: int) -> Any:
    return uniform(np.uint64(key), np.uint64(slot))


@exact
def _draw_crop(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    """Crop of random area and aspect ratio in a (height, width) image; RandomResizedCrop's ten tries and fallback."""
    area = float(height) * float(width)
    for attempt in range(CROP_TRIES):
        slot = SLOT_CROP + 4 * attempt
        target = area * (settings.area_low + (settings.area_high - settings.area_low) * _uniform(key, slot))
        log_span = settings.log_aspect_high - settings.log_aspect_low
        aspect = math.exp(settings.log_aspect_low + log_span * _uniform(key, slot + 1))
        crop_width = round(math.sqrt(target * aspect))
        crop_height = round(math.sqrt(target / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            drawn.top = int(_uniform(key, slot + 2) * (height - crop_height + 1))
            drawn.left = int(_uniform(key, slot + 3) * (width - crop_width + 1))
            drawn.height = crop_height
            drawn.width = crop_width
            return
    crop_height, crop_width = height, width
    aspect = width / height
    if aspect < math.exp(settings.log_aspect_low):
        crop_height = min(height, round(width / math.exp(settings.log_aspect_low)))
    elif aspect > math.exp(settings.log_aspect_high):
        crop_width = min(width, round(height * math.exp(settings.log_aspect_high)))
    drawn.top = (height - crop_height) // 2
    drawn.left = (width - crop_width) // 2
    drawn.height = crop_height
    drawn.width = crop_width


@exact
def _factor(strength: float, unit: float) -> float:
    """U[max(0, 1 - strength), 1 + strength]."""
    low = max(0.0, 1.0 - strength)
    return low + (1.0 + strength - low) * unit


@exact
def _draw_corners(key: Any, settings: Any, corners: Any) -> None:
    """RandomPerspective's: each corner moves inwards by U{0 .. distortion * half the side} along x and along y."""
    side = int(settings.side)
    bound = int(settings.perspective_distortion * (side // 2)) + 1
    for k in range(8):
        inwards = int(_uniform(key, SLOT_PERSPECTIVE_CORNERS + k) * bound)
        near = k in (0, 1, 3, 6)  # to 0: x of the left corners, y of the top ones
        corners[k] = inwards if near else side - bound + inwards


@exact
def draw_view(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    """Fill ``drawn`` (DRAWN) for a view of a (height, width) image under ``key`` by ``settings`` (SETTINGS)."""
    _draw_crop(key, height, width, settings, drawn)
    drawn.flip = _uniform(key, SLOT_FLIP) < settings.flip_probability
    drawn.jitter = _uniform(key, SLOT_JITTER) < settings.jitter_probability
    drawn.brightness = _factor(settings.brightness, _uniform(key, SLOT_BRIGHTNESS))
    drawn.contrast = _factor(settings.contrast, _uniform(key, SLOT_CONTRAST))
    drawn.saturation = _factor(settings.saturation, _uniform(key, SLOT_SATURATION))
    drawn.hue = settings.hue * (2.0 * _uniform(key, SLOT_HUE) - 1.0)
    order = drawn.jitter_order
    for k in range(4):
        order[k] = k
    for k in range(3):
        other = k + int(_uniform(key, SLOT_JITTER_ORDER + k) * (4 - k))
        order[k], order[other] = order[other], order[k]
    drawn.grayscale = _uniform(key, SLOT_GRAYSCALE) < settings.grayscale_probability
    drawn.blur_sigma_px = 0.0
    if _uniform(key, SLOT_BLUR) < settings.blur_probability:
        span = settings.sigma_high - settings.sigma_low
        drawn.blur_sigma_px = settings.sigma_low + span * _uniform(key, SLOT_BLUR_SIGMA)
    drawn.solarize = _uniform(key, SLOT_SOLARIZE) < settings.solarize_probability
    drawn.perspective = _uniform(key, SLOT_PERSPECTIVE) < settings.perspective_probability
    if drawn.perspective:
        _draw_corners(key, settings, drawn.corners)
    drawn.rotation = 0.0
    if _uniform(key, SLOT_ROTATION) < settings.rotation_probability:
        drawn.rotation = settings.rotation_degrees * (2.0 * _uniform(key, SLOT_ROTATION_ANGLE) - 1.0)
    drawn.invert = _uniform(key, SLOT_INVERT) < settings.invert_probability


def settings_record(view: Any, crop_size_px: int) -> npt.NDArray[np.void]:
    """One SETTINGS row, shape (1,), from the configuration's settings of a view.

    The blur kernel is SimCLR's: int(fraction * side) // 2 pixels on either side of the centre.
    """
    record = np.zeros(1, SETTINGS)
    for name in _AS_CONFIGURED:
        record[name] = getattr(view, name)
    record["area_low"], record["area_high"] = view.crop_area
    record["log_aspect_low"], record["log_aspect_high"] = (math.log(ratio) for ratio in view.crop_aspect_ratio)
    record["sigma_low"], record["sigma_high"] = view.blur_sigma_px
    record["side"] = crop_size_px
    record["blur_radius"] = int(view.blur_kernel_fraction * crop_size_px) // 2
    return record
