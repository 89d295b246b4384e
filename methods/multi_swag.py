"""MultiSWAG: a mixture of SWAG's normal laws, around modes found from different starts (Wilson & Izmailov 2020,
https://arxiv.org/abs/2002.08791).

    p(y | x, data) ≈ 1/members Σₘ ∫ p(y | x, θ) N(θ; θ̄ₘ, ½ diag(Σ̂ₘ) + ½ Dₘ Dₘᵀ/(K−1)) dθ

Family: ensemble.
Caveat: the distance between modes is that of an ensemble. The width around each is SWAG's, and goes with sgd_lr.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Generator, Tensor

from gapbench.methods.base import Claim
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.optimise import pooled
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.swag import SWAG


@dataclass(frozen=True)
class MultiSWAG(SWAG):
    """SWAG from several starts. draws: of each member. The other settings are those of SWAG."""

    members: int = 5
    draws: int = 40

    @property
    def exactness(self) -> Claim:
        """SWAG's law: on a linear model all members have the same."""
        claim = super().exactness
        assert isinstance(claim.method, MultiSWAG)
        return Claim(replace(claim.method, members=2, snapshots=200, draws=200), claim.law)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        # Each member is a replica of its own, on the same data.
        x, y = x.repeat_interleave(self.members, 0), y.repeat_interleave(self.members, 0)
        alone = super().fit(model, x, y, generator)
        apart = {name: one.unflatten(0, (-1, self.members)) for name, one in alone.diagnostics.items()}
        theta = alone.theta.unflatten(0, (-1, self.members)).flatten(1, 2)
        return PosteriorDraws(model, theta, diagnostics=pooled(apart))
