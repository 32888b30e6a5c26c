"""Losses with the mistakes that libraries make, each on the rows of its rank alone, as a library would have them."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class LocalNTXent(nn.Module):
    """Negatives of one rank: the default of a library that can do better."""

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        return contrast(torch.cat([z_a, z_b]), torch.cat([z_a, z_b]), self.temperature, first=0)


def contrast(anchors: Tensor, keys: Tensor, temperature: float, first: int) -> Tensor:
    """Anchors (2 B, D) are rows [first, first + B) of both halves of the keys (2 G, D)."""
    pairs, total = len(anchors) // 2, len(keys) // 2
    rows = torch.cat([torch.arange(pairs) + first, torch.arange(pairs) + first + total])
    logits = F.normalize(anchors, dim=1) @ F.normalize(keys, dim=1).t() / temperature
    logits[torch.arange(2 * pairs), rows] = -torch.inf
    return F.cross_entropy(logits, (rows + total) % (2 * total))


def gathered(z: Tensor, *, with_own_gradient: bool = True) -> Tensor:
    """All ranks' rows, of which only the own ones have a gradient."""
    parts = [torch.zeros_like(z) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, z.detach().contiguous())
    if with_own_gradient:
        parts[dist.get_rank()] = z
    return torch.cat(parts)


def ntxent_of_all_anchors(z_a: Tensor, z_b: Tensor, temperature: float = 0.5) -> Tensor:
    """Every rank takes the whole loss and differentiates its own rows: 1/W."""
    keys = torch.cat([gathered(z_a), gathered(z_b)])
    return contrast(keys, keys, temperature, first=0)


def ntxent_of_own_anchors(z_a: Tensor, z_b: Tensor, temperature: float = 0.5) -> Tensor:
    """Own anchors against all keys, which send no gradient back to the ranks they come from."""
    keys = torch.cat([gathered(z_a), gathered(z_b)])
    return contrast(torch.cat([z_a, z_b]), keys, temperature, first=dist.get_rank() * len(z_a))


def local_vicreg(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Variances and covariances of one rank."""
    total = 25 * F.mse_loss(z_a, z_b)
    for z in (z_a, z_b):
        z = z - z.mean(0)
        cov = z.t() @ z / (len(z) - 1)
        diagonal = cov.diagonal()
        total = total + 12.5 * F.relu(1 - (diagonal + 1e-4).sqrt()).mean()
        total = total + (cov.square().sum() - diagonal.square().sum()) / len(cov)
    return total


class BarlowTwinsInPlace(nn.Module):
    """A cross-correlation that is summed in place, which has no gradient: 1/W of it arrives.

    local_statistics: standardise with each rank's own moments.
    """

    def __init__(self, local_statistics: bool = False) -> None:
        super().__init__()
        self.local_statistics = local_statistics

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        size = dist.get_world_size()
        c = standardised(z_a, self.local_statistics).t() @ standardised(z_b, self.local_statistics)
        c = c / (len(z_a) * size)
        with torch.no_grad():
            dist.all_reduce(c)
        diagonal = c.diagonal()
        return (1 - diagonal).square().sum() + 0.005 * (c.square().sum() - diagonal.square().sum())


def standardised(z: Tensor, local: bool) -> Tensor:
    rows = z if local else gathered(z)
    return (z - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()


def two_numbers(z_a: Tensor, z_b: Tensor) -> Any:
    return z_a.sum(), z_b.sum()
