"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011).

    H(q, p) = U(q) + ½‖p‖²,    U = −log posterior density
    leapfrog   p ← p − ½ε ∇U(q),   q ← q + ε p,   p ← p − ½ε ∇U(q)
    accept     with probability min(1, exp(H(q, p) − H(q′, p′)))

https://arxiv.org/abs/1206.1901
Family: Markov chain.
Caveat: exact only for the part of the posterior that its chains have reached. A draw costs about a thousand gradients
of all data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim
from gapbench.methods.engine.adjusted import AdjustedSampler, Trace, longest
from gapbench.methods.engine.target import Point, Target


@dataclass(frozen=True)
class HMC(AdjustedSampler):
    """Trajectories of Newton's equations, with identity mass. A trajectory of π/2 is a quarter turn for a Gaussian of
    the prior's width. Other fields: as in AdjustedSampler."""

    @property
    def exactness(self) -> Claim:
        quick = replace(self, burn_in=50, draws=50, thin=1, chains=4, max_steps=1000, collapse=False)
        return Claim(quick, lambda regression: regression.posterior)

    def propose(
        self, target: Target, point: Point, x: Tensor, y: Tensor, step: Tensor, steps: Tensor, generator: Generator
    ) -> tuple[Point, Tensor, Tensor]:
        momentum = torch.empty_like(point.q).normal_(generator=generator)
        start = point.energy + kinetic(momentum, point)
        end, momentum = leapfrog(target, point, momentum, x, y, step, steps)
        return end, start, end.energy + kinetic(momentum, end) - start

    def diagnostics(self, trace: Trace) -> dict[str, Tensor]:
        """Those of AdjustedSampler, and E-BFMI, the smallest over chains, (R,).

        E-BFMI: Betancourt 2016, https://arxiv.org/abs/1604.00695. Below 0.3 the momenta explore energies too slowly.
        """
        change = trace.energy.diff(dim=-1).square().sum(-1)
        spread = (trace.energy - trace.energy.mean(-1, keepdim=True)).square().sum(-1)
        return {**super().diagnostics(trace), "E-BFMI": (change / spread).amin(1)}


def kinetic(momentum: Tensor, point: Point) -> Tensor:
    """The kinetic energy ½‖p‖², (...), in the float of U: acceptance needs differences of large sums."""
    return 0.5 * momentum.to(point.energy).square().sum(-1)


def leapfrog(
    target: Target, point: Point, momentum: Tensor, x: Tensor, y: Tensor, step: Tensor, steps: Tensor
) -> tuple[Point, Tensor]:
    """The point and the momentum at the trajectory's end. momentum: (R, chains, size); x, y: as `Target` takes them.

    step, steps: (R, chains), the size and the number of the steps of each chain.
    """
    eps, last = step.unsqueeze(-1), steps.unsqueeze(-1)
    number = torch.arange(longest(steps) + 1, device=step.device).view(-1, 1, 1, 1)
    kicks = eps * ((number < last).to(eps) - 0.5 * (number == 0) + 0.5 * (number == last))
    drifts = eps * (number < last)
    q, gradient = point.q, point.gradient
    *moves, (last_kick, _) = zip(kicks.to(q), drifts.to(q), strict=True)
    for left, (kick, drift) in zip(range(len(moves) - 1, -1, -1), moves, strict=True):
        momentum = torch.addcmul(momentum, gradient, kick, value=-1)
        q = torch.addcmul(q, momentum, drift)
        if left:  # the energy is needed at the end only
            gradient = target.gradient(q, x, y)
    end = target.at(q, x, y)
    return end, torch.addcmul(momentum, end.gradient, last_kick, value=-1)
