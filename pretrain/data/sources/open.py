"""Where images come from before they are written. torchvision downloads and parses what it knows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pretrain.data.catalog import dataset_info
from pretrain.data.sources.arrays import idx_pair, image_arrays
from pretrain.data.sources.base import Pixels, Source, rgb
from pretrain.data.sources.folders import image_folder, imagenet, tiny_imagenet

__all__ = ["Pixels", "Source", "open_source", "synthetic"]

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
_FASHION_NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_SYNTHETIC_SIDE, _SYNTHETIC_CLASSES = 32, 10
_WITH_PARTS = ("imagenet", "imagefolder")


def open_source(name: str, split: str, directory: Path | None, only: frozenset[str] | None = None) -> Source:
    """The images of a split. ``directory``: where the originals are, or shall be downloaded to.

    only: names of the classes or files to take (ImageNet and image folders).

    Raises:
        ValueError: no such data set or split, or one that has no named parts.
        FileNotFoundError: the originals are not there and cannot be downloaded; says what is expected where.
    """
    info = dataset_info(name)
    if split not in info.splits:
        raise ValueError(f"split: got {split!r}, {name} has {', '.join(info.splits)}")
    if only is not None and name not in _WITH_PARTS:
        raise ValueError(f"--only: {name} is not a folder of files; expected one of {', '.join(_WITH_PARTS)}")
    match name:
        case "fashion_mnist":
            return _fashion_mnist(split, directory)
        case "cifar10" | "cifar100" | "stl10":
            return _torchvision(name, split, directory)
        case "tiny_imagenet":
            return tiny_imagenet(split, _needed(name, directory))
        case "imagenet":
            return imagenet(split, _needed(name, directory), only)
        case "imagefolder":
            return image_folder(split, _needed(name, directory), only)
        case "arrays":
            return image_arrays(split, _needed(name, directory))
        case "synthetic":
            return synthetic(split, info.images[split])
        case _:
            raise AssertionError(f"{name} is in the catalogue, but has no source")


def synthetic(split: str, images: int, side: int = _SYNTHETIC_SIDE) -> Source:
    """Noisy coloured stripes, their slope and colour given by the class: learnable, and the same on every machine."""
    salt = {"train": 0, "test": 1}.get(split, 2)
    y, x = np.mgrid[:side, :side] / side

    def pixels(index: int) -> Pixels:
        random = np.random.default_rng((salt, index))
        label = index % _SYNTHETIC_CLASSES
        angle = np.pi * label / _SYNTHETIC_CLASSES
        wave = np.sin(2 * np.pi * (3 * (x * np.cos(angle) + y * np.sin(angle)) + random.random()))
        tint = 0.5 + 0.5 * np.cos(2 * np.pi * (label / _SYNTHETIC_CLASSES + np.arange(3) / 3))
        level = 128 + 80 * wave[:, :, None] * tint + random.normal(0, 20, (side, side, 3))
        image: Pixels = np.clip(level, 0, 255).astype(np.uint8)
        return image

    labels = np.arange(images, dtype=np.int64) % _SYNTHETIC_CLASSES
    return Source(labels, tuple(f"stripes {k}" for k in range(_SYNTHETIC_CLASSES)), pixels)


def _fashion_mnist(split: str, directory: Path | None) -> Source:
    """From ``directory``, $BIGBATCH_FASHION_MNIST or Debian's package; else torchvision's download."""
    named = directory or os.environ.get("BIGBATCH_FASHION_MNIST")
    folder = Path(named) if named else DEBIAN_FASHION_MNIST
    if idx_pair(split, folder) is None:
        return _torchvision("fashion_mnist", split, directory)
    source = image_arrays(split, folder)
    return Source(source.labels, _FASHION_NAMES, source.pixels)


def _torchvision(name: str, split: str, directory: Path | None) -> Source:
    from torchvision import datasets

    root = directory or Path.home() / ".cache" / "bigbatch"
    try:
        match name:
            case "fashion_mnist":
                data = datasets.FashionMNIST(root, train=split == "train", download=True)
            case "cifar10":
                data = datasets.CIFAR10(root, train=split == "train", download=True)
            case "cifar100":
                data = datasets.CIFAR100(root, train=split == "train", download=True)
            case _:
                data = datasets.STL10(root, split=split, download=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{name}: not in {root}, and cannot be downloaded ({error}); name its folder with --source-dir"
        ) from error
    names = tuple(map(str, getattr(data, "classes", ())))
    labels = data.labels if name == "stl10" else data.targets
    return Source(np.asarray(labels, np.int64), names, lambda index: rgb(np.asarray(data[index][0])))


def _needed(name: str, directory: Path | None) -> Path:
    if directory is None:
        raise FileNotFoundError(f"{name}: name the folder of the original images with --source-dir")
    return directory
