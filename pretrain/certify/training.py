"""LARS on every rank, and three whole training steps: the same weights everywhere, and those of one rank."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.batch import Batch, StepContext
from pretrain.certify.harness import (
    IMAGE_SIDE_PX,
    CheckResult,
    Harness,
    bounded,
    flat,
    global_batch,
    images_of,
    on_all_ranks,
    on_one_rank,
    own_part,
    relative_error,
    small_objective,
    whole,
)
from pretrain.collectives import Group
from pretrain.config import PrecisionConfig
from pretrain.forward_backward import forward_backward
from pretrain.gradients import GradientAverager
from pretrain.numerics import set_network_numerics, set_numerics
from pretrain.objectives.base import Objective
from pretrain.optim.build import build_optimizer
from pretrain.optim.lars import LARS

STEPS = 3
LARS_LEARNING_RATE = 0.05
LARS_TOLERANCE = 1e-6
# Gentle, so that rounding is not what grows; compared with how far the weights have moved.
LEARNING_RATE = 1e-3
FLOAT32_MOVEMENT = 1e-4
# Coarser numbers are not given a constant: their rounding is measured, on one rank against IEEE float32, and ranks may
# part by a small multiple of it, since two orders of the same sums part by at most the sum of both their errors.
# A mistake between ranks moves weights by a share of 1, which MOST keeps apart from any rounding.
# (Larger images: oneDNN's bf16 weight gradient of a convolution with stride 2 on 1 x 1 px reads unwritten memory.)
BF16_SIDE_PX = 32
TIMES_ROUNDING, MOST_MOVEMENT = 3.0, 0.5
SHAPES = [(64, 3, 7, 7), (64,), (128, 64, 3, 3), (128,), (10, 128)]
MOMENTUM, WEIGHT_DECAY, TRUST = 0.9, 1e-4, 1e-3


def identical(harness: Harness, check: str, subject: str, x: Tensor) -> CheckResult:
    """A result that passes where x has the same bits on every rank. Collective: every rank calls this."""
    same = harness.all_equal(x)
    return CheckResult(check, subject, "identical" if same else "ranks differ", "identical bits on all ranks", same)


def lars_findings(harness: Harness) -> list[CheckResult]:
    """Two steps from gradients that differ from rank to rank, against the equations in float64.

    Collective: every rank calls this.
    """
    generator = torch.Generator().manual_seed(4)
    start = [torch.randn(shape, generator=generator) for shape in SHAPES]
    gradients = [[torch.randn(harness.world.size, *shape, generator=generator) for shape in SHAPES] for _ in range(2)]
    weights = [harness.on_device(tensor).clone().requires_grad_() for tensor in start]
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [w for w in weights if w.dim() == 1], "adapt": False},
    ]
    optimizer = LARS(groups, LARS_LEARNING_RATE, momentum=MOMENTUM, trust_coefficient=TRUST)
    averager = GradientAverager(weights, harness.world.groups.gradients)
    for step in gradients:
        loss = torch.stack([(w * harness.on_device(g[harness.world.rank])).sum() for w, g in zip(weights, step)]).sum()
        torch.autograd.backward(loss)
        averager.average_over_ranks()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    found, expected = flat([*weights]), harness.on_device(flat(_lars_by_the_equations(start, gradients)))
    error = harness.largest(relative_error(found, expected))
    return [
        bounded("LARS", "two steps against float64", {"weights": error}, LARS_TOLERANCE),
        identical(harness, "LARS", "weights of all ranks", found),
    ]


def _lars_by_the_equations(start: list[Tensor], gradients: list[list[Tensor]]) -> list[Tensor]:
    """u = g + wd w; q = trust |w| / |u|; v <- m v + lr q u; w <- w - v; vectors: wd = 0, q = 1."""
    weights = [w.double() for w in start]
    buffers = [torch.zeros_like(w) for w in weights]
    for step in gradients:
        for i, (w, v) in enumerate(zip(weights, buffers)):
            matrix = w.dim() > 1
            u = step[i].double().mean(0) + (WEIGHT_DECAY * w if matrix else 0)
            q = TRUST * w.norm() / u.norm() if matrix else 1.0
            v.mul_(MOMENTUM).add_(LARS_LEARNING_RATE * q * u)
            w.sub_(v)
    return weights


def training_findings(harness: Harness) -> list[CheckResult]:
    """Three steps of the configured objective, optimizer and precision. Collective: every rank calls this."""
    config, images = harness.config, images_of(harness)
    start = small_objective(config.objective, config.encoder, images=images, seed=config.seed)
    shared, alone = on_all_ranks(harness, start), on_one_rank(harness, start, harness.solo)
    for objective in (shared, alone):
        set_network_numerics(objective, config.precision)
    number_format = _number_format(harness)
    side_px = IMAGE_SIDE_PX if number_format == "float32" else BF16_SIDE_PX
    batches = [global_batch(images, seed, side_px) for seed in range(STEPS)]
    everything = [whole(harness, batch) for batch in batches]
    found = _train(harness, shared, [own_part(harness, batch) for batch in batches], harness.world.groups.gradients)
    expected = _train(harness, alone, everything, harness.solo)
    moved = (expected - harness.on_device(flat([*start.parameters(), *_statistics(start)]))).norm()
    errors, bound = {"movement": harness.largest(float((found - expected).norm() / moved))}, FLOAT32_MOVEMENT
    if number_format != "float32":
        set_numerics(PrecisionConfig())
        exact = _train(harness, on_one_rank(harness, start, harness.solo), everything, harness.solo)
        set_numerics(config.precision)
        errors["rounding"] = harness.largest(float((expected - exact).norm() / moved))
        bound = min(max(TIMES_ROUNDING * errors["rounding"], FLOAT32_MOVEMENT), MOST_MOVEMENT)
    layout = ", channels_last" if config.precision.channels_last else ""
    return [
        identical(harness, "three steps", "weights and statistics of all ranks", found),
        bounded("three steps", f"against one rank, {number_format}{layout}", errors, bound),
    ]


def _number_format(harness: Harness) -> str:
    """What the configured networks compute in on this device."""
    precision = harness.config.precision
    if precision.autocast != "off":
        return precision.autocast
    return "tf32" if harness.world.device.type == "cuda" and precision.float32 == "tf32" else "float32"


def _train(harness: Harness, objective: Objective, batches: list[Batch], group: Group) -> Tensor:
    optimizer = build_optimizer(objective, harness.config.optimizer, lr=LEARNING_RATE)
    averager = GradientAverager(list(objective.parameters()), group)
    for step, batch in enumerate(batches):
        context = StepContext(step, progress=(step + 1) / STEPS)
        forward_backward(objective, averager, batch, context)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        objective.after_optimizer_step(context)
    return flat([*objective.parameters(), *_statistics(objective)])


def _statistics(objective: Objective) -> list[Tensor]:
    """Running means and variances, without the counters of steps, whose movement would hide all other."""
    return [buffer for buffer in objective.buffers() if buffer.is_floating_point()]
