"""Deep evidential regression against scipy, and quantile regression on a linear model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator

from gapbench.methods.engine.model import MLP
from gapbench.methods.evidential import Evidential, evidence_of, log_density
from gapbench.methods.quantile_regression import QuantileRegression, quantiles


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def test_the_evidential_density_is_scipys() -> None:
    """Seen to catch: α for 2α degrees of freedom, ν(1+ν) for (1+ν)/ν, the constant left out."""
    y, gamma = torch.randn(50, generator=seeded(1)).double(), torch.randn(50, generator=seeded(2)).double()
    nu, alpha, beta = (torch.rand(50, generator=seeded(3 + k)).double() * 2 + 0.2 + (k == 1) for k in range(3))
    scale = (beta * (1 + nu) / (nu * alpha)).sqrt()
    expected = stats.t.logpdf(y.numpy(), 2 * alpha.numpy(), gamma.numpy(), scale.numpy())
    assert np.allclose(log_density(y, gamma, nu, alpha, beta).numpy(), expected)
    other = 3 * nu  # the loss sees β(1+ν)/ν alone
    assert np.allclose(log_density(y, gamma, other, alpha, beta * (1 + nu) / nu * other / (1 + other)), expected)


def test_the_evidential_laws_of_y_and_f_are_those_of_the_paper() -> None:
    """By drawing (f, σ²) from the normal-inverse-gamma law. Seen to catch: f's scale with (1+ν), √β for β."""
    model, scale = MLP(hidden=(4,), noise_std=0.3).with_outputs(4), 0.3
    fit = Evidential(steps=0).fit(MLP(hidden=(4,), noise_std=0.3), torch.zeros(1, 5, 1), torch.zeros(1, 5), seeded())
    x = torch.full((1, 1, 1), 0.4)
    gamma, nu, alpha, beta = (float(part) for part in evidence_of(model, fit.theta, x, scale))
    rng = np.random.default_rng(0)
    variance = beta / rng.gamma(alpha, size=400_000)
    f = gamma + np.sqrt(variance / nu) * rng.standard_normal(400_000)
    y = f + np.sqrt(variance) * rng.standard_normal(400_000)
    found = fit(x)
    for law, draws in ((found.f, f), (found.y, y)):
        levels = [0.1, 0.25, 0.5, 0.75, 0.9]
        assert law is not None
        quantile = law.quantiles(levels)[0, :, 0].numpy()
        assert np.allclose([(draws <= q).mean() for q in quantile], levels, atol=0.004)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.8])
def test_the_share_below_a_quantile_is_its_level(tau: float) -> None:
    """On a linear model with P = 2 parameters and hardly any prior: an optimum of the pinball loss has a share of
    τ ± P/n below (Koenker & Bassett 1978). Seen to catch: p and 1 − p swapped, the levels' order reversed."""
    x = torch.randn(1, 200, 1, generator=seeded(1))
    y = x.squeeze(-1) + torch.randn(1, 200, generator=seeded(2)).exp()
    method = QuantileRegression(levels=(tau,), steps=3000, lr=0.3, batch=200)
    fit = method.fit(MLP(hidden=(), prior_std=100.0, noise_std=1.0), x, y, seeded())
    below = float((y <= quantiles(fit.model, fit.theta, x, fit.scale).squeeze(-1)).double().mean())
    assert abs(below - tau) <= 3 / 200


def test_quantiles_never_cross() -> None:
    """At any θ, far from the data too. Seen to catch: steps below and above swapped."""
    model = MLP(hidden=(8,)).with_outputs(5)
    theta = 5 * model.sample_prior(seeded(1), (20,))
    x = torch.linspace(-50, 50, 30).view(1, -1, 1).expand(20, -1, -1)
    found = quantiles(model, theta, x, 0.1)
    assert (found.diff(dim=-1) >= 0).all() and torch.equal(found[..., 2], model.network(theta, x)[..., 0])
    with pytest.raises(ValueError, match="an odd number of them"):
        QuantileRegression(levels=(0.1, 0.9))
