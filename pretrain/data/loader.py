"""Loaders of .beton files: random views for pretraining, one plain view for evaluation.

Two loaders make the same batches from the same file with the same kernels: `BetonLoader` here, and ffcv's. B samples
per rank and batch, V views, S side of a view in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist

from pretrain.batch import Batch, Loader
from pretrain.config import AugmentationConfig, DataConfig, Flavour
from pretrain.data.beton.format import read_layout, read_table
from pretrain.data.buffers import usable_cores
from pretrain.data.catalog import existing_beton
from pretrain.data.prefetch import in_background
from pretrain.data.renderer import Renderer, RenderSettings
from pretrain.data.sampler import RankOrder, check_shards, evaluation_slice, subset
from pretrain.ranks import ranks_per_node_from_environment

if TYPE_CHECKING:
    from pretrain.data.ffcv_loader import FFCVLoader

__all__ = ["Batch", "Loader", "build_loader", "evaluation_batches"]


def build_loader(
    data: DataConfig, augmentation: AugmentationConfig, *, seed: int, global_batch_size: int, rank: int = 0,
    world_size: int = 1, group: dist.ProcessGroup | None = None,
) -> Loader:  # fmt: skip
    """The loader of one rank. Its batches depend on (data, augmentation, seed, global batch) alone.

    group: the ranks, for CPU tensors; they check over it that their parts are disjoint and complete. None: no check.
    Collective where there is a group: every rank calls this.

    Raises:
        FileNotFoundError: the data set has not been written; says which command writes it.
        ValueError: the images do not fill one global batch, the ranks cannot share it evenly, or they read different
            files or parts that are not the whole.
        ImportError: data.loader is ffcv and ffcv cannot be imported.
    """
    path = existing_beton(data.dataset, data.directory, data.split)
    index_n = subset(read_layout(path)[0], data.images)
    try:
        rank_order = RankOrder(index_n, seed, global_batch_size, rank, world_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if group is not None:
        check_shards(path, rank_order, group)
    kind, why = _loader_class(data.loader)
    workers = threads_of_rank(data.workers)
    if data.loader == "auto" and rank == 0:
        print(f"  images are read by    {why}, {workers} threads a rank", flush=True)
    return kind(path, rank_order, RenderSettings.of(augmentation, seed), data.model_copy(update={"workers": workers}))


def threads_of_rank(workers: int | Literal["auto"]) -> int:
    """Threads that make a rank's batches; auto: its share of the cores beside a GPU, where nothing else needs them."""
    if workers != "auto":
        return workers
    return max(1, usable_cores() // ranks_per_node_from_environment()) if torch.cuda.is_available() else 1


def evaluation_batches(
    directory: Path, split: str, *, size_px: int, batch_size: int, images: int | None = None, rank: int = 0,
    world_size: int = 1, workers: int = 1, flavour: Flavour = "torchvision",
) -> Iterator[Batch]:  # fmt: skip
    """Every sample once, in file order, one view (B, 1, 3, S, S) without augmentation; the last batch may be smaller.

    Images larger than S: the centre 7/8 of the shorter side, resized (SimCLR's 224 of 256); others: the centre square.
    flavour simclr: 7/8 of all images where S exceeds 32 px, resized bicubically.
    Rank r of W takes the r-th contiguous part. ``images``: only the subset that pretraining with so many images uses.

    Raises:
        FileNotFoundError: the data set has not been written; says which command writes it.
        ValueError: a damaged file or sample; names it.
    """
    table = read_table(existing_beton(None, directory, split))
    index_n = evaluation_slice(subset(len(table), images), rank, world_size)
    renderer, lows = Renderer(table, workers), range(0, len(index_n), batch_size)
    return _prefetched(renderer, (renderer.centred(index_n[low : low + batch_size], size_px, flavour) for low in lows))


def _prefetched(renderer: Renderer, batches: Iterator[Batch]) -> Iterator[Batch]:
    try:
        yield from in_background(batches, ahead=2, name="evaluation-loader")
    finally:
        renderer.close()


def _loader_class(choice: str) -> tuple[type[FFCVLoader | BetonLoader], str]:
    """The class that is chosen, and which it is in words."""
    if choice == "beton":
        return BetonLoader, "our own reader"
    try:
        from pretrain.data.ffcv_loader import FFCVLoader
    except ImportError as error:
        if choice == "auto":
            return BetonLoader, f"our own reader (the same batches; ffcv cannot be imported: {error})"
        raise ImportError(
            f"data.loader: ffcv cannot be imported ({error}). Set data.loader=beton, which makes the same batches "
            "without it; or install it with pip install 'bigbatch[ffcv]', after what it is compiled against: apt-get "
            "install build-essential pkg-config libturbojpeg0-dev libopencv-dev, or conda install -c conda-forge "
            "compilers pkg-config libjpeg-turbo opencv"
        ) from error
    return FFCVLoader, "ffcv"


class BetonLoader:
    """Batches of one rank without ffcv, made ahead by a thread of this process. See `batch.Loader`."""

    def __init__(self, path: Path, order: RankOrder, settings: RenderSettings, data: DataConfig) -> None:
        self._order, self._settings, self._ahead = order, settings, data.batches_ahead
        assert isinstance(data.workers, int), "build_loader decides on a number"
        keep_n = order.index_n if data.decoded_in_memory else None
        self._renderer = Renderer(read_table(path), data.workers, keep_n)
        self.images = order.images
        self.batches_per_epoch = order.batches_per_epoch
        self.batch_size_per_rank = order.batch_size_per_rank

    def epoch(self, epoch: int, *, first_batch: int = 0) -> Iterator[Batch]:
        """Batches from ``first_batch`` of epoch ``epoch``; leaving the loop early ends the thread."""
        indices = self._order.batches(epoch, first_batch)
        batches = (self._renderer.augmented(index_B, self._settings, epoch) for index_B in indices)
        return in_background(batches, ahead=self._ahead, name="beton-loader")

    def close(self) -> None:
        """End the threads."""
        self._renderer.close()
