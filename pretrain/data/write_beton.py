"""Write a data set as .beton files: ``python -m pretrain.data.write_beton SOURCE DIR``.

Each split becomes DIR/{split}.beton (ffcv's format, version 2) and DIR/{split}.json (its manifest), both written whole
or not at all, the manifest last. A split that is there already is left alone; one whose writing was killed is taken up
where it stopped. With --verify every image is read back and compared with the manifest instead.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pretrain.data.beton import format as beton
from pretrain.data.beton.encode import Storage, encoded, estimated_bytes
from pretrain.data.beton.writer import BetonWriter, part_path
from pretrain.data.catalog import (
    DATASETS,
    DatasetInfo,
    Manifest,
    StoredAs,
    beton_path,
    dataset_info,
    manifest_path,
    read_manifest,
)
from pretrain.data.sources.folders import read_names
from pretrain.data.sources.open import Source, open_source
from pretrain.data.verify import block_checksums, verify_split
from pretrain.rundir import write_text

__all__ = ["Storage", "main", "write_split"]

WRITER_VERSION = 1


def write_split(
    source: Source, directory: Path, *, dataset: str, split: str, storage: Storage, workers: int = 1,
    progress: Progress | None = None, only: frozenset[str] | None = None,
) -> Manifest:  # fmt: skip
    """Write ``source`` as DIR/{split}.beton and its manifest; what was there is replaced when both are complete.

    only: the names by which ``source`` was chosen from the split, for the manifest.

    Raises:
        ValueError: an image cannot be stored; names it.
        OSError: the disk is full, or another process is writing the same file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    final = beton_path(directory, split)
    mode = beton.RAW if storage.format == "raw" else beton.JPEG
    with BetonWriter(final, _identity(source, dataset, split, storage), len(source)) as draft:
        task = progress.add_task(f"{dataset} {split}", total=len(source)) if progress is not None else None
        for index, image in enumerate(encoded(source, storage, workers, draft.count), draft.count):
            draft.add(image, mode, int(source.labels[index]))
            if progress is not None and task is not None and (index % 256 == 255 or index + 1 == len(source)):
                progress.update(task, completed=index + 1)
        manifest_path(directory, split).unlink(missing_ok=True)  # never beside a file that it does not describe
        manifest = _manifest(source, dataset, split, storage, draft, draft.finish(), only)
    write_text(manifest_path(directory, split), manifest.to_json())
    return manifest


def _identity(source: Source, dataset: str, split: str, storage: Storage) -> bytes:
    """Equal only for drafts of the same images, stored alike."""
    said = [WRITER_VERSION, dataset, split, asdict(storage), [str(path) for path in source.paths or ()]]
    return hashlib.sha256(json.dumps(said).encode() + source.labels.astype("<i8").tobytes()).digest()


def _manifest(
    source: Source,
    dataset: str,
    split: str,
    storage: Storage,
    draft: BetonWriter,
    size: int,
    only: frozenset[str] | None,
) -> Manifest:
    rows_N = draft.rows
    images = rows_N["metadata"]["image"]
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
        labels_sha256=hashlib.sha256(rows_N["metadata"]["label"].tobytes()).hexdigest(),
        payload_crc32=draft.payload_crc32,
        ffcv_format=beton.VERSION,
        ffcv_version=ffcv_version,
        writer_version=WRITER_VERSION,
        blocks_crc32=block_checksums(rows_N["crc32"]),
        jpegs_kept=int(np.count_nonzero(rows_N["kept"])),
        only_sha256=_names_sha256(only),
    )


def _names_sha256(only: frozenset[str] | None) -> str | None:
    return None if only is None else hashlib.sha256("\n".join(sorted(only)).encode()).hexdigest()


def is_complete(
    directory: Path, split: str, dataset: str, storage: Storage, only: frozenset[str] | None = None
) -> bool:
    """Whether the split is there, whole, and stored as expected.

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
            f"{path}: holds (data set, format, max side, quality) {there}, expected {wanted}; --force replaces it"
        )
    if found.only_sha256 != _names_sha256(only):
        raise ValueError(f"{path}: holds other classes or files than --only names; --force replaces it")
    return path.stat().st_size == found.bytes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pretrain.data.write_beton", description=__doc__.split("\n")[0])
    parser.add_argument("source", metavar="SOURCE", help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("directory", metavar="DIR", type=Path, help="where the files go")
    parser.add_argument("--splits", nargs="+", help="default: all that the data set has")
    parser.add_argument("--source-dir", type=Path, help="where the original images are, or shall be downloaded to")
    parser.add_argument("--only", type=Path, help="a file of names: take only these classes or files (folders)")
    parser.add_argument("--format", choices=("raw", "jpg"), help="default: raw for small images, jpg for photographs")
    parser.add_argument("--max-side", type=int, help="reduce longer images to this many pixels (jpg: 500)")
    parser.add_argument("--quality", type=int, default=90, help="of JPEG compression (default: 90)")
    parser.add_argument("--workers", type=int, help="threads that encode JPEG (default: one per processor)")
    parser.add_argument("--force", action="store_true", help="write even what is there already")
    parser.add_argument("--verify", action="store_true", help="write nothing: read back what is there and compare")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    try:
        info = dataset_info(given.source)
        for split in given.splits or info.splits:
            if given.verify:
                manifest = verify_split(given.directory, split, info.name, given.workers or os.cpu_count() or 1)
                print(f"{beton_path(given.directory, split)}: {manifest.images} images are as they were written")
            else:
                _write(given, info, split)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def _write(given: argparse.Namespace, info: DatasetInfo, split: str) -> None:
    stored_as: StoredAs = given.format or info.stored_as
    storage = Storage(stored_as, given.max_side or (500 if stored_as == "jpg" else None), given.quality)
    workers = given.workers or (1 if stored_as == "raw" and info.side_px else os.cpu_count() or 1)
    path, only = beton_path(given.directory, split), read_names(given.only) if given.only else None
    if not given.force and is_complete(given.directory, split, info.name, storage, only):
        print(f"{path}: complete, left alone (--force writes it again)")
        return
    source = open_source(info.name, split, given.source_dir, only)
    _check_room(path, len(source), estimated_bytes(source, storage))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        manifest = write_split(
            source, given.directory, dataset=info.name, split=split, storage=storage, workers=workers,
            progress=progress, only=only,
        )  # fmt: skip
    kept = f", {manifest.jpegs_kept} JPEG files as they were" if manifest.jpegs_kept else ""
    print(f"{path}: {manifest.images} images, {manifest.bytes} bytes{kept}")


def _check_room(path: Path, images: int, size: int) -> None:
    """Say how large the file will be.

    Raises:
        OSError: the disk has no room for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = part_path(path)
    taken = unfinished.stat().st_size if unfinished.exists() else 0  # by images that will be used or replaced
    free = shutil.disk_usage(path.parent).free + taken
    told = f"{path}: {images} images, about {size / 1e6:.0f} MB, {free / 1e6:.0f} MB are free"
    if size > free:
        raise OSError(f"{told}; make room, reduce the images (--max-side, --quality), or name another DIR")
    print(told, flush=True)


if __name__ == "__main__":
    sys.exit(main())
