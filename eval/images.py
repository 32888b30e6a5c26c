"""Images of one split for evaluations that train on them: plain, or with a random crop and flip.

N images of the split, n of them expected, B in a batch, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval.result import EvaluationError
from pretrain.config import AugmentationConfig
from pretrain.data import sampler as order
from pretrain.data.batch import Batch
from pretrain.data.beton.format import read_table
from pretrain.data.catalog import existing_beton
from pretrain.data.prefetch import in_background
from pretrain.data.renderer import Rendering, ViewMaker

AHEAD = 2  # batches made while one is used


class ImageSet:
    """The images of a split, or of the fixed subset of it that ``images`` asks for."""

    def __init__(self, directory: Path, split: str, *, images: int | None = None, workers: int = 1) -> None:
        self._maker = ViewMaker(read_table(existing_beton(None, directory, split)), workers)
        index_N = order.subset(len(self._maker.table), images)
        self.index_N = torch.from_numpy(index_N)  # numbers in the file, ascending
        self.labels_N = torch.from_numpy(self._maker.table.label_N[index_N])

    def plain(self, index_n: Tensor, *, size_px: int, batch_size: int) -> Iterator[Batch]:
        """The images with these numbers in the file, in this order, without augmentation (B, 1, 3, S, S)."""
        parts = (part.numpy() for part in torch.split(index_n, batch_size))
        return in_background((self._maker.centred(part, size_px) for part in parts), ahead=AHEAD, name="plain-images")

    def augmented(
        self,
        index_n: Tensor,
        augmentation: AugmentationConfig,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> Epochs:
        """Random views of the images with these numbers: of each batch, the part of one rank.

        batch_size: of all ranks together; no batch is larger than there are images.
        Raises EvaluationError where the ranks cannot share a batch evenly.
        """
        batch = min(batch_size, len(index_n))
        if batch % world_size:
            raise EvaluationError(
                f"{world_size} ranks cannot share a batch of {batch} images evenly; expected a divisor"
            )
        share = order.RankOrder(np.ascontiguousarray(index_n.numpy()), seed, batch, rank, world_size)
        return Epochs(self._maker, share, Rendering.of(augmentation, seed))

    def views(
        self, index_n: Tensor, augmentation: AugmentationConfig, *, batch_size: int, seed: int
    ) -> Iterator[Batch]:
        """All views (B, V, 3, S, S) of the images with these numbers, in this order, none left out."""
        rendering = Rendering.of(augmentation, seed)
        parts = (part.numpy() for part in torch.split(index_n, batch_size))
        views = (self._maker.augmented(part, rendering, 0) for part in parts)
        return in_background(views, ahead=AHEAD, name="views-of-images")

    def close(self) -> None:
        """End the threads."""
        self._maker.close()


class Epochs:
    """A rank's part (B, V, 3, S, S) of batches of randomly ordered, randomly augmented images.

    The batches are functions of seed and epoch alone. ``batch_size`` counts the images of all ranks.
    """

    def __init__(self, maker: ViewMaker, share: order.RankOrder, rendering: Rendering) -> None:
        self._maker, self._order, self._rendering = maker, share, rendering
        self.batch_size = share.global_batch_size
        self.batches = share.batches_per_epoch

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch; images that do not fill the last one are left out of it."""
        indices = self._order.batches(epoch)
        views = (self._maker.augmented(index_B, self._rendering, epoch) for index_B in indices)
        return in_background(views, ahead=AHEAD, name="augmented-images")


def crop_and_flip(
    run: AugmentationConfig, *, size_px: int, crop_area: tuple[float, float] | None = None
) -> AugmentationConfig:
    """One view with a random crop and flip, nothing else: what SimCLR trains classifiers on (appendix B.5 to B.8)."""
    return AugmentationConfig(
        crop_size_px=size_px,
        number_of_views=1,
        crop_area=crop_area or run.crop_area,
        crop_aspect_ratio=run.crop_aspect_ratio,
        flip_probability=run.flip_probability,
        jitter_probability=0.0,
        grayscale_probability=0.0,
        blur_probability=0.0,
        solarize_probability=0.0,
    )
