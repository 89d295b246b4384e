"""Is what is said to happen with probability p seen with frequency p? From PIT values u = F(t), pooled over replicas.

Points of one replica are nearly one observation, and the average over replicas of each one's own error rewards
inflated error bars; so PITs are pooled first, and intervals come from resampling whole replicas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gapbench.methods.base import Distribution

Floats = NDArray[np.float64]


def pit(distribution: Distribution, t: Tensor, uniform: Tensor) -> Tensor:
    """u = F(t⁻) + v·(F(t) − F(t⁻)) with v `uniform` (R, M): F(t) itself but at an atom, where it is spread over the
    jump, so that u is uniform whenever t is drawn from F (Czado, Gneiting & Held 2009)."""
    below = distribution.cdf_below(t)
    return below + uniform * (distribution.cdf(t) - below)


def calibration_error(pits: Floats, weights: Floats | None = None) -> Floats:
    """∫₀¹ |P(u ≤ p) − p| dp, exactly, for the empirical distribution of the pooled PITs.

    pits: (K,). weights: (..., K) ≥ 0, one distribution for each leading index (for a bootstrap); None: equal.
    Returns (...): 0 is perfect, 1/2 the worst. nan if there is no PIT.
    """
    weights = np.ones(len(pits)) if weights is None else weights
    order = np.argsort(pits)
    steps = np.cumsum(weights[..., order], axis=-1)
    if not len(pits):
        return np.full(weights.shape[:-1], np.nan)
    zero = np.zeros((*weights.shape[:-1], 1))
    level = np.concatenate([zero, steps / steps[..., -1:]], -1)  # P(u ≤ p) between one knot and the next
    knots = np.concatenate([[0.0], pits[order], [1.0]])

    def integral(p: Floats) -> Floats:
        return np.asarray((p - level) * np.abs(p - level) / 2)  # d/dp of it is |p − level|

    return np.asarray((integral(knots[1:]) - integral(knots[:-1])).sum(-1))


def miscalibration_area(pits: Floats, weights: Floats | None = None) -> Floats:
    """The same for centred intervals: ∫₀¹ |P(|2u − 1| ≤ p) − p| dp. Blind to bias, sharp on too wide or too narrow."""
    return calibration_error(np.abs(2 * pits - 1), weights)
