"""Logistic regression against scikit-learn and against its own optimality condition."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from eval.config import DEFAULT_L2, LinearConfig
from eval.features import Features
from eval.metrics import accuracy_percent, held_out_mask
from eval.tasks import linear
from eval.tasks.linear import choose_and_fit, fit_logistic, standardization
from eval.tasks.probe import measure_linear

GRID = (1e-1, 1e-3, 1e-5)


@pytest.fixture(scope="module", params=[0.15, 0.6], ids=["overlapping", "nearly separable"])
def data(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Correlated, rectified features of six classes, standardised: (x, y) to fit, (x, y) to test."""
    return make_data(request.param, train=3000, test=2000)


def make_data(distance: float, *, train: int, test: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    images, features, classes = train + test, 40, 6
    y_N = torch.randint(classes, (images,), generator=generator)
    centres_KD = distance * torch.randn(classes, features, generator=generator)
    basis_DD = torch.linalg.qr(torch.randn(features, features, generator=generator))[0]
    x_ND = (centres_KD[y_N] + torch.randn(images, features, generator=generator)) * torch.logspace(0, -2, features)
    x_ND = torch.relu(x_ND @ basis_DD + 0.1)
    mean_D, std_D = standardization(x_ND[:train])
    x_ND = (x_ND - mean_D) / std_D
    return x_ND[:train], y_N[:train], x_ND[train:], y_N[train:]


@pytest.mark.parametrize("l2", GRID)
def test_equals_scikit_learn(data: tuple[Tensor, Tensor, Tensor, Tensor], l2: float) -> None:
    x_ND, y_N, test_x_MD, test_y_M = data
    theirs = LogisticRegression(C=1 / (len(x_ND) * l2), max_iter=5000, tol=1e-6)
    theirs.fit(x_ND.double().numpy(), y_N.numpy())
    ours = fit_logistic(x_ND, y_N, classes=6, l2=l2)
    assert ours.converged
    expected = 100 * theirs.score(test_x_MD.double().numpy(), test_y_M.numpy())
    assert abs(accuracy_percent(ours.logits(test_x_MD), test_y_M) - expected) <= 0.1


def test_every_value_of_the_grid_equals_scikit_learn() -> None:
    """Within .02 points on 6,000 images, which is one image; and the gradient is as small as is said."""
    x_ND, y_N, _, _ = make_data(0.3, train=12_000, test=10)
    grid = choose(x_ND, y_N, torch.arange(12_000), DEFAULT_L2, fraction=0.5, tolerance=3e-7).grid
    held_out_N = held_out_mask(torch.arange(12_000), fraction=0.5, seed=0)
    fitted, held_out = (x_ND[~held_out_N].double().numpy(), y_N[~held_out_N].numpy()), x_ND[held_out_N].double().numpy()
    for row in grid:
        c = 1 / (len(fitted[0]) * row.l2)
        theirs = LogisticRegression(C=c, solver="newton-cholesky", max_iter=200, tol=1e-9).fit(*fitted)
        expected = 100 * theirs.score(held_out, y_N[held_out_N].numpy())
        assert row.converged
        assert row.gradient <= 3e-7
        assert abs(row.held_out_percent - expected) <= 0.02, row.l2


@pytest.mark.parametrize("worth", [0, 400], ids=["shared", "blocks"])
def test_both_preconditioners_end_in_the_same_minimum(
    data: tuple[Tensor, Tensor, Tensor, Tensor], worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_ND, y_N, _, _ = data
    reference = fit_logistic(x_ND.double(), y_N, classes=6, l2=1e-4, tolerance=1e-12, max_iterations=5000)
    monkeypatch.setattr(linear, "BLOCK_WORTH", worth)
    fit = fit_logistic(x_ND, y_N, classes=6, l2=1e-4)
    assert fit.converged
    assert fit.iterations < 60, "without knowledge of the correlations it takes hundreds"
    gap = (fit.logits(x_ND).softmax(1) - reference.logits(x_ND.double()).softmax(1)).abs().max()
    assert float(gap) < 0.02


@pytest.mark.parametrize("l2", GRID)
def test_gradient_vanishes_in_float64(data: tuple[Tensor, Tensor, Tensor, Tensor], l2: float) -> None:
    x_ND, y_N = data[0].double(), data[1]
    fit = fit_logistic(x_ND, y_N, classes=6, l2=l2, tolerance=1e-13, max_iterations=3000)
    theta_KE = fit.theta_KE.clone().requires_grad_()
    logits_NK = x_ND @ theta_KE[:, :-1].t() + theta_KE[:, -1]
    loss = torch.nn.functional.cross_entropy(logits_NK, y_N) + l2 / 2 * theta_KE[:, :-1].square().sum()
    (gradient_KE,) = torch.autograd.grad(loss, theta_KE)
    assert float(gradient_KE.abs().max()) < 1e-6


def test_grid_prefers_the_best_held_out_value_and_refits_on_everything(
    data: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    x_ND, y_N, _, _ = data
    index_N = torch.arange(len(x_ND))
    chosen = choose(x_ND, y_N, index_N, (10.0, 1e-1, 1e-3, 1e-5))
    assert [row.l2 for row in chosen.grid] == [10.0, 1e-1, 1e-3, 1e-5]
    best = max(row.held_out_percent for row in chosen.grid)
    assert chosen.fit.l2 == next(row.l2 for row in chosen.grid if row.held_out_percent == best)
    alone = fit_logistic(x_ND, y_N, classes=6, l2=chosen.fit.l2)
    difference = (chosen.fit.logits(x_ND).softmax(1) - alone.logits(x_ND).softmax(1)).abs().max()
    assert float(difference) < 0.02


def test_held_out_images_are_not_fitted(data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    x_ND, y_N, _, _ = data
    index_N = torch.arange(len(x_ND))
    mask_N = held_out_mask(index_N, fraction=0.2, seed=0)
    wrong_N = torch.where(mask_N, (y_N + 1) % 6, y_N)
    grid = choose(x_ND, wrong_N, index_N, (1e-2,)).grid
    honest = fit_logistic(x_ND[~mask_N], y_N[~mask_N], classes=6, l2=1e-2)
    expected = accuracy_percent(honest.logits(x_ND[mask_N]), wrong_N[mask_N])
    assert grid[0].held_out_percent == pytest.approx(expected, abs=0.5)


def test_unbalanced_offset_features_converge() -> None:
    x_ND, y_N, _, _ = make_data(0.6, train=2000, test=10)
    shifted_ND = x_ND * torch.logspace(-1, 1, x_ND.shape[1]) + 3
    fit = fit_logistic(shifted_ND, y_N, classes=6, l2=1e-4)
    assert fit.converged
    reference = fit_logistic(shifted_ND.double(), y_N, classes=6, l2=1e-4, tolerance=1e-10, max_iterations=3000)
    gap = (fit.logits(shifted_ND).softmax(1) - reference.logits(shifted_ND.double()).softmax(1)).abs().mean()
    assert float(gap) < 2e-3


def test_constant_feature_keeps_its_scale() -> None:
    x_ND = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    mean_D, std_D = standardization(x_ND)
    assert mean_D.tolist() == [2.0, 5.0]
    assert std_D.tolist() == [1.0, 1.0]


def test_test_set_is_read_once_and_chooses_nothing() -> None:
    x_ND, y_N, test_x_MD, test_y_M = make_data(0.4, train=1500, test=500)
    train = Features(x_ND, y_N, torch.arange(len(x_ND)))
    config = LinearConfig(l2=(1e-1, 1e-3), knn=False)
    watched = WatchedFeatures(test_x_MD, test_y_M)
    measured = measure_linear(train, watched, config, classes=6)
    assert watched.reads == {"x_ND": 1, "labels_N": 1}
    other = measure_linear(train, WatchedFeatures(test_x_MD, test_y_M.roll(1)), config, classes=6)
    assert (other["l2"], other["grid"]) == (measured["l2"], measured["grid"])
    assert measured["held_out_top1"] == other["held_out_top1"] == max(row["held_out"] for row in measured["grid"])
    assert other["top1"] < measured["top1"]


def test_too_few_images_to_hold_out() -> None:
    with pytest.raises(ValueError, match=r"held_out_fraction: got 0\.01, which takes none or all of 2 training images"):
        choose(torch.zeros(2, 3), torch.tensor([0, 1]), torch.arange(2), (0.1,), fraction=0.01)


class WatchedFeatures(Features):
    """Counts how often it is read."""

    def __init__(self, x_ND: Tensor, labels_N: Tensor) -> None:
        object.__setattr__(self, "hidden", {"x_ND": x_ND, "labels_N": labels_N})
        object.__setattr__(self, "reads", {"x_ND": 0, "labels_N": 0})

    reads: dict[str, int]

    def __getattribute__(self, name: str) -> object:
        if name in ("x_ND", "labels_N"):
            self.reads[name] += 1
            return object.__getattribute__(self, "hidden")[name]
        return object.__getattribute__(self, name)


def choose(
    x_ND: Tensor, y_N: Tensor, index_N: Tensor, grid: tuple[float, ...], fraction: float = 0.2, tolerance: float = 1e-6
):  # type: ignore
    return choose_and_fit(
        x_ND,
        y_N,
        index_N,
        classes=6,
        l2_grid=grid,
        held_out_fraction=fraction,
        seed=0,
        max_iterations=500,
        tolerance=tolerance,
    )
