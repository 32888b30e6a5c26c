"""Loaders of .beton files: two views for pretraining, one plain view for evaluation.

B samples per rank and batch, V views, S side of a view in pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from pretrain.config import AugmentationConfig, DataConfig
from pretrain.data import order
from pretrain.data.batch import Batch, Loader
from pretrain.data.beton import read_table
from pretrain.data.catalog import existing_beton
from pretrain.data.handoff import Handoff
from pretrain.data.views import ViewMaker, view_settings

__all__ = ["Batch", "Loader", "build_loader", "evaluation_batches"]


def build_loader(
    data: DataConfig, augmentation: AugmentationConfig, *, seed: int, global_batch_size: int, rank: int = 0,
    world_size: int = 1,
) -> Loader:  # fmt: skip
    """The loader of one rank. What its batches hold depends on (data, augmentation, seed, global batch) only.

    Raises:
        FileNotFoundError: the data set has not been written; says which command writes it.
        ValueError: the images do not fill one global batch, or the ranks cannot share it evenly.
        ImportError: data.loader is ffcv and ffcv cannot be imported.
    """
    path = existing_beton(data.dataset, data.directory, data.split)
    loader_class = _loader_class(data.loader)
    if global_batch_size % world_size or not 0 <= rank < world_size:
        order.rank_slice(order.subset(0, None), global_batch_size, rank, world_size)  # says what is wrong
    loader: Loader = loader_class(
        path, view_settings(augmentation), augmentation.crop_size_px, seed=seed, global_batch_size=global_batch_size,
        images=data.images, rank=rank, world_size=world_size, workers=data.workers, batches_ahead=data.batches_ahead,
    )  # fmt: skip
    if loader.batches_per_epoch == 0:
        loader.close()
        raise ValueError(f"global_batch_size: {global_batch_size} is more than the {loader.images} images of {path}")
    return loader


def evaluation_batches(
    directory: Path, split: str, *, size_px: int, batch_size: int, images: int | None = None, rank: int = 0,
    world_size: int = 1, workers: int = 1,
) -> Iterator[Batch]:  # fmt: skip
    """Every sample once, in file order, one view (B, 1, 3, S, S) without augmentation; the last batch may be smaller.

    Images larger than S: the centre 7/8 of the shorter side, resized (SimCLR's 224 of 256). Others as they are. Rank r
    of W takes the r-th contiguous part. ``images``: only the subset that pretraining with so many images uses.

    Raises:
        FileNotFoundError: the data set has not been written; says which command writes it.
        ValueError: a damaged file or sample; names it.
    """
    table = read_table(existing_beton(None, directory, split))
    index_n = order.evaluation_slice(order.subset(len(table), images), rank, world_size)
    return _prefetched(ViewMaker(table, workers), index_n, size_px, batch_size)


def _prefetched(maker: ViewMaker, index_n: order.Indices, size_px: int, batch_size: int) -> Iterator[Batch]:
    handoff: Handoff[Batch] = Handoff(2)

    def produce() -> None:
        try:
            for low in range(0, len(index_n), batch_size):
                if not handoff.put(maker.centred(index_n[low : low + batch_size], size_px)):
                    return
            handoff.end()
        except BaseException as error:
            handoff.end(error)

    thread = threading.Thread(target=produce, name="evaluation-loader", daemon=True)
    thread.start()
    try:
        while (batch := handoff.get()) is not None:
            yield batch
    finally:
        handoff.stop()
        thread.join()
        maker.close()


def _loader_class(name: str) -> type[Loader]:
    if name == "beton":
        from pretrain.data.beton_loader import BetonLoader

        return BetonLoader
    try:
        from pretrain.data.ffcv_loader import FFCVLoader
    except ImportError as error:
        raise ImportError(
            f"data.loader: ffcv cannot be imported ({error}). Install it (pip install 'bigbatch[ffcv]'), or set "
            "data.loader=beton, which makes the same batches without it"
        ) from error
    return FFCVLoader
