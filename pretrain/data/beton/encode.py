"""Images as they are stored: raw or JPEG, reduced to a largest side; JPEG files that fit are stored as they are."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pretrain.data.kernels import jpeg
from pretrain.data.sources.base import StoredAs
from pretrain.data.sources.images import Images

_LARGEST_SIDE = 65_535  # the format keeps sizes in 16 bits


@dataclass(frozen=True)
class Storage:
    """How images are stored. max_side_px: longer images are reduced to it; None keeps their size.

    jpeg_quality: of the images that are compressed here; JPEG files of at most max_side_px stay as they are.
    """

    format: StoredAs
    max_side_px: int | None = None
    jpeg_quality: int = 90

    @property
    def limit(self) -> int:
        """The longest side that is stored."""
        return min(self.max_side_px or _LARGEST_SIDE, _LARGEST_SIDE)


@dataclass(frozen=True)
class Encoded:
    """One stored image. kept: the bytes are those of the original file."""

    content: bytes
    height: int
    width: int
    kept: bool = False


def encode(images: Images, index: int, storage: Storage) -> Encoded:
    """Image ``index`` as it is stored.

    Raises:
        ValueError, OSError: it cannot be read or decoded; names the file.
    """
    if storage.format == "jpg" and images.encoded is not None:
        kept = _kept(images.encoded(index), storage.limit)
        if kept is not None:
            return kept
    pixels = images.pixels(index)
    height, width = pixels.shape[:2]
    if max(height, width) > storage.limit:
        scale = storage.limit / max(height, width)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        pixels = np.asarray(image)
    if storage.format == "raw":
        return Encoded(pixels.tobytes(), height, width)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=storage.jpeg_quality)
    return Encoded(buffer.getvalue(), height, width)


def encoded(images: Images, storage: Storage, workers: int, first: int = 0) -> Iterator[Encoded]:
    """The images from ``first`` on in order, encoded by ``workers`` threads (decoding and encoding release the GIL)."""
    if workers == 1:
        yield from (encode(images, index, storage) for index in range(first, len(images)))
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Encoded]] = deque()
        try:
            for index in range(first, len(images)):
                waiting.append(pool.submit(encode, images, index, storage))
                if len(waiting) >= 8 * workers:  # enough that a large image does not leave the others idle
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def estimated_bytes(images: Images, storage: Storage, samples: int = 32) -> int:
    """Size of the images when stored, from ``samples`` of them spread over all."""
    if len(images) == 0:
        return 0
    chosen = np.unique(np.linspace(0, len(images) - 1, samples).astype(int))
    sizes = [len(encode(images, int(index), storage).content) for index in chosen]
    return round(float(np.mean(sizes)) * len(images))


def _kept(content: bytes, limit: int) -> Encoded | None:
    """The file as it is, if it is a JPEG in colour or grey of at most ``limit`` px that decodes without a warning."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if image.format != "JPEG" or image.mode not in ("RGB", "L") or max(width, height) > limit:
                return None
            if not jpeg.load():
                image.load()
                return Encoded(content, height, width, kept=True)
    except (OSError, SyntaxError, ValueError):
        return None
    data, pixels = np.frombuffer(content, np.uint8), np.empty(3 * height * width, np.uint8)
    offset, size, high, wide = (np.array([value], np.int64) for value in (0, len(content), height, width))
    bad = jpeg.decode(data, offset, size, high, wide, offset, pixels)
    return Encoded(content, height, width, kept=True) if bad < 0 else None
