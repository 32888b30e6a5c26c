"""Quantiles of Student's t and of the studentised range; scipy.stats has both, but takes seconds to import."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
NODES = 120

Array = NDArray[np.float64]


def student_t(freedom: float) -> float:
    """Two-sided 95 % quantile of Student's t with ``freedom`` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + LEVEL / 2))


def f_tail(ratio: float, freedom: tuple[int, int]) -> float:
    """Probability that an F ratio exceeds ``ratio`` by chance."""
    from scipy.special import fdtrc

    return float(fdtrc(*freedom, ratio))


@functools.cache
def studentized_range(groups: int, freedom: int) -> float:
    """95 % quantile of the range of ``groups`` standard normal means over an independent deviation (Tukey).

    Bisection on the distribution function P(range <= q s), integrated over s by Gauss and Legendre.
    """
    low, high = 0.0, 1.0
    while _range_cdf(high, groups, freedom) < LEVEL:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _range_cdf(middle, groups, freedom) < LEVEL else (low, middle)
    return (low + high) / 2


def _range_cdf(q: float, groups: int, freedom: int) -> float:
    """E over s of W(q s), s^2 freedom chi-square distributed, W(w) = k int phi(z) (Phi(z) - Phi(z - w))^(k - 1) dz."""
    from scipy.special import ndtr

    x, weight = _nodes()
    spread = 8 / math.sqrt(2 * freedom)  # s is close to 1, with a deviation of 1 / sqrt(2 freedom)
    s_low, s_high = max(0.0, 1 - spread), 1 + spread
    s = (s_high - s_low) / 2 * (x + 1) + s_low
    log_density = (freedom - 1) * np.log(s) - freedom * s**2 / 2
    log_density += freedom / 2 * math.log(freedom) - math.lgamma(freedom / 2) - (freedom / 2 - 1) * math.log(2)
    z = 8.5 * x
    phi = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    inside = (ndtr(z)[None, :] - ndtr(z[None, :] - q * s[:, None])) ** (groups - 1)
    within = groups * 8.5 * (inside * (phi * weight)[None, :]).sum(1)
    return float((s_high - s_low) / 2 * (weight * np.exp(log_density) * within).sum())


@functools.cache
def _nodes() -> tuple[Array, Array]:
    x, weight = np.polynomial.legendre.leggauss(NODES)
    return np.asarray(x), np.asarray(weight)
