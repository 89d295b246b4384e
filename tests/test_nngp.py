"""The infinitely wide network's Gaussian process, against draws of finite networks and a dense formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator

from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise
from gapbench.methods.nngp import NNGP, kernel, likeliest_noise, tridiagonal, variances


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


X = torch.tensor([[[-1.5, 0.2], [0.3, -0.4], [2.0, 1.0], [0.3, -0.4]]])


@pytest.mark.parametrize(("hidden", "covariance"), [((3,), True), ((4, 3), False), ((3, 2, 4), False)])
def test_the_kernel_is_the_covariance_of_networks_of_the_prior(hidden: tuple[int, ...], covariance: bool) -> None:
    """The variance at any depth and width, and with one hidden layer the whole covariance, are exact. Seen to catch: a
    bias left out, v in place of v/2, the angle's cosine forgotten, D left out."""
    model = MLP(features=2, hidden=hidden, prior_std=0.9)
    draws = model.mean(model.sample_prior(seeded(), (400_000,)), X).double()
    expected = kernel(model, X.double(), X.double())[0]
    products = draws.unsqueeze(-1) * draws.unsqueeze(-2)
    error = products.std(0) / np.sqrt(len(draws))
    apart = (products.mean(0) - expected).abs() / error
    assert (apart if covariance else apart.diagonal()).max() < 5
    assert torch.allclose(expected.diagonal(), variances(model, X.double())[-1][0])


def test_the_law_is_that_of_dense_regression() -> None:
    """K(K + σ²I)⁻¹, with numpy. Seen to catch: σ for σ², the noise in the variance of f."""
    model = MLP(features=2, hidden=(5, 5), noise_std=0.3)
    x, x_test = (torch.randn(2, n, 2, generator=seeded(n)) for n in (15, 6))
    y = x.sum(-1).sin()
    found = NNGP().fit(model, x, y, seeded())(x_test)
    for r in range(2):
        k, across, own = (
            kernel(model, a[r : r + 1].double(), b[r : r + 1].double())[0].numpy()
            for a, b in ((x, x), (x_test, x), (x_test, x_test))
        )
        gain = across @ np.linalg.inv(k + 0.09 * np.eye(15))
        assert np.allclose(found.location[r, 0], gain @ y[r].double().numpy(), atol=1e-4)
        assert np.allclose(found.scale[r, 0], np.sqrt(np.diag(own - gain @ across.T)), atol=1e-4)
    assert torch.allclose(found.noise_std, torch.tensor(0.3))


def test_a_learned_noise_maximises_the_dense_marginal_likelihood() -> None:
    """Times its prior. Seen to catch: the prior of σ left out, the determinant halved."""
    noise = LearnedNoise(center=0.5)
    model = MLP(features=2, hidden=(5,), noise_std=noise)
    x = torch.randn(1, 40, 2, generator=seeded(1)).double()
    y = (x.sum(-1).sin() + 0.2 * torch.randn(1, 40, generator=seeded(2)))[0]
    gram = kernel(model, x, x)[0]
    best = float(likeliest_noise(model, gram, y))

    def density(std: float) -> float:
        total = torch.distributions.MultivariateNormal(torch.zeros(40).double(), gram + std**2 * torch.eye(40))
        return float(total.log_prob(y)) - 0.5 * np.log(std / 0.5) ** 2

    assert all(density(best * factor) <= density(best) for factor in (0.9, 0.99, 1.01, 1.1)) and 0.1 < best < 0.4


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_the_tridiagonal_form_has_the_likelihood_of_the_dense_one(n: int) -> None:
    """At every noise, and for points that are there twice, whose K has eigenvalues of 0. Seen to catch: the reflections
    applied the other way round, or to the first entry; an eigenvalue below 0 left there."""
    x = torch.randn(1, n, 2, generator=seeded(n)).double()
    x[:, n // 2 :] = x[:, : n - n // 2].clone()
    gram = kernel(MLP(features=2, hidden=(5,)), x, x)[0].numpy()
    y = np.random.default_rng(n).standard_normal(n)
    diagonal, beside, rotated = tridiagonal(gram, y)
    tri = np.diag(diagonal) + np.diag(beside, -1) + np.diag(beside, 1)
    assert np.linalg.eigvalsh(tri).min() > -1e-15
    for noise in (1e-3, 0.1, 2.0):
        (sign, log_det), (_, other) = (np.linalg.slogdet(k + noise**2 * np.eye(n)) for k in (gram, tri))
        squares, others = (b @ np.linalg.solve(k + noise**2 * np.eye(n), b) for k, b in ((gram, y), (tri, rotated)))
        assert sign == 1 and np.allclose([log_det, squares], [other, others], rtol=1e-6)


def test_models_without_a_known_kernel_are_refused() -> None:
    x = torch.zeros(1, 5, 1)
    assert "ReLU" in str(NNGP().skip(MLP(activation="tanh"), x))
    assert "depends on x" in str(NNGP().skip(MLP(noise_std=HeteroscedasticNoise()), x))
    assert "at most 12000" in str(NNGP().skip(MLP(), torch.zeros(1, 12_001, 1)))
