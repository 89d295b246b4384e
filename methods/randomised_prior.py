"""Randomised prior functions (Osband, Aslanides & Cassirer 2018, https://arxiv.org/abs/1806.03335).

    fₘ(x) = f(x; θₘ) + prior_scale · f(x; aₘ),   aₘ ~ p(θ) fixed,   θₘ = argmin on targets yₙ + σ ξₘₙ, with weight decay

Where there are no data, nothing tells the trained network to undo the fixed one. On a linear model with prior_scale = 1
and known noise the members are exact draws of the posterior.
Family: ensemble.
Caveat: prior_scale is a second width of the prior. On a network f(x; θ) + f(x; a) has a wider prior than f(x; θ).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.anchored_ensemble import randomised
from gapbench.methods.base import Claim, FittedMethod
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.optimise import negative_log_posterior
from gapbench.methods.engine.posterior_draws import mixture
from gapbench.methods.engine.predictions import MixturePrediction


@dataclass(frozen=True)
class RandomisedPrior(AdamTrained):
    """An ensemble in which a fixed random network is added to each trained one."""

    members: int = 10
    steps: int = 8_000
    lr: float = 3e-2
    prior_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.prior_scale < math.inf:
            raise ValueError(f"RandomisedPrior: prior_scale = {self.prior_scale}: expected a number of at least 0")

    @property
    def exactness(self) -> Claim:
        quick = replace(self, members=50, prior_scale=1.0, steps=400, lr=0.1, batch=20)
        return Claim(quick, lambda regression: regression.posterior)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> RandomisedFunctions:
        stack, n = (len(y), self.members), y.shape[1]
        anchors, start = model.sample_prior(generator, stack), model.init(generator, stack)
        xi = torch.randn((*stack, n), generator=generator, device=y.device)
        fixed = self.prior_scale * model.mean(anchors, x.unsqueeze(1))  # (R, members, N)

        def loss(theta: Tensor, index: Tensor) -> Tensor:
            points, added = (gather_points(x, index), gather_points(y, index)), fixed.gather(-1, index)
            likelihood = randomised(model, theta, *points, xi.gather(-1, index), added)
            return negative_log_posterior(likelihood, model.log_prior(theta), n)

        theta, diagnostics = self.train(loss, start, n, generator)
        return RandomisedFunctions(model, theta, anchors, self.prior_scale, diagnostics=diagnostics)


@dataclass(frozen=True)
class RandomisedFunctions(FittedMethod):
    """Sums of a trained and a fixed network. theta, anchors: (R, members, P)."""

    model: Model
    theta: Tensor
    anchors: Tensor
    prior_scale: float

    def __call__(self, x: Tensor) -> MixturePrediction:
        def member(theta: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
            mean, noise = self.model.mean_and_noise(theta, x)
            return mean + self.prior_scale * self.model.mean(anchor, x), noise

        return mixture(map(member, self.theta.unbind(1), self.anchors.unbind(1)))
