"""Writes a .beton file: its images so far, and a journal from which the next process goes on, whatever ended this one.

.{name}.part holds the images at their final places, .{name}.journal the identity of what is being written and a row per
image that has reached the disk, with the stamp of its original. One process at a time writes a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import zlib
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from pretrain.data.beton import format as beton
from pretrain.data.beton.encode import Encoded

METADATA = np.dtype([("image", beton.IMAGE), ("label", "<i8")], align=True)
ROW = np.dtype(
    [("metadata", METADATA), ("size", "<u8"), ("stamp", "<u8"), ("crc32", "<u4"), ("treated", "<u1")], align=True
)
_CHECKPOINT_BYTES, _CHECKPOINT_IMAGES = 64 << 20, 4096  # between two syncs: less than a second of work to lose


class BetonWriter:
    """Context manager. Whatever leaves it early, what has been written stays for the next process.

    identity: a hash of all that the content depends on, beside the originals; a draft of another identity is replaced.
    stamp_N: a number for each image that tells whether its original has changed.
    """

    def __init__(self, final: Path, identity: bytes, stamp_N: npt.NDArray[np.uint64]) -> None:
        self._final, self._identity, self._stamp_N = final, identity, stamp_N
        images = len(stamp_N)
        self._part = part_path(final)
        self._journal_path = final.with_name(f".{final.name}.journal")
        self._fields = _field_descriptors()
        self._start = next_page(beton.HEADER.itemsize + self._fields.nbytes + images * METADATA.itemsize)
        self._position = self._saved_position = self._start
        self._rows_N, self._done_N = np.zeros(images, ROW), np.zeros(images, np.bool_)
        self._unsaved: list[int] = []

    @property
    def missing(self) -> list[int]:
        """The images that are not written yet."""
        return np.flatnonzero(~self._done_N).tolist()

    @property
    def rows(self) -> npt.NDArray[np.void]:
        """ROW of each image written so far, in the order of the images."""
        return self._rows_N[self._done_N]

    def __enter__(self) -> BetonWriter:
        self._file = open(self._part, "r+b" if self._part.exists() else "w+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise BlockingIOError(error.errno, f"{self._final}: another process is writing it") from None
        except OSError as error:  # a file system without locks, as Lustre is often mounted
            print(f"{self._part}: cannot be locked ({error.strerror}); let no other process write it", file=sys.stderr)
        self._recover()
        self._file.truncate(self._position if self._done_N.any() else 0)
        self._file.seek(self._position)
        self._journal = open(self._journal_path, "wb")
        self._journal.write(self._identity)
        self._save()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        try:
            if kind is not None and not full:
                self._save()
        finally:
            for file in (self._journal, self._file):
                with contextlib.suppress(OSError):  # what could not be written before cannot be now
                    file.close()
            if kind is None:
                self._journal_path.unlink(missing_ok=True)
        if full and isinstance(error, OSError):
            raise OSError(
                error.errno,
                f"{self._final}: no room after {self._done_N.sum()} of {len(self._done_N)} images ({error.strerror}); "
                f"make room and rerun the command, which continues (what is there: {self._part}), reduce the images "
                "(--max-side, --quality), or name another DIR",
            ) from error

    def add(self, index: int, image: Encoded, mode: int, label: int) -> None:
        """Image number ``index``."""
        size = len(image.content)
        if self._position // beton.PAGE_BYTES != (self._position + size - 1) // beton.PAGE_BYTES:
            self._position = next_page(self._position)
            self._file.seek(self._position)
        self._file.write(image.content)
        metadata, crc32 = ((mode, image.width, image.height, self._position), label), zlib.crc32(image.content)
        self._rows_N[index] = (metadata, size, self._stamp_N[index], crc32, image.treated)
        self._done_N[index] = True
        self._unsaved.append(index)
        self._position += size
        if self._position - self._saved_position >= _CHECKPOINT_BYTES or len(self._unsaved) >= _CHECKPOINT_IMAGES:
            self._save()

    def finish(self) -> int:
        """Complete the file with the images that were added, and move it to its place; returns its size in bytes."""
        rows_N = self.rows
        images = len(rows_N)
        header = np.zeros(1, beton.HEADER)
        header["version"], header["num_fields"] = beton.VERSION, len(self._fields)
        header["num_samples"], header["page_size"] = images, beton.PAGE_BYTES
        header["alloc_table_ptr"] = next_page(self._position)
        allocations_N = np.zeros(images, beton.ALLOCATION)
        allocations_N["sample_id"] = np.arange(images)
        allocations_N["ptr"], allocations_N["size"] = rows_N["metadata"]["image"]["data_ptr"], rows_N["size"]
        self._file.seek(next_page(self._position))
        self._file.write(allocations_N.tobytes())
        size = self._file.tell()
        self._file.seek(0)
        metadata_N = np.zeros(images, METADATA)  # field by field: a copy of rows would write undefined padding
        metadata_N["label"] = rows_N["metadata"]["label"]
        for name in beton.IMAGE.names or ():
            metadata_N["image"][name] = rows_N["metadata"]["image"][name]
        self._file.write(header.tobytes() + self._fields.tobytes() + metadata_N.tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._part, self._final)
        return size

    def _save(self) -> None:
        """Sync the images so far to the disk, then their rows of the journal."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._journal.write(self._rows_N[self._unsaved].tobytes())
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._unsaved, self._saved_position = [], self._position

    def _recover(self) -> None:
        """Take over the images of an earlier process whose originals are the same, up to the first that is damaged."""
        if not self._journal_path.is_file():
            return
        content = self._journal_path.read_bytes()
        if content[: len(self._identity)] != self._identity:
            return
        content = content[len(self._identity) :]
        index_of = {stamp: index for index, stamp in enumerate(self._stamp_N.tolist())}
        for row in np.frombuffer(content, ROW, len(content) // ROW.itemsize):
            place, size = int(row["metadata"]["image"]["data_ptr"]), int(row["size"])
            self._file.seek(place)
            image = self._file.read(size)
            if len(image) != size or zlib.crc32(image) != row["crc32"]:
                return
            index = index_of.get(int(row["stamp"]))
            if index is not None and place >= self._start:
                self._rows_N[index], self._done_N[index] = row, True
                self._unsaved.append(index)
                self._position = max(self._position, place + size)


def part_path(final: Path) -> Path:
    """Where the images of ``final`` are until it is whole."""
    return final.with_name(f".{final.name}.part")


def next_page(position: int) -> int:
    """The first multiple of the page size from ``position`` on."""
    return -(-position // beton.PAGE_BYTES) * beton.PAGE_BYTES


def _field_descriptors() -> npt.NDArray[np.void]:
    fields = np.zeros(2, beton.FIELD)
    for field, name, type_id in zip(fields, ("image", "label"), (beton.TYPE_IMAGE, beton.TYPE_INT), strict=True):
        field["type_id"] = type_id
        field["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
    return fields
