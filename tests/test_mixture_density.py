"""Mixture density networks: the law against scipy and the engine's mixture, the loss against the mean-variance
network's, the optimum against the equations of expectation maximisation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Generator, Tensor

from gapbench.methods.engine.distributions import NormalMixture
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.engine.predictions import PredictionError
from gapbench.methods.mean_variance import beta_likelihood
from gapbench.methods.mixture_density import (
    MixtureDensity,
    MixtureFit,
    WeightedMixture,
    WeightedPrediction,
    log_mixture,
    mixture_of,
)

R, M, K = 2, 5, 3


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed)).double()


def mixture() -> WeightedMixture:
    return WeightedMixture(numbers(R, M, K).log_softmax(-1), numbers(R, M, K, seed=1), numbers(R, M, K, seed=2).exp())


def test_the_law_is_scipys() -> None:
    """Density, distribution function, moments, and the CRPS as the integral that defines it. Seen to catch: weights
    for their logs, a mean of log densities, equal weights in the distribution function, the spread of the means left
    out of the std, a weight left out of either part of the CRPS, |X − X′| not halved."""
    law, t = mixture(), numbers(R, M, seed=3)
    for r, m in np.ndindex(R, M):
        weights, means, stds = (part[r, m].numpy() for part in (law.weights, law.location, law.scale))

        def cdf(z: float, w: object = weights, mean: object = means, std: object = stds) -> float:
            return float(w @ stats.norm.cdf(z, mean, std))  # type: ignore[operator]

        y = float(t[r, m])
        low, high = float((means - 12 * stds).min()), float((means + 12 * stds).max())
        below, _ = integrate.quad(lambda z, cdf=cdf: cdf(z) ** 2, low, y, limit=200)
        above, _ = integrate.quad(lambda z, cdf=cdf: (1 - cdf(z)) ** 2, y, high, limit=200)
        square = weights @ (means**2 + stds**2)
        found = [float(part[r, m]) for part in (law.log_density(t), law.cdf(t), law.mean, law.std, law.crps(t))]
        wanted = [
            np.log(weights @ stats.norm.pdf(y, means, stds)),
            cdf(y),
            weights @ means,
            np.sqrt(square - (weights @ means) ** 2),
            below + above,
        ]
        assert np.allclose(found, wanted, rtol=1e-6)


def test_quantiles_invert_the_distribution_function() -> None:
    """In both tails too. Seen to catch: 20 halvings, the bracket of the first component alone."""
    law, levels = mixture(), (1e-6, 0.05, 0.5, 0.9, 1 - 1e-6)
    for position, p in enumerate(levels):
        found = law.cdf(law.quantiles(levels)[:, position])
        assert torch.allclose(found, torch.full_like(found, p), rtol=1e-9, atol=1e-14)
    with pytest.raises(ValueError, match="p = 1: expected 0 < p < 1"):
        law.quantiles([1])


def test_equal_weights_are_the_engines_mixture() -> None:
    """Seen to catch: what the test against scipy is seen to catch, 20 halvings."""
    law, t = replace(mixture(), log_weights=torch.zeros(R, M, K).double().log_softmax(-1)), numbers(R, M, seed=3)
    same = NormalMixture(law.location.movedim(-1, 1), law.scale.movedim(-1, 1))
    for found, wanted in (
        (law.log_density(t), same.log_density(t)),
        (law.std, same.std),
        (law.crps(t), same.crps(t)),
        (law.quantiles([0.1, 0.7]), same.quantiles([0.1, 0.7])),
    ):
        assert torch.allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("noise", [0.3, LearnedNoise(), HeteroscedasticNoise(center=0.2, spread=0.7)])
def test_one_component_is_the_mean_variance_network(noise: float | Noise) -> None:
    """The same likelihood, and the same prediction with f included: the weight of one component is 1 whatever its
    output. Seen to catch: the default noise for the model's, means and stds swapped, logits for log weights."""
    model = MLP(features=2, hidden=(4,), noise_std=noise)
    own = noise if isinstance(noise, HeteroscedasticNoise) else HeteroscedasticNoise(center=model.expected_noise)
    two = replace(model, noise_std=own)
    three = replace(model, noise_std=own.center).with_outputs(3)
    theta = three.sample_prior(seeded(1), (2,))
    (hidden, last) = three.weights(theta)
    same = torch.cat([part.flatten(1) for part in (*hidden, last[0][..., :2], last[1][..., :2])], 1)
    x, y = torch.randn(2, 9, 2, generator=seeded(2)), torch.randn(2, 9, generator=seeded(3))
    wanted = beta_likelihood(two, 0.0)(same, x, y)
    assert torch.allclose(log_mixture(y, *mixture_of(three, own, theta, x)), wanted, rtol=1e-4)
    found, usual = MixtureFit(three, own, theta)(x), PosteriorDraws(two, same.unsqueeze(1))(x)
    for one, other in ((found.y, usual.y), (found.f, usual.f)):
        assert torch.allclose(one.crps(y.double()), other.crps(y.double()), rtol=1e-4)
    assert torch.allclose(found.aleatoric_std, usual.aleatoric_std, rtol=1e-4) and found.draws == usual.draws == 1
    trained = MixtureDensity(components=1, steps=0).fit(model, x, y, seeded())
    assert trained.noise == own and trained.model == three


def test_the_optimum_solves_the_equations_of_expectation_maximisation() -> None:
    """Where x is 0 and there is hardly any prior, the outputs are free numbers, and an optimum has πₖ, μₖ, σₖ that are
    the averages under its own responsibilities. Seen to catch: a mean of the components' log densities in place of the
    log of their mean density, weights for their logs, logits for log weights."""
    y = torch.cat([0.3 * numbers(1, 600) - 1, 0.5 * numbers(1, 400, seed=1) + 1], 1).float()
    x = torch.zeros(1, 1000, 1)
    method = MixtureDensity(components=2, steps=2000, lr=0.1, batch=1000)
    fit = method.fit(MLP(hidden=(), prior_std=2.0, noise_std=0.4), x, y, seeded(3))
    law = fit(x).y
    weights, means, stds = (part[0, 0].numpy() for part in (law.weights, law.location, law.scale))
    targets = y[0].double().numpy()[:, None]
    each = weights * stats.norm.pdf(targets, means, stds)
    share = each / each.sum(1, keepdims=True)
    total = share.sum(0)
    assert weights.min() > 0.3 and np.allclose(weights, total / 1000, atol=2e-4)
    assert np.allclose(means, (share * targets).sum(0) / total, atol=5e-4)
    assert np.allclose(stds, np.sqrt((share * (targets - means) ** 2).sum(0) / total), atol=5e-4)


def test_the_prediction_keeps_the_promises_of_a_kind() -> None:
    """Files, choices of replicas, other units, faults. Seen to catch: the weights rescaled, the stds not, the
    shift forgotten, a scale of 0 let through, an f that has the spread of the components' means."""
    law = mixture()
    prediction = WeightedPrediction(law.log_weights, law.location, law.scale)
    assert prediction.faults(R, M) == {}
    again = WeightedPrediction.from_arrays(prediction.to_arrays())
    assert torch.equal(again.y.quantiles([0.3]), prediction.y.quantiles([0.3]))
    second = prediction.select(torch.tensor([False, True]))
    assert torch.equal(second.y.mean, prediction.y.mean[1:]) and second.f.std.eq(0).all()
    shift, scale = torch.tensor([-3.0, 100.0]), torch.tensor([0.01, 50.0])
    moved, by = prediction.rescaled(shift, scale), scale.double().view(-1, 1)
    assert torch.allclose(moved.y.mean, shift.view(-1, 1) + by * law.mean) and torch.equal(moved.f.mean, moved.y.mean)
    assert torch.allclose(moved.y.std, by * law.std) and torch.allclose(moved.aleatoric_std, by * law.std)
    zero = law.scale.clone()
    zero[1, 2, 0] = 0
    assert replace(prediction, scale=zero).faults(R, M) == {1: "a scale is not above 0"}
    assert replace(prediction, log_weights=law.log_weights + 1).faults(R, M)[0] == "the weights do not sum to 1"
    assert "not finite" in replace(prediction, location=law.location / 0).faults(R, M)[0]
    with pytest.raises(PredictionError, match=r"scale: shape \(2, 5\), expected \(R, M, K\)"):
        replace(prediction, scale=law.scale[..., 0]).faults(R, M)
    with pytest.raises(ValueError, match="components = 0: expected at least 1"):
        MixtureDensity(components=0)
