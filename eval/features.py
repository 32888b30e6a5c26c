"""Features of whole splits through the frozen encoder, computed once per checkpoint and kept beside it.

Shapes: N images, D features.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tokenize
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.config import FeatureConfig, TransferConfig
from eval.encoder import FrozenEncoder
from eval.result import EvaluationError
from eval.splits import check_splits
from pretrain.config import Flavour, fingerprint
from pretrain.data.catalog import check_class_names, manifest_path, read_manifest
from pretrain.data.loader import evaluation_batches
from pretrain.models.encoder import to_float
from pretrain.rundir import RunDirectory, whole_file

PARTS = ("labels", "indices", "x")  # x last: the split is complete when it is there


@dataclass(frozen=True)
class Features:
    """Frozen features of one split: x (N, D) float32, labels (N,) int64, indices (N,) int64 of the images."""

    x_ND: Tensor
    labels_N: Tensor
    indices_N: Tensor

    def to(self, device: torch.device) -> Features:
        """The same on ``device``."""
        return Features(self.x_ND.to(device), self.labels_N.to(device), self.indices_N.to(device))

    def of_images(self, index_n: Tensor) -> Features:
        """Those of the images with these numbers, in their order; every one of them has to be here."""
        order_N = self.indices_N.argsort()
        place_n = order_N[torch.searchsorted(self.indices_N[order_N], index_n)]
        assert torch.equal(self.indices_N[place_n], index_n), "every image has its features"
        return Features(self.x_ND[place_n], self.labels_N[place_n], self.indices_N[place_n])


@dataclass(frozen=True)
class FeatureSource:
    """Where features come from: one checkpoint, one data directory, one crop size."""

    encoder: FrozenEncoder
    directory: Path
    train_split: str
    size_px: int
    config: FeatureConfig

    @property
    def flavour(self) -> Flavour:
        """Whose preprocessing: that of the views on which the encoder was trained."""
        return self.encoder.config.augmentation.flavour

    def __post_init__(self) -> None:
        """Raises EvaluationError where training and test images have their classes numbered differently."""
        manifests = [read_manifest(self.directory, path.stem) for path in self.manifests()]
        try:
            if manifests:
                check_class_names(*manifests)
        except ValueError as error:
            raise EvaluationError(str(error)) from error

    def describe(self) -> dict[str, Any]:
        """Plain values that say which images these are."""
        return {
            "directory": str(self.directory),
            "train_split": self.train_split,
            "test_split": self.config.test_split,
            "size_px": self.size_px,
            "class_names": self.class_names(),
        }

    def manifests(self, *more_splits: str) -> list[Path]:
        """The files that say which images the splits hold, those that exist."""
        splits = (self.train_split, self.config.test_split, *more_splits)
        paths = (manifest_path(self.directory, split) for split in splits)
        return [path for path in paths if path.is_file()]

    def images(self, split: str) -> int | None:
        """How many images of ``split`` are expected; None: all."""
        return self.config.train_images if split == self.train_split else None

    def class_names(self) -> list[str] | None:
        """What the classes are called; None where the data set does not say."""
        if not manifest_path(self.directory, self.config.test_split).is_file():
            return None
        return list(read_manifest(self.directory, self.config.test_split).class_names)


def feature_source(encoder: FrozenEncoder, config: FeatureConfig) -> FeatureSource:
    """``config`` with the run's own settings where it leaves them open."""
    run = encoder.config
    directory, train_split = config.directory or run.data.directory, config.train_split or run.data.split
    if config.classifies and not isinstance(config, TransferConfig):
        check_splits(run, directory, config.test_split, train_split)
    size_px = config.size_px or run.augmentation.crop_size_px
    return FeatureSource(encoder, directory, train_split, size_px, config)


def threads(config: FeatureConfig) -> int:
    """Threads that decode and augment images: as many as expected, else this rank's share of the cores beside a GPU.

    On a CPU one: the network needs the cores, and its threads wait for each other when others hold them up.
    """
    if config.workers is not None:
        return config.workers
    if config.device == "cpu" or not torch.cuda.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def load_features(run: RunDirectory, source: FeatureSource, split: str, *, device: torch.device) -> Features:
    """Features of ``split``, from the run's cache or freshly computed (and then cached).

    Raises EvaluationError where a feature is not a finite number: the run diverged.
    """
    features = cached_features(run, source, split) if source.config.cache else None
    if features is None:
        features = extract_features(source, split, device=device)
        keep_features(run, source, split, features)
    return features.to(device)


def cached_features(run: RunDirectory, source: FeatureSource, split: str) -> Features | None:
    """Features that are in the run's cache, on the CPU."""
    return _read(run.evaluation("features", _identity(source, split)))


def keep_features(run: RunDirectory, source: FeatureSource, split: str, features: Features) -> None:
    """Put the features of a whole split into the run's cache, unless nothing is to be kept.

    Raises EvaluationError where a feature is not a finite number: the run diverged.
    """
    if not bool(torch.isfinite(features.x_ND.sum())):
        raise EvaluationError(
            f"{source.encoder.checkpoint} gives features that are not finite numbers: the run diverged"
        )
    if source.config.cache:
        _write(run.evaluation("features", _identity(source, split)), features)


def extract_features(
    source: FeatureSource, split: str, *, device: torch.device, rank: int = 0, world_size: int = 1
) -> Features:
    """One pass over ``split`` in eval mode, float32, on the CPU afterwards: rank r of W takes the r-th part."""
    x, labels, indices = [], [], []
    batches = evaluation_batches(
        source.directory,
        split,
        size_px=source.size_px,
        batch_size=source.config.batch_size,
        images=source.images(split),
        rank=rank,
        world_size=world_size,
        workers=threads(source.config),
        flavour=source.flavour,
    )
    with torch.inference_mode(), progress_bar(f"features of {split}", "images") as advance:
        for batch in batches:
            pixels = to_float(batch.views[:, 0].to(device, non_blocking=True), channels_last=True)
            x.append(source.encoder.module(pixels).float().cpu())
            labels.append(batch.labels.clone())  # the loader may fill its buffers again
            indices.append(batch.indices.clone())
            advance(len(pixels))
    if not x:
        raise EvaluationError(f"{source.directory} has no images in its split '{split}'")
    return Features(torch.cat(x), torch.cat(labels).long(), torch.cat(indices).long())


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Counts on stderr where that is a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda count: bar.advance(task, count)


def _identity(source: FeatureSource, split: str) -> str:
    manifest = manifest_path(source.directory, split)
    return fingerprint(
        {
            **source.encoder.identity(),
            "data": hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else str(source.directory),
            "split": split,
            "images": source.images(split),
            "size_px": source.size_px,
            **({"flavour": source.flavour} if source.flavour != "torchvision" else {}),  # it joined later
        }
    )


def _read(folder: Path) -> Features | None:
    paths = {part: folder / f"{part}.npy" for part in PARTS}
    if not all(path.is_file() for path in paths.values()):
        return None
    try:
        arrays = {part: torch.from_numpy(np.load(path)) for part, path in paths.items()}
    except (ValueError, EOFError, OSError, TypeError, SyntaxError, tokenize.TokenError):
        return None  # damaged: computed again, and written over
    found = Features(arrays["x"], arrays["labels"], arrays["indices"])
    images = len(found.labels_N)
    whole = found.x_ND.shape[:1] == found.indices_N.shape == found.labels_N.shape and found.x_ND.dim() == 2
    kinds = (found.x_ND.dtype, found.labels_N.dtype, found.indices_N.dtype)
    sound = whole and images > 0 and kinds == (torch.float32, torch.int64, torch.int64)
    return found if sound and bool(torch.isfinite(found.x_ND.sum())) else None


def _write(folder: Path, features: Features) -> None:
    tensors = {"labels": features.labels_N, "indices": features.indices_N, "x": features.x_ND}
    for part in PARTS:
        with whole_file(folder / f"{part}.npy") as file:
            np.save(file, tensors[part].numpy())


def transfer_sources(encoder: FrozenEncoder, size_px: int, config: TransferConfig) -> list[FeatureSource]:
    """Where the features of each data set come from."""
    train_split = config.train_split or "train"
    chosen_on = [config.validation_split] if config.validation_split is not None else []
    for directory in config.directories:
        check_splits(encoder.config, directory, config.test_split, train_split, *chosen_on)
    return [FeatureSource(encoder, directory, train_split, size_px, config) for directory in config.directories]
