"""Ensembles: their limits, their randomised targets, and the loss of the mean-variance network. Their laws on linear
regression are tested with those of all methods (test_contract.py)."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from gapbench.methods.anchored_ensemble import AnchoredEnsemble
from gapbench.methods.deep_ensemble import DeepEnsemble, with_adversaries
from gapbench.methods.engine.adam_trained import map_loss
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.mean_variance import MeanVariance, beta_likelihood, with_variance
from gapbench.methods.randomised_prior import RandomisedPrior
from gapbench.methods.repulsive_ensemble import RepulsiveEnsemble, crowding
from gapbench.methods.svgd import SVGD

MODEL = MLP(hidden=(6,), noise_std=0.3)


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def data(n: int = 24, replicas: int = 2) -> tuple[Tensor, Tensor]:
    x = torch.randn(replicas, n, 1, generator=seeded(1))
    return x, x.squeeze(-1).sin()


def test_one_member_is_the_map() -> None:
    """And so is dropout that drops nothing, from the same random numbers. Seen to catch: the prior forgotten in
    `map_loss`, the likelihood of a batch not scaled to n."""
    x, y = data()
    one = DeepEnsemble(members=1, steps=60, lr=0.03, batch=8).fit(MODEL, x, y, seeded())(x)
    dropout = MCDropout(rate=0.0, steps=60, lr=0.03, batch=8, draws=1).fit(MODEL, x, y, seeded())(x)
    assert torch.allclose(one.location, dropout.location, atol=1e-4)


def test_a_member_sees_its_own_block() -> None:
    """Other targets in the second block change the second member alone. Seen to catch: blocks that overlap, every
    member on the first block."""
    x, y = data()
    ensemble = DeepEnsemble(members=3, steps=20, batch=4, own_data=True)
    changed = y.clone()
    changed[:, 8:16] += 1
    before, after = (ensemble.fit(MODEL, x, targets, seeded())(x).location for targets in (y, changed))
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]]) and not torch.allclose(before[:, 1], after[:, 1])
    assert "shared equally by 5 members" in str(replace(ensemble, members=5).skip(MODEL, x))


def test_the_error_of_a_mean_of_members() -> None:
    """Members with data of their own fall independently: four have half the error of one, about. Seen to catch: the
    mean of their errors."""
    x, y = data()
    x, y = x[:, :1].expand(-1, 64, -1).contiguous(), torch.randn(x.shape[0], 64, generator=seeded(5))
    errors = [
        DeepEnsemble(members=members, steps=400, batch=4, own_data=True)
        .fit(MODEL, x[:, : 16 * members], y[:, : 16 * members], seeded())
        .diagnostics["loss fall error"]
        .mean()
        for members in (1, 4)
    ]
    assert 0.3 < errors[1] / errors[0] < 0.75


@pytest.mark.parametrize("cls", [AnchoredEnsemble, RandomisedPrior])
def test_a_learned_noise_does_not_explain_the_noise_that_was_added(cls: type) -> None:
    """On 400 points of a line with noise 0.3. With one likelihood of the redrawn targets σ grows without end. Seen to
    catch: exactly that."""
    x = torch.randn(1, 400, 1, generator=seeded(2))
    y = x.squeeze(-1) + 0.3 * torch.randn(1, 400, generator=seeded(3))
    model = MLP(hidden=(), noise_std=LearnedNoise(center=1.0))
    noise = cls(members=4, steps=600, lr=0.05, batch=400).fit(model, x, y, seeded())(x[:, :1]).noise_std
    assert noise.shape == (1, 4, 1) and torch.allclose(noise, torch.tensor(0.3), rtol=0.15)


def test_randomised_functions_keep_their_fixed_part() -> None:
    """Without training, f is the start plus prior_scale times the fixed network. Seen to catch: prior_scale left out of
    the prediction, of the training."""
    x, y = data()
    parts = {}
    for scale in (0.0, 1.0, 3.0):
        fit = RandomisedPrior(members=2, prior_scale=scale, steps=0).fit(MODEL, x, y, seeded())
        parts[scale] = fit(x).location
        assert torch.allclose(
            parts[scale][:, 0], MODEL.mean(fit.theta[:, 0], x) + scale * MODEL.mean(fit.anchors[:, 0], x)
        )
    assert torch.allclose(parts[3.0] - parts[0.0], 3 * (parts[1.0] - parts[0.0]), atol=1e-5)
    trained = RandomisedPrior(members=2, prior_scale=3.0, steps=1500, lr=0.02).fit(MODEL, x, y, seeded())(x).location
    assert (trained.mean(1) - y).abs().mean() < 0.3  # the trained part undoes the fixed one at the data


def test_beta_nll_at_1_has_the_gradient_of_the_squared_error() -> None:
    """By the mean, whatever σ is; at β = 0 it is the likelihood's. Seen to catch: σ² not detached, β not doubled."""
    model = with_variance(MODEL)
    assert model.noise_std == HeteroscedasticNoise(center=0.3)
    x, y = data()
    theta = model.sample_prior(seeded(4), (2,)).requires_grad_()
    index = torch.arange(24).expand(2, 24)
    mean, _ = model.mean_and_noise(theta, x)
    error = 0.5 * ((y - mean) / 0.3).square().sum() - model.log_prior(theta).sum()

    def of_f(loss: Tensor) -> Tensor:
        """The gradient by the bias of the output f, the last but one entry of θ."""
        return torch.autograd.grad(loss, theta, retain_graph=True)[0][:, -2]

    def beta_nll(beta: float) -> Tensor:
        return map_loss(model, x, y, y.shape[1], beta_likelihood(model, beta))(theta, index).sum()

    assert torch.allclose(of_f(beta_nll(1.0)), of_f(error), rtol=1e-4)
    likelihood = -(model.log_likelihood(theta, x, y).sum() + model.log_prior(theta).sum())
    assert torch.allclose(beta_nll(0.0), likelihood, rtol=1e-5)


def test_adversaries_are_moved_to_where_the_likelihood_is_less() -> None:
    """On a line f = w x + b an adversary is at x − reach·sign of the slope of log p, which has a closed form; a data
    point and its adversary count alike. Seen to catch: uphill, a step that does not follow the range, half of them."""
    model = MLP(features=2, hidden=(), noise_std=0.5)
    x, theta = torch.randn(3, 2, 24, 2, generator=seeded(6)), torch.randn(3, 2, 3, generator=seeded(7))
    y = torch.randn(3, 2, 24, generator=seeded(8))
    reach = 0.1 * torch.rand(3, 1, 1, 2, generator=seeded(9))
    found = with_adversaries(model.log_likelihood, reach)(theta, x, y)
    slope = ((y - model.mean(theta, x)) / 0.25).unsqueeze(-1) * theta[..., None, :2]
    moved = model.log_likelihood(theta, x - reach * slope.sign(), y)
    assert torch.allclose(found, torch.cat([model.log_likelihood(theta, x, y), moved], -1), rtol=1e-4, atol=1e-5)
    assert (moved < model.log_likelihood(theta, x, y)).double().mean() > 0.95

    x, y = data()
    quick = DeepEnsemble(members=2, steps=50, batch=8, mean_variance=True)
    plain, hardened = (replace(quick, adversarial=size).fit(MODEL, x, y, seeded())(x) for size in (0.0, 0.05))
    assert not torch.allclose(plain.location, hardened.location)


def test_the_variance_of_the_paper() -> None:
    """σ² = log(1 + e^z) + 1e-6 of the second output, whatever noise the model knows. Seen to catch: a std for a
    variance."""
    x, y = data()
    fitted = DeepEnsemble(members=2, steps=5, mean_variance=True, softplus=True).fit(MODEL, x, y, seeded())
    assert isinstance(fitted, PosteriorDraws)
    z = torch.stack([fitted.model.network(theta, x)[..., 1] for theta in fitted.theta.unbind(1)], 1)
    assert torch.allclose(fitted(x).noise_std.square(), (1 + z.exp()).log() + 1e-6, rtol=1e-4)


def test_as_normal_has_the_moments_of_the_mixture() -> None:
    """Of y and of f, in one component. Seen to catch: the mean of stds, the noise counted twice."""
    x, y = data()
    mixture, normal = (
        DeepEnsemble(members=4, steps=30, batch=8, mean_variance=True, as_normal=one).fit(MODEL, x, y, seeded())(x)
        for one in (False, True)
    )
    assert normal.location.shape == (2, 1, 24) and mixture.location.shape == (2, 4, 24)
    for one, other in ((normal.y, mixture.y), (normal.f, mixture.f)):
        assert torch.allclose(one.mean, other.mean, atol=1e-5) and torch.allclose(one.std, other.std, rtol=1e-4)


def test_the_mean_variance_network_learns_the_variance() -> None:
    """0.1 on the left and 0.5 on the right, although the model says 0.3. Seen to catch: the model's own noise kept."""
    x = torch.rand(1, 600, 1, generator=seeded(5)) * 2 - 1
    y = (0.1 + 0.4 * (x > 0)).squeeze(-1) * torch.randn(1, 600, generator=seeded(6))
    fit = MeanVariance(steps=2000, lr=0.01).fit(MLP(hidden=(20,), noise_std=0.3), x, y, seeded())
    left, right = fit(torch.tensor([[[-0.6], [0.6]]])).noise_std.flatten().tolist()
    assert abs(left - 0.1) < 0.04 and abs(right - 0.5) < 0.12


def test_particles_move_along_steins_direction() -> None:
    """φ of both kernels, with the derivative of the kernel by autograd and the median by hand. Seen to catch: particles
    that attract each other, the median of distances and not of their squares, no mean over particles, distances of
    particles to themselves in the median."""
    for kernel, count in (("rbf", 5), ("linear", 5), ("rbf", 2)):
        theta = torch.randn(2, count, 3, generator=seeded(0), dtype=torch.float64)
        uphill = torch.randn(2, count, 3, generator=seeded(1), dtype=torch.float64)
        found = SVGD(kernel=kernel).phi(theta, uphill)  # type: ignore[arg-type]
        for r in range(2):
            pairs = torch.stack([(a - b).square().sum() for a, b in itertools.combinations(theta[r], 2)])
            width = pairs.median() / math.log(count + 1)

            def k(one: Tensor, other: Tensor, width: Tensor = width, kernel: str = kernel) -> Tensor:
                return (-(one - other).square().sum() / width).exp() if kernel == "rbf" else one @ other + 1

            for i in range(count):
                terms = [
                    k(theta[r, j], theta[r, i]) * uphill[r, j] + torch.func.grad(k)(theta[r, j], theta[r, i])
                    for j in range(count)
                ]
                torch.testing.assert_close(found[r, i], torch.stack(terms).mean(0))


def test_one_particle_is_the_map() -> None:
    """Nothing repels it."""
    x = torch.randn(2, 12, 1, generator=seeded(1))
    y, model = x.squeeze(-1).sin(), MLP(hidden=(5,))
    alone, member = (
        method.fit(model, x, y, seeded(0)).theta  # type: ignore[attr-defined]
        for method in (SVGD(particles=1, steps=50, lr=0.1), DeepEnsemble(members=1, steps=50, lr=0.1))
    )
    torch.testing.assert_close(alone, member, rtol=1e-4, atol=1e-5)


def test_functions_are_repelled_along_the_gradient_of_their_density() -> None:
    """∇ log Σⱼ k(fᵢ, fⱼ) by fᵢ, by autograd, with the median by hand. Seen to catch: functions that attract each other,
    no division by the sum, the gradient by fⱼ too, distances of members to themselves in the median."""
    for count in (5, 2):
        f = torch.randn(2, count, 4, generator=seeded(0), dtype=torch.float64)
        found = crowding(f)
        for r in range(2):
            pairs = torch.stack([(a - b).square().sum() for a, b in itertools.combinations(f[r], 2)])
            width = pairs.median() / math.log(count + 1)
            for i in range(count):
                own = f[r, i].clone().requires_grad_()
                density = (-(own - f[r]).square().sum(-1) / width).exp().sum().log()
                torch.testing.assert_close(found[r, i], torch.autograd.grad(density, own)[0])


def test_a_repulsive_ensemble_spreads_in_a_gap() -> None:
    """Between two clusters its std is larger than that of members that do not know each other. Seen to catch: repulsion
    at the training points alone, with the other sign."""
    x = torch.cat([torch.rand(2, 10, 1, generator=seeded(1)) - 2.5, torch.rand(2, 10, 1, generator=seeded(2)) + 1.5], 1)
    y, model = x.squeeze(-1).sin(), MLP(hidden=(20,))
    middle = torch.linspace(-1, 1, 9).view(1, -1, 1).expand(2, -1, -1)
    spread = [
        method.fit(model, x, y, seeded(0))(middle).f.std.mean()  # type: ignore[attr-defined]
        for method in (RepulsiveEnsemble(members=5, steps=800), DeepEnsemble(members=5, steps=800))
    ]
    assert spread[0] > 1.15 * spread[1]
