"""The exact stationary laws of minibatch samplers on Bayesian linear regression, at any step size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gapbench.methods.engine.exactness import Floats, Gaussian, LinearRegression
from gapbench.methods.engine.minibatches import FixedSize, Minibatches


def stationary_law(
    regression: LinearRegression, lr: float, batch: int, sampling: Minibatches, langevin: float = 1.0
) -> Gaussian:
    """The stationary mean and covariance of the chains, exact in ε = lr/n, without active clips.

    One step, with b the batch, d the divisor, q the rate, gᵢ = xᵢ(xᵢᵀw − yᵢ)/s²:
    w ← w − ε (w/prior_std² + (n/d) Σ_{i ∈ B} gᵢ) + langevin √(2ε)(b/d) ξ. The drift is linear in w with matrix D. With
    A = I − εD, the covariance solves  Σ = A Σ Aᵀ + langevin² 2ε (b/d)² I + ε² E_w[Cov_B((n/d) Σ_B gᵢ)].
    """
    step = lr / len(regression.targets)
    drift = Drift.of(regression, batch, sampling)
    size = len(drift.mean)
    kept = np.eye(size) - step * drift.matrix
    system = np.eye(size**2) - np.kron(kept, kept) - step**2 * drift.batches
    injected = langevin**2 * 2 * step * (batch / sampling.divisor(batch, len(regression.targets))) ** 2 * np.eye(size)
    added: Floats = injected + step**2 * drift.at_mean
    covariance = np.asarray(np.linalg.solve(system, added.ravel()), dtype=np.float64).reshape(size, size)
    return Gaussian(drift.mean, covariance)


def underdamped_law(regression: LinearRegression, lr: float, friction: float, batch: int) -> Gaussian:
    """The stationary mean and covariance of w under SGHMC, exact in η = lr/n. Its batches are of fixed size.

    One step: v ← (1 − α) v − η ∇Û(w) + √(2αη) ξ, then w ← w + v, with the new v. The law of (w, v) is linear:
    Σ = F Σ Fᵀ + the noise of v, of which the batches' part is quadratic in w.
    """
    step, drift = lr / len(regression.targets), Drift.of(regression, batch, FixedSize())
    size = len(drift.mean)
    eye, zero = np.eye(size), np.zeros((size, size))
    kick = np.block([[eye, zero], [-step * drift.matrix, (1 - friction) * eye]])
    kept = np.block([[eye, eye], [zero, eye]]) @ kick
    spread = np.concatenate([eye, eye])  # the noise of v reaches w in the same step
    from_w = np.kron(np.eye(2 * size)[:size], np.eye(2 * size)[:size])  # picks the covariance of w
    system = np.eye(4 * size**2) - np.kron(kept, kept) - np.kron(spread, spread) @ (step**2 * drift.batches) @ from_w
    noise = 2 * friction * step * eye + step**2 * drift.at_mean
    law = np.linalg.solve(system, (spread @ noise @ spread.T).ravel()).reshape(2 * size, 2 * size)
    return Gaussian(drift.mean, law[:size, :size])


@dataclass(frozen=True)
class Drift:
    """The mean gradient D(w − mean) of −log p(w | data) and the covariance of its minibatch estimate.

    Cov_B is at_mean + batches · vec Cov(w). For Poisson batches, Cov_B is (n/d)² q(1−q) Σᵢ gᵢgᵢᵀ. For b of n without
    replacement, Cov_B is n/(n−1) times that, with gᵢ − ḡ in place of gᵢ. Cov_B is quadratic in w, so its expectation
    needs only the mean and Σ, and Σ solves a linear system.
    """

    matrix: Floats
    mean: Floats
    batches: Floats
    at_mean: Floats

    @staticmethod
    def of(regression: LinearRegression, batch: int, sampling: Minibatches) -> Drift:
        design, noise = regression.design, regression.noise_std
        n, size = design.shape
        rate, divisor = sampling.rate(batch, n), sampling.divisor(batch, n)
        likelihood = n * rate / divisor / noise**2
        matrix = np.eye(size) / regression.model.prior_std**2 + likelihood * design.T @ design
        mean = np.linalg.solve(matrix, likelihood * design.T @ regression.targets)
        # gᵢ = Gᵢ w − cᵢ, so vec E[gᵢgᵢᵀ] = vec(g̃ᵢg̃ᵢᵀ) + (Gᵢ ⊗ Gᵢ) vec Σ with g̃ᵢ = gᵢ at the mean.
        each = np.einsum("ni,nj->nij", design, design) / noise**2  # G, (N, P, P)
        at_mean = design * (design @ mean - regression.targets)[:, None] / noise**2  # g̃, (N, P)
        weight = (n / divisor) ** 2 * rate * (1 - rate)
        if isinstance(sampling, FixedSize):
            each, at_mean, weight = each - each.mean(0), at_mean - at_mean.mean(0), weight * n / max(n - 1, 1)
        batches = weight * np.einsum("nij,nkl->ikjl", each, each).reshape(size**2, size**2)
        return Drift(matrix, mean, batches, weight * at_mean.T @ at_mean)
