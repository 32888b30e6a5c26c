"""Each backend that runs on this device, function by function, against the equations in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.certify.harness import CheckResult, Harness, bounded, relative_error
from pretrain.kernels.backend import NormOperands, TorchBackend, backends_on
from pretrain.kernels.contrastive_work import Between, Within, divide_work, tile_rows
from pretrain.losses.contrastive import scaled_rows
from pretrain.numerics import full_float32

TOLERANCE = 5e-5  # of float32
TEMPERATURE, DIMENSIONS = 0.1, 24
ROWS = 96
CHANNELS, SIDE_PX, IMAGES, EPS = 6, 9, 32, 1e-5


def kernel_findings(harness: Harness) -> list[CheckResult]:
    """Two results for each backend. Collective: every rank calls this."""
    results = []
    backends = backends_on(harness.world.device)
    for backend in backends:
        # More than a tile of the backend in use; of another one, whose tiles may be too large for this device, less.
        rows = tile_rows(backend.name) + 32 if backend is backends[0] else ROWS
        with full_float32():  # as losses compute
            contrastive = _contrastive(harness, backend, rows)
        subjects = {f"contrastive losses, {rows} rows": contrastive, "batch norm": _batch_norm(harness, backend)}
        for subject, errors in subjects.items():
            agreed = {name: harness.largest(error) for name, error in errors.items()}
            results.append(bounded("kernels", f"{backend.name}: {subject}, float32", agreed, TOLERANCE))
    return results


def _contrastive(harness: Harness, backend: TorchBackend, rows: int) -> dict[str, float]:
    """The work of the first of two ranks, and for the sums that of both."""
    generator = torch.Generator().manual_seed(5)
    z_2BD = torch.randn(2, rows // 2, DIMENSIONS, generator=generator, dtype=torch.float64)
    z_a, z_b = harness.on_device(z_2BD)
    u_MD = scaled_rows(z_a, z_b, TEMPERATURE)
    s_MM = u_MD @ u_MD.t()
    place_M = torch.arange(rows, device=u_MD.device)
    s_MM.masked_fill_(place_M[:, None] // 2 == place_M // 2, -torch.inf)  # a row with itself and with its positive
    weight_M = s_MM.exp2().sum(1).reciprocal()
    p_NM = (s_MM.exp2() * (weight_M[:, None] + weight_M))[: rows // 2]

    u32_MD, ranks = u_MD.float(), [divide_work(rank, 2, rows // 4, rows // 2) for rank in (0, 1)]
    visits: list[Within | Between] = []
    for work in ranks:
        visits += [*work.within, *work.between]
    own = (ranks[0].within, ranks[0].others, (0, rows // 2))
    gradient = backend.negative_gradient(u32_MD, *own, 0.0, weight_M.float())
    of_shifts = backend.negative_gradient(u32_MD, *own, -weight_M.log2().float(), None)
    sums_M = backend.negative_sums(u32_MD, visits, 0.0).double()
    return {
        "maxima": relative_error(backend.negative_maxima(u32_MD, visits).double(), s_MM.amax(1)),
        "sums": relative_error(sums_M * weight_M, torch.ones_like(weight_M)),
        "gradient": max(relative_error(found.double(), p_NM @ u_MD) for found in (gradient, of_shifts)),
    }


def _batch_norm(harness: Harness, backend: TorchBackend) -> dict[str, float]:
    """The worst of both memory formats."""
    generator = torch.Generator().manual_seed(6)
    shape = (IMAGES, CHANNELS, SIDE_PX, SIDE_PX)
    x, dy = harness.on_device(torch.randn(2, *shape, generator=generator, dtype=torch.float64))
    x += 3
    weight_C = torch.linspace(0.5, 1.5, CHANNELS, dtype=torch.float64, device=x.device)
    expected = _by_the_equations(x, dy, weight_C)
    worst = dict.fromkeys(expected, 0.0)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x32, dy32 = (t.to(torch.float32, memory_format=memory_format) for t in (x, dy))
        weight32_C = weight_C.float()
        mean_C, var_C = backend.moments(x32)
        operands = NormOperands(dy32, x32, weight32_C, mean_C, (var_C + EPS).rsqrt())
        sums_2C = torch.stack(backend.gradient_sums(operands))
        count_W = x32.new_full((1,), x32.numel() // CHANNELS)
        found = {
            "moments": torch.stack((mean_C, var_C)),
            "forward": backend.normalise(x32, mean_C, operands.invstd_C, weight32_C, weight32_C),
            "parameters": sums_2C,
            "backward": backend.gradient_of_input(operands, sums_2C, count_W),
        }
        for name, value in found.items():
            worst[name] = max(worst[name], relative_error(value.double(), expected[name]))
    return worst


def _by_the_equations(x: Tensor, dy: Tensor, weight_C: Tensor) -> dict[str, Tensor]:
    """With the weight as the bias too, so that it is seen."""
    dims, weight = (0, 2, 3), weight_C.view(-1, 1, 1)
    var_C, mean_C = torch.var_mean(x, dims, correction=0)
    std = (var_C + EPS).sqrt().view(-1, 1, 1)
    xhat = (x - mean_C.view(-1, 1, 1)) / std
    mean_dy, mean_dy_xhat = dy.mean(dims, keepdim=True), (dy * xhat).mean(dims, keepdim=True)
    return {
        "moments": torch.stack((mean_C, var_C)),
        "forward": xhat * weight + weight,
        "parameters": torch.stack(((dy * xhat).sum(dims), dy.sum(dims))),
        "backward": weight / std * (dy - mean_dy - xhat * mean_dy_xhat),
    }
