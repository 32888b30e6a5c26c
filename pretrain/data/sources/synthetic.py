"""Images that are computed: for tests, examples and trying out a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pretrain.data.sources.base import Source

if TYPE_CHECKING:
    from pretrain.data.sources.images import Images, Pixels

_SIDE, _CLASSES = 32, 10


class Synthetic(Source):
    """Noisy coloured stripes, see `synthetic`."""

    images: ClassVar = {"train": 1_024, "test": 256}
    classes, side_px, stored_as = _CLASSES, _SIDE, "raw"

    def open(self, split: str) -> Images:
        return synthetic(split, self.images[split])


def synthetic(split: str, images: int, side: int = _SIDE) -> Images:
    """Noisy coloured stripes, their slope and colour given by the class: learnable, and the same on every machine."""
    import numpy as np

    from pretrain.data.sources.images import Images

    salt = {"train": 0, "test": 1}.get(split, 2)
    y, x = np.mgrid[:side, :side] / side

    def pixels(index: int) -> Pixels:
        random = np.random.default_rng((salt, index))
        label = index % _CLASSES
        angle = np.pi * label / _CLASSES
        wave = np.sin(2 * np.pi * (3 * (x * np.cos(angle) + y * np.sin(angle)) + random.random()))
        tint = 0.5 + 0.5 * np.cos(2 * np.pi * (label / _CLASSES + np.arange(3) / 3))
        level = 128 + 80 * wave[:, :, None] * tint + random.normal(0, 20, (side, side, 3))
        image: Pixels = np.clip(level, 0, 255).astype(np.uint8)
        return image

    return Images(np.arange(images, dtype=np.int64) % _CLASSES, tuple(f"stripes {k}" for k in range(_CLASSES)), pixels)
