"""What a source of images is: the base class of ours and of anybody's own. Loads nothing heavy: plans read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from pretrain.configio import Section
    from pretrain.data.sources.images import Images

StoredAs = Literal["raw", "jpg"]


class Source:
    """A data set, or a format that data sets come in: what is known before it is opened, and how a split is opened.

    One's own is used by its dotted path, without a change to this project: ``dataset: "my_package.microscope:Frames"``
    in a configuration, and ``python -m pretrain.data.write_beton my_package.microscope:Frames DIR --set stain=blue``::

        class Frames(Source):
            label = "Microscope frames"
            stored_as = "raw"

            class Config(Section):  # pretrain.configio.Section is strict and frozen; not needed where nothing is set
                stain: str = "red"

            def open(self, split: str) -> Images:
                files = sorted((self.originals() / self.config.stain / split).glob("*/*.png"))
                classes = sorted({file.parent.name for file in files})
                return from_files(files, [classes.index(file.parent.name) for file in files], tuple(classes))

    A plan reads the class where the data have not been written yet, on a login node too: import what is heavy (torch,
    numpy) inside ``open``.

    label: what it is called in print; None: its name. splits: those that are written by default. images: how many a
    split has, where that is known before it is opened. classes, side_px: their number, and the side of images that are
    all squares of one size. stored_as: how images are stored by default. has_parts: whether ``only`` may be given.
    """

    label: ClassVar[str | None] = None
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    images: ClassVar[Mapping[str, int]] = {}
    classes: ClassVar[int | None] = None
    side_px: ClassVar[int | None] = None
    stored_as: ClassVar[StoredAs] = "jpg"
    has_parts: ClassVar[bool] = False
    Config: ClassVar[type[Section] | None] = None

    def __init__(
        self, directory: Path | None = None, *, only: frozenset[str] | None = None, config: Any = None
    ) -> None:
        """directory: of the originals. only: names of the classes or files to take. config: settings, a ``Config``."""
        self.directory, self.only, self.config = directory, only, config

    @classmethod
    def settings(cls) -> type[Section]:
        """The class of its settings, an empty section where it has none."""
        from pretrain.configio import Section

        return cls.Config or Section

    def available(self) -> tuple[str, ...]:
        """The splits that are written by default, where only the originals can tell."""
        return self.splits

    def open(self, split: str) -> Images:
        """The images of a split.

        Raises:
            FileNotFoundError: the originals are not there and cannot be downloaded; says what is expected where.
            ValueError: they are not as expected; says how.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method open(split)")

    def originals(self) -> Path:
        """The folder of the original images. Raises FileNotFoundError where none was named."""
        if self.directory is None:
            raise FileNotFoundError("name the folder of the original images with --source-dir")
        return self.directory
