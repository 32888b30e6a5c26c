"""The matrix products of the contrastive tiles: torch's own, or oneDNN's where that is faster.

M rows of the global batch, N rows of this rank, D dimensions, (C, I, J) a tile (see contrastive_tiles).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """Rows [low, high) of each of `count` consecutive blocks of `rows` rows from row `start`."""

    start: int
    rows: int
    count: int
    low: int
    high: int

    def of(self, x: Tensor, origin: int = 0) -> Tensor:
        """A view (count, high - low, ...) of x, whose first row is row `origin`."""
        start = self.start - origin
        blocks = x[start : start + self.rows * self.count].view(self.count, self.rows, *x.shape[1:])
        return blocks[:, self.low : self.high]


class Products:
    """Products with rows of u, and the gradient they add up to."""

    def __init__(self, u_MD: Tensor) -> None:
        self.u_MD = u_MD

    def similarities(self, a: Span, b: Span, out_CIJ: Tensor) -> Tensor:
        """u_i.u_k for rows i of a and k of b, if possible in the memory of `out`."""
        if a.count == 1:
            torch.mm(a.of(self.u_MD)[0], b.of(self.u_MD)[0].t(), out=out_CIJ[0])
            return out_CIJ
        return torch.bmm(a.of(self.u_MD), b.of(self.u_MD).transpose(1, 2), out=out_CIJ)

    def start_gradient(self, first: int, last: int) -> None:
        """Begins a gradient of rows [first, last), of zeros."""
        self._first = first
        self.gradient_ND = self.u_MD.new_zeros(last - first, self.u_MD.shape[1])

    def add_to_rows(self, a: Span, b: Span, p_CIJ: Tensor) -> None:
        """gradient[a] += p @ u[b]"""
        self._add(a, p_CIJ, b)

    def add_to_columns(self, a: Span, b: Span, p_CIJ: Tensor) -> None:
        """gradient[b] += p.T @ u[a]"""
        self._add(b, p_CIJ.transpose(1, 2), a)

    def finished_gradient(self) -> Tensor:
        """(N, D)"""
        return self.gradient_ND

    def _add(self, to: Span, p: Tensor, of: Span) -> None:
        total, u = to.of(self.gradient_ND, self._first), of.of(self.u_MD)
        if to.count == 1:
            total[0].addmm_(p[0], u[0])
        else:
            total.baddbmm_(p, u)


class OneDnnProducts(Products):
    """The same with oneDNN's x @ y.T, which wants both operands row by row: so u is kept transposed as well."""

    def __init__(self, u_MD: Tensor, linear: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(u_MD)
        self._linear = linear
        self._transposed: dict[tuple[int, int], Tensor] = {}
        self._gradient_DN: Tensor | None = None

    def similarities(self, a: Span, b: Span, out_CIJ: Tensor) -> Tensor:
        if a.count > 1:
            return super().similarities(a, b, out_CIJ)
        return self._linear(a.of(self.u_MD)[0], b.of(self.u_MD)[0])[None]

    def add_to_rows(self, a: Span, b: Span, p_CIJ: Tensor) -> None:
        if a.count > 1:
            return super().add_to_rows(a, b, p_CIJ)
        a.of(self.gradient_ND, self._first)[0].add_(self._linear(p_CIJ[0], self._columns(b)))

    def add_to_columns(self, a: Span, b: Span, p_CIJ: Tensor) -> None:
        if a.count > 1:
            return super().add_to_columns(a, b, p_CIJ)
        if self._gradient_DN is None:
            self._gradient_DN = torch.zeros_like(self.gradient_ND.t(), memory_format=torch.contiguous_format)
        low = b.start - self._first + b.low
        part_DJ = self._gradient_DN[:, low : low + b.high - b.low]
        part_DJ.add_(self._linear(self._columns(a), p_CIJ[0].t()))

    def finished_gradient(self) -> Tensor:
        return self.gradient_ND if self._gradient_DN is None else self.gradient_ND.add_(self._gradient_DN.t())

    def _columns(self, span: Span) -> Tensor:
        key = (span.start + span.low, span.high - span.low)
        if key not in self._transposed:
            self._transposed[key] = span.of(self.u_MD)[0].t().contiguous()
        return self._transposed[key]


def products_of(u_MD: Tensor) -> Products:
    """On a CPU: oneDNN's in float32 with AVX-512, where they have twice the rate of torch.mm; else torch's."""
    if u_MD.dtype == torch.float32:
        linear = onednn_linear() if torch.backends.cpu.get_cpu_capability() == "AVX512" else None
        if linear is not None:
            return OneDnnProducts(u_MD, linear)
    return Products(u_MD)


@functools.cache
def onednn_linear() -> Callable[[Tensor, Tensor], Tensor] | None:
    """oneDNN's x @ y.T, if this torch has it: it is private, so it is tried on a small product before it is trusted."""

    def linear(x_IK: Tensor, y_JK: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x_IK, y_JK, None, "none", [], "")
        return product

    x, y = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    try:
        works = torch.equal(linear(x, y), x @ y.t())
    except (AttributeError, RuntimeError, TypeError):
        return None
    return linear if works else None
