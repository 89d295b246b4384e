"""Deep ensemble (Lakshminarayanan, Pritzel & Blundell 2017, https://arxiv.org/abs/1612.01474).

    θₘ = argmin −Σₙ log p(yₙ | xₙ, θ) − log p(θ),  from its own random start,  m = 1 … members
    p(y | x, data) = 1/members Σₘ p(y | x, θₘ)

Caveat: members differ only by where they started and by their minibatches, not by any law. Where the loss has one
minimum, as on a linear model, they all agree. One member is the maximum a posteriori (MAP).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim
from gapbench.methods.engine.adam_trained import AdamTrained, map_loss
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.mean_variance import beta_nll, with_variance


@dataclass(frozen=True)
class DeepEnsemble(AdamTrained):
    """Networks that are trained alike from different starts.

    mean_variance: each member learns a variance that depends on x, by the loss of `mean_variance` with this `beta`.
    own_data: the data set has members blocks of points, and each member sees its own block.
    """

    members: int = 5
    mean_variance: bool = False
    beta: float = 0.5
    own_data: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise ValueError(f"DeepEnsemble: beta = {self.beta}: expected a number in [0, 1]")

    @property
    def exactness(self) -> Claim | None:
        """All members agree on a linear model; no claim with a learned variance or with data of their own."""
        if self.mean_variance or self.own_data:
            return None
        return Claim(replace(self, steps=1000, lr=0.05, batch=20), lambda regression: regression.point)

    def skip(self, model: Model, x: Tensor) -> str | None:
        n = x.shape[1]
        if self.own_data and n % self.members:
            return f"own_data: {n} points cannot be shared equally by {self.members} members"
        return None

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        model = with_variance(model) if self.mean_variance else model
        if not self.own_data:
            theta, diagnostics = self._members(model, x, y, self.members, generator)
            return PosteriorDraws(model, theta, diagnostics=diagnostics)
        # One after another, whose weights stay in the cache: wide networks take half the time.
        blocks = zip(x.chunk(self.members, 1), y.chunk(self.members, 1), strict=True)
        thetas, found = zip(*(self._members(model, *block, 1, generator) for block in blocks), strict=True)
        diagnostics = {name: torch.stack([one[name] for one in found]).mean(0) for name in found[0]}
        diagnostics["gradient evaluations"] *= self.members
        if "loss fall error" in diagnostics:  # the standard error of the mean of independent falls
            errors = torch.stack([one["loss fall error"] for one in found])
            diagnostics["loss fall error"] = errors.square().sum(0).sqrt() / self.members
        return PosteriorDraws(model, torch.cat(thetas, 1), diagnostics=diagnostics)

    def _members(
        self, model: Model, x: Tensor, y: Tensor, count: int, generator: Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The parameters of members that share their data, (R, count, P), and diagnostics."""
        n = y.shape[1]
        loss = beta_nll(model, x, y, n, self.beta) if self.mean_variance else map_loss(model, x, y, n)
        return self.train(loss, model.init(generator, (len(y), count)), n, generator)
