"""One to eight views, each with settings of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from pretrain.config import AugmentationConfig, DataConfig
from pretrain.data.loader import Batch, build_loader

BYOL = {0: {"blur_probability": 1.0}, 1: {"blur_probability": 0.1, "solarize_probability": 0.2}}


def first_batch(directory: Path, augmentation: AugmentationConfig, loader: Literal["ffcv", "beton"] = "beton") -> Batch:
    data = DataConfig(dataset="synthetic", directory=directory, loader=loader)
    it = build_loader(data, augmentation, seed=4, global_batch_size=64)
    try:
        return next(iter(it.epoch(0)))
    finally:
        it.close()


def augmentation(views: int, **settings: Any) -> AugmentationConfig:
    return AugmentationConfig(crop_size_px=32, number_of_views=views, **settings)


@pytest.mark.parametrize("loader", ["ffcv", "beton"])
def test_views_do_not_know_how_many_they_are(raw_directory: Path, loader: Literal["ffcv", "beton"]) -> None:
    eight = first_batch(raw_directory, augmentation(8), loader)
    assert eight.views.shape == (64, 8, 3, 32, 32)
    for first in range(8):
        for second in range(first):
            assert (eight.views[:, first] != eight.views[:, second]).flatten(1).any(1).all()
    for views in (1, 2, 5):
        torch.testing.assert_close(
            first_batch(raw_directory, augmentation(views), loader).views, eight.views[:, :views]
        )


def test_an_override_changes_its_view_and_no_other(raw_directory: Path) -> None:
    plain = first_batch(raw_directory, augmentation(3)).views
    changed = first_batch(raw_directory, augmentation(3, view_overrides={1: {"invert_probability": 1.0}})).views
    assert torch.equal(changed[:, 1], 255 - plain[:, 1])
    assert torch.equal(changed[:, ::2], plain[:, ::2])


def test_byols_views(raw_directory: Path) -> None:
    """Blur always and 1 in 10; solarised never and 1 in 5: a solarised view has no pixel from 128 up left."""
    still = dict.fromkeys(("jitter_probability", "grayscale_probability", "flip_probability"), 0.0)
    still |= {"crop_area": (1.0, 1.0), "crop_aspect_ratio": (1.0, 1.0), "blur_kernel_fraction": 0.2}
    batch = first_batch(raw_directory, augmentation(2, **still, view_overrides=BYOL))
    unblurred = first_batch(raw_directory, augmentation(2, **still, blur_probability=0.0))
    changed = (batch.views != unblurred.views).flatten(2).any(2).float().mean(0)
    solarised = (batch.views < 129).flatten(2).all(2).float().mean(0)
    assert changed[0] > 0.8  # a sigma below 0.3 changes no pixel
    assert 0.1 < changed[1] < 0.5  # 0.1 + 0.2 - 0.02, of 64
    assert solarised[0] == 0
    assert 0.05 < solarised[1] < 0.4


def test_crops_of_their_own(raw_directory: Path) -> None:
    """Local and global crops, as in SwAV: a small crop of the noise is smoother than the whole."""
    small = {v: {"crop_area": (0.05, 0.1)} for v in (2, 3)}
    views = first_batch(raw_directory, augmentation(4, crop_area=(0.9, 1.0), view_overrides=small)).views.float()
    roughness = views.diff(dim=-1).abs().mean((0, 2, 3, 4))
    assert roughness[2:].max() < 0.7 * roughness[:2].min()
