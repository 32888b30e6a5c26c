"""Images of one split for evaluations that train on them: plain, or with a random crop and flip.

N images of the split, n of them asked for, B in a batch, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval.result import EvaluationError
from pretrain.batch import Batch
from pretrain.config import AugmentationConfig, Flavour, ViewSettings
from pretrain.data.beton.format import read_table
from pretrain.data.catalog import existing_beton
from pretrain.data.prefetch import in_background
from pretrain.data.renderer import Renderer, RenderSettings
from pretrain.data.sampler import RankOrder, subset

AHEAD = 2  # batches made while one is used


class ImageSet:
    """The images of a split, or of the fixed subset of it that ``images`` asks for."""

    def __init__(
        self, directory: Path, split: str, *, images: int | None = None, workers: int = 1,
        flavour: Flavour = "torchvision",
    ) -> None:  # fmt: skip
        self._flavour = flavour
        self._renderer = Renderer(read_table(existing_beton(None, directory, split)), workers)
        index_N = subset(len(self._renderer.table), images)
        self.index_N = torch.from_numpy(index_N)  # numbers in the file, ascending
        self.labels_N = torch.from_numpy(self._renderer.table.label_N[index_N])

    def plain(self, index_n: Tensor, *, size_px: int, batch_size: int) -> Iterator[Batch]:
        """The images with these numbers in the file, in this order, without augmentation (B, 1, 3, S, S)."""
        parts = (part.numpy() for part in torch.split(index_n, batch_size))
        return in_background(
            (self._renderer.centred(part, size_px, self._flavour) for part in parts), ahead=AHEAD, name="plain-images"
        )

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
        share = RankOrder(np.ascontiguousarray(index_n.numpy()), seed, batch, rank, world_size)
        return Epochs(self._renderer, share, RenderSettings.of(augmentation, seed))

    def views(
        self, index_n: Tensor, augmentation: AugmentationConfig, *, batch_size: int, seed: int
    ) -> Iterator[Batch]:
        """All views (B, V, 3, S, S) of the images with these numbers, in this order, none left out."""
        settings = RenderSettings.of(augmentation, seed)
        parts = (part.numpy() for part in torch.split(index_n, batch_size))
        views = (self._renderer.augmented(part, settings, 0) for part in parts)
        return in_background(views, ahead=AHEAD, name="views-of-images")

    def close(self) -> None:
        """End the threads."""
        self._renderer.close()


class Epochs:
    """A rank's part (B, V, 3, S, S) of batches of randomly ordered, randomly augmented images.

    The batches are functions of seed and epoch alone. ``batch_size`` counts the images of all ranks.
    """

    def __init__(self, renderer: Renderer, share: RankOrder, settings: RenderSettings) -> None:
        self._renderer, self._order, self._settings = renderer, share, settings
        self.batch_size = share.global_batch_size
        self.batches = share.batches_per_epoch

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch; images that do not fill the last one are left out of it."""
        indices = self._order.batches(epoch)
        views = (self._renderer.augmented(index_B, self._settings, epoch) for index_B in indices)
        return in_background(views, ahead=AHEAD, name="augmented-images")


def crop_and_flip(
    run: AugmentationConfig, *, size_px: int, crop_area: tuple[float, float] | None = None
) -> AugmentationConfig:
    """One view with a random crop and flip, nothing else.

    It is what SimCLR trains classifiers on (arXiv:2002.05709, appendix B.5 to B.8).
    """
    nothing = {name: 0.0 for name in ViewSettings.model_fields if name.endswith("_probability")}
    views = {"crop_size_px": size_px, "number_of_views": 1, "flip_probability": run.flip_probability}
    crop = {"flavour": run.flavour, "crop_area": crop_area or run.crop_area, "crop_aspect_ratio": run.crop_aspect_ratio}
    return AugmentationConfig.model_validate({**nothing, **views, **crop})
