"""The .beton file format, version 2, as ffcv 1.0 reads and writes it: numpy only, without ffcv.

    header | field descriptors | metadata of N samples | pages of payload | allocation table

Integers are little-endian. The payload starts at a multiple of the page size and no sample crosses a page. The metadata
row of a sample holds its label and where its image is; the allocation table gives the number of bytes there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

VERSION = 2
PAGE_BYTES = 1 << 23
JPEG, RAW = 0, 1
TYPE_INT, TYPE_IMAGE = 1, 2

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
FIELD = np.dtype([("type_id", "<u1"), ("name", ("<u1", 16)), ("arguments", ("<u1", (1024,)))], align=True)
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
_METADATA = {0: np.dtype("<f8"), TYPE_INT: np.dtype("<i8"), TYPE_IMAGE: IMAGE}


@dataclass(frozen=True)
class ImageTable:
    """Where the N images of a file are, and the bytes of the file.

    data: uint8, one-dimensional, the whole file mapped into memory; at least one byte follows the last image.
    """

    path: Path
    data: npt.NDArray[np.uint8]
    offset_N: npt.NDArray[np.int64]
    size_N: npt.NDArray[np.int64]
    height_N: npt.NDArray[np.int64]
    width_N: npt.NDArray[np.int64]
    mode_N: npt.NDArray[np.int64]
    label_N: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offset_N)


def image_table(path: Path, data: Any, image_N: Any, label_N: Any, allocations: npt.NDArray[np.void]) -> ImageTable:
    """Join the image metadata (IMAGE, N) with the allocation table.

    Raises:
        ValueError: an image lies outside the file or has no allocation.
    """
    by_pointer = np.sort(allocations, order="ptr")
    found_N = np.searchsorted(by_pointer["ptr"], image_N["data_ptr"])
    known_N = found_N < len(by_pointer)
    row_N = by_pointer[np.where(known_N, found_N, 0)] if len(by_pointer) else np.zeros(len(image_N), ALLOCATION)
    height_N, width_N = image_N["height"].astype(np.int64), image_N["width"].astype(np.int64)
    size_N, offset_N = row_N["size"].astype(np.int64), image_N["data_ptr"].astype(np.int64)
    mode_N = image_N["mode"].astype(np.int64)
    bad_N = ~known_N | (row_N["ptr"] != image_N["data_ptr"]) | (offset_N + size_N >= len(data))
    bad_N |= (height_N * width_N == 0) | ((mode_N == RAW) & (size_N != 3 * height_N * width_N)) | (mode_N > RAW)
    if bad_N.any():
        samples = ", ".join(map(str, np.flatnonzero(bad_N)[:5]))
        raise ValueError(f"{path}: damaged: {bad_N.sum()} samples point to no image of the file ({samples} …)")
    label_N = np.ascontiguousarray(label_N, np.int64)
    return ImageTable(path, np.asarray(data), offset_N, size_N, height_N, width_N, mode_N, label_N)


def read_layout(path: Path) -> tuple[int, list[str]]:
    """Number of samples of a file, and the names of its fields in order.

    Raises:
        ValueError: not a .beton file of version 2.
    """
    header, fields = _read_fields(path)
    return int(header["num_samples"]), [name for name, _ in fields]


def read_table(path: Path) -> ImageTable:
    """The fields `image` and `label` of a .beton file.

    Raises:
        FileNotFoundError, ValueError: no such file; not a whole .beton file with these two fields.
    """
    header, fields = _read_fields(path)
    unknown = [name for name, type_id in fields if type_id not in _METADATA]
    types = dict(fields)
    if unknown or types.get("image") != TYPE_IMAGE or types.get("label") != TYPE_INT:
        raise ValueError(
            f"{path}: fields {[name for name, _ in fields]}, expected an RGB `image` and an integer `label`"
        )
    metadata = np.dtype([(name, _METADATA[type_id]) for name, type_id in fields], align=True)
    start = HEADER.itemsize + len(fields) * FIELD.itemsize
    rows_N = np.fromfile(path, metadata, int(header["num_samples"]), offset=start)
    allocations = np.fromfile(path, ALLOCATION, offset=int(header["alloc_table_ptr"]))
    if len(rows_N) != header["num_samples"] or len(allocations) < len(rows_N):
        raise ValueError(f"{path}: cut short: {header['num_samples']} samples announced, {len(allocations)} stored")
    return image_table(path, np.memmap(path, np.uint8, "r"), rows_N["image"], rows_N["label"], allocations)


def _read_fields(path: Path) -> tuple[Any, list[tuple[str, int]]]:
    header = np.fromfile(path, HEADER, 1)
    if len(header) != 1 or header[0]["version"] != VERSION:
        found = f"version {header[0]['version']}" if len(header) else "an empty file"
        raise ValueError(f"{path}: {found}, expected a .beton file of version {VERSION}")
    rows = np.fromfile(path, FIELD, int(header[0]["num_fields"]), offset=HEADER.itemsize)
    return header[0], [(bytes(row["name"]).split(b"\0")[0].decode("ascii"), int(row["type_id"])) for row in rows]
