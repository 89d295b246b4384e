"""Calibration: do events of predicted probability p happen with frequency p? From PITs u = F(t), pooled over replicas.

PITs are pooled over replicas first, because a mean of each replica's own calibration error rewards inflated error bars.
Points of one replica are nearly one observation, so intervals come from resampling whole replicas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import smirnovi
from torch import Tensor

from gapbench.methods.engine.distributions import HasCdf

Floats = NDArray[np.float64]


def pit(distribution: HasCdf, t: Tensor, uniform: Tensor) -> Tensor:
    """The PIT u = F(t⁻) + v·(F(t) − F(t⁻)), where v is `uniform`, (R, M).

    u equals F(t), except at an atom: there u is spread over the jump of F. So u is uniform if t is drawn from F
    (Czado, Gneiting & Held 2009).
    """
    below = distribution.cdf_below(t)
    return below + uniform * (distribution.cdf(t) - below)


def calibration_error(pits: Floats, weights: Floats | None = None) -> Floats:
    """The calibration error ∫₀¹ |P(u ≤ p) − p| dp, exact for the empirical distribution of the pooled PITs.

    pits: (K,). weights: (..., K) ≥ 0, one distribution for each leading index (for a bootstrap); None: equal.
    Returns (...): 0 is perfect, 1/2 the worst. nan without PITs.
    """
    knots, level = _empirical(pits, weights)
    below, above = knots[:-1] - level, knots[1:] - level
    # ∫ |p − level| dp = [(p − level) |p − level| / 2] between neighbouring knots
    return np.asarray(sum_of_products(above, np.abs(above)) - sum_of_products(below, np.abs(below))) / 2


def sum_of_products(a: Floats, b: Floats) -> Floats:
    """Σₖ a b over the last axis, (...), without an array of the products."""
    return np.asarray(np.einsum("...k,...k->...", a, b))


def pit_ks(pits: Floats, weights: Floats | None = None) -> Floats:
    """Kolmogorov–Smirnov statistic: the largest |P(u ≤ p) − p| over p. pits, weights: as in `calibration_error`."""
    knots, level = _empirical(pits, weights)
    return np.asarray(np.maximum(np.abs(knots[1:] - level), np.abs(knots[:-1] - level)).max(-1))


def pit_band(pits: int, regions: int, probability: float = 0.95) -> float:
    """The bound on `pit_ks` for this number of independent uniform PITs in each of this number of regions.

    With at least this probability, all regions are below the bound: Smirnov's exact law with a Bonferroni correction
    for the regions, and for the two sides.
    """
    return float(smirnovi(pits, (1 - probability) / regions / 2))


def _empirical(pits: Floats, weights: Floats | None) -> tuple[Floats, Floats]:
    """The knots 0, sorted PITs, 1, (K + 2,), and P(u ≤ p) between neighbouring knots, (..., K + 1); nan if K = 0."""
    weights = np.ones(len(pits)) if weights is None else weights
    if (pits[1:] < pits[:-1]).any():
        order = np.argsort(pits)
        pits, weights = pits[order], weights[..., order]
    level = np.zeros((*weights.shape[:-1], len(pits) + 1))
    np.cumsum(weights, axis=-1, out=level[..., 1:])
    with np.errstate(invalid="ignore"):  # 0/0 without PITs
        level /= level[..., -1:].copy()
    return np.concatenate([[0.0], pits, [1.0]]), level


def miscalibration_area(pits: Floats, weights: Floats | None = None) -> Floats:
    """The calibration error of centred intervals, ∫₀¹ |P(|2u − 1| ≤ p) − p| dp: sees wrong widths, but not bias."""
    return calibration_error(np.abs(2 * pits - 1), weights)
