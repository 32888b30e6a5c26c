"""W ranks against one: loss, gradient and batch norm's running statistics of every objective, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.certify.finding import Bench, Finding, bounded, relative_error
from pretrain.certify.models import (
    every_objective,
    flat,
    global_batch,
    images_of,
    in_float64,
    on_all_ranks,
    on_one_rank,
    own_part,
    small_objective,
    title,
    whole,
)
from pretrain.collectives import Group, all_reduce_
from pretrain.config import ObjectiveConfig
from pretrain.data.batch import Batch
from pretrain.gradients import GradientAverager
from pretrain.objectives.base import Objective
from pretrain.step import forward_backward

TOLERANCE = 1e-9


def gradient_findings(bench: Bench) -> list[Finding]:
    """One finding for each objective, and one for gradient caching. Collective: every rank calls this."""
    images = images_of(bench)
    own = bench.config.objective
    others = [objective for objective in every_objective(images) if objective != own]
    found = [_compare(bench, objective, title(objective), micro_batches=1) for objective in [own, *others]]
    return [*found, _compare(bench, own, f"{own.name} in 2 micro-batches", micro_batches=2)]


def _compare(bench: Bench, config: ObjectiveConfig, subject: str, micro_batches: int) -> Finding:
    images = images_of(bench)
    start = in_float64(small_objective(config, bench.config.encoder, images=images, seed=bench.config.seed))
    batch = global_batch(images, seed=1)
    shared, alone = on_all_ranks(bench, start), on_one_rank(bench, start, bench.solo)
    found = _step(shared, own_part(bench, batch), None, micro_batches)
    # A loss without terms between images (BYOL's) is its rank's mean; the others are the global loss on every rank.
    found["loss"] = all_reduce_(found["loss"]) / bench.world.size
    expected = _step(alone, whole(bench, batch), bench.solo, micro_batches)
    gradient, wanted = found["gradient"], expected["gradient"]
    lengths = gradient.norm(), wanted.norm()
    scale = float(lengths[0] / lengths[1])
    angle = float((gradient / lengths[0] - wanted / lengths[1]).norm())
    errors = {
        "direction": bench.largest(angle),
        "scale": bench.largest(abs(scale - 1)),
        **{name: bench.largest(relative_error(found[name], expected[name])) for name in ("loss", "statistics")},
    }
    finding = bounded("gradient", subject, errors, TOLERANCE)
    if errors["scale"] > TOLERANCE:  # a factor is what a person looks for
        measured = f"{finding.measured} (|gradient| is {scale:.4g} of one rank's)"
        return Finding("gradient", subject, measured, finding.wanted, finding.passed, errors)
    return finding


def _step(objective: Objective, batch: Batch, group: Group, micro_batches: int) -> dict[str, Tensor]:
    parameters = [p for p in objective.parameters() if p.requires_grad]
    averager = GradientAverager(parameters, group)
    output = forward_backward(objective, averager, batch, micro_batches=micro_batches, measure=False)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return {"loss": output.loss.double(), "gradient": flat(gradients), "statistics": flat(list(objective.buffers()))}
