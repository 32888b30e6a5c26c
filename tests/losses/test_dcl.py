"""Decoupled contrastive loss: against the naive matrix, on one rank and across ranks."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.losses.contrastive import dcl_loss
from tests.losses.across_ranks import assert_one_rank, make_views, through_layer
from tests.losses.test_ntxent import clustered
from tests.ranks import Ranks


def naive_dcl(z_a: Tensor, z_b: Tensor, *, temperature: float, negatives: int | None = None) -> Tensor:
    total = z_a.new_zeros(())
    for a, b in zip(z_a.split(negatives or len(z_a)), z_b.split(negatives or len(z_b)), strict=True):
        z = F.normalize(torch.cat((a, b)), dim=1)
        logits = z @ z.t() / temperature
        positive = torch.eye(len(z), dtype=torch.bool).roll(len(a), dims=0)
        left_out = torch.eye(len(z), dtype=torch.bool) | positive
        total = total + (logits.masked_fill(left_out, -math.inf).logsumexp(1) - logits[positive]).sum()
    return total / (2 * len(z_a))


@pytest.mark.parametrize(
    "options", [{"temperature": 0.1}, {"temperature": 0.001}, {"temperature": 0.5, "negatives": 6}]
)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_are_one_rank_and_the_backward_is_silent(ranks: Ranks, world_size: int, options: dict[str, Any]) -> None:
    calls = assert_one_rank(ranks, world_size, dcl_loss, naive_dcl, pairs=24, **options)
    assert all(call["backward"] == 0 for call in calls)


@pytest.mark.parametrize(("temperature", "allowed"), [(0.1, 2e-6), (0.01, 3e-5)])
def test_float32_is_close_to_float64(temperature: float, allowed: float) -> None:
    z_a, z_b = clustered(200)
    single = through_layer(lambda a, b: dcl_loss(a, b, temperature=temperature), z_a, z_b, 128)
    double = through_layer(lambda a, b: dcl_loss(a, b, temperature=temperature), z_a.double(), z_b.double(), 128)
    for name in ("x_a", "x_b"):
        error = (single[name] - double[name]).abs().max() / double[name].abs().max()
        assert error < 3 * allowed, name


def test_a_single_pair_is_refused() -> None:
    z_a, z_b = make_views(1, 3)
    with pytest.raises(ValueError, match="1 pair has no negatives"):
        dcl_loss(z_a, z_b, temperature=0.1)
