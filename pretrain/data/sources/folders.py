"""Images that lie in folders, one per class: ImageFolder, ImageNet, Tiny-ImageNet, and named parts of them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pretrain.data.sources.base import Source
from pretrain.errors import did_you_mean

if TYPE_CHECKING:
    from pretrain.configio import Section
    from pretrain.data.sources.images import Images
    from pretrain.data.sources.scan import Found

_IMAGENET_TARS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}


class ImageFolder(Source):
    """A folder of images: DIR/{split}/CLASS/…, DIR/CLASS/…, or without classes; `val` serves for a missing `test`.

    only: classes (the others are left out, and those that stay are numbered again) or files (all classes stay, as in
    SimCLR's 1 % and 10 % lists).
    """

    has_parts = True

    @classmethod
    def settings(cls) -> type[Section]:
        from pretrain.data.sources.scan import FolderConfig

        return FolderConfig

    def available(self) -> tuple[str, ...]:
        from pretrain.data.sources.scan import split_folders

        if self.directory is None:
            return self.splits
        return tuple(split_folders(self.directory)) or (("train", "test") if self.config.hold_out else ("train",))

    def open(self, split: str) -> Images:
        from pretrain.data.sources import scan

        directory, config = self.originals(), self.config
        folders = scan.split_folders(directory)
        if split not in self.available():
            hint = "" if folders else "; --hold-out 0.1 makes a test split of a tenth of the images"
            raise FileNotFoundError(f"{directory}: no split {split!r}, it has {', '.join(self.available())}{hint}")
        if folders and config.hold_out:
            raise ValueError(f"--hold-out: {directory} has splits already: {', '.join(folders)}")
        folder = folders.get(split) or scan.plain_root(directory)
        names = (
            scan.class_names(list(folders.values()) or [folder]) if config.labels and scan.subfolders(folder) else ()
        )
        found = scan.find_images(folder)
        labels = scan.labels_of(found, names) if names else [-1] * len(found.files)
        take = [not names or label >= 0 for label in labels]
        if beside := take.count(False):
            found.left_out["images beside the folders of classes"] = beside
        if not folders and config.hold_out:
            test_N = scan.held_out(found, labels, config.hold_out)
            take = [taken and bool(test) == (split == "test") for taken, test in zip(take, test_N, strict=True)]
        return _part(found, labels, names, self.only, take)


class ImageNet(Source):
    """ILSVRC 2012 (arXiv:1409.0575) as folders, or as the official archives, which torchvision unpacks beside them."""

    label = "ImageNet"
    images: ClassVar = {"train": 1_281_167, "test": 50_000}
    classes = 1000
    has_parts = True

    def open(self, split: str) -> Images:
        directory, name = self.originals(), "val" if split == "test" else split
        if not (directory / name).is_dir() and (directory / _IMAGENET_TARS[name]).is_file():
            from torchvision import datasets

            try:
                datasets.ImageNet(str(directory), split=name)
            except RuntimeError as error:
                raise FileNotFoundError(f"{directory}: ImageNet's archives cannot be unpacked: {error}") from error
        return labelled_folder(directory, name, [n for n in _IMAGENET_TARS if (directory / n).is_dir()], self.only)


class TinyImageNet(Source):
    """As distributed: train/WNID/images/*.JPEG; val/images with val_annotations.txt, which serves for `test`."""

    label = "Tiny ImageNet"
    images: ClassVar = {"train": 100_000, "test": 10_000}
    classes, side_px, stored_as = 200, 64, "raw"

    def open(self, split: str) -> Images:
        directory = self.originals()
        if split == "train":
            return labelled_folder(directory, "train", ["train"])
        annotations = directory / "val" / "val_annotations.txt"
        if not annotations.is_file():
            raise FileNotFoundError(f"{annotations}: no such file; expected tiny-imagenet-200 as distributed")
        names = tuple(sorted(path.name for path in (directory / "train").iterdir() if path.is_dir()))
        number = {name: k for k, name in enumerate(names)}
        rows = [line.split("\t")[:2] for line in annotations.read_text().splitlines() if line.strip()]
        unknown = sorted({row[-1] for row in rows} - set(names))
        if unknown:
            classes = f"the {len(names)} classes of {directory / 'train'}"
            raise ValueError(f"{annotations}: {unknown[0]!r} is none of {classes}")
        from pretrain.data.sources.images import from_files

        paths = [directory / "val" / "images" / file for file, _ in rows]
        return from_files(paths, [number[name] for _, name in rows], names)


def labelled_folder(directory: Path, name: str, together: Sequence[str], only: frozenset[str] | None = None) -> Images:
    """Images of DIRECTORY/NAME/CLASS/…, their classes numbered as in all the folders ``together``.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it has no folders of classes, or ``only`` names something that is not there.
    """
    from pretrain.data.sources import scan

    found = scan.find_images(directory / name)
    if not scan.subfolders(found.folder):
        raise ValueError(f"{found.folder}: expected one folder per class in it, got {len(found.files)} images and none")
    names = scan.class_names([directory / other for other in together])
    labels = scan.labels_of(found, names)
    return _part(found, labels, names, only, [label >= 0 for label in labels])


def read_names(path: Path) -> frozenset[str]:
    """The lines of a file of names: classes or files, with or without folders before them, or words behind them.

    Raises:
        ValueError: there is none.
    """
    names = frozenset(line.strip() for line in path.read_text().splitlines() if line.strip())
    if not names:
        raise ValueError(f"{path}: names no classes and no files")
    return names


def _part(
    found: Found, labels: Sequence[int], names: tuple[str, ...], only: frozenset[str] | None, take: Sequence[bool]
) -> Images:
    """The images that ``take`` marks, or those of them that ``only`` names."""
    from pretrain.data.sources.images import from_files

    keep = [k for k, taken in enumerate(take) if taken]
    if only is not None:
        classes, files = _named(found, keep, names, only)
        if classes:
            number = {names.index(name): k for k, name in enumerate(sorted(classes))}
            keep, names = [k for k in keep if labels[k] in number], tuple(sorted(classes))
            labels = [number.get(label, -1) for label in labels]
        keep = [k for k in keep if k in files] if files else keep
        if not keep:
            raise ValueError(f"{found.folder}: none of its images is in a class and a file that --only names")
    paths = [found.folder / found.files[k] for k in keep]
    return from_files(paths, [labels[k] for k in keep], names, left_out=found.left_out)


def _named(found: Found, keep: Sequence[int], names: Sequence[str], only: frozenset[str]) -> tuple[set[str], set[int]]:
    """Classes and files (by number) of which a line is the name; else its first word, or the end of its path.

    Raises:
        ValueError: a line names neither, or a file name that several folders have.
    """
    known, classes, files, problems = frozenset(names), set[str](), set[int](), []
    numbers: dict[str, list[int]] = defaultdict(list)
    for k in keep:
        path = found.files[k]
        for name in {path, os.path.basename(path)}:
            numbers[name].append(k)
    for line in sorted(only):
        parts = line.split()[0].split("/")
        ends = (line, *("/".join(parts[n:]) for n in range(len(parts))))
        called = [name for name in ends if name in known or name in numbers]
        same = numbers.get(called[0], []) if called else []
        if called and called[0] in known:
            classes.add(called[0])
        elif len(same) == 1:
            files.add(same[0])
        else:
            several = f" (several files: {found.files[same[0]]}, {found.files[same[1]]})" if same else ""
            problems.append(f"{line!r}{several or did_you_mean(parts[-1], names)}")
    if problems:
        count = f"{len(problems)} of {len(only)} names are neither classes nor files there"
        raise ValueError(f"{found.folder}: {count}: {', '.join(problems[:3])}")
    return classes, files
