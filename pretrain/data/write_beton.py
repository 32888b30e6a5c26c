"""Write a data set as .beton files: ``python -m pretrain.data.write_beton SOURCE DIR``.

SOURCE is a name, or the dotted path of a class of one's own (see `pretrain.data.sources.base.Source`). Each split
becomes DIR/{split}.beton (ffcv's format, version 2) and DIR/{split}.json (its manifest), both written whole or not at
all, the manifest last. A split that is there already is left alone; one whose writing was killed goes on where it
stopped. With --verify every image is read back and compared with the manifest instead.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pretrain.data.beton import format as beton
from pretrain.data.beton.encode import Storage, encoded, estimated_bytes
from pretrain.data.beton.writer import BetonWriter, part_path
from pretrain.data.catalog import Manifest, beton_path, manifest_path, read_manifest
from pretrain.data.sources.base import StoredAs
from pretrain.data.sources.folders import read_names
from pretrain.data.sources.images import Images
from pretrain.data.sources.registry import SOURCES, open_images, source_class, source_config
from pretrain.data.verify import block_checksums, verify_split
from pretrain.rundir import write_text

__all__ = ["Storage", "main", "write_split"]

WRITER_VERSION = 1


@dataclass(frozen=True)
class Selection:
    """Which images were chosen. only: classes or files by name; None: all. config: the settings of the source."""

    dataset: str
    split: str
    only: frozenset[str] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def only_sha256(self) -> str | None:
        """Of the names, for the manifest."""
        return None if self.only is None else hashlib.sha256("\n".join(sorted(self.only)).encode()).hexdigest()


def write_split(
    images: Images, directory: Path, *, dataset: str, split: str, storage: Storage, workers: int = 1,
    progress: Progress | None = None, only: frozenset[str] | None = None, config: Mapping[str, Any] | None = None,
) -> Manifest:  # fmt: skip
    """Write ``images`` as DIR/{split}.beton and their manifest; what was there is replaced when both are complete.

    only, config: the names and the source's settings by which ``images`` were chosen, for the manifest.

    Raises:
        ValueError: an image cannot be stored; names it.
        OSError: the disk is full, or another process is writing the same file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    final, selection = beton_path(directory, split), Selection(dataset, split, only, config or {})
    mode = beton.RAW if storage.format == "raw" else beton.JPEG
    with BetonWriter(final, _identity(images, selection, storage), len(images)) as writer:
        task = progress.add_task(f"{dataset} {split}", total=len(images)) if progress is not None else None
        for index, image in enumerate(encoded(images, storage, workers, writer.count), writer.count):
            writer.add(image, mode, int(images.labels[index]))
            if progress is not None and task is not None and (index % 256 == 255 or index + 1 == len(images)):
                progress.update(task, completed=index + 1)
        manifest_path(directory, split).unlink(missing_ok=True)  # never beside a file that it does not describe
        manifest = _manifest(images, selection, storage, writer, writer.finish())
    write_text(manifest_path(directory, split), manifest.to_json())
    return manifest


def _identity(images: Images, selection: Selection, storage: Storage) -> bytes:
    """Equal only where the same images are stored alike, so that a file that was begun may be continued."""
    facts: list[Any] = [WRITER_VERSION, selection.dataset, selection.split, asdict(storage)]
    facts.append([str(path) for path in images.paths or ()])
    if selection.config:
        facts.append(dict(selection.config))
    return hashlib.sha256(json.dumps(facts).encode() + images.labels.astype("<i8").tobytes()).digest()


def _manifest(images: Images, selection: Selection, storage: Storage, writer: BetonWriter, size: int) -> Manifest:
    rows_N = writer.rows
    stored = rows_N["metadata"]["image"]
    widest, tallest = (int(stored[axis].max()) if len(rows_N) else 0 for axis in ("width", "height"))
    same = len(rows_N) > 0 and bool(((stored["width"] == widest) & (stored["height"] == widest)).all())
    try:
        ffcv_version = importlib.metadata.version("ffcv")
    except importlib.metadata.PackageNotFoundError:
        ffcv_version = None
    return Manifest(
        dataset=selection.dataset,
        split=selection.split,
        images=len(rows_N),
        classes=len(images.class_names) or int(images.labels.max(initial=-1)) + 1,
        class_names=images.class_names,
        side_px=widest if same else None,
        widest_px=widest,
        tallest_px=tallest,
        channels=3,
        format=storage.format,
        max_side_px=storage.max_side_px,
        jpeg_quality=storage.jpeg_quality if storage.format == "jpg" else None,
        bytes=size,
        labels_sha256=hashlib.sha256(rows_N["metadata"]["label"].tobytes()).hexdigest(),
        payload_crc32=writer.payload_crc32,
        ffcv_format=beton.VERSION,
        ffcv_version=ffcv_version,
        writer_version=WRITER_VERSION,
        blocks_crc32=block_checksums(rows_N["crc32"]),
        jpegs_kept=int(np.count_nonzero(rows_N["kept"])),
        only_sha256=selection.only_sha256,
        source_config=dict(selection.config) or None,
    )


def is_complete(directory: Path, selection: Selection, storage: Storage) -> bool:
    """Whether the split is there, whole, and stored as ``storage`` says.

    Raises:
        ValueError: it is there but of another data set or stored otherwise; says how.
    """
    split = selection.split
    path = beton_path(directory, split)
    if not path.is_file() or not manifest_path(directory, split).is_file():
        return False
    found = read_manifest(directory, split, selection.dataset)
    quality = storage.jpeg_quality if storage.format == "jpg" else None
    holds = (found.dataset, found.format, found.max_side_px, found.jpeg_quality)
    asked = (selection.dataset, storage.format, storage.max_side_px, quality)
    if holds != asked:
        raise ValueError(
            f"{path}: holds (data set, format, max side, quality) {holds}, expected {asked}; --force replaces it"
        )
    if found.only_sha256 != selection.only_sha256:
        raise ValueError(f"{path}: holds other classes or files than --only names; --force replaces it")
    if (found.source_config or {}) != selection.config:
        there, expected = found.source_config or "no settings", dict(selection.config) or "none"
        raise ValueError(f"{path}: was written with {there}, expected {expected}; --force replaces it")
    return path.stat().st_size == found.bytes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pretrain.data.write_beton", description=__doc__.split("\n")[0])
    parser.add_argument("source", metavar="SOURCE", help=f"{', '.join(SOURCES)}, or package.module:Class")
    parser.add_argument("directory", metavar="DIR", type=Path, help="where the files go")
    parser.add_argument("--splits", nargs="+", help="default: all that the data set has")
    parser.add_argument("--source-dir", type=Path, help="where the original images are, or shall be downloaded to")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the source")
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
        for split in given.splits or source_class(given.source).splits:
            if given.verify:
                manifest = verify_split(given.directory, split, given.source, given.workers or os.cpu_count() or 1)
                print(f"{beton_path(given.directory, split)}: {manifest.images} images are as they were written")
            else:
                _write(given, split)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def _write(given: argparse.Namespace, split: str) -> None:
    source = source_class(given.source)
    config = source_config(given.source, given.set)
    stored_as: StoredAs = given.format or source.stored_as
    storage = Storage(stored_as, given.max_side or (500 if stored_as == "jpg" else None), given.quality)
    workers = given.workers or (1 if stored_as == "raw" and source.side_px else os.cpu_count() or 1)
    only = read_names(given.only) if given.only else None
    path, selection = (
        beton_path(given.directory, split),
        Selection(given.source, split, only, config.model_dump(mode="json")),
    )
    if not given.force and is_complete(given.directory, selection, storage):
        print(f"{path}: complete, left alone (--force writes it again)")
        return
    images = open_images(given.source, split, given.source_dir, only=only, config=config)
    _check_room(path, len(images), estimated_bytes(images, storage))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        manifest = write_split(
            images, given.directory, dataset=given.source, split=split, storage=storage, workers=workers,
            progress=progress, only=only, config=selection.config,
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
    forecast = f"{path}: {images} images, about {size / 1e6:.0f} MB, {free / 1e6:.0f} MB are free"
    if size > free:
        raise OSError(f"{forecast}; make room, reduce the images (--max-side, --quality), or name another DIR")
    print(forecast, flush=True)


if __name__ == "__main__":
    sys.exit(main())
