"""Write a data set as .beton files: ``python -m pretrain.data.write_beton SOURCE DIR``.

Each split becomes DIR/{split}.beton (ffcv's format, version 2) and DIR/{split}.json (its manifest), both written whole
or not at all, the manifest last. A split that is there already is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import io
import os
import sys
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pretrain.data import beton
from pretrain.data.catalog import (
    DATASETS,
    Manifest,
    StoredAs,
    beton_path,
    dataset_info,
    manifest_path,
    read_manifest,
)
from pretrain.data.sources import Source, open_source

WRITER_VERSION = 1
_METADATA = np.dtype([("image", beton.IMAGE), ("label", "<i8")], align=True)
_LARGEST_SIDE = 65_535  # the format keeps sizes in 16 bits


@dataclass(frozen=True)
class Storage:
    """How images are stored. max_side_px: longer images are reduced to it; None keeps their size."""

    format: StoredAs
    max_side_px: int | None = None
    jpeg_quality: int = 90


@dataclass(frozen=True)
class _Encoded:
    content: bytes
    height: int
    width: int


def write_split(
    source: Source, directory: Path, *, dataset: str, split: str, storage: Storage, workers: int = 1,
    progress: Progress | None = None,
) -> Manifest:  # fmt: skip
    """Write ``source`` as DIR/{split}.beton and its manifest; what was there is replaced when both are complete.

    Raises:
        ValueError: an image cannot be stored; names it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    final = beton_path(directory, split)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            rows_N, checksum = _write_file(file, source, storage, workers, progress, f"{dataset} {split}")
            file.flush()
            os.fsync(file.fileno())
        manifest = _manifest(source, dataset, split, storage, rows_N, temporary.stat().st_size, checksum)
        manifest_path(directory, split).unlink(missing_ok=True)  # never beside a file that it does not describe
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    _write_text(manifest_path(directory, split), manifest.to_json())
    return manifest


def _write_file(
    file: BinaryIO, source: Source, storage: Storage, workers: int, progress: Progress | None, name: str
) -> tuple[npt.NDArray[np.void], int]:
    """Header, metadata, pages, allocation table; returns the metadata rows and the CRC of the payload."""
    images = len(source)
    rows_N, allocations_N = np.zeros(images, _METADATA), np.zeros(images, beton.ALLOCATION)
    fields = _field_descriptors()
    header = np.zeros(1, beton.HEADER)
    header["version"], header["num_fields"], header["num_samples"] = beton.VERSION, len(fields), images
    header["page_size"] = beton.PAGE_BYTES
    position = _next_page(header.nbytes + fields.nbytes + rows_N.nbytes)
    file.seek(position)
    checksum = 0
    task = progress.add_task(name, total=images) if progress is not None else None
    mode = beton.RAW if storage.format == "raw" else beton.JPEG
    for index, image in enumerate(_encoded(source, storage, workers)):
        size = len(image.content)
        if size > beton.PAGE_BYTES:
            raise ValueError(f"image {index}: {size} bytes do not fit a page of {beton.PAGE_BYTES}; set --max-side")
        if position // beton.PAGE_BYTES != (position + size - 1) // beton.PAGE_BYTES:
            position = _next_page(position)
            file.seek(position)
        file.write(image.content)
        checksum = zlib.crc32(image.content, checksum)
        rows_N[index] = ((mode, image.width, image.height, position), source.labels[index])
        allocations_N[index] = (index, position, size)
        position += size
        if progress is not None and task is not None and (index % 256 == 255 or index + 1 == images):
            progress.update(task, completed=index + 1)
    header["alloc_table_ptr"] = _next_page(position)
    file.seek(_next_page(position))
    file.write(allocations_N.tobytes())
    file.seek(0)
    file.write(header.tobytes() + fields.tobytes() + rows_N.tobytes())
    return rows_N, checksum


def _next_page(position: int) -> int:
    return -(-position // beton.PAGE_BYTES) * beton.PAGE_BYTES


def _field_descriptors() -> npt.NDArray[np.void]:
    fields = np.zeros(2, beton.FIELD)
    for field, name, type_id in zip(fields, ("image", "label"), (beton.TYPE_IMAGE, beton.TYPE_INT), strict=True):
        field["type_id"] = type_id
        field["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
    return fields


def _encoded(source: Source, storage: Storage, workers: int) -> Iterator[_Encoded]:
    """The images in order, encoded by ``workers`` threads (decoding and encoding release the GIL)."""
    if workers == 1:
        yield from (_encode(source, index, storage) for index in range(len(source)))
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_Encoded]] = deque()
        try:
            for index in range(len(source)):
                waiting.append(pool.submit(_encode, source, index, storage))
                if len(waiting) >= 8 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _encode(source: Source, index: int, storage: Storage) -> _Encoded:
    pixels = source.pixels(index)
    height, width = pixels.shape[:2]
    limit = storage.max_side_px or _LARGEST_SIDE
    if max(height, width) > limit:
        scale = limit / max(height, width)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        pixels = np.asarray(image)
    if storage.format == "raw":
        return _Encoded(pixels.tobytes(), height, width)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=storage.jpeg_quality)
    return _Encoded(buffer.getvalue(), height, width)


def _manifest(
    source: Source, dataset: str, split: str, storage: Storage, rows_N: npt.NDArray[np.void], size: int, checksum: int
) -> Manifest:
    images = rows_N["image"]
    widest, tallest = (int(images[axis].max()) if len(rows_N) else 0 for axis in ("width", "height"))
    same = len(rows_N) > 0 and bool(((images["width"] == widest) & (images["height"] == widest)).all())
    try:
        ffcv_version = importlib.metadata.version("ffcv")
    except importlib.metadata.PackageNotFoundError:
        ffcv_version = None
    return Manifest(
        dataset=dataset,
        split=split,
        images=len(rows_N),
        classes=len(source.class_names) or int(source.labels.max(initial=-1)) + 1,
        class_names=source.class_names,
        side_px=widest if same else None,
        widest_px=widest,
        tallest_px=tallest,
        channels=3,
        format=storage.format,
        max_side_px=storage.max_side_px,
        jpeg_quality=storage.jpeg_quality if storage.format == "jpg" else None,
        bytes=size,
        labels_sha256=hashlib.sha256(rows_N["label"].tobytes()).hexdigest(),
        payload_crc32=checksum,
        ffcv_format=beton.VERSION,
        ffcv_version=ffcv_version,
        writer_version=WRITER_VERSION,
    )


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def is_complete(directory: Path, split: str, dataset: str, storage: Storage) -> bool:
    """Whether the split is there, whole, and stored as wanted.

    Raises:
        ValueError: it is there but of another data set or stored otherwise; says how.
    """
    path = beton_path(directory, split)
    if not path.is_file() or not manifest_path(directory, split).is_file():
        return False
    found = read_manifest(directory, split, dataset)
    quality = storage.jpeg_quality if storage.format == "jpg" else None
    there = (found.dataset, found.format, found.max_side_px, found.jpeg_quality)
    wanted = (dataset, storage.format, storage.max_side_px, quality)
    if there != wanted:
        raise ValueError(
            f"{path}: holds (data set, format, max side, quality) {there}, wanted {wanted}; --force replaces it"
        )
    return path.stat().st_size == found.bytes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pretrain.data.write_beton", description=__doc__.split("\n")[0])
    parser.add_argument("source", metavar="SOURCE", help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("directory", metavar="DIR", type=Path, help="where the files go")
    parser.add_argument("--splits", nargs="+", help="default: all that the data set has")
    parser.add_argument("--source-dir", type=Path, help="where the original images are, or shall be downloaded to")
    parser.add_argument("--format", choices=("raw", "jpg"), help="default: raw for small images, jpg for photographs")
    parser.add_argument("--max-side", type=int, help="reduce longer images to this many pixels (jpg: 500)")
    parser.add_argument("--quality", type=int, default=90, help="of JPEG compression (default: 90)")
    parser.add_argument("--workers", type=int, help="threads that encode JPEG (default: one per processor)")
    parser.add_argument("--force", action="store_true", help="write even what is there already")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    try:
        info = dataset_info(given.source)
        stored_as: StoredAs = given.format or info.stored_as
        max_side = given.max_side or (500 if stored_as == "jpg" else None)
        storage = Storage(stored_as, max_side, given.quality)
        workers = given.workers or (1 if stored_as == "raw" and info.side_px else os.cpu_count() or 1)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            for split in given.splits or info.splits:
                if not given.force and is_complete(given.directory, split, info.name, storage):
                    print(f"{beton_path(given.directory, split)}: complete, left alone (--force writes it again)")
                    continue
                source = open_source(info.name, split, given.source_dir)
                manifest = write_split(
                    source, given.directory, dataset=info.name, split=split, storage=storage, workers=workers,
                    progress=progress,
                )  # fmt: skip
                print(f"{beton_path(given.directory, split)}: {manifest.images} images, {manifest.bytes} bytes")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
