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
    name = registered_name(name)
    if name not in SOURCES:
        hint = did_you_mean(name, SOURCES)
        raise ValueError(f"data set: got {name!r}{hint}, expected one of {', '.join(SOURCES)}, or package.module:Class")
    return SOURCES[name]


def registered_name(name: str) -> str:
    """``name``, or imagefolder where it is the path of a folder."""
    return "imagefolder" if name not in SOURCES and ("/" in name or Path(name).is_dir()) else name


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
    """``key=value`` settings as an instance of the source's section of settings, empty where it has none.

    Raises:
        ConfigError: a key or a value that the source does not take; all at once.
    """
    from pretrain.configio import apply_overrides, validate

    return validate(source_class(name).settings(), apply_overrides({}, settings), name)


def open_source(
    name: str, directory: Path | None = None, only: frozenset[str] | None = None, *, config: Any = None
) -> Source:
    """The source called ``name``.

    directory: where the originals are, or shall be downloaded to. only: names of the classes or files to take, from a
    source that has parts. config: an instance of the source's settings; None: its defaults.

    Raises:
        ValueError: no such source, or a source without named parts.
    """
    kind = source_class(name)
    if only is not None and not kind.has_parts:
        parts = ", ".join(other for other, source in SOURCES.items() if source.has_parts)
        raise ValueError(f"--only: {name} is not a folder of files; expected one of {parts}")
    return kind(directory, only=only, config=source_config(name, ()) if config is None else config)


def images_of(source: Source, name: str, split: str) -> Images:
    """The images of a split of an opened source called ``name``.

    Raises:
        ValueError: no such split; the originals are not as expected.
        FileNotFoundError: the originals are not there and cannot be downloaded; says what is expected where.
    """
    try:
        if split not in (splits := source.available()) and split not in source.splits:
            raise ValueError(f"split: got {split!r}, {name} has {', '.join(splits)}")
        return source.open(split)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: {error}") from error


def open_images(
    name: str, split: str, directory: Path | None = None, only: frozenset[str] | None = None, *, config: Any = None
) -> Images:
    """`open_source` and `images_of` in one."""
    return images_of(open_source(name, directory, only, config=config), name, split)
