"""What lies in the directory of a written data set. Imports nothing heavy: plans are made from it."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pretrain.data.sources.base import StoredAs
from pretrain.data.sources.registry import SOURCES, source_class

CHECKSUM_IMAGES = 1024  # images of one checksum in a manifest


@dataclass(frozen=True)
class Manifest:
    """What {split}.json says about {split}.beton; written last, so that its presence means a whole file.

    side_px: side of the images if all are squares of one size. max_side_px, jpeg_quality: how images were reduced, None
    for raw pixels at full size. bytes: size of the .beton file. labels_sha256: of the labels as little-endian int64.
    payload_crc32: of the stored images one after another. ffcv_format: version of the file format.
    blocks_crc32: for each CHECKSUM_IMAGES images, of their CRC-32s. jpegs_kept: JPEG files that were taken as they are.
    only_sha256: of the names of the classes or files that were chosen; None: all of the split. source_config: settings
    of the source, where it has some.
    """

    dataset: str
    split: str
    images: int
    classes: int
    class_names: tuple[str, ...]
    side_px: int | None
    widest_px: int
    tallest_px: int
    channels: int
    format: StoredAs
    max_side_px: int | None
    jpeg_quality: int | None
    bytes: int
    labels_sha256: str
    payload_crc32: int
    ffcv_format: int
    ffcv_version: str | None
    writer_version: int
    blocks_crc32: tuple[int, ...] = ()
    jpegs_kept: int = 0
    only_sha256: str | None = None
    source_config: dict[str, Any] | None = None

    def to_json(self) -> str:
        """Text of the manifest file."""
        return json.dumps(asdict(self), indent=2) + "\n"


def beton_path(directory: Path | str, split: str) -> Path:
    """The images of a split."""
    return Path(directory) / f"{split}.beton"


def manifest_path(directory: Path | str, split: str) -> Path:
    """What is known about them."""
    return Path(directory) / f"{split}.json"


def read_manifest(directory: Path | str, split: str, dataset: str | None = None) -> Manifest:
    """The manifest of a split.

    Raises:
        FileNotFoundError: it has not been written; says which command writes it (for ``dataset`` if given).
        ValueError: the file is not a manifest of this version; names the keys in question.
    """
    path = manifest_path(directory, split)
    if not path.is_file():
        raise FileNotFoundError(_not_written(path, directory, dataset))
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Manifest)}
        needed = {field.name for field in fields(Manifest) if field.default is MISSING}
        odd = sorted((set(values) - known) | (needed - set(values)))
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a manifest ({error}); write the data set again with --force") from error
    if odd:
        raise ValueError(f"{path}: unknown or missing: {', '.join(odd)}; write the data set again with --force")
    values |= {name: tuple(values[name]) for name in ("class_names", "blocks_crc32") if name in values}
    return Manifest(**values)


def existing_beton(dataset: str | None, directory: Path | str, split: str) -> Path:
    """Path of a split that is there and whole. A file without a manifest (written by ffcv itself) is accepted.

    Raises:
        FileNotFoundError: it has not been written; says which command writes it.
        ValueError: the directory holds another data set than ``dataset``, or the file is not what was written.
    """
    path = beton_path(directory, split)
    if not path.is_file():
        raise FileNotFoundError(_not_written(path, directory, dataset))
    if manifest_path(directory, split).is_file():
        manifest = read_manifest(directory, split, dataset)
        if dataset is not None and manifest.dataset != dataset:
            raise ValueError(f"{path}: holds {manifest.dataset}, data.dataset is {dataset}")
        if path.stat().st_size != manifest.bytes:
            size = path.stat().st_size
            raise ValueError(f"{path}: has {size} bytes, {manifest.bytes} were written; write it again with --force")
    return path


def image_count(dataset: str, directory: Path | str, split: str) -> int | None:
    """Number of images of a split: from its manifest, else from its source, else unknown.

    Raises:
        ValueError: what is there is not a manifest, or own code cannot be imported.
    """
    if manifest_path(directory, split).is_file():
        return read_manifest(directory, split, dataset).images
    known = dataset in SOURCES or ":" in dataset
    return source_class(dataset).images.get(split) if known else None


def _not_written(path: Path, directory: Path | str, dataset: str | None) -> str:
    return f"{path}: no such file; write it with: python -m pretrain.data.write_beton {dataset or 'NAME'} {directory}"
