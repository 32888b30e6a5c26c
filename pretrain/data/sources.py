"""Where images come from before they are written: one labelled image at a time, as uint8 pixels (height, width, 3)."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.data.catalog import dataset_info

Pixels = npt.NDArray[np.uint8]
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
_FASHION_NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_SYNTHETIC_SIDE, _SYNTHETIC_CLASSES = 32, 10


@dataclass(frozen=True)
class Source:
    """Labelled images by number. ``pixels(i)`` may be called from several threads. Label -1: unlabelled.

    paths: the image files, where there are some; a JPEG file may be stored as it is.
    """

    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    pixels: Callable[[int], Pixels]
    paths: Sequence[str | Path] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def open_source(name: str, split: str, directory: Path | None) -> Source:
    """The images of a split. ``directory``: where the originals are, or shall be downloaded to.

    Raises:
        ValueError: no such data set or split.
        FileNotFoundError: the originals are not there and cannot be downloaded; says what is wanted where.
    """
    info = dataset_info(name)
    if split not in info.splits:
        raise ValueError(f"split: got {split!r}, {name} has {', '.join(info.splits)}")
    match name:
        case "fashion_mnist":
            return _fashion_mnist(split, directory)
        case "cifar10" | "cifar100" | "stl10":
            return _torchvision(name, split, directory)
        case "tiny_imagenet":
            return _tiny_imagenet(split, _needed(name, directory))
        case "imagenet" | "imagefolder":
            return _image_folder(split, _needed(name, directory))
        case "synthetic":
            return synthetic(split, info.images[split])
        case _:
            raise AssertionError(f"{name} is in the catalogue, but has no source")


def rgb(pixels: npt.NDArray[Any]) -> Pixels:
    """(H, W) grey or (H, W, 3) as (H, W, 3): grey images are stored as three equal channels."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels, np.uint8)


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


def _idx(path: Path) -> Pixels:
    """Array of an .idx.gz file of bytes: magic 0 0 8 dimensions, big-endian sizes, data."""
    with gzip.open(path) as file:
        content = file.read()
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: not an idx file of bytes")
    dimensions = content[3]
    shape = [int(length) for length in np.frombuffer(content, ">u4", dimensions, offset=4)]
    pixels: Pixels = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    return pixels


def _fashion_mnist(split: str, directory: Path | None) -> Source:
    """From ``directory``, $BIGBATCH_FASHION_MNIST or Debian's package; else torchvision's download."""
    named = directory or os.environ.get("BIGBATCH_FASHION_MNIST")
    folder = Path(named) if named else DEBIAN_FASHION_MNIST
    prefix = "train" if split == "train" else "t10k"
    images_path = folder / f"{prefix}-images-idx3-ubyte.gz"
    if not images_path.is_file():
        return _torchvision("fashion_mnist", split, directory)
    images = _idx(images_path)
    labels = _idx(folder / f"{prefix}-labels-idx1-ubyte.gz").astype(np.int64)
    return Source(labels, _FASHION_NAMES, lambda index: rgb(images[index]))


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


def _from_files(paths: Sequence[str | Path], labels: Sequence[int], names: tuple[str, ...]) -> Source:
    from PIL import Image

    def pixels(index: int) -> Pixels:
        try:
            with Image.open(paths[index]) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{paths[index]}: not an image ({error})") from error

    return Source(np.asarray(labels, np.int64), names, pixels, paths)


def _image_folder(split: str, directory: Path) -> Source:
    """DIRECTORY/{split}/CLASS/…; `val` serves for `test`."""
    from torchvision.datasets import ImageFolder

    folders = [directory / name for name in ((split, "val") if split == "test" else (split,))]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"{' or '.join(map(str, folders))}: no such folder; wanted one folder per class in it")
    data = ImageFolder(str(folder))
    paths, labels = zip(*data.samples, strict=True)
    return _from_files(paths, labels, tuple(data.classes))


def _tiny_imagenet(split: str, directory: Path) -> Source:
    """As distributed: train/WNID/images/*.JPEG; val/images with val_annotations.txt."""
    if split == "train":
        return _image_folder("train", directory)
    names = tuple(sorted(path.name for path in (directory / "train").iterdir() if path.is_dir()))
    annotations = directory / "val" / "val_annotations.txt"
    if not annotations.is_file():
        raise FileNotFoundError(f"{annotations}: no such file; wanted tiny-imagenet-200 as distributed")
    rows = [line.split("\t")[:2] for line in annotations.read_text().splitlines()]
    paths = [directory / "val" / "images" / file for file, _ in rows]
    return _from_files(paths, [names.index(name) for _, name in rows], names)
