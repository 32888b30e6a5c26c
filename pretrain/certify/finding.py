"""What a check found, the same on every rank."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.collectives import Group
from pretrain.config import PretrainConfig
from pretrain.dist import World


@dataclass(frozen=True)
class Finding:
    """One line of the certificate. numbers: what was measured, for programs."""

    check: str
    subject: str
    measured: str
    wanted: str
    passed: bool
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
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
        dist.all_reduce(box, dist.ReduceOp.MAX, group=self.world.control)
        return float(box)

    def all_equal(self, x: Tensor) -> bool:
        """Whether x (any shape) is the same, bit for bit, on every rank. Collective: every rank calls this."""
        if self.world.size == 1:
            return True
        mine = x.detach().cpu().contiguous().flatten().view(torch.uint8)
        of_first = mine.clone()
        dist.broadcast(of_first, src=0, group=self.world.control)
        return self.largest(float(not torch.equal(mine, of_first))) == 0.0

    def on_device(self, x: Tensor) -> Tensor:
        """x on this rank's device."""
        return x.to(self.world.device)

    def own(self, x: Tensor) -> Tensor:
        """This rank's rows of the global batch x (G, ...), on its device."""
        rows = len(x) // self.world.size
        return self.on_device(x[self.world.rank * rows : (self.world.rank + 1) * rows])


def bounded(check: str, subject: str, errors: dict[str, float], tolerance: float) -> Finding:
    """A finding that passes where every relative error is at most ``tolerance``."""
    measured = ", ".join(f"{name} {value:.0e}" for name, value in errors.items())
    passed = all(value <= tolerance for value in errors.values())
    return Finding(check, subject, measured, f"at most {tolerance:.0e}", passed, errors)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest entry expected."""
    scale = float(expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
    return float((found - expected).abs().max()) / scale
