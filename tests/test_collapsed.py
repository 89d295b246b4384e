"""The collapsed posterior against brute force: y as one normal, in float64, and its gradient by autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from gapbench.methods.engine.collapsed import Collapsed
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise
from gapbench.methods.engine.predictions import MixturePrediction

Seeded = Callable[[int], Generator]


def pieces(model: MLP, q: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Φ and σ by the network itself: its output is Φw, so Φ are its outputs at unit vectors w. One replica."""
    collapsed = Collapsed(model)
    units = torch.eye(collapsed.width, dtype=q.dtype)
    phi = torch.stack([model.mean(collapsed.joined(q, w), x) for w in units], -1)
    return phi, model.noise(collapsed.joined(q, units[0]), x).expand(len(x))


def brute(model: MLP, q: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """−log p(y | ψ) − log p(ψ), with y ~ N(0, τ²ΦΦᵀ + Σ)."""
    phi, std = pieces(model, q, x)
    covariance = model.prior_std**2 * phi @ phi.T + torch.diag(std**2)
    law = torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance)
    tau = torch.tensor(model.prior_std, dtype=q.dtype)
    return -law.log_prob(y) - torch.distributions.Normal(torch.zeros_like(q), tau).log_prob(q).sum()


NETWORKS = [
    MLP(hidden=(4,)),
    MLP(hidden=(6, 3), features=3, activation="tanh", prior_std=0.7),
    MLP(hidden=(5, 4, 3), scale_by_fan_in=False, prior_std=0.5, activation="silu"),
]


@pytest.mark.parametrize("noise", [0.3, LearnedNoise(), HeteroscedasticNoise()])
@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("n", [2, 12])  # the N × N form, and the other
def test_energy_and_gradient_are_those_of_the_marginal_likelihood(
    seeded: Seeded, model: MLP, noise: float | Noise, n: int
) -> None:
    """Of every replica and chain of a stack.

    Seen to catch: the log determinant left out or doubled; Λ forgotten in ∂U/∂Φ; the noise's gradient of one point; the
    hidden prior left out.
    """
    model = replace(model, noise_std=noise)
    collapsed, generator = Collapsed(model), seeded(0)
    q = torch.randn(2, 3, collapsed.size, generator=generator, dtype=torch.float64) * model.prior_std
    x = torch.randn(2, 1, n, model.features, generator=generator, dtype=torch.float64)
    y = torch.randn(2, 1, n, generator=generator, dtype=torch.float64)
    point = collapsed.at(q, x, y)
    for r in range(2):
        for chain in range(3):
            leaf = q[r, chain].clone().requires_grad_()
            expected = brute(model, leaf, x[r, 0], y[r, 0])
            (by_q,) = torch.autograd.grad(expected, leaf)
            torch.testing.assert_close(point.energy[r, chain], expected.detach(), rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(point.gradient[r, chain], by_q, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("noise", [0.3, LearnedNoise(), HeteroscedasticNoise()])
@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("n", [2, 12])
def test_the_law_of_f_is_that_of_the_joint_normal(seeded: Seeded, model: MLP, noise: float | Noise, n: int) -> None:
    """f at new points given y, from the joint covariance of (y, f).

    Seen to catch: a std that is a variance, the prior's std, a factor used from the wrong side.
    """
    model = replace(model, noise_std=noise)
    collapsed, generator = Collapsed(model), seeded(0)
    q = torch.randn(2, 3, collapsed.size, generator=generator, dtype=torch.float64) * model.prior_std
    x = torch.randn(2, n, model.features, generator=generator, dtype=torch.float64)
    y = torch.randn(2, n, generator=generator, dtype=torch.float64)
    x_test = torch.randn(2, 7, model.features, generator=generator, dtype=torch.float64)
    found = collapsed.fitted(q.unsqueeze(1), x, y, {}, {})(x_test)
    assert isinstance(found, MixturePrediction) and found.chains == 1
    for r in range(2):
        for s in range(3):
            phi, sigma = pieces(model, q[r, s], x[r])
            at, sigma_there = pieces(model, q[r, s], x_test[r])
            k = model.prior_std**2 * phi @ phi.T + torch.diag(sigma**2)
            cross = model.prior_std**2 * at @ phi.T
            covariance = model.prior_std**2 * at @ at.T - cross @ torch.linalg.solve(k, cross.T)
            noise_std = found.noise_std.expand(found.location.shape)[r, s]
            torch.testing.assert_close(found.location[r, s], cross @ torch.linalg.solve(k, y[r]), rtol=1e-8, atol=1e-9)
            torch.testing.assert_close(found.scale[r, s], covariance.diagonal().sqrt(), rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(noise_std, sigma_there)


def test_nothing_is_left_to_sample_without_a_hidden_layer() -> None:
    with pytest.raises(ValueError, match=r"hidden = \(\): nothing is left to sample"):
        Collapsed(MLP(hidden=()))
    with pytest.raises(ValueError, match="outputs = 2: expected 1"):
        Collapsed(MLP(outputs=2))


@pytest.mark.parametrize("noise", [0.003, 0.1])
def test_a_small_noise_is_precise_in_float32(seeded: Seeded, noise: float) -> None:
    """Differences of energies, which decide a step size, to 1e-2 of a nat in float32 parameters. Seen to catch: ΦᵀΦ
    formed in float32."""
    model = MLP(noise_std=noise)
    collapsed, generator = Collapsed(model), seeded(0)
    x = 8 * torch.rand(1, 200, 1, generator=generator) - 4
    y = x[..., 0].sin() + noise * torch.randn(1, 200, generator=generator)
    q = collapsed.start(generator, (4,))
    wide, narrow = (collapsed.at(q.to(kind), x.to(kind), y.to(kind)).energy for kind in (torch.float64, torch.float32))
    assert narrow.dtype == torch.float64
    assert ((wide - narrow) / wide).abs().max() < 1e-5


@pytest.mark.parametrize("n", [40, 200])
def test_a_tiny_noise_at_a_few_points_gives_no_energy_that_is_too_low(seeded: Seeded, n: int) -> None:
    """Stds from 1e-12 to 1: the energy is at least Σ log σᵢ, and its gradient finite. Prior draws of a noise that
    depends on x have such stds. n = 40 has the N × N form. Seen to catch: yᵀΛy − bᵀm for the squares of residuals."""
    model = MLP(noise_std=HeteroscedasticNoise(center=0.1))
    collapsed, generator = Collapsed(model), seeded(0)
    x = 8 * torch.rand(1, n, 1, generator=generator) - 4
    y = x[..., 0].sin() + 0.1 * torch.randn(1, n, generator=generator)
    q = collapsed.prior_draws(generator, (2000,)) * torch.linspace(1, 1.5, 2000).unsqueeze(-1)
    _, log_std = collapsed.features(q, x.expand(2000, -1, -1))
    assert -50 < log_std.min() < -20
    lowest = log_std.double().sum(-1) + 0.5 * n * math.log(2 * math.pi)
    point = collapsed.at(q, x, y)
    sound = point.energy.isfinite()  # a matrix that is not definite for the rounding is nan, where no chain goes
    assert sound.double().mean() > 0.9 and point.gradient[sound].isfinite().all()
    energy = -collapsed.log_likelihood(q, x, y)
    assert (energy[sound] > lowest[sound] - 1e-6).all()
