"""Synchronised batch norm against a plain one on the whole batch: forward, backward, running statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain.certify.finding import Bench, Finding, bounded, relative_error
from pretrain.collectives import all_reduce_
from pretrain.models.batch_norm import share_batch_norm

CHANNELS, SIDE_PX, IMAGES_PER_RANK = 16, 7, 8
TOLERANCES = {torch.float64: 1e-11, torch.float32: 5e-5}


def batch_norm_findings(bench: Bench) -> list[Finding]:
    """One finding for each precision and memory format. Collective: every rank calls this."""
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    return [
        _compare(bench, dtype, memory_format, f"{str(dtype).removeprefix('torch.')}, {name}")
        for dtype in (torch.float64, torch.float32)
        for name, memory_format in formats.items()
    ]


def _compare(bench: Bench, dtype: torch.dtype, memory_format: torch.memory_format, subject: str) -> Finding:
    generator = torch.Generator().manual_seed(2)
    images = IMAGES_PER_RANK * bench.world.size
    shape = (images, CHANNELS, SIDE_PX, SIDE_PX)
    # Each image its own mean: ranks that keep to themselves see other moments.
    x = torch.randn(shape, generator=generator, dtype=torch.float64) + 3 * torch.randn(
        images, 1, 1, 1, generator=generator
    )
    dy = torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = _run(_network(torch.float64, torch.device("cpu")), x, dy)
    net = _network(dtype, bench.world.device)
    share_batch_norm(net, library=bench.config.batch_norm_library, group=bench.norm_group, device=bench.world.device)
    own = (bench.own(t).to(dtype).contiguous(memory_format=memory_format) for t in (x, dy))
    found = _run(net, *own)
    # A rank holds its share of the parameters' gradients.
    found["parameters"] = all_reduce_(found["parameters"])
    errors = {
        "forward": relative_error(found["y"], bench.own(expected["y"])),
        "backward": relative_error(found["dx"], bench.own(expected["dx"])),
        "parameters": relative_error(found["parameters"], bench.on_device(expected["parameters"])),
        "statistics": relative_error(found["statistics"], bench.on_device(expected["statistics"])),
    }
    agreed = {name: bench.largest(error) for name, error in errors.items()}
    return bounded("batch norm", subject, agreed, TOLERANCES[dtype])


def _network(dtype: torch.dtype, device: torch.device) -> nn.Sequential:
    norm = nn.BatchNorm2d(CHANNELS)
    nn.init.uniform_(norm.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(3))
    return nn.Sequential(norm).to(device, dtype)


def _run(net: nn.Sequential, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    y = net(x)
    gradients = torch.autograd.grad(y, [x, *net.parameters()], dy)
    statistics = [b for b in net.buffers() if b.is_floating_point()]
    return {
        "y": y.detach().double(),
        "dx": gradients[0].double(),
        "parameters": torch.cat(gradients[1:]).double(),
        "statistics": torch.cat(statistics).double(),
    }
