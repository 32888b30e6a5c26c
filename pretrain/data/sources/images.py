"""The images of one split, by number: what every source opens."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Images:
    """N labelled images by number. The functions may be called from several threads.

    labels: (N,); -1: unlabelled. class_names: in the order of the labels; () if there are none. pixels(i): uint8
    (height, width, 3). paths: what the images are called, where they have names; they tell one selection of images
    from another. encoded(i): the bytes of the image file, where there is one: a JPEG that is small enough is stored
    as it is.
    """

    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    pixels: Callable[[int], Pixels]
    paths: Sequence[str | Path] | None = None
    encoded: Callable[[int], bytes] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def from_files(paths: Sequence[str | Path], labels: Sequence[int], class_names: tuple[str, ...]) -> Images:
    """Image files that Pillow opens, as RGB."""
    return from_encoded(lambda index: Path(paths[index]).read_bytes(), paths, labels, class_names)


def from_encoded(
    encoded: Callable[[int], bytes], names: Sequence[str | Path], labels: Sequence[int], class_names: tuple[str, ...]
) -> Images:
    """Images whose files are ``encoded(i)``, wherever they lie; names[i] in messages. Pillow opens them, as RGB."""
    from PIL import Image

    def pixels(index: int) -> Pixels:
        try:
            with Image.open(io.BytesIO(encoded(index))) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{names[index]}: not an image ({error})") from error

    return Images(np.asarray(labels, np.int64), class_names, pixels, names, encoded)


def rgb(pixels: npt.NDArray[Any]) -> Pixels:
    """(H, W) or (H, W, 1) grey, or (H, W, 3), as (H, W, 3): grey images are stored as three equal channels."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels, np.uint8)
