"""Private SVI and private MC dropout: gradients, sensitivity and ε. Their limits are in test_contract.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from opacus.accountants import PRVAccountant
from torch import Generator, Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import softplus

from gapbench.methods.engine.dp_sgd import StackedDPOptimizer
from gapbench.methods.engine.dp_trained import PrivatelyTrained
from gapbench.methods.engine.gradients import FullGradients
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import LearnedNoise
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.private_mc_dropout import PrivateMCDropout
from gapbench.methods.private_svi import PrivateSVI
from gapbench.methods.sgld import SGLD
from gapbench.runners.suites import suites

Gradients = Callable[[Tensor, Tensor], FullGradients]
MODEL = MLP(features=2, hidden=(4, 3), noise_std=LearnedNoise())
INDEX = torch.tensor([[[0, 5, 3]], [[7, 2, 2]]])  # (R, 1, B)


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def data(n: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(2, n, 2, generator=seeded(1)), torch.randn(2, n, generator=seeded(2))


def what_it_trains_on(cls: type[PrivatelyTrained]) -> tuple[Gradients, Callable[[Tensor], Tensor], Tensor, Generator]:
    """The gradients of the points and those without data, the start (R, 1, P), and the generator they draw from."""
    caught: dict[str, Any] = {}

    class Caught(cls):  # type: ignore[misc, valid-type]
        def train(self, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
            caught["all"] = arguments
            return arguments[0], {}

    Caught().fit(MODEL, *data(), seeded(3))
    start, gradients, without_data, _, generator = caught["all"]
    return gradients, without_data, start.unsqueeze(1), generator


def test_every_point_has_the_gradient_of_its_own_elbo() -> None:
    """By loc and raw, with a draw of θ of its own, by autograd. Seen to catch: one draw for a batch, raw taken for the
    scale, the other sign, the likelihood scaled to all points before the clip."""
    x, y = data()
    gradients, without_data, start, generator = what_it_trains_on(PrivateSVI)
    state = generator.get_state()
    found = gradients(start, INDEX).values
    xi = torch.randn((2, 1, 3, MODEL.size), generator=generator.set_state(state))
    for r in range(2):
        for b, point in enumerate(INDEX[r, 0]):
            both = start[r, 0].clone().requires_grad_()
            loc, raw = both.chunk(2)
            theta = loc + softplus(raw) * xi[r, 0, b]
            loss = -MODEL.log_likelihood(theta, x[r, point].view(1, 2), y[r, point].view(1)).sum()
            torch.testing.assert_close(found[r, 0, b], torch.autograd.grad(loss, both)[0], rtol=1e-4, atol=1e-4)
    both = start.clone().requires_grad_()
    loc, raw = both.chunk(2, -1)
    divergence = kl_divergence(Normal(loc, softplus(raw)), Normal(0.0, MODEL.prior_std)).sum()
    torch.testing.assert_close(without_data(start), torch.autograd.grad(divergence, both)[0], rtol=1e-4, atol=1e-4)


def test_every_point_has_the_gradient_under_its_own_mask() -> None:
    """By autograd. Seen to catch: one mask for a batch, masks that are not divided by 1 − rate, no weight decay."""
    x, y = data()
    gradients, without_data, start, generator = what_it_trains_on(PrivateMCDropout)
    state = generator.get_state()
    found = gradients(start, INDEX).values
    masks = MCDropout(rate=PrivateMCDropout().rate).draw(MODEL, INDEX.shape, generator.set_state(state))
    for r in range(2):
        for b, point in enumerate(INDEX[r, 0]):
            theta, own = start[r, 0].clone().requires_grad_(), [mask[r, 0, b] for mask in masks]
            points = x[r, point].view(1, 2), y[r, point].view(1)
            loss = -MODEL.log_likelihood(theta, *points, lambda h, layer, own=own: h * own[layer]).sum()
            torch.testing.assert_close(found[r, 0, b], torch.autograd.grad(loss, theta)[0], rtol=1e-4, atol=1e-4)
    theta = start.clone().requires_grad_()
    (decay,) = torch.autograd.grad(-MODEL.log_prior(theta).sum(), theta)
    torch.testing.assert_close(without_data(start), decay)


def test_a_step_is_adams_on_clipped_gradients_with_noise() -> None:
    """The first step of Adam is lr · g/(|g| + 1e-8): its g, by hand, is (1/b)(Σ clip(gᵢ) + σCξ) + ∇r/n. Seen to catch:
    noise that is not multiplied by C, noise of the batch's mean, ∇r that is not divided by n, clips of one another."""
    gradients, _, start, _ = what_it_trains_on(PrivateMCDropout)
    values = 30 * gradients(start, INDEX).values
    theta = start.clone().requires_grad_()
    settings = {"noise_multiplier": 0.5, "max_grad_norm": 2.0, "expected_batch_size": 4}
    optimizer = StackedDPOptimizer(torch.optim.SGD([theta], lr=1.0), generator=seeded(5), **settings)
    optimizer.step(FullGradients(values), None, 0.1 * start)
    norms = values.norm(dim=-1, keepdim=True)
    assert (norms > 2.0).float().mean() > 0
    noise = torch.empty_like(start).normal_(0, 1.0, generator=seeded(5))
    by_hand = ((values * (2.0 / norms).clamp(max=1)).sum(-2) + noise) / 4 + 0.1 * start
    torch.testing.assert_close(theta.detach(), start - by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", [PrivateSVI, PrivateMCDropout])
def test_a_point_moves_the_sum_by_the_clipping_norm_at_most(cls: type[PrivatelyTrained]) -> None:
    """A target a million away, in and out of the batch: what the privacy rests on. Seen to catch: a clip of each layer,
    of loc and raw apart, of the batch's mean."""
    gradients, _, start, _ = what_it_trains_on(cls)
    values = gradients(start, INDEX).values
    values[:, :, 0] *= 1e6
    theta = start.clone().requires_grad_()
    sgd = torch.optim.SGD([theta], lr=1.0)
    optimizer = StackedDPOptimizer(sgd, noise_multiplier=1e-12, max_grad_norm=2.0, expected_batch_size=1)
    sums = []
    for present in (torch.ones(2, 1, 3), torch.tensor([0.0, 1.0, 1.0]).expand(2, 1, 3)):
        factors = optimizer.clip(FullGradients(values), present)
        assert factors is not None
        sums.append((factors.unsqueeze(-1) * values).sum(-2))
    moved = (sums[0] - sums[1]).norm(dim=-1)
    assert ((moved > 1.99) & (moved < 2.0001)).all()


def test_its_epsilon_is_that_of_opacus_and_of_private_sgld() -> None:
    """As many noisy steps at the same rate promise the same. Seen to catch: δ, rate or steps left out, an ε of a batch
    of another size."""
    accountant = PRVAccountant()
    accountant.history = [(1.0, 8 / 200, 6400)]
    private = suites()["default"].methods["sgld_private"]
    assert isinstance(private, SGLD)
    for method in (PrivateSVI(), PrivateMCDropout()):
        epsilon = method.epsilon(200)
        assert epsilon == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-6)
        assert epsilon == pytest.approx(private.epsilon(200), rel=1e-6)
    assert PrivateSVI(noise_multiplier=0.05).epsilon(200) == math.inf
    x, y = data(20)
    diagnostics = PrivateSVI(steps=3, draws=2).fit(MODEL, x, y, seeded()).diagnostics
    assert diagnostics["epsilon"].tolist() == pytest.approx([PrivateSVI(steps=3).epsilon(20)] * 2)
    assert (diagnostics["clipping norm"] == 10).all() and diagnostics["clipped fraction"].max() <= 1


def test_gradient_evaluations_count_the_points_of_poisson_batches() -> None:
    """Eight of twenty on average. Seen to catch: the padding counted too."""
    x, y = data(20)
    counted = PrivateMCDropout(steps=200, draws=1).fit(MODEL, x, y, seeded()).diagnostics["gradient evaluations"]
    assert ((counted / 1600 - 1).abs() < 5 * math.sqrt(0.6 / 1600)).all()


@pytest.mark.parametrize("cls", [PrivateSVI, PrivateMCDropout])
@pytest.mark.parametrize("name", ["noise_multiplier", "max_grad_norm", "delta"])
def test_a_setting_that_cannot_work_is_named(cls: type[PrivatelyTrained], name: str) -> None:
    with pytest.raises(ValueError, match=f"{cls.__name__}: .*{name} = 0"):
        cls(**{name: 0.0})  # type: ignore[arg-type]
