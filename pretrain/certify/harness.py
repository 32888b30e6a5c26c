"""What a check found, the same on every rank."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pretrain.batch import Batch
from pretrain.collectives import Group
from pretrain.config import PretrainConfig
from pretrain.dist import World
from pretrain.models.config import EncoderSettings
from pretrain.models.sync_batch_norm import synchronise_batch_norm
from pretrain.objectives.base import Objective, build_objective
from pretrain.objectives.config import OBJECTIVES
from pretrain.objectives.settings import ObjectiveSettings


@dataclass(frozen=True)
class CheckResult:
    """One line of the certificate. numbers: what was measured, for programs."""

    check: str
    subject: str
    measured: str
    expected: str
    passed: bool
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Harness:
    """What every check works with. solo: the group of this rank alone; norm_group: ranks that share batch norm."""

    config: PretrainConfig
    world: World
    solo: Group
    norm_group: Group

    def largest(self, value: float) -> float:
        """The largest of the ranks' values; not-a-number counts as infinite. Collective: every rank calls this."""
        value = math.inf if math.isnan(value) else value
        if self.world.size == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(box, dist.ReduceOp.MAX, group=self.world.groups.control)
        return float(box)

    def all_equal(self, x: Tensor) -> bool:
        """Whether x (any shape) is the same, bit for bit, on every rank. Collective: every rank calls this."""
        if self.world.size == 1:
            return True
        mine = x.detach().cpu().contiguous().flatten().view(torch.uint8)
        of_first = mine.clone()
        dist.broadcast(of_first, src=0, group=self.world.groups.control)
        return self.largest(float(not torch.equal(mine, of_first))) == 0.0

    def on_device(self, x: Tensor) -> Tensor:
        """x on this rank's device."""
        return x.to(self.world.device)

    def own(self, x: Tensor) -> Tensor:
        """This rank's rows of the global batch x (G, ...), on its device."""
        rows = len(x) // self.world.size
        return self.on_device(x[self.world.rank * rows : (self.world.rank + 1) * rows])


def bounded(check: str, subject: str, errors: dict[str, float], tolerance: float) -> CheckResult:
    """A result that passes where every relative error is at most ``tolerance``."""
    measured = ", ".join(f"{name} {value:.0e}" for name, value in errors.items())
    passed = all(value <= tolerance for value in errors.values())
    return CheckResult(check, subject, measured, f"at most {tolerance:.0e}", passed, errors)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest entry expected."""
    scale = float(expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
    return float((found - expected).abs().max()) / scale


# Every objective in small: seconds for all of them, and nothing in its mathematics left out.


IMAGE_SIDE_PX = 16
CLASSES = 4
FEWEST_IMAGES = 32


def images_of(harness: Harness) -> int:
    """A global batch that every number of ranks can share, and that is small."""
    per_rank = max(2, -(-FEWEST_IMAGES // harness.world.size))
    return 2 * -(-per_rank // 2) * harness.world.size


def every_objective(images: int) -> list[ObjectiveSettings]:
    """All objectives, with the variants that change what ranks must tell one another."""
    return [variant for settings in OBJECTIVES for variant in settings.variants(images)]


def small_objective(config: ObjectiveSettings, encoder: EncoderSettings, *, images: int, seed: int) -> Objective:
    """The objective with its own constants, a narrow encoder and narrow heads; no weight is where symmetry puts it."""
    objective = build_objective(config.small(images), encoder.small(), classes=CLASSES, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in objective.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
    return objective


def in_float64(objective: Objective) -> Objective:
    """The objective in float64, its images too."""
    for module in objective.modules():
        if isinstance(module, type(objective.encoder)):
            module.register_forward_pre_hook(lambda module, arguments: (arguments[0].double(),))
    return objective.double()


def on_all_ranks(harness: Harness, objective: Objective) -> Objective:
    """A copy as training has it: batch norm shared as the configuration says, the loss over all ranks."""
    shared = copy.deepcopy(objective)
    library = harness.config.batch_norm_library
    synchronise_batch_norm(shared, library=library, group=harness.norm_group, device=harness.world.device)
    shared.group = harness.world.groups.loss
    return shared.to(harness.world.device).train()


def on_one_rank(harness: Harness, objective: Objective, group: Group) -> Objective:
    """A copy that takes the whole global batch, and tells nobody."""
    alone = copy.deepcopy(objective)
    synchronise_batch_norm(alone, library="bigbatch", group=group, device=harness.world.device)
    alone.group = group
    return alone.to(harness.world.device).train()


def global_batch(images: int, seed: int, side_px: int = IMAGE_SIDE_PX) -> Batch:
    """Noise of a different brightness in each image: (G, 2, 3, S, S) uint8, with labels. The same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    shape = (images, 2, 3, side_px, side_px)
    noise = torch.rand(shape, generator=generator) * torch.rand(images, 1, 1, 1, 1, generator=generator)
    return Batch((255 * noise).to(torch.uint8), torch.arange(images) % CLASSES, torch.arange(images))


def own_part(harness: Harness, batch: Batch) -> Batch:
    """This rank's part of a global batch."""
    return Batch(*(harness.own(tensor) for tensor in batch))


def whole(harness: Harness, batch: Batch) -> Batch:
    """The global batch on this rank's device."""
    return Batch(*(harness.on_device(tensor) for tensor in batch))


def flat(tensors: list[Tensor]) -> Tensor:
    """All numbers in one vector, float64."""
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])
