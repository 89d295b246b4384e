"""SWAG, MultiSWAG, SGHMC, preconditioned and cyclical SGLD beside their stationary laws, which test_contract.py checks
on linear regression."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Generator

from gapbench.methods.cyclical_sgld import CyclicalSGLD
from gapbench.methods.engine.exactness import example
from gapbench.methods.engine.gradients import energy_gradient
from gapbench.methods.engine.minibatches import FixedSize
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise
from gapbench.methods.engine.stationary_law import stationary_law, underdamped_law
from gapbench.methods.multi_swag import MultiSWAG
from gapbench.methods.psgld import PSGLD
from gapbench.methods.sghmc import SGHMC
from gapbench.methods.swag import SWAG


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def test_the_gradient_of_the_energy_is_autograds() -> None:
    """Of a batch scaled to n points, with the prior. Seen to catch: the prior scaled too, n/b turned around."""
    model = MLP(features=2, hidden=(5, 4), activation="tanh", noise_std=HeteroscedasticNoise())
    x = torch.randn(3, 8, 2, generator=seeded(1))
    y = x.sum(-1).sin()
    theta = model.sample_prior(seeded(2), (3,)).requires_grad_()
    energy = -24 / 8 * model.log_likelihood(theta, x, y).sum() - model.log_prior(theta).sum()
    [expected] = torch.autograd.grad(energy, theta)
    assert torch.allclose(energy_gradient(model, theta.detach(), x, y, 24), expected, rtol=1e-4, atol=1e-4)


def test_swags_draws_have_the_law_of_its_snapshots() -> None:
    """Mean and covariance of 200,000 draws against ½ diag(Σ̂) + ½ D Dᵀ/(K−1) by numpy. Seen to catch: K for K − 1, the
    root of 2 left out of one part, one part's random numbers used for both."""
    kept = torch.randn(1, 4, 3, generator=seeded(3)) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 2.0]])
    draws = SWAG(snapshots=4, draws=200_000).sampled(kept, seeded())[0].double().numpy()
    values = kept[0].double().numpy()
    expected = np.diag(values.var(0)) / 2 + np.cov(values.T, ddof=1) / 2
    assert np.allclose(draws.mean(0), values.mean(0), atol=0.02)
    assert np.allclose(np.cov(draws.T), expected, atol=0.03 * np.abs(expected).max())


def test_stationary_laws_tend_to_their_limits() -> None:
    """With all points in a batch and a small step, SGHMC's and SGLD's laws are the posterior, and SGD's is a point.
    Seen to catch: friction for its double in the noise, Langevin noise that stays in SGD."""
    regression = example()
    posterior, n = regression.posterior, len(regression.targets)
    for law in (
        underdamped_law(regression, 1e-4, 0.1, n),
        stationary_law(regression, 1e-3, n, FixedSize()),
    ):
        assert np.allclose(law.mean, posterior.mean)
        assert np.allclose(law.covariance, posterior.covariance, rtol=0.01, atol=1e-3)
    assert np.allclose(stationary_law(regression, 0.1, n, FixedSize(), langevin=0.0).covariance, 0)


def test_chains_start_apart_and_are_marked_as_chains() -> None:
    """R-hat needs them. Seen to catch: chains forgotten in the fitted method."""
    x = torch.randn(2, 12, 1, generator=seeded(1))
    fit = SGHMC(batch=4, burn_in=5, draws=3, thin=2, chains=4).fit(MLP(hidden=(5,)), x, x.squeeze(-1), seeded())
    chained = fit(x).chained_f
    assert chained is not None and chained.shape == (2, 4, 3, 12)
    assert fit.diagnostics["gradient evaluations"].tolist() == [11 * 4 * 4] * 2


def test_one_member_is_swag() -> None:
    """To the bit; and several members are as many fits of SWAG to the same data, in a row. Seen to catch: members that
    see another replica's data, draws of members that are mixed up, points counted for one member."""
    x = torch.randn(2, 12, 1, generator=seeded(1))
    y, model = x.squeeze(-1).sin(), MLP(hidden=(5,))
    settings = {"steps": 20, "burn_in": 3, "snapshots": 4, "thin": 2, "draws": 6}
    alone, one = (cls(**settings).fit(model, x, y, seeded()) for cls in (SWAG, partial(MultiSWAG, members=1)))  # type: ignore[arg-type, operator]
    assert torch.equal(one.theta, alone.theta)
    three = MultiSWAG(**settings, members=3).fit(model, x, y, seeded())  # type: ignore[arg-type]
    stacked = SWAG(**settings).fit(model, x.repeat_interleave(3, 0), y.repeat_interleave(3, 0), seeded())  # type: ignore[arg-type]
    assert torch.equal(three.theta.unflatten(1, (3, 6)), stacked.theta.unflatten(0, (2, 3)))
    seen = [one.diagnostics["gradient evaluations"] for one in (three, alone)]
    assert torch.equal(seen[0], 3 * seen[1])


def test_a_preconditioner_is_the_rms_of_gradients_until_burn_in_ends() -> None:
    """Ten steps by hand, each chain with its own G, which the last four keep. Seen to catch: G that goes on moving, V
    not corrected for its start at 0, √G in the drift, G in place of √G in the noise."""
    n, model = 6, MLP(features=1, hidden=(3,))
    x = torch.randn(2, n, 1, generator=seeded(1))
    y = x.squeeze(-1).sin()
    method = PSGLD(lr=0.01, memory=0.8, floor=0.1, batch=n, burn_in=6, draws=4, thin=1, chains=2)
    found = method.fit(model, x, y, seeded()).theta.unflatten(1, (2, 4))
    numbers = seeded()
    theta, v = model.init(numbers, (2, 2)), torch.zeros(2, 2, model.size)
    for step in range(1, 11):
        noise = torch.randn(theta.shape, generator=numbers)
        for r in range(2):
            for c in range(2):
                one = theta[r, c].clone().requires_grad_()
                energy = -model.log_likelihood(one, x[r], y[r]).sum() - model.log_prior(one)
                [slope] = torch.autograd.grad(energy, one)
                if step <= 6:
                    v[r, c] = 0.8 * v[r, c] + 0.2 * (slope / n) ** 2
                g = 1 / (0.1 + (v[r, c] / (1 - 0.8 ** min(step, 6))).sqrt())
                theta[r, c] -= 0.01 / n * g * slope - (2 * 0.01 / n * g).sqrt() * noise[r, c]
        if step > 6:
            torch.testing.assert_close(found[:, :, step - 7], theta, rtol=1e-4, atol=1e-5)


def test_a_cycle_descends_and_then_samples() -> None:
    """Every step by hand, on all data: εₖ = lr/(2n) (cos(π r) + 1) from its start in each cycle, noise and draws in the
    last part alone. Seen to catch: noise while it explores, √ε for √(2ε), a step that does not start again, draws of
    the first part, draws of chains in each other's places."""
    regression = example()
    x, y = regression.stack(2)
    method = CyclicalSGLD(lr=0.2, cycles=2, steps=10, explore=0.5, batch=20, draws=2, chains=3)
    found = method.fit(regression.model, x, y, seeded(4)).theta.view(2, 3, 4, -1)

    generator, model, n = seeded(4), regression.model, y.shape[1]
    theta, kept = model.init(generator, (2, 3)), []
    for number in range(20):
        step = 0.2 / (2 * n) * (np.cos(np.pi * (number % 10) / 10) + 1)
        leaf = theta.clone().requires_grad_()
        likelihood = model.log_likelihood(leaf, x.unsqueeze(1).expand(-1, 3, -1, -1), y.unsqueeze(1).expand(-1, 3, -1))
        (slope,) = torch.autograd.grad((likelihood.sum(-1) + model.log_prior(leaf)).sum(), leaf)
        theta = theta + step * slope
        if number % 10 >= 5:
            theta = theta + np.sqrt(2 * step) * torch.randn(theta.shape, generator=generator)
        if number % 10 in (6, 9):
            kept.append(theta)
    torch.testing.assert_close(found, torch.stack(kept, 2), rtol=1e-3, atol=1e-4)
