"""W ranks against one: loss, gradient and batch norm's running statistics of every objective, in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain.batch import Batch, StepContext
from pretrain.certify.harness import (
    CheckResult,
    Harness,
    bounded,
    every_objective,
    flat,
    global_batch,
    images_of,
    in_float64,
    on_all_ranks,
    on_one_rank,
    own_part,
    relative_error,
    small_objective,
    whole,
)
from pretrain.collectives import Group, all_reduce_
from pretrain.forward_backward import forward_backward
from pretrain.gradients import GradientAverager
from pretrain.models.sync_batch_norm import synchronise_batch_norm
from pretrain.objectives.base import Objective
from pretrain.objectives.settings import ObjectiveSettings

TOLERANCE = 1e-9


def gradient_findings(harness: Harness) -> list[CheckResult]:
    """One result for each objective, and one for gradient caching. Collective: every rank calls this."""
    images = images_of(harness)
    own = harness.config.objective
    others = [objective for objective in every_objective(images) if objective != own]
    found = [_compare(harness, objective, objective.title, micro_batches=1) for objective in [own, *others]]
    return [*found, _compare(harness, own, f"{own.name} in 2 micro-batches", micro_batches=2)]


def _compare(harness: Harness, config: ObjectiveSettings, subject: str, micro_batches: int) -> CheckResult:
    images = images_of(harness)
    start = in_float64(small_objective(config, harness.config.encoder, images=images, seed=harness.config.seed))
    batch = global_batch(images, seed=1)
    shared, alone = on_all_ranks(harness, start), on_one_rank(harness, start, harness.solo)
    found = _step(shared, own_part(harness, batch), harness.world.groups.gradients, micro_batches)
    # A loss without terms between images (BYOL's) is its rank's mean; the others are the global loss on every rank.
    found["loss"] = all_reduce_(found["loss"], harness.world.groups.loss) / harness.world.size
    expected = _step(alone, whole(harness, batch), harness.solo, micro_batches)
    gradient, wanted = found["gradient"], expected["gradient"]
    lengths = gradient.norm(), wanted.norm()
    scale = float(lengths[0] / lengths[1])
    angle = float((gradient / lengths[0] - wanted / lengths[1]).norm())
    errors = {
        "direction": harness.largest(angle),
        "scale": harness.largest(abs(scale - 1)),
        **{name: harness.largest(relative_error(found[name], expected[name])) for name in ("loss", "statistics")},
    }
    result = bounded("gradient", subject, errors, TOLERANCE)
    if errors["scale"] > TOLERANCE:  # a factor is what a person looks for
        measured = f"{result.measured} (|gradient| is {scale:.4g} of one rank's)"
        return CheckResult("gradient", subject, measured, result.expected, result.passed, errors)
    return result


def _step(objective: Objective, batch: Batch, group: Group, micro_batches: int) -> dict[str, Tensor]:
    parameters = [p for p in objective.parameters() if p.requires_grad]
    averager = GradientAverager(parameters, group)
    output = forward_backward(objective, averager, batch, StepContext(), micro_batches=micro_batches)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return {"loss": output.loss.double(), "gradient": flat(gradients), "statistics": flat(list(objective.buffers()))}


# Synchronised batch norm against a plain one on the whole batch: forward, backward, running statistics.


CHANNELS, SIDE_PX, IMAGES_PER_RANK = 16, 7, 8
TOLERANCES = {torch.float64: 1e-11, torch.float32: 5e-5}


def batch_norm_findings(harness: Harness) -> list[CheckResult]:
    """One result for each precision and memory format. Collective: every rank calls this."""
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    return [
        _compare_norm(harness, dtype, memory_format, f"{str(dtype).removeprefix('torch.')}, {name}")
        for dtype in (torch.float64, torch.float32)
        for name, memory_format in formats.items()
    ]


def _compare_norm(
    harness: Harness, dtype: torch.dtype, memory_format: torch.memory_format, subject: str
) -> CheckResult:
    generator = torch.Generator().manual_seed(2)
    images = IMAGES_PER_RANK * harness.world.size
    shape = (images, CHANNELS, SIDE_PX, SIDE_PX)
    # Each image its own mean: ranks that keep to themselves see other moments.
    x = torch.randn(shape, generator=generator, dtype=torch.float64) + 3 * torch.randn(
        images, 1, 1, 1, generator=generator
    )
    dy = torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = _run(_network(torch.float64, torch.device("cpu")), x, dy)
    net = _network(dtype, harness.world.device)
    synchronise_batch_norm(
        net, library=harness.config.batch_norm_library, group=harness.norm_group, device=harness.world.device
    )
    own = (harness.own(t).to(dtype).contiguous(memory_format=memory_format) for t in (x, dy))
    found = _run(net, *own)
    # A rank holds its share of the parameters' gradients.
    found["parameters"] = all_reduce_(found["parameters"], harness.world.groups.gradients)
    errors = {
        "forward": relative_error(found["y"], harness.own(expected["y"])),
        "backward": relative_error(found["dx"], harness.own(expected["dx"])),
        "parameters": relative_error(found["parameters"], harness.on_device(expected["parameters"])),
        "statistics": relative_error(found["statistics"], harness.on_device(expected["statistics"])),
    }
    agreed = {name: harness.largest(error) for name, error in errors.items()}
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
