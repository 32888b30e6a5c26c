"""Writes a .beton file: its images so far, and a journal from which a killed process goes on.

.{name}.part holds the images at their final places, .{name}.journal the identity of what is being written and a row per
image that has reached the disk. One process at a time writes a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import zlib
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from pretrain.data.beton import format as beton
from pretrain.data.beton.encode import Encoded

METADATA = np.dtype([("image", beton.IMAGE), ("label", "<i8")], align=True)
ROW = np.dtype([("metadata", METADATA), ("size", "<u8"), ("crc32", "<u4"), ("kept", "<u1")], align=True)
_CHECKPOINT_BYTES, _CHECKPOINT_IMAGES = 64 << 20, 4096  # between two syncs: less than a second of work to lose


class BetonWriter:
    """Context manager. Ctrl-C keeps what has been written, for the next process; any other exception deletes it.

    identity: a hash of all that the content depends on; what was begun under another identity is deleted.
    """

    def __init__(self, final: Path, identity: bytes, images: int) -> None:
        self._final, self._identity, self._images = final, identity, images
        self._part = part_path(final)
        self._journal_path = final.with_name(f".{final.name}.journal")
        self._fields = _field_descriptors()
        self._start = next_page(beton.HEADER.itemsize + self._fields.nbytes + images * METADATA.itemsize)
        self._position, self._count, self._saved, self._saved_position = self._start, 0, 0, self._start
        self._rows_N = np.zeros(images, ROW)
        self.payload_crc32 = 0  # of all images so far, one after another

    @property
    def count(self) -> int:
        """Images written so far."""
        return self._count

    @property
    def rows(self) -> npt.NDArray[np.void]:
        """ROW of each image written so far."""
        return self._rows_N[: self._count]

    def __enter__(self) -> BetonWriter:
        self._file = open(self._part, "r+b" if self._part.exists() else "w+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise BlockingIOError(error.errno, f"{self._final}: another process is writing it") from None
        self._recover()
        self._file.truncate(self._position if self._count else 0)
        self._file.seek(self._position)
        self._journal = open(self._journal_path, "wb")
        self._journal.write(self._identity)
        self._save()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                self._save()
            else:
                self._part.unlink(missing_ok=True)
                self._journal_path.unlink(missing_ok=True)
        finally:
            for file in (self._journal, self._file):
                with contextlib.suppress(OSError):  # what could not be written before cannot be now
                    file.close()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(
                error.errno,
                f"{self._final}: no room after {self._count} of {self._images} images ({error.strerror}); nothing of "
                "it was left behind; make room, reduce the images (--max-side, --quality), or name another DIR",
            ) from error

    def add(self, image: Encoded, mode: int, label: int) -> None:
        """The next image.

        Raises:
            ValueError: it does not fit a page of the format.
        """
        size = len(image.content)
        if size > beton.PAGE_BYTES:
            raise ValueError(
                f"image {self._count}: {size} bytes do not fit a page of {beton.PAGE_BYTES}; set --max-side"
            )
        if self._position // beton.PAGE_BYTES != (self._position + size - 1) // beton.PAGE_BYTES:
            self._position = next_page(self._position)
            self._file.seek(self._position)
        self._file.write(image.content)
        metadata = ((mode, image.width, image.height, self._position), label)
        self._rows_N[self._count] = (metadata, size, zlib.crc32(image.content), image.kept)
        self.payload_crc32 = zlib.crc32(image.content, self.payload_crc32)
        self._position += size
        self._count += 1
        unsaved = self._position - self._saved_position
        if unsaved >= _CHECKPOINT_BYTES or self._count - self._saved >= _CHECKPOINT_IMAGES:
            self._save()

    def finish(self) -> int:
        """Complete the file and move it to its place; returns its size in bytes."""
        assert self._count == self._images, "all images come before the end"
        rows_N = self._rows_N
        header = np.zeros(1, beton.HEADER)
        header["version"], header["num_fields"] = beton.VERSION, len(self._fields)
        header["num_samples"], header["page_size"] = self._images, beton.PAGE_BYTES
        header["alloc_table_ptr"] = next_page(self._position)
        allocations_N = np.zeros(self._images, beton.ALLOCATION)
        allocations_N["sample_id"] = np.arange(self._images)
        allocations_N["ptr"], allocations_N["size"] = rows_N["metadata"]["image"]["data_ptr"], rows_N["size"]
        self._file.seek(next_page(self._position))
        self._file.write(allocations_N.tobytes())
        size = self._file.tell()
        self._file.seek(0)
        metadata_N = np.zeros(self._images, METADATA)  # field by field: a copy of rows would write undefined padding
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
        self._journal.write(self._rows_N[self._saved : self._count].tobytes())
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._saved, self._saved_position = self._count, self._position

    def _recover(self) -> None:
        """Take over the images of an earlier process, up to the first that is not as its journal says."""
        if not self._journal_path.is_file():
            return
        content = self._journal_path.read_bytes()
        if content[: len(self._identity)] != self._identity:
            return
        content = content[len(self._identity) :]
        rows = np.frombuffer(content, ROW, min(len(content) // ROW.itemsize, self._images))
        for row in rows:
            place, size = int(row["metadata"]["image"]["data_ptr"]), int(row["size"])
            self._file.seek(place)
            image = self._file.read(size)
            if len(image) != size or zlib.crc32(image) != row["crc32"]:
                return
            self._rows_N[self._count] = row
            self.payload_crc32 = zlib.crc32(image, self.payload_crc32)
            self._count, self._position = self._count + 1, place + size


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
