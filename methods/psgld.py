"""Preconditioned SGLD (Li, Chen, Carlson & Carin 2016, https://arxiv.org/abs/1512.07666), its preconditioner frozen
after burn-in.

    θ ← θ − ε G ∇Û(θ) + √(2 ε G) ξ,   ε = lr/n,   ∇Û = n/b Σᵢ gᵢ + θ/prior_std²
    V ← memory V + (1 − memory) (∇Û/n)²,   G = 1/(floor + √(V/(1 − memoryᵗ))),      in burn-in alone

A G that moves with θ needs the drift Γᵢ = Σⱼ ∂Gᵢⱼ/∂θⱼ, which the paper's algorithm neglects. Without Γ the law is wrong
at any step size. A constant G has no Γ.
Family: Markov chain.
Caveat: as of `sgld`, the law is the posterior's as lr goes to 0. G is the scale of gradients, which is not that of the
posterior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim, UncertaintyMethod
from gapbench.methods.engine.gradients import energy_gradient
from gapbench.methods.engine.minibatches import FixedSize, gather_points, too_few_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws


@dataclass(frozen=True)
class PSGLD(UncertaintyMethod):
    """Langevin chains with a step of its own for each parameter.

    lr: step ε·n, in units of 1/G. memory, floor: of the preconditioner. A parameter without gradients in burn-in has
    the step ε/floor: where the floor is small, it diverges as soon as it has some. burn_in, thin: numbers of steps.
    """

    lr: float = 2e-4
    memory: float = 0.99
    floor: float = 0.1
    batch: int = 64
    burn_in: int = 7_000
    draws: int = 10
    thin: int = 280
    chains: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.memory < 1 and self.floor > 0 and self.burn_in > 0):
            raise ValueError(
                f"PSGLD: memory = {self.memory}, floor = {self.floor}, burn_in = {self.burn_in}: expected a share "
                "below 1, a positive number and at least 1 step, which learns the preconditioner"
            )

    @property
    def steps(self) -> int:
        return self.burn_in + self.draws * self.thin

    @property
    def exactness(self) -> Claim:
        """The posterior, at a small step and with all points in each batch."""
        quick = replace(self, lr=0.02, batch=20, burn_in=400, draws=200, thin=10, chains=2)
        return Claim(quick, lambda regression: regression.posterior)

    def skip(self, model: Model, x: Tensor) -> str | None:
        return too_few_points(self.batch, x.shape[1])

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        (replicas, n), stack = y.shape, (len(y), self.chains)
        theta = model.init(generator, stack)
        squares, step = torch.zeros_like(theta), self.lr / n
        kept = theta.new_empty(*stack, self.draws, model.size)
        batches = FixedSize().draw(stack, self.batch, n, generator)
        for number in range(1, self.steps + 1):
            index = next(batches).index
            gradient = energy_gradient(model, theta, gather_points(x, index), gather_points(y, index), n)
            if number <= self.burn_in:
                squares.mul_(self.memory).addcmul_(gradient, gradient, value=(1 - self.memory) / n**2)
                speed = step / (self.floor + (squares / (1 - self.memory**number)).sqrt())  # ε G
            noise = torch.randn(theta.shape, generator=generator, device=theta.device)
            theta = theta - speed * gradient + (2 * speed).sqrt() * noise
            past, rest = divmod(number - self.burn_in, self.thin)
            if past > 0 and rest == 0:
                kept[:, :, past - 1] = theta
        evaluations = torch.full((replicas,), float(self.steps * self.batch * self.chains), device=theta.device)
        return PosteriorDraws(model, kept.flatten(1, 2), self.chains, diagnostics={"gradient evaluations": evaluations})
