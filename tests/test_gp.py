"""Gaussian processes, exact, sparse and deep, against scikit-learn and against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod
from gapbench.methods.deep_gp import DeepGP, DeepGPFit
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise
from gapbench.methods.gp import GP, GPFit

Seeded = Callable[[int], Generator]


def problem(seeded: Seeded, n: int = 40, features: int = 2) -> tuple[Tensor, Tensor]:
    x = 3 * torch.rand(2, n, features, generator=seeded(0)) - 1.5
    return x, (2 * x[..., 0]).sin() + 0.3 * x[..., -1] + 1 + 0.1 * torch.randn(2, n, generator=seeded(1))


def moments(fitted: FittedMethod, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std of f, (R, M) each."""
    prediction = fitted(x)
    return prediction.f.mean, prediction.f.std


@pytest.mark.parametrize("kernel", ["rbf", "matern32", "matern52"])
def test_the_exact_process_is_that_of_scikit_learn(kernel: str, seeded: Seeded) -> None:
    """The same law at the same parameters; and its optimiser, started there, gains nothing. Seen to catch: σ for σ² on
    the diagonal, the mean c left out of the residual, one length scale for all features, too few steps."""
    gaussian_process = pytest.importorskip("sklearn.gaussian_process")
    kernels = gaussian_process.kernels
    x, y = problem(seeded)
    fitted = GP(kernel=kernel).fit(MLP(features=2, noise_std=0.1), x, y, seeded(2))
    assert isinstance(fitted, GPFit)
    x_test = 2 * torch.randn(2, 9, 2, generator=seeded(3))
    mean, std = moments(fitted, x_test)
    for r in range(2):
        scales = fitted.process.kernel.base_kernel.lengthscale[r, 0].detach().numpy()
        amplitude, c = (float(p[r].detach()) for p in (fitted.process.kernel.outputscale, fitted.process.mean.constant))
        shape = kernels.RBF(scales) if kernel == "rbf" else kernels.Matern(scales, nu=int(kernel[-2]) / 2)
        same = kernels.ConstantKernel(amplitude) * shape
        data = x[r].double().numpy(), y[r].double().numpy() - c
        stock = gaussian_process.GaussianProcessRegressor(same, alpha=0.01, optimizer=None).fit(*data)
        expected = stock.predict(x_test[r].double().numpy(), return_std=True)
        assert np.allclose(mean[r], expected[0] + c, atol=1e-4)
        assert np.allclose(std[r], expected[1], atol=1e-4)
        better = gaussian_process.GaussianProcessRegressor(same, alpha=0.01).fit(*data)
        gain = better.log_marginal_likelihood_value_ - stock.log_marginal_likelihood_value_
        assert gain < 0.05  # nats, of all 40 points


def test_a_sparse_process_with_its_points_at_the_data_is_the_exact_one(seeded: Seeded) -> None:
    """Then the bound is the marginal likelihood, so both have the same optimum. Seen to catch: the variance left out of
    the expected likelihood, the sum over a batch not scaled to n, a KL of half the size."""
    x, y = problem(seeded, n=20, features=1)
    model = MLP(noise_std=0.1)
    exact = GP().fit(model, x, y, seeded(2))
    sparse = GP(most_points=10, inducing=20, steps=600, lr=0.05).fit(model, x, y, seeded(2))
    assert isinstance(sparse, DeepGPFit)
    x_test = torch.linspace(-1.3, 1.3, 9).view(1, -1, 1).expand(2, -1, 1)
    for found, expected in zip(moments(sparse, x_test), moments(exact, x_test), strict=True):
        assert torch.allclose(found, expected, atol=0.03)


def test_a_noise_is_learned_by_all(seeded: Seeded) -> None:
    x, y = problem(seeded, features=1)
    model = MLP(noise_std=LearnedNoise(center=0.4))
    for method in (GP(), GP(most_points=10, inducing=20, steps=200, lr=0.1), DeepGP(inducing=20, steps=200, lr=0.1)):
        noise = method.fit(model, x, y, seeded(2))(x).noise_std
        assert ((noise > 0.05) & (noise < 0.2)).all()


def test_the_law_of_a_deep_process_is_the_mixture_over_its_hidden_draws(seeded: Seeded) -> None:
    """Each draw has one ξ for all points. The moments are those of brute force, with new draws. Seen to catch:
    variances in place of stds in the hidden layer, ξ left out, the mean of the variances as the variance."""
    x, y = problem(seeded, features=1)
    fitted = replace(DeepGP(draws=4000), steps=60, inducing=10, kl_weight=30).fit(MLP(), x, y, seeded(2))
    assert isinstance(fitted, DeepGPFit)
    mean, std = moments(fitted, x)
    with torch.no_grad():
        first, last = fitted.layers
        q = first(x.double().unsqueeze(1).expand(-1, 5, -1, -1))
        h = torch.distributions.Normal(q.mean, q.stddev).sample((4000,)).transpose(-1, -2)  # (S, R, N, H)
        law = last(h.unsqueeze(-3))
        f = torch.distributions.Normal(law.mean.squeeze(-2), law.stddev.squeeze(-2)).sample()
    error = f.std(0) / np.sqrt(4000)
    assert ((mean - f.mean(0)).abs() < 6 * error).all()
    assert ((std / f.std(0) - 1).abs() < 0.1).all()
    assert (law.mean.std(0) > 0.1 * f.std(0)).any()  # the hidden draws matter


def test_what_cannot_work_is_refused(seeded: Seeded) -> None:
    x = torch.zeros(1, 20, 1)
    assert "more than the 20" in str(DeepGP().skip(MLP(), x))
    assert "more than the 20" in str(GP(most_points=10).skip(MLP(), x))
    for method in (GP(), DeepGP(inducing=5)):
        assert "depends on x" in str(method.skip(MLP(noise_std=HeteroscedasticNoise()), x))
    with pytest.raises(ValueError, match="kernel = 'periodic'"):
        GP(kernel="periodic")
    with pytest.raises(ValueError, match="inducing = 0"):
        DeepGP(inducing=0)
