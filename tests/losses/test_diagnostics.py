"""Contrastive diagnostics: against the whole matrix, the same on any number of ranks, on a bounded sample."""

from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from pretrain.losses import diagnostics as module
from pretrain.losses.diagnostics import ntxent_diagnostics
from tests.losses.across_ranks import make_views
from tests.ranks import Ranks


def naive(z_a: Tensor, z_b: Tensor, temperature: float, negatives: int | None = None) -> dict[str, Tensor]:
    right, entropy, potential = [], [], []
    z_a, z_b = F.normalize(z_a, dim=1), F.normalize(z_b, dim=1)
    for a, b in zip(z_a.split(negatives or len(z_a)), z_b.split(negatives or len(z_b)), strict=True):
        for i in range(len(a)):
            others = torch.cat([a[:i], a[i + 1 :], b[:i], b[i + 1 :]])
            p = torch.softmax(torch.cat([a[i] @ b[i : i + 1].t(), others @ a[i]]) / temperature, dim=0)
            right.append((p.argmax() == 0).double())
            entropy.append(-(p * p.log()).sum())
            potential.append((-2 * (others - a[i]).square().sum(1)).exp().mean())
    return {
        "contrastive_top1": torch.stack(right).mean(),
        "contrastive_entropy": torch.stack(entropy).mean(),
        "alignment": (z_a - z_b).square().sum(1).mean(),
        "uniformity": torch.stack(potential).mean().log(),
    }


def on_rank(group: dist.ProcessGroup, z_a: Tensor, z_b: Tensor, most_anchors: int, options: Any) -> dict[str, Tensor]:
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    with mock.patch.object(module, "MOST_ANCHORS", most_anchors), mock.patch.object(module, "MOST_SIMILARITIES", 100):
        part_a, part_b = z_a.chunk(world_size)[rank], z_b.chunk(world_size)[rank]
        return ntxent_diagnostics(part_a, part_b, group=group, **options)


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("negatives", [None, 8, 3])
def test_all_anchors_are_the_whole_matrix(ranks: Ranks, world_size: int, negatives: int | None) -> None:
    z_a, z_b = make_views(24, 3)
    options = {"temperature": 0.2, "negatives": negatives}
    expected = naive(z_a, z_b, 0.2, negatives)
    assert 0 < expected["contrastive_top1"] < 1
    for result in ranks(world_size).run(on_rank, z_a, z_b, 1000, options):
        assert result.keys() == expected.keys()
        for name, value in result.items():
            torch.testing.assert_close(
                value, expected[name], rtol=1e-12, atol=0, msg=lambda m, name=name: f"{name} {m}"
            )


def test_a_sample_does_not_depend_on_the_ranks(ranks: Ranks) -> None:
    z_a, z_b = make_views(24, 3)
    by_world = [ranks(w).run(on_rank, z_a, z_b, 5, {"temperature": 0.2})[0] for w in (1, 2, 4)]
    for result in by_world[1:]:
        torch.testing.assert_close(result, by_world[0], rtol=1e-12, atol=0)


def test_collapse_is_told_from_success() -> None:
    collapsed = ntxent_diagnostics(torch.ones(8, 4), torch.ones(8, 4), temperature=0.1)
    assert collapsed["contrastive_top1"] == 0
    assert collapsed["uniformity"] == 0
    torch.testing.assert_close(collapsed["contrastive_entropy"], torch.tensor(15.0).log())
    z = torch.eye(8)
    assert ntxent_diagnostics(z, z, temperature=0.1)["contrastive_top1"] == 1


def test_the_matrix_of_all_pairs_is_never_made() -> None:
    z = torch.randn(4000, 8, requires_grad=True)
    sizes = []
    original = module._sums_of_anchors

    def spy(z_KD: Tensor, rows_A: Tensor, temperature: float) -> Tensor:
        sizes.append((len(rows_A), len(z_KD)))
        return original(z_KD, rows_A, temperature)

    with mock.patch.object(module, "_sums_of_anchors", spy):
        result = ntxent_diagnostics(z, z, temperature=0.1)
    assert sum(anchors for anchors, _ in sizes) == module.MOST_ANCHORS
    assert max(anchors * keys for anchors, keys in sizes) <= module.MOST_SIMILARITIES
    assert not any(value.requires_grad for value in result.values())
