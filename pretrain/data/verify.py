"""Read a written split back and compare it with its manifest."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain.data.beton.format import ImageTable, read_table
from pretrain.data.catalog import CHECKSUM_IMAGES, Manifest, existing_beton, manifest_path, read_manifest
from pretrain.data.renderer import Renderer


def block_checksums(crc32_N: npt.NDArray[np.uint32]) -> tuple[int, ...]:
    """One number for each CHECKSUM_IMAGES images: the CRC-32 of their CRC-32s as little-endian uint32."""
    blocks = range(0, len(crc32_N), CHECKSUM_IMAGES)
    return tuple(zlib.crc32(crc32_N[low : low + CHECKSUM_IMAGES].astype("<u4").tobytes()) for low in blocks)


def verify_split(directory: Path, split: str, dataset: str | None = None, workers: int = 1) -> Manifest:
    """Read every image of a split back: its bytes against the manifest's checksums, and whether it decodes.

    Raises:
        FileNotFoundError: the split or its manifest is missing.
        ValueError: something differs; lists all of it.
    """
    path = existing_beton(dataset, directory, split)
    if not manifest_path(directory, split).is_file():
        raise FileNotFoundError(f"{path}: written by ffcv itself, so there is nothing to compare with")
    manifest = read_manifest(directory, split, dataset)
    table = read_table(path)
    problems = list(_problems(manifest, table, workers))
    if problems:
        raise ValueError("\n  ".join([f"{path}: not what was written; write it again with --force", *problems]))
    return manifest


def _problems(manifest: Manifest, table: ImageTable, workers: int) -> Iterator[str]:
    if len(table) != manifest.images:
        yield f"got {len(table)} samples, expected the manifest's {manifest.images}"
        return
    if hashlib.sha256(table.label_N.astype("<i8").tobytes()).hexdigest() != manifest.labels_sha256:
        yield "the labels differ"
    renderer = Renderer(table, 1)
    payload, crc32_N = 0, np.zeros(len(table), np.uint32)

    def check(index: int) -> str | None:
        crc32_N[index] = zlib.crc32(_stored(table, index))
        try:
            renderer.decoded(np.array([index]))
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(workers) as pool:
        for low in range(0, len(table), CHECKSUM_IMAGES):  # not all at once: the pool's queue has no bound
            yield from filter(None, pool.map(check, range(low, min(low + CHECKSUM_IMAGES, len(table)))))
    if manifest.blocks_crc32:
        got = block_checksums(crc32_N)
        for block, (expected, found) in enumerate(zip(manifest.blocks_crc32, got, strict=True)):
            if expected != found:
                low = block * CHECKSUM_IMAGES
                last = min(low + CHECKSUM_IMAGES, len(table)) - 1
                yield f"samples {low} to {last}: other bytes than were written"
        return
    for index in range(len(table)):  # a manifest from before there were checksums of blocks
        payload = zlib.crc32(_stored(table, index), payload)
    if payload != manifest.payload_crc32:
        yield "other bytes than were written"


def _stored(table: ImageTable, index: int) -> memoryview:
    low = int(table.offset_N[index])
    return table.data[low : low + int(table.size_N[index])].data
