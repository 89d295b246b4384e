"""Metropolis-adjusted microcanonical sampler (MAMS; Robnik, Cohn-Gordon & Seljak 2025).

    trajectory   u uniform on the sphere, then n steps B(ε/2) A(ε) B(ε/2) of engine/microcanonical.py
    accept       with probability min(1, exp(−Δ)),  Δ the change of U + K over the trajectory

https://arxiv.org/abs/2503.01707
Family: Markov chain.
Caveat: exact only for the part of the posterior that its chains have reached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim
from gapbench.methods.engine.adjusted import AdjustedSampler, longest
from gapbench.methods.engine.microcanonical import direction, move
from gapbench.methods.engine.target import Point, Target


@dataclass(frozen=True)
class MAMS(AdjustedSampler):
    """Microcanonical trajectories. The speed of a coordinate is 1 in the root mean square, as in HMC, so that lengths
    and steps of both mean the same. Fields: as in AdjustedSampler."""

    trajectory: float = 0.3
    acceptance: float = 0.8
    burn_in: int = 100
    draws: int = 50
    thin: int = 1
    chains: int = 4
    collapse: bool = True

    @property
    def exactness(self) -> Claim:
        quick = replace(self, trajectory=1.0, burn_in=50, draws=100, thin=1, chains=4, max_steps=1000, collapse=False)
        return Claim(quick, lambda regression: regression.posterior)

    def propose(
        self, target: Target, point: Point, x: Tensor, y: Tensor, step: Tensor, steps: Tensor, generator: Generator
    ) -> tuple[Point, Tensor, Tensor]:
        u, begin = direction(point.q, generator), point.energy
        total, speed = torch.zeros_like(begin), math.sqrt(target.size)
        for number in range(longest(steps)):
            point, u, change = move(target, point, u, step * speed * (number < steps), x, y)
            total += change
        return point, begin, total
