"""Data sets that torchvision downloads and reads; Fashion-MNIST also from where a Linux distribution has put it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pretrain.data.sources.arrays import array_images, idx_pair
from pretrain.data.sources.base import Source

if TYPE_CHECKING:
    from pretrain.data.sources.images import Images

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
_FASHION_NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class _Download(Source):
    """A class of torchvision.datasets, by its name there."""

    stored_as = "raw"
    class_there: ClassVar[str]

    def arguments(self, split: str) -> dict[str, Any]:
        """What the class is given to open a split."""
        return {"train": split == "train"}

    def open(self, split: str) -> Images:
        import numpy as np
        from torchvision import datasets

        from pretrain.data.sources.images import Images, rgb

        root = self.directory or Path.home() / ".cache" / "bigbatch"
        try:
            data = getattr(datasets, self.class_there)(root, download=True, **self.arguments(split))
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"not in {root}, and cannot be downloaded ({error}); name its folder with --source-dir"
            ) from error
        names = tuple(map(str, getattr(data, "classes", ())))
        labels = data.targets if hasattr(data, "targets") else data.labels  # STL10 has another name for them
        return Images(np.asarray(labels, np.int64), names, lambda index: rgb(np.asarray(data[index][0])))


class FashionMNIST(_Download):
    """From the named folder, $BIGBATCH_FASHION_MNIST or Debian's package; else torchvision's download."""

    label = "Fashion-MNIST"
    class_there = "FashionMNIST"
    images: ClassVar = {"train": 60_000, "test": 10_000}
    classes, side_px = 10, 28

    def open(self, split: str) -> Images:
        named = self.directory or os.environ.get("BIGBATCH_FASHION_MNIST")
        folder = Path(named) if named else DEBIAN_FASHION_MNIST
        if idx_pair(split, folder) is None:
            return super().open(split)
        return replace(array_images(split, folder), class_names=_FASHION_NAMES)


class CIFAR10(_Download):
    """Krizhevsky 2009: 10 classes of 32 px."""

    label = "CIFAR-10"
    class_there = "CIFAR10"
    images: ClassVar = {"train": 50_000, "test": 10_000}
    classes, side_px = 10, 32


class CIFAR100(_Download):
    """Krizhevsky 2009: 100 classes of 32 px."""

    label = "CIFAR-100"
    class_there = "CIFAR100"
    images: ClassVar = {"train": 50_000, "test": 10_000}
    classes, side_px = 100, 32


class STL10(_Download):
    """Coates, Ng and Lee 2011: 10 classes of 96 px, and 100,000 images without labels."""

    label = "STL-10"
    class_there = "STL10"
    splits = ("train", "test", "unlabeled")
    images: ClassVar = {"train": 5_000, "test": 8_000, "unlabeled": 100_000}
    classes, side_px = 10, 96

    def arguments(self, split: str) -> dict[str, Any]:
        return {"split": split}
