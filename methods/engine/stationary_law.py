"""The exact stationary law of minibatch SGLD on Bayesian linear regression, at any step size."""

from __future__ import annotations

import numpy as np

from gapbench.methods.engine.exactness import Gaussian, LinearRegression
from gapbench.methods.engine.minibatches import FixedSize, Minibatches


def stationary_law(regression: LinearRegression, lr: float, batch: int, sampling: Minibatches) -> Gaussian:
    """The stationary mean and covariance of the chains, exact in ε = lr/n, without active clips.

    One step, with b the batch, d the divisor, q the rate, gᵢ = xᵢ(xᵢᵀw − yᵢ)/s²:
    w ← w − ε (w/prior_std² + (n/d) Σ_{i ∈ B} gᵢ) + √(2ε)(b/d) ξ. The drift is linear in w with matrix D. With
    A = I − εD, the covariance solves  Σ = A Σ Aᵀ + 2ε (b/d)² I + ε² E_w[Cov_B((n/d) Σ_B gᵢ)].  For Poisson batches,
    Cov_B is (n/d)² q(1−q) Σᵢ gᵢgᵢᵀ. For b of n without replacement, Cov_B is n/(n−1) times that, with gᵢ − ḡ in place
    of gᵢ. Cov_B is quadratic in w, so its expectation needs only the mean and Σ, and Σ solves a linear system.
    """
    design, noise = regression.design, regression.noise_std
    n, size = design.shape
    step, rate, divisor = lr / n, sampling.rate(batch, n), sampling.divisor(batch, n)
    likelihood = n * rate / divisor / noise**2
    drift = np.eye(size) / regression.model.prior_std**2 + likelihood * design.T @ design
    mean = np.linalg.solve(drift, likelihood * design.T @ regression.targets)

    # gᵢ = Gᵢ w − cᵢ, so vec E[gᵢgᵢᵀ] = vec(g̃ᵢg̃ᵢᵀ) + (Gᵢ ⊗ Gᵢ) vec Σ with g̃ᵢ = gᵢ at the mean.
    each = np.einsum("ni,nj->nij", design, design) / noise**2  # G, (N, P, P)
    at_mean = design * (design @ mean - regression.targets)[:, None] / noise**2  # g̃, (N, P)
    weight = (n / divisor) ** 2 * rate * (1 - rate)
    if isinstance(sampling, FixedSize):
        each, at_mean, weight = each - each.mean(0), at_mean - at_mean.mean(0), weight * n / max(n - 1, 1)
    batches = weight * np.einsum("nij,nkl->ikjl", each, each).reshape(size**2, size**2)

    kept = np.eye(size) - step * drift
    system = np.eye(size**2) - np.kron(kept, kept) - step**2 * batches
    added = 2 * step * (batch / divisor) ** 2 * np.eye(size) + step**2 * weight * at_mean.T @ at_mean
    return Gaussian(mean, np.linalg.solve(system, added.ravel()).reshape(size, size))
