"""Metropolis-adjusted Langevin algorithm (MALA, Roberts & Tweedie 1996).

The target acceptance, 0.574, is that of Roberts & Rosenthal 1998.

    propose  θ′ = θ − ε ∇U(θ) + √(2ε) ξ,    U(θ) = −log p(θ) − Σₙ log p(yₙ | xₙ, θ)
    accept   with probability min(1, exp(U(θ) − U(θ′)) q(θ | θ′) / q(θ′ | θ)),
             log q(θ′ | θ) = −‖θ′ − θ + ε ∇U(θ)‖² / (4ε)

https://doi.org/10.2307/3318418, https://doi.org/10.1111/1467-9868.00123
Family: Markov chain.
Caveat: exact only for the part of the posterior that its chains have reached. A step is as short as a Langevin step and
needs gradients of all data, so the chains of a network hardly leave their starting points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.single_model import SingleModelMethod

WANTED = 0.574  # acceptance at which chains in many dimensions move fastest


@dataclass(frozen=True)
class MALA(SingleModelMethod):
    """Langevin steps with gradients of all data, accepted or rejected.

    lr: the first ε, in units of prior_std². At each step of burn_in, log ε changes by (acceptance − 0.574)/√step, with
    the probability of acceptance; then ε is fixed. burn_in, thin: numbers of steps. draws: kept from each chain.
    """

    lr: float = 1e-5
    burn_in: int = 2_000
    draws: int = 25
    thin: int = 80
    chains: int = 4

    @property
    def exactness(self) -> Claim:
        quick = replace(self, lr=0.05, burn_in=200, draws=300, thin=2, chains=1)
        return Claim(quick, lambda regression: regression.posterior)

    def sample(self, model: Model, theta: Tensor, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        def potential(theta: Tensor) -> Tensor:
            return -model.log_prior(theta) - model.log_likelihood(theta, x, y).sum()

        slope_and_value = torch.func.grad_and_value(potential)
        slope, value = slope_and_value(theta)
        log_step = torch.full_like(value, math.log(self.lr * model.prior_std**2))
        kept = []
        for step in range(1, self.burn_in + self.draws * self.thin + 1):
            eps = log_step.exp()
            xi = torch.randn(theta.shape, generator=generator, device=theta.device)
            u = torch.rand(value.shape, generator=generator, device=theta.device)
            proposed = theta - eps * slope + (2 * eps).sqrt() * xi
            new_slope, new_value = slope_and_value(proposed)
            back = (theta - proposed + eps * new_slope).square().sum() / (4 * eps)
            forth = xi.square().sum() / 2  # ‖θ′ − θ + ε ∇U(θ)‖² / (4ε)
            log_ratio = (value - new_value - back + forth).nan_to_num(nan=-math.inf)
            accepted = u.log() < log_ratio
            theta = torch.where(accepted, proposed, theta)
            slope, value = torch.where(accepted, new_slope, slope), torch.where(accepted, new_value, value)
            if step <= self.burn_in:
                log_step = log_step + (log_ratio.clamp(max=0).exp() - WANTED) / math.sqrt(step)
            elif (step - self.burn_in) % self.thin == 0:
                kept.append(theta)
        return torch.stack(kept)
