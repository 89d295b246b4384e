"""SNGP against closed forms in float64: its law given the features, its spectral norms and its kernel."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from gapbench.methods import sngp
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise
from gapbench.methods.sngp import SNGP, Features, SNGPFit

Floats = NDArray[np.float64]
NOISES: tuple[float | Noise, ...] = (0.3, LearnedNoise(), HeteroscedasticNoise())
MODEL = MLP(features=2, hidden=(5, 5, 4), activation="tanh", prior_std=1.3, noise_std=0.3)
QUICK = SNGP(frequencies=7, steps=30, batch=6)


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def fitted(method: SNGP, model: MLP, n: int = 12) -> tuple[SNGPFit, Tensor, Tensor, Tensor]:
    """A short training, which is no optimum: the law given the features holds anywhere. Data, and points of a test."""
    x = torch.randn(2, n, model.features, generator=seeded(1))
    y = x.sum(-1).sin() + 2
    return method.fit(model, x, y, seeded(2)), x, y, 2 * torch.randn(2, 9, model.features, generator=seeded(3))


def features(fit: SNGPFit, x: Tensor, r: int) -> tuple[Floats, Floats]:
    """The units h, (N, H), and the features φ, (N, K), of one replica, by θ read entry for entry."""
    theta, at, h = fit.theta[r].double().numpy(), 0, x[r].double().numpy()
    for width in fit.features.model.hidden:
        m = h.shape[1]
        weight = theta[at : at + m * width].reshape(m, width) / math.sqrt(m)
        bias = theta[at + m * width : at + (m + 1) * width]
        weight = weight * min(1, fit.features.bound / np.linalg.svd(weight, compute_uv=False)[0])
        at, a = at + (m + 1) * width, np.tanh(h @ weight + bias)
        h = h + a if m == width else a
    omega, phase = (part[r].double().numpy() for part in (fit.features.omega, fit.features.phase))
    return h, math.sqrt(2 / omega.shape[1]) * np.cos(h @ omega + phase)


def noise_std(fit: SNGPFit, phi: Floats, r: int) -> Floats:
    """σ at the features φ, (N,). The head's parameters are the last of θ: w, v side by side, w₀, v₀, the noise's."""
    noise, theta, k = fit.head.noise_std, fit.theta[r].double().numpy(), phi.shape[1]
    if isinstance(noise, LearnedNoise):
        return np.full(len(phi), noise.center * math.exp(noise.spread * theta[-1] / fit.head.prior_std))
    if isinstance(noise, HeteroscedasticNoise):
        head = theta[-2 * (k + 1) :].reshape(k + 1, 2)[:, 1]
        return np.asarray(noise.center * np.exp(noise.spread * (phi @ head[:-1] + head[-1])))
    return np.full(len(phi), noise)


@pytest.mark.parametrize("n", [12, 4])
@pytest.mark.parametrize("noise", NOISES)
def test_given_the_features_it_is_bayesian_linear_regression(
    noise: float | Noise, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In function space, where the features are the Gaussian process of covariance τ²(φφ'ᵀ + 1), with more and with
    fewer points than features, cut into chunks. Seen to catch: σ left out of A (as published), √σ for σ, the 1 of w₀
    forgotten, 1/prior_std for its square, √K forgotten, the last chunk of points alone, a layer without its sum with
    h, the variance for the std, the noise's head read from the hidden layers."""
    monkeypatch.setattr(sngp, "CHUNK", 5)
    fit, x, y, x_test = fitted(QUICK, replace(MODEL, noise_std=noise), n)
    found = fit(x_test)
    for r in range(2):
        (_, phi), (_, at) = features(fit, x, r), features(fit, x_test, r)
        prior = MODEL.prior_std**2
        gram, across = (prior * (phi @ other.T + 1) for other in (phi, at))
        weights = np.linalg.solve(gram + np.diag(noise_std(fit, phi, r) ** 2), across).T
        variance = prior * ((at**2).sum(1) + 1) - (weights * across.T).sum(1)
        assert np.allclose(found.location[r, 0], weights @ y[r].double().numpy(), rtol=1e-4, atol=1e-4)
        assert np.allclose(found.scale[r, 0], np.sqrt(variance), rtol=1e-3)
        assert np.allclose(found.noise_std.expand(2, 1, 9)[r, 0], noise_std(fit, at, r), rtol=1e-4)


def test_training_ends_at_the_mean_of_the_law() -> None:
    """The output layer that Adam finds gives the predictions of m, where all else is fixed: a minimum without hidden
    layers. Seen to catch: the prior left out of the loss, the likelihood not scaled to n, √K forgotten in the loss."""
    model = replace(MODEL, hidden=())
    fit, _, _, x_test = fitted(replace(QUICK, steps=1500, lr=0.1, batch=12), model)
    phi = fit.features(fit.theta, x_test)
    assert torch.allclose(fit.head.mean(fit.theta, phi), fit(x_test).location[:, 0], atol=0.01)


def test_no_layer_stretches_more_than_the_bound() -> None:
    """By numpy's singular values. The prior's start is above the bound 0.95 and below the bound 50, under which nothing
    changes. Seen to catch: the Frobenius norm, no bound, every layer scaled up to the bound, the scale 1/√fan_in
    applied twice."""
    model = replace(MODEL, hidden=(9, 9))
    for bound in (0.95, 50.0):
        drawn = Features.draw(model, replace(QUICK, bound=bound), (3,), seeded(1))
        theta = model.sample_prior(seeded(2), (3,))
        layers = model.weights(theta)
        for (found, _), (weight, _), (_, _, scale) in zip(
            drawn.bounded_layers(theta), layers, model.layers, strict=False
        ):
            before, after = (np.linalg.svd(w.numpy(), compute_uv=False)[:, 0] for w in (scale * weight, found))
            assert (before > 0.95).all() and np.allclose(after, np.minimum(before, bound), rtol=1e-5)
    fit, *_ = fitted(replace(QUICK, steps=150, bound=0.5), model)
    trained = [np.linalg.svd(w.numpy(), compute_uv=False)[:, 0] for w, _ in fit.features.bounded_layers(fit.theta)]
    assert (np.stack(trained) <= 0.5 + 1e-6).all()


def test_points_stay_apart_in_layers_of_one_width() -> None:
    """‖h(x) − h(x′)‖ is between (1 − bound)ᴸ and (1 + bound)ᴸ times ‖x − x′‖, since tanh stretches nothing. Seen to
    catch: the sum with h forgotten, the bound left out."""
    model = MLP(features=6, hidden=(6, 6, 6), activation="tanh", prior_std=4.0)
    drawn = Features.draw(model, replace(QUICK, bound=0.7), (40,), seeded(1))
    a, b = torch.randn(2, 40, 50, 6, generator=seeded(3)) * torch.logspace(-2, 1, 50).unsqueeze(-1)
    theta = model.sample_prior(seeded(2), (40,))
    ratio = (drawn.last_hidden(theta, a) - drawn.last_hidden(theta, b)).norm(dim=-1) / (a - b).norm(dim=-1)
    assert ratio.min() > 0.3**3 and ratio.max() < 1.7**3


def test_the_kernel_tends_to_the_rbf_kernel() -> None:
    """The root mean square error falls by 10 where K grows by 100, as that of a mean of K products does. Seen to catch:
    1 for √2, length_scale multiplied."""
    x = torch.randn(1, 6, 2, generator=seeded(3))
    model, length = MLP(features=2, hidden=()), 0.8
    exact = np.exp(-np.square(x[0, :, None].numpy() - x[0].numpy()).sum(-1) / (2 * length**2))
    errors = []
    for k in (100, 10_000):
        drawn = Features.draw(model, SNGP(frequencies=k, length_scale=length), (50,), seeded(4))
        phi = drawn(torch.zeros(50, 1), x.expand(50, -1, -1)) / math.sqrt(k)
        errors.append(float(np.sqrt(np.square((phi @ phi.mT).numpy() - exact).mean())))
    assert errors[1] < 0.01 and 8 < errors[0] / errors[1] < 12


def test_what_cannot_work_is_refused() -> None:
    for field, value in (("frequencies", 0), ("bound", 0.0), ("bound", math.inf), ("length_scale", -1.0)):
        with pytest.raises(ValueError, match=f"SNGP: {field} = {value}: expected"):
            replace(SNGP(), **{field: value})  # type: ignore[arg-type]
    assert "outputs = 2: expected 1" in str(SNGP().skip(MLP(outputs=2), torch.empty(1, 3, 1)))
