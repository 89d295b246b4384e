"""Cyclical SGLD (Zhang, Li, Zhang, Chen & Wilson 2020, https://arxiv.org/abs/1902.03932).

    εₖ = lr/(2n) [cos(π r) + 1],   r = the share of the cycle that is over
    θ ← θ − εₖ ∇Û(θ)                    while r < explore
    θ ← θ − εₖ ∇Û(θ) + √(2 εₖ) ξ        after that;    draws are kept here, at equal distances

Each cycle starts with large steps, which may leave a mode, and ends with small ones, which sample around the next.
Family: Markov chain.
Caveat: the law is the posterior's near each mode, as lr goes to 0; how often a mode is found is not its probability.
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


@dataclass(frozen=True)
class CyclicalSGLD(UncertaintyMethod):
    """Langevin chains whose step size falls to 0 in each of `cycles` cycles.

    lr: the first step of a cycle, times n. steps: of a cycle. explore: the share of a cycle without noise and draws.
    draws: kept from each cycle of each chain.
    """

    lr: float = 6e-4
    cycles: int = 4
    steps: int = 4_000
    explore: float = 0.8
    batch: int = 64
    draws: int = 5
    chains: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cycles < 1 or not 0 <= self.explore < 1:
            raise ValueError(
                f"CyclicalSGLD: cycles = {self.cycles}, explore = {self.explore}: expected at least 1, and a share of "
                "at least 0 and below 1"
            )

    @property
    def exactness(self) -> Claim:
        """The posterior, at a small step and with all points in each batch."""
        quick = replace(self, lr=0.1, batch=20, cycles=3, steps=1000, explore=0.1, draws=60, chains=2)
        return Claim(quick, lambda regression: regression.posterior)

    def skip(self, model: Model, x: Tensor) -> str | None:
        return too_few_points(self.batch, x.shape[1])

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        (replicas, n), stack = y.shape, (len(y), self.chains)
        theta = model.init(generator, stack)
        silent = math.ceil(self.explore * self.steps)  # steps of a cycle without noise
        keep = [silent + (draw + 1) * (self.steps - silent) // self.draws for draw in range(self.draws)]
        batches, kept = FixedSize().draw(stack, self.batch, n, generator), []
        for _ in range(self.cycles):
            for number in range(1, self.steps + 1):
                index = next(batches).index
                step = self.lr / (2 * n) * (math.cos(math.pi * (number - 1) / self.steps) + 1)
                gradient = energy_gradient(model, theta, gather_points(x, index), gather_points(y, index), n)
                theta = theta.add(gradient, alpha=-step)
                if number > silent:
                    noise = torch.randn(theta.shape, generator=generator, device=theta.device)
                    theta = theta.add(noise, alpha=math.sqrt(2 * step))
                kept += [theta] * keep.count(number)
            kept += [theta] * keep.count(0)  # of a cycle that is shorter than its draws
        evaluations = float(self.cycles * self.steps * self.batch * self.chains)
        diagnostics = {"gradient evaluations": torch.full((replicas,), evaluations, device=x.device)}
        return PosteriorDraws(model, torch.stack(kept, 2).flatten(1, 2), self.chains, diagnostics=diagnostics)
