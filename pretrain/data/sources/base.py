"""Labelled images by number: what every source of images is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """Labelled images by number. ``pixels(i)``: uint8 (height, width, 3), may be called from several threads.

    Label -1: unlabelled. paths: the image files, where there are some; a JPEG file may be stored as it is.
    """

    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    pixels: Callable[[int], Pixels]
    paths: Sequence[str | Path] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def rgb(pixels: npt.NDArray[Any]) -> Pixels:
    """(H, W) or (H, W, 1) grey, or (H, W, 3), as (H, W, 3): grey images are stored as three equal channels."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels, np.uint8)
