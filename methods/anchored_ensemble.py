"""Anchored ensemble (Pearce, Leibfried & Brintrup 2020, https://arxiv.org/abs/1810.05546).

    θₘ = argmin Σₙ (yₙ + σ ξₘₙ − f(xₙ; θ))² / (2σ²) + ‖θ − aₘ‖² / (2 prior_std²),   aₘ ~ p(θ),  ξₘₙ ~ N(0, 1)

Each member is drawn to an anchor of its own, and sees targets with noise of its own. On a linear model with known noise
the members are exact draws of the posterior. With the anchors alone their covariance would be
Λ⁻¹S₀⁻¹Λ⁻¹, far too small.
Family: ensemble.
Caveat: on a network a member is the nearest mode to its start, and no exact draw.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model, log_density
from gapbench.methods.engine.noise import Noise
from gapbench.methods.engine.optimise import negative_log_posterior
from gapbench.methods.engine.posterior_draws import PosteriorDraws


@dataclass(frozen=True)
class AnchoredEnsemble(AdamTrained):
    """Maxima of a posterior whose prior mean and targets are redrawn for each member."""

    members: int = 10
    steps: int = 5_000
    lr: float = 3e-2

    @property
    def exactness(self) -> Claim:
        quick = replace(self, members=50, steps=400, lr=0.1, batch=20)
        return Claim(quick, lambda regression: regression.posterior)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        stack, n = (len(y), self.members), y.shape[1]
        anchors = model.sample_prior(generator, stack)
        xi = torch.randn((*stack, n), generator=generator, device=y.device)

        def loss(theta: Tensor, index: Tensor) -> Tensor:
            points = gather_points(x, index), gather_points(y, index)
            likelihood = randomised(model, theta, *points, xi.gather(-1, index))
            return negative_log_posterior(likelihood, model.log_prior(theta - anchors), n)

        theta, diagnostics = self.train(loss, anchors, n, generator)
        return PosteriorDraws(model, theta, diagnostics=diagnostics)


def randomised(model: Model, theta: Tensor, x: Tensor, y: Tensor, xi: Tensor, added: Tensor | float = 0.0) -> Tensor:
    """The log likelihood of the targets y + σξ under f + added.

    If σ is learned, the targets move the mean alone, and y itself moves σ: it would grow without end if it had to
    explain the noise that it adds.
    """
    if not isinstance(model.noise_std, Noise):
        return model.training_log_likelihood(theta, x, y + model.noise_std * xi - added)
    mean, noise = model.mean_and_noise(theta, x)
    mean, fixed = mean + added, noise.detach()
    return log_density(y + fixed * xi, mean, fixed) + log_density(y, mean.detach(), noise)
