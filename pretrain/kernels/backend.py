"""What exists once for each kind of device: the contrastive losses' tiles and the passes of batch norm over its data.

`TorchBackend` is made of torch's ordinary operations, runs on any device, and says what each function has to compute; a
backend for one kind of device replaces what it has faster. Losses and batch norm ask `backend_of` for the one of their
tensors and contain no branch on a device themselves. The certificate holds every backend to float64.

M rows of the global batch, D dimensions; C channels of x (B, C, ...), W ranks. Statistics are float32, float64 for a
float64 x; so are all sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from pretrain.kernels import batch_norm_cpu, contrastive_tiles
from pretrain.kernels.contrastive_products import Products, products_of
from pretrain.kernels.contrastive_work import Between, Within, tile_rows


class NormOperands(NamedTuple):
    """What both passes of batch norm's backward read; dy and x have the same memory format."""

    dy: Tensor
    x: Tensor
    weight: Tensor | None
    mean_C: Tensor
    invstd_C: Tensor


class TorchBackend:
    """Any device."""

    name = "torch"
    # Whether the host, to read a number that is on the device, has to wait for what the device still does.
    reading_waits = True

    # Contrastive losses.

    def negative_maxima(self, u_MD: Tensor, work: Iterable[Within | Between]) -> Tensor:
        """(M,) the largest u_i.u_k over the negatives k of row i that `work` visits; where none, the lowest number."""
        return contrastive_tiles.negative_maxima(self.products(u_MD), tile_rows(self.name), work)

    def negative_sums(self, u_MD: Tensor, work: Iterable[Within | Between], shift: float | Tensor) -> Tensor:
        """(M,) the sum of 2^(u_i.u_k - shift_i) over the negatives k of row i that `work` visits."""
        return contrastive_tiles.negative_sums(self.products(u_MD), tile_rows(self.name), work, shift)

    def negative_gradient(
        self,
        u_MD: Tensor,
        within: Iterable[Within],
        others: Iterable[Between],
        own: tuple[int, int],
        shift: float | Tensor,
        weight_M: Tensor | None,
    ) -> Tensor:
        """Rows own[0] to own[1] of sum_k (P_ik + P_ki) u_k over the negatives k that the work visits.

        P_ik = weight_i·2^(u_i.u_k - shift) with one shift for all rows; or P_ik = 2^(u_i.u_k - shift_i), weight_M None.
        `within` must lie in the own rows; of `others` only the first side, which must lie there too, gets a gradient.
        """
        products = self.products(u_MD)
        return contrastive_tiles.negative_gradient(products, tile_rows(self.name), within, others, own, shift, weight_M)

    def products(self, u_MD: Tensor) -> Products:
        """The matrix products of the tiles."""
        return Products(u_MD)

    # Batch norm.

    def plain_is_precise(self, x: Tensor) -> bool:
        """Whether torch's own batch norm computes x's statistics in full precision on this device."""
        return True

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (C,) of this rank's positions."""
        var_C, mean_C = torch.var_mean(_full(x), _but_channels(x), correction=0)
        return mean_C, var_C

    def normalise(
        self, x: Tensor, mean_C: Tensor, invstd_C: Tensor, weight_C: Tensor | None, bias_C: Tensor | None
    ) -> Tensor:
        """(x - mean) invstd weight + bias in x's type and memory format."""
        y = (_full(x) - _along(x, mean_C)) * _along(x, invstd_C if weight_C is None else invstd_C * weight_C)
        return (y if bias_C is None else y + _along(x, bias_C)).to(x.dtype)

    def gradient_sums(self, o: NormOperands) -> tuple[Tensor, Tensor]:
        """(sum of dy·xhat, sum of dy), (C,) each, over this rank's positions."""
        dy, dims = _full(o.dy), _but_channels(o.x)
        centred = _full(o.x) - _along(o.x, o.mean_C)
        return (dy * centred).sum(dims) * o.invstd_C, dy.sum(dims)

    def gradient_of_input(self, o: NormOperands, sums_2C: Tensor, counts_W: Tensor) -> Tensor:
        """dx = weight invstd (dy - sum(dy)/N - xhat sum(dy xhat)/N).

        sums_2C: gradient_sums over all ranks; counts_W: how many of the N positions each rank has.
        """
        mean_dy_xhat_C, mean_dy_C = sums_2C / counts_W.sum()
        xhat = (_full(o.x) - _along(o.x, o.mean_C)) * _along(o.x, o.invstd_C)
        scale_C = o.invstd_C if o.weight is None else o.invstd_C * o.weight
        dx = (_full(o.dy) - _along(o.x, mean_dy_C) - xhat * _along(o.x, mean_dy_xhat_C)) * _along(o.x, scale_C)
        return dx.to(o.x.dtype)


class CpuBackend(TorchBackend):
    """Small tiles that stay in the cache, oneDNN's products, and batch norm in full precision in channels_last."""

    name = "cpu"
    reading_waits = False

    def products(self, u_MD: Tensor) -> Products:
        return products_of(u_MD)

    def plain_is_precise(self, x: Tensor) -> bool:
        return not batch_norm_cpu.needs_folding(x)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return batch_norm_cpu.moments(x)

    def normalise(
        self, x: Tensor, mean_C: Tensor, invstd_C: Tensor, weight_C: Tensor | None, bias_C: Tensor | None
    ) -> Tensor:
        return batch_norm_cpu.scale_and_shift(x, mean_C, invstd_C, weight_C, bias_C)

    def gradient_sums(self, o: NormOperands) -> tuple[Tensor, Tensor]:
        return batch_norm_cpu.gradient_sums(o.dy, o.x, o.mean_C, o.invstd_C)

    def gradient_of_input(self, o: NormOperands, sums_2C: Tensor, counts_W: Tensor) -> Tensor:
        scale_C = o.invstd_C if o.weight is None else o.invstd_C * o.weight
        xhat_scale_C, shift_C = -scale_C * sums_2C / counts_W.sum()
        dx = batch_norm_cpu.scale_and_shift(o.x, o.mean_C, o.invstd_C, xhat_scale_C, shift_C)
        return dx.addcmul_(o.dy, _along(o.x, scale_C).to(dx.dtype))


class CudaBackend(TorchBackend):
    """Batch norm with the kernels of torch's own SyncBatchNorm, which exist for CUDA alone."""

    name = "cuda"

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean_C, invstd_C = torch.batch_norm_stats(x, 0.0)
        return mean_C, torch.where(invstd_C > 0, invstd_C.pow(-2), 0.0)

    def normalise(
        self, x: Tensor, mean_C: Tensor, invstd_C: Tensor, weight_C: Tensor | None, bias_C: Tensor | None
    ) -> Tensor:
        return torch.batch_norm_elemt(x, weight_C, bias_C, mean_C, invstd_C, 0.0)

    def gradient_sums(self, o: NormOperands) -> tuple[Tensor, Tensor]:
        reduced = torch.batch_norm_backward_reduce(o.dy, o.x, o.mean_C, o.invstd_C, o.weight, True, False, False)
        return reduced[1] * o.invstd_C, reduced[0]

    def gradient_of_input(self, o: NormOperands, sums_2C: Tensor, counts_W: Tensor) -> Tensor:
        counts = counts_W.to(torch.int32)
        sum_dy_C, sum_dy_centred_C = sums_2C[1], sums_2C[0] / o.invstd_C
        return torch.batch_norm_backward_elemt(
            o.dy, o.x, o.mean_C, o.invstd_C, o.weight, sum_dy_C, sum_dy_centred_C, counts
        )


ANYWHERE = TorchBackend()
BACKENDS = {backend.name: backend for backend in (CpuBackend(), CudaBackend())}


def backend_of(device: torch.device) -> TorchBackend:
    """The backend for tensors on this device."""
    return BACKENDS.get(device.type, ANYWHERE)


def backends_on(device: torch.device) -> list[TorchBackend]:
    """All backends that run on this device, the one in use first."""
    used = backend_of(device)
    return [used] if used is ANYWHERE else [used, ANYWHERE]


def _full(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _along(x: Tensor, values_C: Tensor) -> Tensor:
    """(C,) in a shape that goes along x's channels."""
    return values_C.view(-1, *[1] * (x.dim() - 2))
