"""Learned noise: found where only the truth knows it, and of the exact law on linear regression."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Generator, Tensor

from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.exactness import LinearRegression, example
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise
from gapbench.methods.hmc import HMC
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.sgld import SGLD
from gapbench.methods.svi import SVI

Seeded = Callable[[int], Generator]

QUICK: dict[str, UncertaintyMethod] = {
    "hmc": HMC(burn_in=40, draws=10, thin=1, chains=2, max_steps=100),
    "mc_dropout": MCDropout(rate=0.002, steps=2000, lr=0.06, batch=50, draws=20),
    "svi": SVI(steps=2000, batch=50, draws=50),
    "sgld": SGLD(lr=1.5e-3, burn_in=6000, draws=10, thin=50, chains=3, temperature=1, noise_multiplier=1e-4),
}


def line(generator: Generator, replicas: int, n: int, noise: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """x (R, n, 1) and y = x/2 + noise(x) ξ, (R, n)."""
    x = 4 * torch.rand(replicas, n, 1, generator=generator) - 2
    f = x.squeeze(-1)
    return x, f / 2 + noise(f) * torch.randn(replicas, n, generator=generator)


@pytest.mark.parametrize("name", QUICK)
def test_the_noise_is_found(seeded: Seeded, name: str) -> None:
    """σ = 0.1 and σ = 0.6, which two replicas do not tell each other; the prior's center is 0.3. Seen to catch:
    ∂/∂ log σ of the wrong sign or left out, one noise for all replicas."""
    x, y = line(seeded(0), 2, 200, lambda x: torch.tensor([[0.1], [0.6]]))
    fitted = QUICK[name].fit(MLP(hidden=(8,), noise_std=LearnedNoise()), x, y, seeded(1))
    assert not fitted.failures
    found = fitted(x[:, :5]).aleatoric_std
    assert found is not None
    torch.testing.assert_close(found[:, 0], torch.tensor([0.1, 0.6], dtype=found.dtype), rtol=0.3, atol=0)


@pytest.mark.parametrize("name", QUICK)
def test_a_noise_that_grows_is_found(seeded: Seeded, name: str) -> None:
    """σ(x) = 0.1 left of 0 and 0.6 right of it. Seen to catch: the second output's gradient left out or of the wrong
    sign."""
    x, y = line(seeded(0), 1, 300, lambda x: torch.where(x < 0, 0.1, 0.6))
    fitted = QUICK[name].fit(MLP(hidden=(16,), noise_std=HeteroscedasticNoise()), x, y, seeded(1))
    assert not fitted.failures
    found = fitted(torch.tensor([[[-1.5], [1.5]]])).aleatoric_std
    assert found is not None
    low, high = found[0].tolist()
    assert 0.07 < low < 0.2 and 0.4 < high < 0.9, (low, high)


def exact_law(regression: LinearRegression, noise: LearnedNoise) -> tuple[float, float, float, float]:
    """Mean and std of log σ, and of the intercept, by quadrature over log σ: given σ everything is Gaussian."""
    design, y = regression.design, regression.targets
    n, size = design.shape
    prior = regression.model.prior_std**2
    grid = np.log(noise.center) + noise.spread * np.linspace(-6, 6, 4001)
    log_weights, means, variances = [], [], []
    for log_sigma in grid:
        s2 = math.exp(2 * log_sigma)
        marginal = s2 * np.eye(n) + prior * design @ design.T
        _, log_det = np.linalg.slogdet(marginal)
        evidence = -0.5 * log_det - 0.5 * y @ np.linalg.solve(marginal, y)
        log_weights.append(evidence - 0.5 * ((log_sigma - math.log(noise.center)) / noise.spread) ** 2)
        covariance = np.linalg.inv(np.eye(size) / prior + design.T @ design / s2)
        means.append((covariance @ design.T @ y / s2)[-1])
        variances.append(covariance[-1, -1])
    weights = np.exp(np.array(log_weights) - logsumexp(log_weights))
    mean, mean_w = weights @ grid, weights @ np.array(means)
    second = weights @ (np.array(variances) + np.array(means) ** 2)
    return mean, math.sqrt(weights @ grid**2 - mean**2), mean_w, math.sqrt(second - mean_w**2)


def test_hmcs_law_of_the_noise_is_the_exact_one(seeded: Seeded) -> None:
    """On linear regression with unknown σ, over 64 repeats: mean and std of log σ and of the intercept, to 5 standard
    errors and 3 % of the std. Seen to catch: log σ's prior forgotten, its spread squared, n − 1 for n in ∂/∂ log σ."""
    noise = LearnedNoise(center=1.0, spread=0.8)
    known = example()
    model = replace(known.model, noise_std=noise)
    x, y = known.stack(64)
    fitted = HMC(burn_in=60, draws=60, thin=1, chains=2, max_steps=200).fit(model, x, y, seeded(0))
    theta = fitted.theta.double()  # (R, S, P)
    log_sigma = math.log(noise.center) + noise.spread * theta[..., -1] / model.prior_std
    mean, std, mean_w, std_w = exact_law(known, noise)
    for values, m, s in ((log_sigma, mean, std), (theta[..., -2], mean_w, std_w)):
        for error in ((values.mean(1) - m) / s, ((values - m).square().mean(1) / s**2 - 1) / 2):
            assert abs(float(error.mean())) < 5 * float(error.std()) / math.sqrt(len(error)) + 0.03
