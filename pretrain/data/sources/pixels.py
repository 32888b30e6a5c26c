"""Image files as 8-bit colour. What becomes of pixels that are anything else is a stated policy, and is counted.

Orientation of EXIF: applied. Transparency: laid on a background of one colour. More than 8 bits: scaled from a range.
Several frames: the first. Metadata: not stored. A file of too many pixels is left out.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import io
import threading
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor

with contextlib.suppress(ImportError):  # HEIC is read where this plugin of Pillow is installed
    importlib.import_module("pillow_heif").register_heif_opener()

Image.MAX_IMAGE_PIXELS = None  # Pillow's warning and error at two fixed sizes; PixelPolicy.max_megapixels is ours
_HUGE_PIXELS = 64_000_000  # such images are read one at a time, and converted in bands: 4 bytes a pixel add up
_ORIENTATION = 0x0112
_TURN = {number: Image.Transpose(method) for number, method in zip(range(2, 9), (0, 3, 1, 5, 4, 6, 2), strict=True)}
_one_huge_image = threading.Lock()


class Treated(enum.IntFlag):
    """What was done to an image before it was stored."""

    KEPT = 1
    TURNED = 2
    COMPOSITED = 4
    SCALED = 8
    FIRST_FRAME = 16
    REDUCED = 32


NOTHING = Treated(0)
IN_WORDS = {
    Treated.KEPT: "JPEG files as they were",
    Treated.TURNED: "turned upright (EXIF orientation)",
    Treated.COMPOSITED: "transparent, laid on the background",
    Treated.SCALED: "of more than 8 bits, scaled",
    Treated.FIRST_FRAME: "first of several frames",
    Treated.REDUCED: "reduced to the largest side",
}


class TooLarge(ValueError):
    """More pixels than the policy allows."""


@dataclass(frozen=True)
class PixelPolicy:
    """background: colour under transparent pixels. value_range: what becomes 0 and 255 of pixels with more than 8 bits;
    None: 0 to 65535 for 16-bit integers, and others are refused. max_megapixels: larger images are left out.
    """

    background: str = "white"
    value_range: tuple[float, float] | None = None
    max_megapixels: float = 256.0

    def __post_init__(self) -> None:
        """Raises ValueError for a colour that has no such name, or a range that is none."""
        ImageColor.getrgb(self.background)
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError(f"--range: got {self.value_range[0]:g} {self.value_range[1]:g}, expected LOW below HIGH")


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) where there is none that can be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # metadata may be damaged in any way, and the image still be whole
        return 1


def read_pixels(
    content: bytes, policy: PixelPolicy, limit: int | None = None, *, roughly: bool = False
) -> tuple[Image.Image, Treated]:
    """The image of a file in RGB, no side longer than ``limit`` px, and what was done to it.

    roughly: take JPEG's own reduction on the way, which is several times faster and not the writer's.

    Raises:
        TooLarge: it has more pixels than the policy allows.
        ValueError: not an image that can be read, or pixels whose range is not known; says what it is.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = image.width * image.height
            if pixels > policy.max_megapixels * 1e6:
                raise TooLarge(f"{pixels / 1e6:.0f} megapixels, more than --max-megapixels {policy.max_megapixels:g}")
            if roughly and limit:
                image.draft("RGB", (limit, limit))
            treated = Treated.FIRST_FRAME if getattr(image, "is_animated", False) else NOTHING
            with _one_huge_image if pixels > _HUGE_PIXELS else contextlib.nullcontext():
                factor = max(image.size) // (3 * limit) if limit and pixels > _HUGE_PIXELS else 1
                colour, done = _reduced_in_bands(image, factor, policy) if factor > 1 else _in_colour(image, policy)
                turn = _TURN.get(orientation(image))
                image.close()  # or its memory would outlive the lock
    except (MemoryError, TooLarge):
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        raise ValueError(f"{_kind(content)} ({error})") from error
    if turn is not None:
        colour, done = colour.transpose(turn), done | Treated.TURNED
    small = reduced(colour, limit)
    return small, treated | done | (Treated.REDUCED if small.size != colour.size or factor > 1 else NOTHING)


def reduced(image: Image.Image, limit: int | None) -> Image.Image:
    """The image with its longer side at most ``limit`` px."""
    if limit is None or max(image.size) <= limit:
        return image
    scale = limit / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)


def _in_colour(image: Image.Image, policy: PixelPolicy) -> tuple[Image.Image, Treated]:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _scaled(image, policy), Treated.SCALED
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema() != (255, 255):
            colour = Image.new("RGB", image.size, policy.background)
            colour.paste(image, mask=alpha)
            return colour, Treated.COMPOSITED
    return image.convert("RGB"), NOTHING


def _scaled(image: Image.Image, policy: PixelPolicy) -> Image.Image:
    sixteen_bits = image.mode.startswith("I;16") or image.format == "PNG"
    if policy.value_range is None and not sixteen_bits:
        raise ValueError(f"pixels of mode {image.mode}, whose range is not known: name it, --range LOW HIGH")
    low, high = policy.value_range or (0.0, 65535.0)
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not finite numbers")
    levels = np.rint((values - low) * (255 / (high - low))).clip(0, 255)
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def _reduced_in_bands(image: Image.Image, factor: int, policy: PixelPolicy) -> tuple[Image.Image, Treated]:
    """Means of factor x factor pixels; a band of rows at a time, so that the image is never in memory twice."""
    width, height, treated = image.width, image.height, NOTHING
    small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    rows = max(1, 256 // factor) * factor
    for top in range(0, height, rows):
        band, done = _in_colour(image.crop((0, top, width, min(height, top + rows))), policy)
        small.paste(band.reduce(factor), (0, top // factor))
        treated |= done
    return small, treated


def _kind(content: bytes) -> str:
    """What a file is that Pillow does not read."""
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; git lfs pull fetches the image"
    if content[4:8] == b"ftyp" and content[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "a HEIC image; pip install pillow-heif lets it be read"
    return "not an image that can be read"
