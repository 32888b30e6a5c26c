"""Write a data set as .beton files: ``python -m pretrain.data.write_beton SOURCE DIR``.

SOURCE is a name, a folder of images, or the dotted path of a class of one's own (`pretrain.data.sources.base`). Each
split becomes DIR/{split}.beton (ffcv's format, version 2) and DIR/{split}.json (its manifest), both written whole or
not at all, the manifest last. A split that is there already is left alone; one whose writing was stopped, by whatever,
goes on where it was. With --verify every image is read back and compared with the manifest instead.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pretrain.data.beton import format as beton
from pretrain.data.beton.encode import Damaged, Storage, encoded, estimated_bytes
from pretrain.data.beton.writer import BetonWriter, part_path
from pretrain.data.buffers import usable_cores
from pretrain.data.catalog import Manifest, beton_path, manifest_path, read_manifest, written_splits
from pretrain.data.sources.base import Source, StoredAs
from pretrain.data.sources.folders import read_names
from pretrain.data.sources.images import Images
from pretrain.data.sources.pixels import IN_WORDS, PixelPolicy, Treated
from pretrain.data.sources.registry import SOURCES, images_of, open_source, registered_name, source_config
from pretrain.data.verify import block_checksums, verify_split
from pretrain.format import command
from pretrain.rundir import write_text

__all__ = ["Storage", "main", "write_split"]

WRITER_VERSION = 2
_NAMED = 20  # damaged files that a message names


class DamagedImages(ValueError):
    """Some images cannot be stored; what could be is kept as a draft."""


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
    skip_damaged: bool = False,
) -> Manifest:  # fmt: skip
    """Write ``images`` as DIR/{split}.beton and their manifest; what was there is replaced when both are complete.

    only, config: the names and the source's settings by which ``images`` were chosen, for the manifest. skip_damaged:
    leave out the images that cannot be stored. Those with more pixels than the policy allows are left out in any case.

    Raises:
        DamagedImages: images that cannot be stored; names them. The others stay in a draft, for the next attempt.
        OSError: the disk is full, another process is writing the same file, or the originals cannot be reached.
    """
    directory.mkdir(parents=True, exist_ok=True)
    final, selection = beton_path(directory, split), Selection(dataset, split, only, config or {})
    mode = beton.RAW if storage.format == "raw" else beton.JPEG
    damaged: dict[int, Damaged] = {}
    with BetonWriter(final, _identity(images, selection, storage), images.stamps()) as writer:
        todo = writer.missing
        task = progress.add_task(f"{dataset} {split}", total=len(images)) if progress is not None else None
        for number, (index, image) in enumerate(encoded(images, storage, workers, todo), len(images) - len(todo) + 1):
            if isinstance(image, Damaged):
                damaged[index] = image
            else:
                writer.add(index, image, mode, int(images.labels[index]))
            if progress is not None and task is not None and (number % 256 == 0 or number == len(images)):
                progress.update(task, completed=number)
        _refuse_damaged(final, images, damaged, skip_damaged)
        manifest_path(directory, split).unlink(missing_ok=True)  # never beside a file that it does not describe
        manifest = _manifest(images, selection, storage, writer, damaged)
    write_text(manifest_path(directory, split), manifest.to_json())
    return manifest


def _refuse_damaged(final: Path, images: Images, damaged: Mapping[int, Damaged], skip_damaged: bool) -> None:
    bad = [index for index, image in damaged.items() if not image.too_large]
    if len(damaged) < len(images) and (skip_damaged or not bad):
        return
    names = [f"{images.name(index)}: {damaged[index].why}" for index in (bad or damaged)]
    lines = [f"{final}: {len(names)} of {len(images)} images cannot be stored", *names[:_NAMED]]
    lines += [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
    lines += ["repair or remove them and rerun, which keeps the others; or leave them out with --skip-damaged"]
    raise DamagedImages("\n  ".join(lines))


def _identity(images: Images, selection: Selection, storage: Storage) -> bytes:
    """Equal only where the same kind of images is stored alike, so that a file that was begun may be continued."""
    facts: list[Any] = [WRITER_VERSION, selection.dataset, selection.split, asdict(storage), dict(selection.config)]
    if len(images.files) != len(images):  # the stamp of an image does not tell it from another's
        facts += [images.source_sha256(), images.labels.tolist()]
    return hashlib.sha256(json.dumps(facts).encode()).digest()


def _manifest(
    images: Images, selection: Selection, storage: Storage, writer: BetonWriter, damaged: Mapping[int, Damaged]
) -> Manifest:
    size, rows_N = writer.finish(), writer.rows
    stored, labels_N = rows_N["metadata"]["image"], rows_N["metadata"]["label"]
    widest, tallest = (int(stored[axis].max()) if len(rows_N) else 0 for axis in ("width", "height"))
    same = len(rows_N) > 0 and bool(((stored["width"] == widest) & (stored["height"] == widest)).all())
    counts = {words: int(np.count_nonzero(rows_N["treated"] & kind)) for kind, words in IN_WORDS.items()}
    try:
        ffcv_version = importlib.metadata.version("ffcv")
    except importlib.metadata.PackageNotFoundError:
        ffcv_version = None
    return Manifest(
        dataset=selection.dataset,
        split=selection.split,
        images=len(rows_N),
        classes=len(images.class_names) or int(labels_N.max(initial=-1)) + 1,
        class_names=images.class_names,
        side_px=widest if same else None,
        widest_px=widest,
        tallest_px=tallest,
        channels=3,
        format=storage.format,
        max_side_px=storage.max_side_px,
        jpeg_quality=storage.jpeg_quality if storage.format == "jpg" else None,
        bytes=size,
        labels_sha256=hashlib.sha256(labels_N.tobytes()).hexdigest(),
        ffcv_format=beton.VERSION,
        ffcv_version=ffcv_version,
        writer_version=WRITER_VERSION,
        blocks_crc32=block_checksums(rows_N["crc32"]),
        jpegs_kept=counts[IN_WORDS[Treated.KEPT]],
        only_sha256=selection.only_sha256,
        source_config=dict(selection.config) or None,
        source_sha256=images.source_sha256(),
        pixel_policy=asdict(storage.policy),
        treated={words: count for words, count in counts.items() if count},
        left_out=dict(images.left_out),
        damaged={images.name(index): image.why for index, image in damaged.items()},
    )


def is_complete(directory: Path, selection: Selection, storage: Storage, images: Images | None = None) -> bool:
    """Whether the split is there, whole, and stored as ``storage`` says. images: the source, where it is at hand.

    Raises:
        ValueError: it is there but of another data set, other originals or stored otherwise; says how.
    """
    split = selection.split
    path = beton_path(directory, split)
    if not path.is_file() or not manifest_path(directory, split).is_file():
        return False
    found = read_manifest(directory, split, selection.dataset)
    quality = storage.jpeg_quality if storage.format == "jpg" else None
    policy = found.pixel_policy and json.loads(json.dumps(asdict(storage.policy)))
    holds = (found.dataset, found.format, found.max_side_px, found.jpeg_quality, found.pixel_policy)
    asked = (selection.dataset, storage.format, storage.max_side_px, quality, policy)
    if holds != asked:
        raise ValueError(
            f"{path}: holds (data set, format, side, quality, pixels) {holds}, expected {asked}; --force replaces it"
        )
    if found.only_sha256 != selection.only_sha256:
        raise ValueError(f"{path}: holds other classes or files than --only names; --force replaces it")
    defaults = source_config(selection.dataset, ()).model_dump(mode="json")
    if (there := {**defaults, **(found.source_config or {})}) != (expected := {**defaults, **selection.config}):
        raise ValueError(f"{path}: was written with {there}, expected {expected}; --force replaces it")
    if images is not None and found.source_sha256 not in (None, images.source_sha256()):
        were = found.images + len(found.damaged or ())
        raise ValueError(
            f"{path}: was written from other files ({were} images, now {len(images)}); --force replaces it, or name "
            "another DIR"
        )
    return path.stat().st_size == found.bytes


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Which images, and what becomes of unusual pixels: read by `opened_source` and `policy_of`."""
    parser.add_argument("source", metavar="SOURCE", help=f"a folder, {', '.join(SOURCES)}, or package.module:Class")
    parser.add_argument("--splits", nargs="+", help="default: all that the data set has")
    parser.add_argument("--source-dir", type=Path, help="folder of the original images, or download folder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the source")
    parser.add_argument("--hold-out", type=float, metavar="PART", help="part of a folder's images that tests")
    parser.add_argument("--split", metavar="TRAIN/TEST", help="the same as a ratio, e.g. 0.9/0.1")
    parser.add_argument("--unlabelled", action="store_true", help="the folders of a folder of images are no classes")
    parser.add_argument("--only", type=Path, help="a file of names: take only these classes or files (folders)")
    parser.add_argument("--background", default="white", help="colour under transparent pixels (default: white)")
    parser.add_argument("--range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="of pixels with more than 8 bits")
    parser.add_argument("--max-megapixels", type=float, default=256.0, help="leave larger images out (default: 256)")
    parser.add_argument("--workers", type=int, help="threads (default: one per processor)")


def opened_source(given: argparse.Namespace) -> Source:
    """The source that `add_source_arguments` describe. Raises ValueError; ConfigError for its settings."""
    if registered_name(given.source) != given.source:
        given.source, given.source_dir = "imagefolder", Path(given.source)
    settings = [*given.set, *(["labels=false"] if given.unlabelled else [])]
    if given.split is not None:
        parts = [float(part) for part in given.split.split("/")]
        if len(parts) != 2 or min(parts) <= 0:
            raise ValueError(f"--split: got {given.split!r}, expected two parts, for example 0.9/0.1")
        given.hold_out = round(parts[1] / sum(parts), 6)
    if given.hold_out is not None:
        settings.append(f"hold_out={given.hold_out}")
    only = read_names(given.only) if given.only else None
    return open_source(given.source, given.source_dir, only, config=source_config(given.source, settings))


def policy_of(given: argparse.Namespace) -> PixelPolicy:
    """What becomes of unusual pixels. Raises ValueError."""
    return PixelPolicy(given.background, tuple(given.range) if given.range else None, given.max_megapixels)


def _parser() -> argparse.ArgumentParser:
    prog, text = command("data write", "pretrain.data.write_beton"), __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog=prog, description=text)
    add_source_arguments(parser)
    parser.add_argument("directory", metavar="DIR", type=Path, help="where the files go")
    parser.add_argument("--format", choices=("raw", "jpg"), help="default: raw for small images, jpg for photographs")
    parser.add_argument("--max-side", type=int, help="reduce longer images to this many pixels (jpg: 500)")
    parser.add_argument("--quality", type=int, default=90, help="of JPEG compression (default: 90)")
    parser.add_argument("--skip-damaged", action="store_true", help="leave out what cannot be read, and list it")
    parser.add_argument("--force", action="store_true", help="write even what is there already")
    parser.add_argument("--verify", action="store_true", help="write nothing: read back what is there and compare")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    given = _parser().parse_intermixed_args(arguments)
    try:
        source = opened_source(given)
        if given.verify:
            for split in given.splits or written_splits(given.directory) or source.splits:
                manifest = verify_split(given.directory, split, given.source, given.workers or usable_cores())
                print(f"{beton_path(given.directory, split)}: {manifest.images} images are as they were written")
            return 0
        gone = given.source_dir is not None and not given.source_dir.exists()
        splits = given.splits or (gone and written_splits(given.directory)) or source.available()
        if "test" not in splits and not given.splits:
            print(f"{given.source}: no test split; evaluations need one (--hold-out 0.1 takes it from a folder)")
        for split in splits:
            _write(given, source, split)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def _write(given: argparse.Namespace, source: Source, split: str) -> None:
    stored_as: StoredAs = given.format or source.stored_as
    side = given.max_side or (500 if stored_as == "jpg" else None)
    storage = Storage(stored_as, side, given.quality, policy_of(given))
    workers = given.workers or (1 if stored_as == "raw" and source.side_px else usable_cores())
    path = beton_path(given.directory, split)
    selection = Selection(given.source, split, source.only, source.config.model_dump(mode="json"))
    if not given.force and is_complete(given.directory, selection, storage):
        if given.source_dir is not None:  # which may be gone: what was written from it is still whole
            with contextlib.suppress(FileNotFoundError):
                is_complete(given.directory, selection, storage, images_of(source, given.source, split))
        print(f"{path}: already written, skipped (--force writes it again)")
        return
    images = images_of(source, given.source, split)
    _check_room(path, len(images), estimated_bytes(images, storage))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        manifest = write_split(
            images, given.directory, dataset=given.source, split=split, storage=storage, workers=workers,
            progress=progress, only=source.only, config=selection.config, skip_damaged=given.skip_damaged,
        )  # fmt: skip
    print(f"{path}: {manifest.images} images, {manifest.bytes} bytes")
    for title, counts in (("", manifest.treated), ("left out: ", manifest.left_out)):
        if counts:
            print(f"  {title}{', '.join(f'{count:,} {words}' for words, count in counts.items())}")
    for name, why in list((manifest.damaged or {}).items())[:_NAMED]:
        print(f"  left out: {name}: {why}")


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
