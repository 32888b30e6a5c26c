"""Every source by its name, anybody's own by its dotted path, and opening one. Loads nothing heavy by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.data.sources.arrays import Arrays
from pretrain.data.sources.base import Source
from pretrain.data.sources.downloads import CIFAR10, CIFAR100, STL10, FashionMNIST
from pretrain.data.sources.folders import ImageFolder, ImageNet, TinyImageNet
from pretrain.data.sources.synthetic import Synthetic
from pretrain.errors import did_you_mean

if TYPE_CHECKING:
    from pretrain.data.sources.images import Images

SOURCES: Mapping[str, type[Source]] = {
    "fashion_mnist": FashionMNIST,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "stl10": STL10,
    "tiny_imagenet": TinyImageNet,
    "imagenet": ImageNet,
    "imagefolder": ImageFolder,
    "arrays": Arrays,
    "synthetic": Synthetic,
}


def source_class(name: str) -> type[Source]:
    """The source called ``name``, or the class that the dotted path ``package.module:Class`` names.

    Raises:
        ValueError: there is none; lists those there are, or says what is wrong with the path.
    """
    if ":" in name:
        return _own_class(name)
    if name not in SOURCES:
        hint = did_you_mean(name, SOURCES)
        raise ValueError(f"data set: got {name!r}{hint}, expected one of {', '.join(SOURCES)}, or package.module:Class")
    return SOURCES[name]


def _own_class(path: str) -> type[Source]:
    from pretrain.choices import load_object

    try:
        found = load_object(path)
    except (ImportError, ValueError) as error:
        raise ValueError(f"data set: {path} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Source)):
        raise ValueError(f"data set: got {path}, expected a class derived from {Source.__module__}.{Source.__name__}")
    return found


def source_config(name: str, settings: Sequence[str]) -> Any:
    """``key=value`` settings as an instance of the source's ``Config``; of an empty section where it has none.

    Raises:
        ConfigError: a key or a value that the source does not take; all at once.
    """
    from pretrain.configio import Section, apply_overrides, validate

    return validate(source_class(name).Config or Section, apply_overrides({}, settings), name)


def open_images(
    name: str, split: str, directory: Path | None = None, only: frozenset[str] | None = None, *, config: Any = None
) -> Images:
    """The images of a split of the source called ``name``.

    directory: where the originals are, or shall be downloaded to. only: names of the classes or files to take, from a
    source that has parts. config: an instance of the source's ``Config``; None: its defaults.

    Raises:
        ValueError: no such source or split, or a source without named parts; the originals are not as expected.
        FileNotFoundError: the originals are not there and cannot be downloaded; says what is expected where.
    """
    kind = source_class(name)
    if split not in kind.splits:
        raise ValueError(f"split: got {split!r}, {name} has {', '.join(kind.splits)}")
    if only is not None and not kind.has_parts:
        parts = ", ".join(other for other, source in SOURCES.items() if source.has_parts)
        raise ValueError(f"--only: {name} is not a folder of files; expected one of {parts}")
    try:
        return kind(directory, only=only, config=source_config(name, ()) if config is None else config).open(split)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: {error}") from error
