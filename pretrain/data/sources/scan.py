"""What lies in a folder of images: the files, their classes and splits, and the same content twice.

Classes are the folders directly below a split's, whatever lies deeper belongs to them. One numbering serves all splits.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pretrain.configio import Section

_KINDS = (
    "jpg jpeg jpe jfif png gif bmp dib tif tiff webp ppm pgm pbm pnm tga pcx jp2 j2k jpx jpf avif avifs heic heif hif"
)
SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())
_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
    "unlabeled": ("unlabeled", "unlabelled"),
}


class FolderConfig(Section):
    """hold_out: part of the images of a folder without splits that becomes its test split. labels: folders are classes.

    The part is taken within each class, by a hash of the names: more images do not move the others, and byte-identical
    files stay on one side.
    """

    hold_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    labels: bool = True


@dataclass
class Found:
    """Image files below a folder. files: relative to it, by folder and name. left_out: what is not taken, by kind."""

    folder: Path
    files: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def find_images(folder: Path) -> Found:
    """All image files below ``folder``; what links lead to counts once, where it lies rather than where a link does.

    Raises:
        FileNotFoundError: no such folder.
    """
    found = Found(folder)
    seen: dict[tuple[int, int], tuple[bool, tuple[str, str]]] = {}

    def visit(place: str, linked: bool, above: frozenset[tuple[int, int]]) -> None:
        for entry in os.scandir(folder / place):
            if entry.name.startswith("."):
                found.left_out["hidden"] += 1
                continue
            try:
                status = entry.stat()
            except OSError:
                found.left_out["links to nothing"] += 1
                continue
            key, link = (status.st_dev, status.st_ino), linked or entry.is_symlink()
            suffix = os.path.splitext(entry.name)[1].lower()
            if stat.S_ISDIR(status.st_mode):
                if key in above:
                    found.left_out["links to a folder above"] += 1
                else:
                    visit(os.path.join(place, entry.name), link, above | {key})
            elif suffix not in SUFFIXES:
                found.left_out[f"{suffix} files" if suffix else "files without a suffix"] += 1
            else:
                one = (link, (place, entry.name))
                found.left_out["links to images that are here already"] += key in seen
                seen[key] = min(one, seen.get(key, one))

    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    above = (place.stat() for place in (folder, *folder.resolve().parents))
    visit("", False, frozenset((place.st_dev, place.st_ino) for place in above))
    places = sorted((where for _, where in seen.values()), key=lambda where: (where[0].split(os.sep)[0], *where))
    found.files = [os.path.join(*where) for where in places]
    found.left_out = +found.left_out
    return found


def subfolders(folder: Path) -> list[str]:
    """Names of the folders directly in ``folder`` that hold an image somewhere, sorted."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    inside = (entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    return sorted(name for name in inside if _holds_image(folder / name))


def split_folders(directory: Path) -> dict[str, Path]:
    """Split to folder, where ``directory`` (or the only folder in it) is divided into splits; {} where it is not.

    Folders are splits if one is called train and another test or val, or all of them have a split's name.
    """
    names = subfolders(directory)
    if len(names) == 1 and names[0].lower() not in sum(_SPLITS.values(), ()) and not _has_images(directory):
        return split_folders(directory / names[0])
    splits = {split: [n for n in names if n.lower() in words] for split, words in _SPLITS.items()}
    found = {split: directory / called[0] for split, called in splits.items() if called}
    if not found or not (("train" in found and len({"test", "val"} & found.keys())) or len(names) == len(found)):
        return {}
    if "val" in found and not _labelled_like(found.get("test"), found.get("train")):
        found["test"] = found.pop("val")  # a test folder without labels, as in Kaggle's copies, measures nothing
    return {split: found[split] for split in _SPLITS if split in found}


def class_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Names of the classes of all ``folders``, numbered in this order in each of them."""
    return tuple(sorted({name for folder in folders for name in subfolders(folder)}))


def plain_root(directory: Path) -> Path:
    """``directory``, or the folder below it that is alone there and so is no class."""
    names = subfolders(directory)
    return plain_root(directory / names[0]) if len(names) == 1 and not _has_images(directory) else directory


def labels_of(found: Found, names: Sequence[str]) -> list[int]:
    """Label of each file: the number of the folder it lies in; -1 directly in the split's folder."""
    number = {name: k for k, name in enumerate(names)}
    firsts = (file.partition(os.sep) for file in found.files)
    return [number[first] if below else -1 for first, _, below in firsts]


def same_content(paths: Sequence[str | Path]) -> npt.NDArray[np.int64]:
    """For each file the position of the first that is byte for byte the same, shape (N,). Reads files of one size."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        by_size[os.path.getsize(path)].append(index)
    first_N = np.arange(len(paths))
    for group in by_size.values():
        known: dict[bytes, int] = {}
        for index in group if len(group) > 1 else ():
            with open(paths[index], "rb") as file:
                first_N[index] = known.setdefault(hashlib.file_digest(file, "blake2b").digest(), index)
    return first_N


def held_out(found: Found, labels: Sequence[int], part: float) -> npt.NDArray[np.bool_]:
    """Which files make the test split, shape (N,): ``part`` of each class of two and more, by a hash of their names."""
    first_N = same_content([found.folder / file for file in found.files])
    classes: Mapping[int, list[tuple[bytes, int]]] = defaultdict(list)
    for index in np.unique(first_N).tolist():
        digest = hashlib.blake2b(found.files[index].encode(errors="surrogateescape"), digest_size=8).digest()
        classes[labels[index]].append((digest, index))
    chosen = [
        index
        for members in classes.values()
        if len(members) > 1
        for _, index in sorted(members)[: min(max(1, round(part * len(members))), len(members) - 1)]
    ]
    return np.isin(first_N, chosen)


def _has_images(folder: Path) -> bool:
    return any(os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file() for entry in os.scandir(folder))


def _holds_image(folder: Path) -> bool:
    for _, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if not name.startswith(".")]
        if any(not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES for name in names):
            return True
    return False


def _labelled_like(test: Path | None, train: Path | None) -> bool:
    if test is None:
        return False
    classes = set(subfolders(train)) if train else set()
    return not classes or bool(classes & set(subfolders(test)))
