"""Evaluation sees every sample once, in file order, as it is or with SimCLR's centre crop."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from pretrain.data.beton.format import read_table
from pretrain.data.catalog import beton_path
from pretrain.data.loader import evaluation_batches
from pretrain.data.renderer import Renderer, centre_windows
from pretrain.data.sampler import subset
from pretrain.data.sources.synthetic import synthetic
from tests.data.conftest import JPEG_IMAGES, RAW_IMAGES


def test_small_images_as_they_are(raw_directory: Path) -> None:
    source = synthetic("train", RAW_IMAGES)
    batches = list(evaluation_batches(raw_directory, "train", size_px=32, batch_size=32))
    assert [len(batch.views) for batch in batches] == [32, 32, 32, 4]
    indices = torch.cat([batch.indices for batch in batches])
    torch.testing.assert_close(indices, torch.arange(RAW_IMAGES))
    for batch in batches:
        assert batch.views.shape[1:] == (1, 3, 32, 32)
        for view, index, label in zip(batch.views, batch.indices.tolist(), batch.labels.tolist(), strict=True):
            np.testing.assert_array_equal(view[0].permute(1, 2, 0), source.pixels(index))
            assert label == source.labels[index]


@pytest.mark.parametrize("world_size", [1, 3])
def test_ranks_share_without_repeats(jpeg_directory: Path, world_size: int) -> None:
    parts = [
        torch.cat([batch.indices for batch in evaluation_batches(
            jpeg_directory, "train", size_px=24, batch_size=4, images=19, rank=rank, world_size=world_size)])
        for rank in range(world_size)
    ]  # fmt: skip
    np.testing.assert_array_equal(torch.cat(parts), subset(JPEG_IMAGES, 19))


def test_large_images_are_cropped_as_in_simclr(jpeg_directory: Path) -> None:
    """Against torchvision's crop of the centre 7/8 and antialiased resize of the decoded image."""
    renderer = Renderer(read_table(beton_path(jpeg_directory, "train")), 1)
    (batch,) = evaluation_batches(jpeg_directory, "train", size_px=24, batch_size=JPEG_IMAGES, workers=2)
    for index in range(JPEG_IMAGES):
        pixels = renderer.original(index)
        height, width = pixels.shape[:2]
        square = round(0.875 * min(height, width))
        window = [(height - square) // 2, (width - square) // 2, square, square]
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float()
        wanted = F.resized_crop(image, *window, [24, 24], antialias=True)
        assert (batch.views[index, 0].float() - wanted).abs().max() <= 1.0


def test_windows() -> None:
    """224 of 256; nothing cut when the image is not larger than asked."""
    sizes = np.array([256, 224, 100])
    np.testing.assert_array_equal(centre_windows(sizes, sizes + 10, 224)[:, 2], [224, 224, 100])
    np.testing.assert_array_equal(centre_windows(sizes, sizes + 10, 224)[:, :2], [[16, 21], [0, 5], [0, 5]])


def test_leaving_early_ends_the_thread(raw_directory: Path) -> None:
    before = threading.active_count()
    for _batch in evaluation_batches(raw_directory, "train", size_px=32, batch_size=8, workers=2):
        break
    assert threading.active_count() == before


def test_a_missing_split_is_explained(raw_directory: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"test\.beton: no such file; write it with: bigbatch data write"):
        evaluation_batches(raw_directory, "test", size_px=32, batch_size=8)
