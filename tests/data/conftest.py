"""Small written data sets: raw images of one size, and JPEG images of many sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain.data.sources.images import Images, Pixels
from pretrain.data.sources.synthetic import synthetic
from pretrain.data.write_beton import Storage, write_split

RAW_IMAGES, JPEG_IMAGES = 100, 26


def photographs(images: int) -> Images:
    """Smooth images of different sizes and shapes, so that JPEG and resizing have something to do."""
    sides = [(48 + 7 * k % 61, 40 + 11 * k % 67) for k in range(images)]

    def pixels(index: int) -> Pixels:
        height, width = sides[index]
        large = synthetic("train", images, side=128).pixels(index)
        return np.ascontiguousarray(large[:height, :width])

    return Images(np.arange(images, dtype=np.int64) % 5, tuple("abcde"), pixels)


@pytest.fixture(scope="session")
def raw_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("raw")
    write_split(synthetic("train", RAW_IMAGES), directory, dataset="synthetic", split="train", storage=Storage("raw"))
    return directory


@pytest.fixture(scope="session")
def jpeg_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("jpeg")
    source = photographs(JPEG_IMAGES)
    write_split(source, directory, dataset="imagefolder", split="train", storage=Storage("jpg", 100, 95), workers=2)
    return directory
