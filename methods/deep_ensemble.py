"""Deep ensemble (Lakshminarayanan, Pritzel & Blundell 2017, https://arxiv.org/abs/1612.01474).

    θₘ = argmin −Σₙ log p(yₙ | xₙ, θ) − log p(θ),  from its own random start,  m = 1 … members
    p(y | x, data) = 1/members Σₘ p(y | x, θₘ)

Family: ensemble.
Caveat: members differ only by where they started and by their minibatches, not by any law. Where the loss has one
minimum, as on a linear model, they all agree. One member is the maximum a posteriori (MAP).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim, FittedMethod
from gapbench.methods.engine.adam_trained import AdamTrained, Likelihood, map_loss
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.optimise import pooled
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.mean_variance import beta_likelihood, with_variance


@dataclass(frozen=True)
class DeepEnsemble(AdamTrained):
    """Networks that are trained alike from different starts.

    mean_variance: each member learns a variance that depends on x, by the loss of `mean_variance` with this `beta`.
    softplus: that variance is log(1 + e^z) + 1e-6 of an output z; else it is exponential.
    own_data: the data set has members blocks of points, and each member sees its own block.
    adversarial: train also on a copy of each point, moved by this share of the inputs' ranges to where its likelihood
        is less. as_normal: predict the normal law with the mixture's mean and variance. (The paper does all three.)
    """

    members: int = 5
    mean_variance: bool = False
    beta: float = 0.5
    softplus: bool = False
    own_data: bool = False
    adversarial: float = 0.0
    as_normal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.beta <= 1 and 0 <= self.adversarial < 1):
            raise ValueError(
                f"DeepEnsemble: beta = {self.beta}, adversarial = {self.adversarial}: expected numbers in [0, 1]"
            )

    @property
    def exactness(self) -> Claim | None:
        """All members agree on a linear model, unless they learn a variance, or see their own data or adversaries."""
        if self.mean_variance or self.own_data or self.adversarial:
            return None
        return Claim(replace(self, steps=1000, lr=0.05, batch=20), lambda regression: regression.point)

    def skip(self, model: Model, x: Tensor) -> str | None:
        n = x.shape[1]
        if self.own_data and n % self.members:
            return f"own_data: {n} points cannot be shared equally by {self.members} members"
        return None

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        members = self._fit(model, x, y, generator)
        return MomentMatched(members, diagnostics=members.diagnostics) if self.as_normal else members

    def _fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        model = with_variance(model, self.softplus) if self.mean_variance else model
        if not self.own_data:
            theta, diagnostics = self._members(model, x, y, self.members, generator)
            return PosteriorDraws(model, theta, diagnostics=diagnostics)
        # One after another, whose weights stay in the cache: wide networks take half the time.
        blocks = zip(x.chunk(self.members, 1), y.chunk(self.members, 1), strict=True)
        thetas, found = zip(*(self._members(model, *block, 1, generator) for block in blocks), strict=True)
        apart = {name: torch.stack([one[name] for one in found], 1) for name in found[0]}
        return PosteriorDraws(model, torch.cat(thetas, 1), diagnostics=pooled(apart))

    def _members(
        self, model: Model, x: Tensor, y: Tensor, count: int, generator: Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The parameters of members that share their data, (R, count, P), and diagnostics."""
        n = y.shape[1]
        likelihood = beta_likelihood(model, self.beta) if self.mean_variance else None
        if self.adversarial:
            reach = self.adversarial * (x.amax(1) - x.amin(1))[:, None, None]  # (R, 1, 1, D)
            likelihood = with_adversaries(likelihood or model.log_likelihood, reach)
        loss = map_loss(model, x, y, n, likelihood)
        return self.train(loss, model.init(generator, (len(y), count)), n, generator)


def with_adversaries(likelihood: Likelihood, reach: Tensor) -> Likelihood:
    """The likelihoods of the points, and of their copies after a fast gradient sign step (Goodfellow et al. 2015,
    https://arxiv.org/abs/1412.6572). reach: the length of the step along each input, broadcasts to x (R, ..., B, D)."""

    def both(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        free = x.detach().requires_grad_()
        (uphill,) = torch.autograd.grad(likelihood(theta.detach(), free, y).sum(), free)
        copies = x - reach * uphill.sign()
        return torch.cat([likelihood(theta, x, y), likelihood(theta, copies, y)], -1)

    return both


@dataclass(frozen=True)
class MomentMatched(FittedMethod):
    """The normal law with the mean and the variance of another method's mixture."""

    inner: PosteriorDraws

    def __call__(self, x: Tensor) -> MixturePrediction:
        mixture = self.inner(x)
        mean, std, noise = (one.to(x).unsqueeze(1) for one in (mixture.f.mean, mixture.f.std, mixture.aleatoric_std))
        return MixturePrediction(mean, std, noise)
