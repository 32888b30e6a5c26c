"""Images that lie in one array: a pair of NumPy files, or of idx files as MNIST and its relatives are distributed."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.data.sources.base import Source

if TYPE_CHECKING:
    from pretrain.data.sources.images import Images, Pixels

_EXPECTED = (
    "{split}_images.npy and {split}_labels.npy (uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3); integers (N,)), or "
    "{idx}-images-idx3-ubyte and {idx}-labels-idx1-ubyte, plain or .gz"
)


_MANY_CLASSES = 100_000  # ids beyond this and the number of images are some other number than a class's


class Arrays(Source):
    """A pair of files for each split, see `array_images`."""

    stored_as = "raw"

    def available(self) -> tuple[str, ...]:
        there = (s for s in self.splits if self.directory and (self.directory / f"{s}_images.npy").is_file())
        idx = (s for s in self.splits if self.directory and idx_pair(s, self.directory))
        return tuple(there) or tuple(idx) or self.splits

    def open(self, split: str) -> Images:
        return array_images(split, self.originals())


def array_images(split: str, directory: Path) -> Images:
    """The pair of a split in ``directory``. Without a file of labels the images are unlabelled.

    Raises:
        FileNotFoundError: there is no such pair; says what is expected.
        ValueError: the arrays are not images, or the labels do not fit; says what they are.
    """
    import numpy as np

    array = directory / f"{split}_images.npy"
    if array.is_file():
        images = np.load(array, mmap_mode="r")
        there = [path for path in (array, directory / f"{split}_labels.npy") if path.is_file()]
        return _checked(there, images, np.load(there[1]) if len(there) > 1 else None)
    found = idx_pair(split, directory)
    if found is None:
        expected = _EXPECTED.format(split=split, idx=_idx_prefix(split))
        raise FileNotFoundError(f"{directory}: no arrays of the split {split}; expected {expected}")
    images_path, labels_path = found
    files = [images_path, labels_path] if labels_path else [images_path]
    return _checked(files, read_idx(images_path), read_idx(labels_path) if labels_path else None)


def idx_pair(split: str, directory: Path) -> tuple[Path, Path | None] | None:
    """Paths of a split's images and, if there, labels."""
    stem = directory / _idx_prefix(split)
    images, labels = (
        next((path for path in (Path(f"{stem}-{kind}-ubyte{end}") for end in ("", ".gz")) if path.is_file()), None)
        for kind in ("images-idx3", "labels-idx1")
    )
    return None if images is None else (images, labels)


def read_idx(path: Path) -> Pixels:
    """Array of an idx file of bytes, plain or gzipped: magic 0 0 8 dimensions, big-endian sizes, data.

    Raises:
        ValueError: it is not such a file, or is cut short; names it.
    """
    import numpy as np

    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if content[:3] != b"\0\0\x08":
            raise ValueError("not an idx file of bytes")
        dimensions = content[3]
        shape = [int(length) for length in np.frombuffer(content, ">u4", dimensions, offset=4)]
        values: Pixels = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (EOFError, gzip.BadGzipFile, ValueError) as error:
        raise ValueError(f"{path}: damaged, or not an idx file ({error})") from error
    return values


def _idx_prefix(split: str) -> str:
    return "t10k" if split == "test" else split


def _checked(files: Sequence[Path], images: Any, labels: Any | None) -> Images:
    """The arrays of ``files`` as images. Raises ValueError where they are not; names the file."""
    import numpy as np

    from pretrain.data.sources.images import Images, rgb

    colours = images.shape[3] if images.ndim == 4 else 1
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or colours not in (1, 3):
        raise ValueError(
            f"{files[0]}: got {images.dtype} of shape {images.shape}, expected uint8 (N, H, W) or (N, H, W, 1 or 3)"
        )
    if labels is None:
        labels = np.full(len(images), -1)
    if labels.shape not in ((len(images),), (len(images), 1)) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{files[0]}: {len(images)} images, but labels are {labels.dtype} of shape {labels.shape}")
    label_N = labels.reshape(-1).astype(np.int64)
    classes = int(label_N.max(initial=-1)) + 1
    if label_N.min(initial=-1) < -1 or classes > max(len(images), _MANY_CLASSES):
        low, high = label_N.min(), classes - 1
        raise ValueError(
            f"{files[-1]}: labels {low} to {high}, expected numbers from 0 on, one a class, or -1 for none"
        )
    return Images(label_N, tuple(map(str, range(classes))), lambda index: rgb(images[index]), files=files)
