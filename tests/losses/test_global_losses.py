"""Barlow Twins, VICReg and W-MSE: naive oracles on the whole batch, one rank and W ranks, no backward communication."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.losses.redundancy import barlow_twins_loss, vicreg_loss
from pretrain.losses.wmse import wmse_loss
from pretrain.randomness import permutation
from tests.losses.across_ranks import assert_close, assert_one_rank, make_views, through_layer
from tests.ranks import Ranks


def naive_barlow_twins(z_a: Tensor, z_b: Tensor, *, off_diagonal_weight: float = 0.0051) -> Tensor:
    a, b = F.batch_norm(z_a, None, None, training=True), F.batch_norm(z_b, None, None, training=True)
    total = z_a.new_zeros(())
    for i in range(a.shape[1]):
        for j in range(a.shape[1]):
            c = (a[:, i] * b[:, j]).mean()
            total = total + ((1 - c) ** 2 if i == j else off_diagonal_weight * c**2)
    return total


def naive_vicreg(z_a: Tensor, z_b: Tensor, **weights: float) -> Tensor:
    invariance = weights.get("invariance_weight", 25.0) * F.mse_loss(z_a, z_b)
    total = invariance
    for z in (z_a, z_b):
        spread = F.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean() / 2
        off_diagonal = torch.cov(z.T)[~torch.eye(z.shape[1], dtype=torch.bool)]
        total = total + weights.get("variance_weight", 25.0) * spread
        total = total + weights.get("covariance_weight", 1.0) * off_diagonal.square().sum() / z.shape[1]
    return total


def naive_wmse(z_a: Tensor, z_b: Tensor, *, shrinkage: float = 0.0) -> Tensor:
    white = []
    for z in (z_a, z_b):
        covariance = (1 - shrinkage) * torch.cov(z.T, correction=0) + shrinkage * torch.eye(z.shape[1], dtype=z.dtype)
        white.append((z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T)
    return (2 - 2 * F.cosine_similarity(*white)).mean()


def small_scale_vicreg(z_a: Tensor, z_b: Tensor, **options: Any) -> Tensor:
    """At a scale at which the variance term is active."""
    return vicreg_loss(z_a / 10, z_b / 10, **options)


def small_scale_naive_vicreg(z_a: Tensor, z_b: Tensor, **options: Any) -> Tensor:
    return naive_vicreg(z_a / 10, z_b / 10, **options)


def whitened_in_parts(
    z_a: Tensor, z_b: Tensor, *, sub_batch_size: int, iterations: int, seed: int, draw: int
) -> Tensor:
    parts = []
    for iteration in range(iterations):
        order = permutation(len(z_a), (seed, draw, iteration), z_a.device)
        assert sorted(order.tolist()) == list(range(len(z_a)))
        parts += [naive_wmse(z_a[part], z_b[part]) for part in order.split(sub_batch_size)]
    return torch.stack(parts).mean()


CASES: list[Any] = [
    (barlow_twins_loss, naive_barlow_twins, {}, 2),
    (barlow_twins_loss, naive_barlow_twins, {"off_diagonal_weight": 0.3}, 2),
    (vicreg_loss, naive_vicreg, {}, 2),
    (small_scale_vicreg, small_scale_naive_vicreg, {"covariance_weight": 4.0, "invariance_weight": 3.0}, 2),
    (wmse_loss, naive_wmse, {}, 1),
    (wmse_loss, naive_wmse, {"shrinkage": 0.1}, 1),
    (wmse_loss, whitened_in_parts, {"sub_batch_size": 8, "iterations": 2, "seed": 3, "draw": 5}, 1),
]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("loss", "oracle", "options", "messages"), CASES)
def test_ranks_are_one_rank(
    ranks: Ranks, world_size: int, loss: Any, oracle: Any, options: dict[str, Any], messages: int
) -> None:
    calls = assert_one_rank(ranks, world_size, loss, oracle, pairs=24, tolerance=1e-12, **options)
    assert calls == [{"forward": 0 if world_size == 1 else messages, "backward": 0}] * world_size


@pytest.mark.parametrize("loss", [barlow_twins_loss, vicreg_loss, wmse_loss])
def test_float32_far_from_zero_is_close_to_float64(loss: Any) -> None:
    x_a, x_b = (x + 1000 for x in make_views(64, 7))
    x_a, x_b = x_a.float().double(), x_b.float().double()
    single, double = through_layer(loss, x_a.float(), x_b.float()), through_layer(loss, x_a, x_b)
    for name in ("loss", "x_a", "x_b"):
        assert_close(single[name], double[name], 1e-3, name)


@pytest.mark.parametrize("loss", [barlow_twins_loss, vicreg_loss, wmse_loss])
def test_autocast_changes_nothing(loss: Any) -> None:
    z_a, z_b = (z.bfloat16() for z in make_views(16, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(z_a, z_b)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(z_a.float(), z_b.float()))


def test_a_new_draw_or_iteration_is_a_new_permutation_and_a_tensor_counts_like_a_number() -> None:
    def draw(seed: int, number: int | Tensor, iteration: int) -> list[int]:
        return permutation(100, (seed, number, iteration), torch.device("cpu")).tolist()

    drawn = [draw(*key) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 7, 0), (7, 0, 0))]
    assert len({tuple(order) for order in drawn}) == len(drawn)
    assert draw(3, torch.tensor(5), 1) == draw(3, 5, 1)
    # Positions are uniform: the mean position of an index over many draws is near the middle.
    positions = torch.stack([permutation(50, (0, number, 0), torch.device("cpu")).argsort() for number in range(400)])
    assert ((positions.double().mean(0) - 24.5).abs() < 5 * 14.43 / 20).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sub_batch_size": 5}, r"sub_batch_size=5 does not divide the global batch of 12 pairs"),
        ({"sub_batch_size": 3}, r"3 images in 4 dimensions has no inverse: expected more than 4 images"),
        ({"iterations": 0, "shrinkage": 2.0}, r"iterations=0 is less than 1; shrinkage=2.0 is not in \[0, 1\]"),
    ],
)
def test_wmse_refuses_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wmse_loss(torch.randn(12, 4), torch.randn(12, 4), **options)


def test_shapes_and_single_pairs_are_refused() -> None:
    for loss in (barlow_twins_loss, vicreg_loss, wmse_loss):
        with pytest.raises(ValueError, match="expected two floating point matrices"):
            loss(torch.randn(4, 3), torch.randn(4, 2))
    with pytest.raises(ValueError, match="1 pair has no variance"):
        vicreg_loss(torch.randn(1, 3), torch.randn(1, 3))
