"""Images as they are stored: raw or JPEG, reduced to a largest side; JPEG files that fit are not compressed again."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pretrain.data.beton.format import PAGE_BYTES
from pretrain.data.kernels import jpeg
from pretrain.data.sources.base import StoredAs
from pretrain.data.sources.images import Images
from pretrain.data.sources.pixels import NOTHING, PixelPolicy, TooLarge, Treated, orientation, read_pixels, reduced

_LARGEST_SIDE = 65_535  # the format keeps sizes in 16 bits
_MARKER = re.compile(rb"\xff[^\x00]")


@dataclass(frozen=True)
class Storage:
    """How images are stored. max_side_px: longer images are reduced to it; None keeps their size.

    jpeg_quality: of the images that are compressed here; JPEG files of at most max_side_px are not compressed again.
    """

    format: StoredAs
    max_side_px: int | None = None
    jpeg_quality: int = 90
    policy: PixelPolicy = field(default_factory=PixelPolicy)

    @property
    def limit(self) -> int:
        """The longest side that is stored."""
        return min(self.max_side_px or _LARGEST_SIDE, _LARGEST_SIDE)


@dataclass(frozen=True)
class Encoded:
    """One stored image. treated: what was done to it."""

    content: bytes
    height: int
    width: int
    treated: Treated = NOTHING


@dataclass(frozen=True)
class Damaged:
    """An image that cannot be stored. why: in words. too_large: it is whole, but has too many pixels."""

    why: str
    too_large: bool = False


def encode(images: Images, index: int, storage: Storage) -> Encoded:
    """Image ``index`` as it is stored.

    Raises:
        ValueError, OSError: it cannot be read or decoded.
    """
    if images.encoded is None:
        pixels = images.pixels(index)
        image = Image.fromarray(pixels)
        small = reduced(image, storage.limit)
        treated = Treated.REDUCED if small is not image else NOTHING
    else:
        content = images.encoded(index)
        kept = _kept(content, storage.limit) if storage.format == "jpg" else None
        if kept is not None:
            return kept
        small, treated = read_pixels(content, storage.policy, storage.limit)
    if storage.format == "raw":
        stored = small.tobytes()
    else:
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=storage.jpeg_quality)
        stored = buffer.getvalue()
    if len(stored) > PAGE_BYTES:
        raise ValueError(f"{len(stored)} bytes do not fit a page of {PAGE_BYTES}; set --max-side")
    return Encoded(stored, small.height, small.width, treated)


def encoded(
    images: Images, storage: Storage, workers: int, todo: Sequence[int]
) -> Iterator[tuple[int, Encoded | Damaged]]:
    """The images ``todo`` in order, encoded by ``workers`` threads (decoding and encoding release the GIL).

    Raises:
        OSError: the files cannot be reached, which says nothing about the images.
    """

    def one(index: int) -> Encoded | Damaged:
        try:
            return encode(images, index, storage)
        except (ValueError, PermissionError) as error:
            return Damaged(str(error), isinstance(error, TooLarge))
        except OSError as error:
            if error.errno is not None:
                raise
            return Damaged(str(error))

    if workers == 1:
        yield from ((index, one(index)) for index in todo)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[int, Future[Encoded | Damaged]]] = deque()
        try:
            for index in todo:
                waiting.append((index, pool.submit(one, index)))
                if len(waiting) >= 8 * workers:  # enough that a large image does not leave the others idle
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def estimated_bytes(images: Images, storage: Storage, samples: int = 32) -> int:
    """Size of the images when stored, from ``samples`` of them spread over all; those that cannot be stored are 0."""
    if len(images) == 0:
        return 0
    chosen = np.unique(np.linspace(0, len(images) - 1, samples).astype(int)).tolist()
    sizes = [len(one.content) if isinstance(one, Encoded) else 0 for _, one in encoded(images, storage, 1, chosen)]
    return round(float(np.mean(sizes)) * len(images))


def _kept(content: bytes, limit: int) -> Encoded | None:
    """The file without metadata, if it is an upright JPEG in colour or grey of at most ``limit`` px that is sound."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if image.format != "JPEG" or image.mode not in ("RGB", "L") or max(width, height) > limit:
                return None
            plain = None if orientation(image) in range(2, 9) else without_metadata(content)
            if plain is None or len(plain) > PAGE_BYTES:
                return None
            if not jpeg.load():
                image.load()
                return Encoded(plain, height, width, Treated.KEPT)
    except Exception:  # Pillow's readers raise whatever a damaged file leads them to; read_pixels tells
        return None
    data, pixels = np.frombuffer(plain, np.uint8), np.empty(3 * height * width, np.uint8)
    offset, size, high, wide = (np.array([value], np.int64) for value in (0, len(plain), height, width))
    bad = jpeg.decode(data, offset, size, high, wide, offset, pixels)
    return Encoded(plain, height, width, Treated.KEPT) if bad < 0 else None


def without_metadata(content: bytes) -> bytes | None:
    """The JPEG without what is not needed to decode it: application segments, comments, bytes behind its end.

    None where a marker stands where none may: libjpeg goes on with a warning, libturbojpeg calls it an error.
    """
    parts, position, restart = [content[:2]], 2, 0
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker, end = content[position + 1], position + 2 + int.from_bytes(content[position + 2 : position + 4])
        if marker == 0xDA:  # a scan: compressed pixels, up to the next marker that is none of its restarts
            restart = 0
            while (found := _MARKER.search(content, end)) and content[found.start() + 1] == 0xD0 + restart % 8:
                restart, end = restart + 1, found.end()
            if found is None:
                return None
            end = found.start()
        elif not (0xC0 <= marker <= 0xCF or 0xDB <= marker <= 0xEF or marker == 0xFE):
            return None
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):  # 0xE0 JFIF, 0xEE Adobe's colours
            parts.append(content[position:end])
        position = end
        if marker == 0xDA and content[position : position + 2] == b"\xff\xd9":
            return b"".join([*parts, b"\xff\xd9"])
    return None
