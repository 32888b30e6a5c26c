"""The images of one split, by number: what every source opens."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.data.sources.pixels import PixelPolicy, read_pixels

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Images:
    """N labelled images by number. The functions may be called from several threads.

    labels: (N,); -1: unlabelled. class_names: in the order of the labels; () if there are none. pixels(i): uint8
    (height, width, 3). paths: what the images are called, where they have names. encoded(i): the bytes of the image
    file, where there is one: the writer's policies for unusual pixels apply, and a JPEG that is small enough is stored
    as it is. files: what is read, one file per image or some that hold them all; by these one selection of images is
    told from another. left_out: what a scan of folders passed over, counted by kind.
    """

    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    pixels: Callable[[int], Pixels]
    paths: Sequence[str | Path] | None = None
    encoded: Callable[[int], bytes] | None = None
    files: Sequence[str | Path] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """What messages call an image."""
        return str(self.paths[index]) if self.paths else f"image {index}"

    def stamps(self) -> npt.NDArray[np.uint64]:
        """A number for each image, shape (N,), that changes with its file: of its path, size and time, or its index."""
        if len(self.files) != len(self):
            return np.arange(len(self), dtype=np.uint64)
        facts = (f"{file}\0{_facts(file)}".encode() for file in self.files)
        return np.array([int.from_bytes(hashlib.blake2b(fact, digest_size=8).digest(), "little") for fact in facts],
                        np.uint64)  # fmt: skip

    def source_sha256(self) -> str | None:
        """Of the files' names and sizes, wherever their folder lies; None where there are none."""
        if not self.files:
            return None
        above = os.path.commonpath([os.path.dirname(file) for file in self.files])
        lines = [f"{os.path.relpath(file, above)}\0{os.path.getsize(file)}" for file in self.files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _facts(file: str | Path) -> str:
    status = os.stat(file)
    return f"{status.st_size}\0{status.st_mtime_ns}"


def from_files(paths: Sequence[str | Path], labels: Sequence[int], class_names: tuple[str, ...], **more: Any) -> Images:
    """Image files that Pillow opens. more: further fields of `Images`."""
    return from_encoded(
        lambda index: Path(paths[index]).read_bytes(), paths, labels, class_names, files=paths, **more
    )  # fmt: skip


def from_encoded(
    encoded: Callable[[int], bytes], names: Sequence[str | Path], labels: Sequence[int], class_names: tuple[str, ...],
    **more: Any,
) -> Images:  # fmt: skip
    """Images whose files are ``encoded(i)``, wherever they lie; names[i] in messages. Pillow opens them."""

    def pixels(index: int) -> Pixels:
        try:
            return np.asarray(read_pixels(encoded(index), PixelPolicy())[0])
        except ValueError as error:
            raise ValueError(f"{names[index]}: {error}") from error

    return Images(np.asarray(labels, np.int64), class_names, pixels, names, encoded, **more)


def rgb(pixels: npt.NDArray[Any]) -> Pixels:
    """(H, W) or (H, W, 1) grey, or (H, W, 3), as (H, W, 3): grey images are stored as three equal channels."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels, np.uint8)
