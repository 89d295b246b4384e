"""Stochastic gradient Hamiltonian Monte Carlo (Chen, Fox & Guestrin 2014, https://arxiv.org/abs/1402.4102).

    v ← (1 − friction) v − lr/n ∇Û(θ) + √(2 friction lr/n) ξ,   θ ← θ + v,   ∇Û = n/b Σᵢ gᵢ + θ/prior_std²

This is the paper's form with the learning rate η = lr/n and α = friction. Its estimate of the gradient's noise is 0.
Family: Markov chain.
Caveat: the law is the posterior's only as lr goes to 0. The noise of minibatches makes it wider.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim, UncertaintyMethod
from gapbench.methods.engine.gradients import energy_gradient
from gapbench.methods.engine.minibatches import FixedSize, gather_points, too_few_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.engine.stationary_law import underdamped_law


@dataclass(frozen=True)
class SGHMC(UncertaintyMethod):
    """Underdamped Langevin chains with minibatch gradients.

    lr: step η·n. friction: α, the share of the velocity that a step takes away. burn_in, thin: numbers of steps.
    """

    lr: float = 1e-4
    friction: float = 0.05
    batch: int = 100
    burn_in: int = 2_500
    draws: int = 10
    thin: int = 150
    chains: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.friction < 1:
            raise ValueError(f"SGHMC: friction = {self.friction}: expected a number between 0 and 1")

    @property
    def steps(self) -> int:
        return self.burn_in + self.draws * self.thin

    @property
    def exactness(self) -> Claim:
        """The stationary law at a large step, from the linear equation of the covariance of (θ, v)."""
        quick = replace(self, lr=0.5, friction=0.2, batch=5, burn_in=300, draws=500, thin=6, chains=1)
        return Claim(quick, lambda regression: underdamped_law(regression, quick.lr, quick.friction, quick.batch))

    def skip(self, model: Model, x: Tensor) -> str | None:
        return too_few_points(self.batch, x.shape[1])

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        (replicas, n), stack = y.shape, (len(y), self.chains)
        theta = model.init(generator, stack)
        v, step = torch.zeros_like(theta), self.lr / n
        kept = theta.new_empty(*stack, self.draws, model.size)
        batches = FixedSize().draw(stack, self.batch, n, generator)
        for number in range(1, self.steps + 1):
            index = next(batches).index
            gradient = energy_gradient(model, theta, gather_points(x, index), gather_points(y, index), n)
            noise = torch.randn(theta.shape, generator=generator, device=theta.device)
            v.mul_(1 - self.friction).sub_(gradient, alpha=step).add_(noise, alpha=math.sqrt(2 * self.friction * step))
            theta = theta + v
            past, rest = divmod(number - self.burn_in, self.thin)
            if past > 0 and rest == 0:
                kept[:, :, past - 1] = theta
        evaluations = torch.full((replicas,), float(self.steps * self.batch * self.chains), device=theta.device)
        return PosteriorDraws(model, kept.flatten(1, 2), self.chains, diagnostics={"gradient evaluations": evaluations})
