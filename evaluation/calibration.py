"""Is what is said to happen with probability p seen with frequency p? From PIT values u = F(t), pooled over replicas.

Points of one replica are nearly one observation, and the average over replicas of each one's own error rewards
inflated error bars; so PITs are pooled first, and intervals come from resampling whole replicas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from gapbench.methods.engine.distributions import HasCdf

Floats = NDArray[np.float64]


def pit(distribution: HasCdf, t: Tensor, uniform: Tensor) -> Tensor:
    """u = F(t⁻) + v·(F(t) − F(t⁻)) with v `uniform` (R, M): F(t) itself but at an atom, where it is spread over the
    jump, so that u is uniform whenever t is drawn from F (Czado, Gneiting & Held 2009)."""
    below = distribution.cdf_below(t)
    return below + uniform * (distribution.cdf(t) - below)


def calibration_error(pits: Floats, weights: Floats | None = None) -> Floats:
    """∫₀¹ |P(u ≤ p) − p| dp, exactly, for the empirical distribution of the pooled PITs.

    pits: (K,). weights: (..., K) ≥ 0, one distribution for each leading index (for a bootstrap); None: equal.
    Returns (...): 0 is perfect, 1/2 the worst. nan if there is no PIT.
    """
    knots, level = _empirical(pits, weights)

    def integral(p: Floats) -> Floats:
        return np.asarray((p - level) * np.abs(p - level) / 2)  # d/dp of it is |p − level|

    return np.asarray((integral(knots[1:]) - integral(knots[:-1])).sum(-1))


def pit_ks(pits: Floats, weights: Floats | None = None) -> Floats:
    """Kolmogorov–Smirnov statistic: the largest |P(u ≤ p) − p| over p. pits, weights: as in `calibration_error`."""
    knots, level = _empirical(pits, weights)
    return np.asarray(np.maximum(np.abs(knots[1:] - level), np.abs(knots[:-1] - level)).max(-1))


def pit_band(pits: int, regions: int, probability: float = 0.95) -> float:
    """The bound that `pit_ks` of so many independent uniform PITs keeps in all regions with this probability, at least:
    Kolmogorov's exact law, and Bonferroni's share of each region."""
    return float(stats.kstwo.isf((1 - probability) / regions, pits))


def _empirical(pits: Floats, weights: Floats | None) -> tuple[Floats, Floats]:
    """0, the sorted PITs and 1, (K + 2,), and P(u ≤ p) between each two of them, (..., K + 1): nan if K = 0."""
    weights = np.ones(len(pits)) if weights is None else weights
    order = np.argsort(pits)
    steps = np.cumsum(weights[..., order], axis=-1)
    total = steps[..., -1:] if len(pits) else np.full((*weights.shape[:-1], 1), np.nan)
    level = np.concatenate([0 * total, steps / total], -1)
    return np.concatenate([[0.0], pits[order], [1.0]]), level


def miscalibration_area(pits: Floats, weights: Floats | None = None) -> Floats:
    """The same for centred intervals: ∫₀¹ |P(|2u − 1| ≤ p) − p| dp. Blind to bias, sharp on too wide or too narrow."""
    return calibration_error(np.abs(2 * pits - 1), weights)
