"""Who computes which similarities: integers only.

The global batch is a matrix of M = 2 G rows, row 2 i + v being view v of image i, images in the order of the ranks. So
the positive of row k is its neighbour k ^ 1, and each rank's images, and each group of images that are each other's
negatives, are consecutive rows. Similarities are symmetric: in the forward each pair of rows is visited by one rank
only, which adds to the sums of both. In the backward a rank visits its own rows against all rows of their groups, and
so needs nothing from anybody.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

# Rows of a tile, over which similarities are computed at a time; even, so that a row and its positive share a tile.
# On a CPU a tile and its weights stay in the cache; a GPU wants large products.
TILE_ROWS_CPU = 512
TILE_ROWS_ACCELERATOR = 4096


def tile_rows(backend: str) -> int:
    """Rows of a tile of the backend of this name. Two tiles at a time are what a loss takes beside its rows."""
    return TILE_ROWS_CPU if backend == "cpu" else TILE_ROWS_ACCELERATOR


@dataclass(frozen=True)
class Within:
    """`count` consecutive blocks of `rows` rows from `start`, each against itself."""

    start: int
    rows: int
    count: int


@dataclass(frozen=True)
class Between:
    """Rows [a_start, a_stop) against rows [b_start, b_stop), which do not overlap."""

    a_start: int
    a_stop: int
    b_start: int
    b_stop: int


@dataclass(frozen=True)
class Work:
    """One rank's part. `between` is disjoint over the ranks; `others` has the rank's own rows as its first side."""

    within: tuple[Within, ...]
    between: tuple[Between, ...]
    others: tuple[Between, ...]


def divide_work(rank: int, world_size: int, pairs_per_rank: int, group_pairs: int) -> Work:
    """The work of one rank, for groups of `group_pairs` consecutive images, which divide the global batch.

    Every unordered pair of different rows of a group lies in exactly one rank's `within` or `between`.
    """
    first, last = rank * pairs_per_rank, (rank + 1) * pairs_per_rank
    if pairs_per_rank % group_pairs == 0:
        return Work((Within(2 * first, 2 * group_pairs, pairs_per_rank // group_pairs),), (), ())
    within: list[Within] = []
    between: list[Between] = []
    others: list[Between] = []
    for group in range(first // group_pairs, (last - 1) // group_pairs + 1):
        segments = _segments(group * group_pairs, (group + 1) * group_pairs, pairs_per_rank)
        own = next(index for index, (start, _) in enumerate(segments) if first <= start < last)
        start, stop = segments[own]
        within.append(Within(2 * start, 2 * (stop - start), 1))
        between += _forward_pairs(segments, own)
        others += [Between(2 * start, 2 * stop, 2 * s, 2 * e) for k, (s, e) in enumerate(segments) if k != own]
    return Work(tuple(within), tuple(between), tuple(others))


def _segments(start: int, stop: int, pairs_per_rank: int) -> list[tuple[int, int]]:
    """The parts of images [start, stop) that lie on different ranks."""
    cuts = range((start // pairs_per_rank + 1) * pairs_per_rank, stop, pairs_per_rank)
    edges = [start, *cuts, stop]
    return list(itertools.pairwise(edges))


def _forward_pairs(segments: list[tuple[int, int]], own: int) -> Iterator[Between]:
    """What the owner of one segment visits: the next half of the ring; the opposite segment is shared by the two."""
    n = len(segments)
    start, stop = segments[own]
    for step in range(1, (n - 1) // 2 + 1):
        other_start, other_stop = segments[(own + step) % n]
        yield Between(2 * start, 2 * stop, 2 * other_start, 2 * other_stop)
    if n % 2 == 0:
        opposite = (own + n // 2) % n
        other_start, other_stop = segments[opposite]
        if own < opposite:
            yield Between(2 * start, start + stop, 2 * other_start, 2 * other_stop)
        else:
            yield Between(2 * start, 2 * stop, other_start + other_stop, 2 * other_stop)
