"""Tile arithmetic of the contrastive losses: sums and gradients over all pairs of rows, one tile at a time.

These three functions are all that is quadratic in the batch; `backend` says what each of them computes.

Rows are u = z·sqrt(log2(e) / temperature) with z of unit length, so that similarities come in powers of two: the
exponential of z_i.z_k / temperature is 2^(u_i.u_k), and exp2 is the faster function. A row itself and its positive
(its neighbour) never enter a sum: they are left out, not subtracted.

M rows of the global batch, D dimensions, (C, I, J) a tile: I rows against J rows in each of C equal blocks.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.kernels.contrastive_products import Products, Span
from pretrain.kernels.contrastive_work import Between, Within


def negative_maxima(products: Products, tile_rows: int, work: Iterable[Within | Between]) -> Tensor:
    """(M,) the largest similarities, in tiles of so many rows."""
    u_MD, scratch = products.u_MD, _Scratch(products.u_MD, tile_rows)
    maxima_M = u_MD.new_full((u_MD.shape[0],), torch.finfo(u_MD.dtype).min)
    for tile in _tiles(work, scratch.rows):
        s_CIJ = _similarities(products, tile, scratch)
        a, b = tile.a.of(maxima_M), tile.b.of(maxima_M)
        torch.maximum(a, s_CIJ.amax(2), out=a)
        if not tile.diagonal:
            torch.maximum(b, s_CIJ.amax(1), out=b)
    return maxima_M


def negative_sums(
    products: Products, tile_rows: int, work: Iterable[Within | Between], shift: float | Tensor
) -> Tensor:
    """(M,) the sums of exponentials. Each pair of rows that is visited counts for both.

    shift is one number for all rows or a tensor (M,).
    """
    scratch = _Scratch(products.u_MD, tile_rows)
    sums_M = products.u_MD.new_zeros(products.u_MD.shape[0])
    for tile in _tiles(work, scratch.rows):
        s_CIJ = _similarities(products, tile, scratch)
        if isinstance(shift, Tensor):
            if not tile.diagonal:
                e_CIJ = torch.sub(s_CIJ, tile.b.of(shift)[:, None, :], out=scratch.tile(1, s_CIJ.shape)).exp2_()
                tile.b.of(sums_M).add_(e_CIJ.sum(1))
            tile.a.of(sums_M).add_(s_CIJ.sub_(tile.a.of(shift)[:, :, None]).exp2_().sum(2))
            continue
        if shift:
            s_CIJ.sub_(shift)
        e_CIJ = s_CIJ.exp2_()
        tile.a.of(sums_M).add_(e_CIJ.sum(2))
        if not tile.diagonal:
            tile.b.of(sums_M).add_(e_CIJ.sum(1))
    return sums_M


def negative_gradient(
    products: Products,
    tile_rows: int,
    within: Iterable[Within],
    others: Iterable[Between],
    own: tuple[int, int],
    shift: float | Tensor,
    weight_M: Tensor | None,
) -> Tensor:
    """The gradient of the own rows."""
    scratch = _Scratch(products.u_MD, tile_rows)
    products.start_gradient(*own)
    for symmetric, work in ((True, within), (False, others)):
        for tile in _tiles(work, scratch.rows):
            p_CIJ = _probabilities(products, tile, scratch, shift, weight_M)
            products.add_to_rows(tile.a, tile.b, p_CIJ)
            if symmetric and not tile.diagonal:
                products.add_to_columns(tile.a, tile.b, p_CIJ)
    return products.finished_gradient()


@dataclass(frozen=True)
class _Tile:
    """One side against the other; `diagonal`: both are the same rows, and every pair is there twice."""

    a: Span
    b: Span
    diagonal: bool


class _Scratch:
    """Memory for two tiles, allocated once: fresh pages cost more than the arithmetic on them."""

    def __init__(self, like: Tensor, rows: int) -> None:
        self.rows = rows
        self._like = like
        self._buffers: list[Tensor | None] = [None, None]

    def tile(self, which: int, shape: tuple[int, ...]) -> Tensor:
        numel = shape[0] * shape[1] * shape[2]
        buffer = self._buffers[which]
        if buffer is None or buffer.numel() < numel:
            buffer = self._buffers[which] = self._like.new_empty(numel)
        return buffer[:numel].view(shape)


def _tiles(work: Iterable[Within | Between], tile_rows: int) -> Iterator[_Tile]:
    for item in work:
        if isinstance(item, Within):
            yield from _tiles_within(item, tile_rows)
        else:
            for a in _spans(item.a_start, item.a_stop - item.a_start, 1, tile_rows):
                for b in _spans(item.b_start, item.b_stop - item.b_start, 1, tile_rows):
                    yield _Tile(a, b, diagonal=False)


def _tiles_within(item: Within, tile_rows: int) -> Iterator[_Tile]:
    """On and above the diagonal of each block; small blocks are taken several at a time."""
    at_once = max(1, (tile_rows // min(item.rows, tile_rows)) ** 2)
    for first in range(0, item.count, at_once):
        count = min(at_once, item.count - first)
        spans = _spans(item.start + first * item.rows, item.rows, count, tile_rows)
        for i, a in enumerate(spans):
            for b in spans[i:]:
                yield _Tile(a, b, diagonal=a is b)


def _spans(start: int, rows: int, count: int, tile_rows: int) -> list[Span]:
    return [Span(start, rows, count, low, min(low + tile_rows, rows)) for low in range(0, rows, tile_rows)]


def _similarities(products: Products, tile: _Tile, scratch: _Scratch) -> Tensor:
    """u_i.u_k for all pairs of the tile, minus infinity for a row with itself and with its positive."""
    shape = (tile.a.count, tile.a.high - tile.a.low, tile.b.high - tile.b.low)
    s_CIJ = products.similarities(tile.a, tile.b, scratch.tile(0, shape))
    if tile.diagonal:
        for offset, stride in ((0, 1), (1, 2), (-1, 2)):
            s_CIJ.diagonal(offset, 1, 2)[:, ::stride].fill_(-torch.inf)
    return s_CIJ


def _probabilities(
    products: Products, tile: _Tile, scratch: _Scratch, shift: float | Tensor, weight_M: Tensor | None
) -> Tensor:
    """P_ik + P_ki for all pairs of the tile."""
    s_CIJ = _similarities(products, tile, scratch)
    other_CIJ = scratch.tile(1, tuple(s_CIJ.shape))
    if isinstance(shift, Tensor):
        torch.sub(s_CIJ, tile.b.of(shift)[:, None, :], out=other_CIJ).exp2_()
        return s_CIJ.sub_(tile.a.of(shift)[:, :, None]).exp2_().add_(other_CIJ)
    assert weight_M is not None, "one shift for all rows goes with a weight for each"
    if shift:
        s_CIJ.sub_(shift)
    torch.add(tile.a.of(weight_M)[:, :, None], tile.b.of(weight_M)[:, None, :], out=other_CIJ)
    return s_CIJ.exp2_().mul_(other_CIJ)
