"""Linear evaluation: multinomial logistic regression on frozen features, its L2 chosen without the test set.

    min over W, b of  1/N sum_n CE(softmax(W x_n + b), y_n) + l2/2 |W|^2          (the bias b is not penalised)

Shapes: N images, D features, K classes; T images of one tile, R images that the Hessian is estimated from;
``x_ND``, ``theta_KE`` with E = D + 1, the bias last.

L-BFGS (Liu & Nocedal 1989), until no component of the gradient exceeds the tolerance, which is scikit-learn's rule. It
starts from an inverse Hessian that knows the features' correlations, which takes several times fewer passes over the
data than a multiple of the identity: for every class k the inverse of its own block, (X' diag(p_k (1 - p_k)) X / R +
l2)^-1, or, where so many features make that dearer than it saves, one inverse for all classes, (c X'X / N + l2)^-1 with
c the mean of p (1 - p) (after Boehning 1992). What is the same in the weights of every class changes no probability:
it is taken out of each guess, or most passes would be spent on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.metrics import accuracy_percent, held_out_mask, mean_loss, too_few_to_hold_out

MEMORY = 20  # pairs (step, change of gradient) that L-BFGS keeps
ARMIJO = 1e-4
LOSS_ROUNDING = 1e-7  # relative: smaller gains are float32's noise, and the slope says whether a step is good
SMALLEST_STEP = 2.0**-20
BLOCK_ROWS = 8192  # images that the blocks of the Hessian are estimated from
BLOCK_WORTH = 400  # passes over the data that the blocks may cost, times two: they save hundreds in the weak fits
BLOCK_ELEMENTS = 2**30  # of all blocks together: 4 GiB
BLOCK_GUARD = 0.02  # share of the common Hessian in every block, for directions that this part of the images lacks
ROWS_AT_ONCE = 2**14  # images whose logits are held where only their accuracy is wanted
TILE_ELEMENTS = 2**20  # logits of one tile stay in the processor's cache


@dataclass(frozen=True)
class Fit:
    """A fitted classifier.

    gradient: the largest component of the objective's gradient. train_loss: mean cross-entropy, in nats.
    """

    theta_KE: Tensor
    l2: float
    iterations: int
    gradient: float
    converged: bool
    train_loss: float

    def train_top1(self, x_ND: Tensor, y_N: Tensor) -> float:
        """Accuracy in percent on many images, without holding all their logits."""
        parts = zip(torch.split(x_ND, ROWS_AT_ONCE), torch.split(y_N, ROWS_AT_ONCE))
        return 100 * sum(int((self.logits(x_nD).argmax(1) == y_n).sum()) for x_nD, y_n in parts) / len(y_N)

    def logits(self, x_ND: Tensor) -> Tensor:
        """Logits (N, K) of features (N, D)."""
        return torch.addmm(self.theta_KE[:, -1], x_ND, self.theta_KE[:, :-1].t())


@dataclass(frozen=True)
class GridPoint:
    """What one L2 reached on the held-out part of the training set."""

    l2: float
    held_out_percent: float
    held_out_loss: float | None  # nats
    train_loss: float  # nats, on the images that it was fitted to
    iterations: int
    gradient: float
    converged: bool


@dataclass(frozen=True)
class Chosen:
    """The classifier that meets the test set, and the whole grid that it was chosen from, ``best`` of it."""

    fit: Fit
    grid: tuple[GridPoint, ...]
    best: GridPoint


def standardization(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, standard deviation) of each feature, (D,) each; a constant feature gets deviation 1."""
    std_D, mean_D = torch.std_mean(x_ND, dim=0, correction=0)
    negligible = std_D <= 1e-6 * (mean_D.abs() + std_D.amax())
    return mean_D, torch.where(negligible, torch.ones_like(std_D), std_D)


def choose_and_fit(
    x_ND: Tensor,
    y_N: Tensor,
    index_N: Tensor,
    *,
    classes: int,
    l2_grid: Sequence[float],
    held_out_fraction: float,
    seed: int,
    max_iterations: int,
    tolerance: float,
    held_out_N: Tensor | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Chosen:
    """Fit every L2 on a part of the training set, keep the best on the rest (ties: the stronger), refit on all of it.

    ``index_N`` says which images these are: the held-out part is a function of it and of ``seed`` alone. Where
    ``held_out_N`` (N,) is given, it is that part: a validation split.
    """
    if held_out_N is None:
        held_out_N = held_out_mask(index_N, fraction=held_out_fraction, seed=seed)
    if held_out_N.all() or not held_out_N.any():
        raise ValueError(too_few_to_hold_out(len(x_ND), held_out_fraction))
    fitting, held_out = _Problem(x_ND[~held_out_N], y_N[~held_out_N], classes), (x_ND[held_out_N], y_N[held_out_N])
    theta_KE = x_ND.new_zeros(classes, x_ND.shape[1] + 1)
    fits, grid = [], []
    for l2 in sorted(set(l2_grid), reverse=True):
        fit = fitting.minimize(l2, start_KE=theta_KE, max_iterations=max_iterations, tolerance=tolerance)
        reached_NK = fit.logits(held_out[0])
        reached, loss = accuracy_percent(reached_NK, held_out[1]), mean_loss(reached_NK, held_out[1])
        fits.append(fit)
        grid.append(GridPoint(l2, reached, loss, fit.train_loss, fit.iterations, fit.gradient, fit.converged))
        theta_KE = fit.theta_KE
        progress()
    best = max(range(len(grid)), key=lambda i: grid[i].held_out_percent)  # the first of equals is the stronger
    del fitting
    refit = fit_logistic(
        x_ND,
        y_N,
        classes=classes,
        l2=grid[best].l2,
        start_KE=fits[best].theta_KE,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    return Chosen(refit, tuple(grid), grid[best])


def fit_logistic(
    x_ND: Tensor,
    y_N: Tensor,
    *,
    classes: int,
    l2: float,
    start_KE: Tensor | None = None,
    max_iterations: int = 300,
    tolerance: float = 3e-7,
) -> Fit:
    """The minimum of the module's objective for features (N, D) and labels (N,) in 0..classes-1.

    tolerance: no component of the gradient, in nats per unit of a weight, is larger in the end.
    """
    start_KE = x_ND.new_zeros(classes, x_ND.shape[1] + 1) if start_KE is None else start_KE
    problem = _Problem(x_ND, y_N, classes)
    return problem.minimize(l2, start_KE=start_KE, max_iterations=max_iterations, tolerance=tolerance)


class _Problem:
    """The objective over one set of images."""

    def __init__(self, x_ND: Tensor, y_N: Tensor, classes: int) -> None:
        self.x_ND, self.y_N, self.classes = x_ND, y_N, classes
        self.tile = max(256, TILE_ELEMENTS // max(classes, 1))
        self.stride = max(1, len(x_ND) // BLOCK_ROWS)
        parameters, rows = x_ND.shape[1] + 1, len(x_ND[:: self.stride])
        cheap = parameters * (parameters + rows) <= BLOCK_WORTH * len(x_ND)
        self.blocks_pay = cheap and classes * parameters**2 <= BLOCK_ELEMENTS
        self.gram_EE = _gram(x_ND)
        self.spectrum: tuple[Tensor, Tensor] | None = None

    def minimize(self, l2: float, *, start_KE: Tensor, max_iterations: int, tolerance: float) -> Fit:
        theta_KE = start_KE
        loss, gradient_KE = self.evaluate(theta_KE, l2)
        inverse = self._inverse_hessian(theta_KE, l2)
        pairs = _Pairs(lambda given_KE: _without_mean(inverse(given_KE)))
        for iteration in range(max_iterations + 1):
            largest = float(gradient_KE.abs().max())
            direction_KE = -pairs.apply(gradient_KE)
            slope, step = _dot(direction_KE, gradient_KE), 1.0
            while largest > tolerance and iteration < max_iterations and step >= SMALLEST_STEP:
                trial_KE = theta_KE + step * direction_KE
                trial_loss, trial_gradient_KE = self.evaluate(trial_KE, l2)
                if trial_loss <= loss + ARMIJO * step * slope:
                    break
                # So near the minimum that the loss is rounding: the approximate Wolfe condition (Hager & Zhang 2005).
                flat = trial_loss <= loss + LOSS_ROUNDING * (1 + abs(loss))
                if flat and _dot(trial_gradient_KE, direction_KE) <= (2 * ARMIJO - 1) * slope:
                    break
                step /= 2
            else:  # done, or no step is good
                break
            pairs.add(trial_KE - theta_KE, trial_gradient_KE - gradient_KE)
            theta_KE, loss, gradient_KE = trial_KE, trial_loss, trial_gradient_KE
        train_loss = loss - _penalty(theta_KE[:, :-1], l2)
        return Fit(theta_KE, l2, iteration, largest, largest <= tolerance, train_loss)

    def evaluate(self, theta_KE: Tensor, l2: float) -> tuple[float, Tensor]:
        """(objective in nats, its gradient (K, E))."""
        weight_KD, bias_K1 = theta_KE[:, :-1], theta_KE[:, -1:]
        gradient_KE = torch.zeros_like(theta_KE)
        loss = torch.zeros((), dtype=torch.float64, device=theta_KE.device)
        for start in range(0, len(self.x_ND), self.tile):
            x_TD, y_1T = self.x_ND[start : start + self.tile], self.y_N[None, start : start + self.tile]
            log_p_KT = torch.addmm(bias_K1, weight_KD, x_TD.t()).log_softmax(0)
            loss -= log_p_KT.gather(0, y_1T).sum(dtype=torch.float64)
            p_KT = log_p_KT.exp_()
            p_KT.scatter_add_(0, y_1T, torch.full_like(p_KT[:1], -1.0))
            gradient_KE[:, :-1].addmm_(p_KT, x_TD)
            gradient_KE[:, -1] += p_KT.sum(1)
        gradient_KE /= len(self.x_ND)
        gradient_KE[:, :-1] += l2 * weight_KD
        return float(loss) / len(self.x_ND) + _penalty(weight_KD, l2), gradient_KE

    def _inverse_hessian(self, theta_KE: Tensor, l2: float) -> Callable[[Tensor], Tensor]:
        """Approximate inverse Hessian at ``theta_KE``, applied to gradients (K, E)."""
        x_RD = self.x_ND[:: self.stride]
        x_RE = torch.cat([x_RD, x_RD.new_ones(len(x_RD), 1)], dim=1)
        p_RK = (x_RE @ theta_KE.t()).softmax(1)
        weight_RK = p_RK * (1 - p_RK) / len(x_RE)
        spread = max(float(weight_RK.sum()) / self.classes, 1e-3 / self.classes)
        if self.blocks_pay:
            return self._block_inverse(x_RE, weight_RK, spread, l2)
        return self._common_inverse(spread, l2)

    def _block_inverse(self, x_RE: Tensor, weight_RK: Tensor, spread: float, l2: float) -> Callable[[Tensor], Tensor]:
        inverses = []
        for weight_R in weight_RK.unbind(1):
            hessian_EE = (x_RE * weight_R[:, None]).t() @ x_RE + BLOCK_GUARD * spread * self.gram_EE
            diagonal_E = hessian_EE.diagonal()
            diagonal_E[:-1] += l2
            diagonal_E += 1e-6 * diagonal_E.max() + 1e-12
            inverses.append(torch.cholesky_inverse(torch.linalg.cholesky(hessian_EE.double())).to(x_RE.dtype))
        inverse_KEE = torch.stack(inverses)
        return lambda gradient_KE: torch.bmm(inverse_KEE, gradient_KE[:, :, None])[:, :, 0]

    def _common_inverse(self, spread: float, l2: float) -> Callable[[Tensor], Tensor]:
        if self.spectrum is None:  # the same for every L2
            eigenvalues_E, basis_EE = torch.linalg.eigh(self.gram_EE)
            self.spectrum = eigenvalues_E.clamp_min(0), basis_EE
        eigenvalues_E, basis_EE = self.spectrum
        curvature_E = spread * eigenvalues_E + l2
        curvature_E = curvature_E.clamp_min(1e-6 * float(curvature_E.max()))

        def apply(gradient_KE: Tensor) -> Tensor:
            step_KE: Tensor = (gradient_KE @ basis_EE / curvature_E) @ basis_EE.t()
            return step_KE

        return apply


def _penalty(weight_KD: Tensor, l2: float) -> float:
    return l2 / 2 * float(weight_KD.square().sum(dtype=torch.float64))


def _gram(x_ND: Tensor) -> Tensor:
    """X'X / N (E, E), with a column of ones for the bias."""
    gram_EE = x_ND.new_ones(x_ND.shape[1] + 1, x_ND.shape[1] + 1)
    gram_EE[:-1, :-1] = x_ND.t() @ x_ND / len(x_ND)
    gram_EE[:-1, -1] = gram_EE[-1, :-1] = x_ND.mean(0)
    return gram_EE


def _without_mean(theta_KE: Tensor) -> Tensor:
    return theta_KE - theta_KE.mean(0)


def _dot(one_KE: Tensor, other_KE: Tensor) -> float:
    return float((one_KE * other_KE).sum(dtype=torch.float64))


class _Pairs:
    """The inverse Hessian of L-BFGS: two-loop recursion around a fixed first guess, scaled to the newest pair."""

    def __init__(self, first_guess: Callable[[Tensor], Tensor]) -> None:
        self.first_guess = first_guess
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.scale: Tensor | float = 1.0

    def add(self, step_KE: Tensor, change_KE: Tensor) -> None:
        curvature = (step_KE * change_KE).sum()
        if float(curvature) <= 0:  # rounding; the objective is convex
            return
        self.pairs = [*self.pairs[-(MEMORY - 1) :], (step_KE, change_KE, 1 / curvature)]
        self.scale = curvature / (change_KE * self.first_guess(change_KE)).sum()

    def apply(self, gradient_KE: Tensor) -> Tensor:
        q_KE = gradient_KE.clone()
        weights = []
        for step_KE, change_KE, rho in reversed(self.pairs):
            alpha = rho * (step_KE * q_KE).sum()
            q_KE -= alpha * change_KE
            weights.append(alpha)
        r_KE = self.scale * self.first_guess(q_KE)
        for (step_KE, change_KE, rho), alpha in zip(self.pairs, reversed(weights)):
            r_KE += (alpha - rho * (change_KE * r_KE).sum()) * step_KE
        return r_KE
