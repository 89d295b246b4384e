"""Samplers written for one model; `torch.func.vmap` adds the replicas and the chains."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws


@dataclass(frozen=True)
class SingleModelMethod(UncertaintyMethod):
    """A sampler written for ONE chain of ONE model.

    Inside `sample`, draw with `torch.randn(..., generator=generator)` and accept or reject with
    `torch.where`: vmap forbids `.item()`, `if tensor`, in-place random fills, boolean indexing and
    `torch.optim`. vmap costs 1.2 to 1.8 times as much as broadcasting by hand, and far less than a loop.
    """

    chains: int = 1

    @abstractmethod
    def sample(self, model: Model, theta: Tensor, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Draws of θ, (draws, P). theta (P,): an initial draw. x (N, D), y (N,)."""

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        def sample(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self.sample(model, theta, x, y, generator)

        of_chains = torch.func.vmap(sample, (0, None, None), randomness="different")
        of_replicas = torch.func.vmap(of_chains, randomness="different")
        draws = of_replicas(model.init(generator, (len(x), self.chains)), x, y)  # (R, chains, draws, P)
        return PosteriorDraws(model, draws.flatten(1, 2), self.chains)
