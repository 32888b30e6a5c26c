"""What lies in the directory of a written data set. Imports nothing heavy: plans are made from it."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pretrain.data.sources.base import StoredAs
from pretrain.data.sources.registry import SOURCES, registered_name, source_class

CHECKSUM_IMAGES = 1024  # images of one checksum in a manifest


@dataclass(frozen=True)
class Manifest:
    """What {split}.json says about {split}.beton; written last, so that its presence means a whole file.

    side_px: side of the images if all are squares of one size. max_side_px, jpeg_quality: how images were reduced, None
    for raw pixels at full size. bytes: size of the .beton file. labels_sha256: of the labels as little-endian int64.
    blocks_crc32: for each CHECKSUM_IMAGES images, of their CRC-32s; before there were blocks, payload_crc32: of all
    stored images one after another. ffcv_format: version of the file format. only_sha256: of the names of the classes
    or files that were chosen; None: all of the split. source_config: settings of the source, where it has some.
    source_sha256: of the original files' names and sizes. pixel_policy: what unusual pixels became; treated: how many
    images of each kind there were. left_out: what a scan of folders passed over, by kind. damaged: why each image that
    could not be stored was left out.
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
    ffcv_format: int
    ffcv_version: str | None
    writer_version: int
    blocks_crc32: tuple[int, ...] = ()
    payload_crc32: int | None = None
    jpegs_kept: int = 0
    only_sha256: str | None = None
    source_config: dict[str, Any] | None = None
    source_sha256: str | None = None
    pixel_policy: dict[str, Any] | None = None
    treated: dict[str, int] | None = None
    left_out: dict[str, int] | None = None
    damaged: dict[str, str] | None = None

    @property
    def content(self) -> str:
        """Sixteen hexadecimal digits, the same for two files exactly when they hold the same images and labels."""
        payload = self.blocks_crc32 or self.payload_crc32
        return hashlib.sha256(f"{self.images} {self.labels_sha256} {payload}".encode()).hexdigest()[:16]

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
    """The manifest of a split; of a file that ffcv's own writer made, what the file says.

    Raises:
        FileNotFoundError: it has not been written; says which command writes it (for ``dataset`` if given).
        ValueError: the file is not a manifest of this version; names the keys in question.
    """
    path = manifest_path(directory, split)
    if not path.is_file():
        if beton_path(directory, split).is_file():
            return _from_ffcv(beton_path(directory, split), dataset)
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


def written_splits(directory: Path | str) -> list[str]:
    """Names of the splits that are there."""
    return sorted(path.stem for path in Path(directory).glob("*.beton") if not path.name.startswith("."))


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
        if dataset is not None and manifest.dataset != registered_name(dataset):
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
    if manifest_path(directory, split).is_file() or beton_path(directory, split).is_file():
        return read_manifest(directory, split, dataset).images
    known = registered_name(dataset) in SOURCES or ":" in dataset
    return source_class(dataset).images.get(split) if known else None


def content_of(directory: Path | str, split: str) -> str | None:
    """`Manifest.content` of a split; None where it has not been written."""
    return read_manifest(directory, split).content if beton_path(directory, split).is_file() else None


def _from_ffcv(path: Path, dataset: str | None) -> Manifest:
    from pretrain.data.beton.format import JPEG, VERSION, read_table

    table = read_table(path)
    widest, tallest = int(table.width_N.max(initial=0)), int(table.height_N.max(initial=0))
    places = b"".join(column.tobytes() for column in (table.size_N, table.height_N, table.width_N, table.mode_N))
    return Manifest(
        dataset=dataset or "ffcv", split=path.stem, images=len(table), classes=int(table.label_N.max(initial=-1)) + 1,
        class_names=(), side_px=None, widest_px=widest, tallest_px=tallest, channels=3,
        format="jpg" if (table.mode_N == JPEG).any() else "raw", max_side_px=None, jpeg_quality=None,
        bytes=path.stat().st_size, labels_sha256=hashlib.sha256(table.label_N.tobytes()).hexdigest(),
        ffcv_format=VERSION, ffcv_version=None, writer_version=0, payload_crc32=zlib.crc32(places),
    )  # fmt: skip


def check_class_names(*manifests: Manifest) -> None:
    """Whether labels mean the same wherever these splits meet.

    Raises:
        ValueError: two of them give one number to classes of different names; says which.
    """
    first, *others = manifests
    for other in others:
        pairs = enumerate(zip(first.class_names, other.class_names, strict=False))
        if differs := next((f"label {k} is {a!r} there and {b!r} here" for k, (a, b) in pairs if a != b), None):
            raise ValueError(
                f"{first.dataset} {first.split} and {other.dataset} {other.split} number their classes differently: "
                f"{differs}; write both again, from one folder"
            )


def _not_written(path: Path, directory: Path | str, dataset: str | None) -> str:
    return f"{path}: no such file; write it with: bigbatch data write {dataset or 'NAME'} {directory}"
