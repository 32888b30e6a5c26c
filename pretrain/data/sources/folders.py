"""Images that lie in folders, one per class: ImageFolder, ImageNet, Tiny-ImageNet, and named parts of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pretrain.data.sources.base import Source
from pretrain.errors import did_you_mean

if TYPE_CHECKING:
    from pretrain.data.sources.images import Images

_IMAGENET_TARS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}


class ImageFolder(Source):
    """DIRECTORY/{split}/CLASS/…; `val` serves for `test`.

    only: names of classes (the others are left out, and those that stay are numbered again) or of files (all classes
    stay, as in SimCLR's 1 % and 10 % lists).
    """

    has_parts = True

    def open(self, split: str) -> Images:
        return folder_images(split, self.originals(), self.only)


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
        return folder_images(split, directory, self.only)


class TinyImageNet(Source):
    """As distributed: train/WNID/images/*.JPEG; val/images with val_annotations.txt, which serves for `test`."""

    label = "Tiny ImageNet"
    images: ClassVar = {"train": 100_000, "test": 10_000}
    classes, side_px, stored_as = 200, 64, "raw"

    def open(self, split: str) -> Images:
        directory = self.originals()
        if split == "train":
            return folder_images("train", directory)
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


def folder_images(split: str, directory: Path, only: frozenset[str] | None = None) -> Images:
    """Images of DIRECTORY/{split}/CLASS/…, or of the part of them that ``only`` names.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: ``only`` names something that is not there.
    """
    from torchvision import datasets

    folders = [directory / name for name in ((split, "val") if split == "test" else (split,))]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"{' or '.join(map(str, folders))}: no such folder; expected one folder per class in it"
        )
    data = datasets.ImageFolder(str(folder))
    paths, labels = [path for path, _ in data.samples], [label for _, label in data.samples]
    return _part(folder, paths, labels, tuple(data.classes), only)


def read_names(path: Path) -> frozenset[str]:
    """The first word of every line that has one: classes or files, with or without folders before them.

    Raises:
        ValueError: there is none.
    """
    names = frozenset(line.split()[0].rsplit("/", 1)[-1] for line in path.read_text().splitlines() if line.strip())
    if not names:
        raise ValueError(f"{path}: names no classes and no files")
    return names


def _part(
    folder: Path, paths: list[str], labels: list[int], names: tuple[str, ...], only: frozenset[str] | None
) -> Images:
    from pretrain.data.sources.images import from_files

    if only is None:
        return from_files(paths, labels, names)
    files = {Path(path).name for path in paths}
    missing = sorted(only - files - set(names))
    if missing:
        hint = did_you_mean(missing[0], names)
        raise ValueError(
            f"{folder}: {len(missing)} of {len(only)} names are neither classes nor files there: {missing[0]!r}{hint}"
        )
    classes = tuple(name for name in names if name in only) or names
    number = {names.index(name): k for k, name in enumerate(classes)}
    chosen = only & files
    keep = [
        k
        for k, (path, label) in enumerate(zip(paths, labels, strict=True))
        if label in number and (not chosen or Path(path).name in chosen)
    ]
    return from_files([paths[k] for k in keep], [number[labels[k]] for k in keep], classes)
