"""Repulsive ensemble in function space (D'Angelo & Fortuin 2021, https://arxiv.org/abs/2106.11642).

    θᵢ ← θᵢ + lr [∇ log p(θᵢ | data) − Jᵢᵀ ∇ log Σⱼ k(fᵢ, fⱼ)],   fᵢ = f(X; θᵢ),   Jᵢ = ∂fᵢ/∂θᵢ,   K members
    k(f, f′) = exp(−‖f − f′‖²/w),   w = median of ‖fᵢ − fⱼ‖², i < j, / log(K + 1)

∇ is by fᵢ alone. X: new points in each step, uniform over the range of the training inputs, gaps included. The step is
Adam's. The prior is that of the weights; the paper estimates one of the functions. One member is the MAP.
Family: ensemble.
Caveat: how far members are apart where nothing is known depends on K and on the number of points, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.optimise import negative_log_posterior
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.svgd import rbf_kernel


@dataclass(frozen=True)
class RepulsiveEnsemble(AdamTrained):
    """Networks that are trained together, and whose functions repel each other. points: the number of rows of X."""

    members: int = 10
    points: int = 20
    steps: int = 6_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points < 1:
            raise ValueError(f"RepulsiveEnsemble: points = {self.points}: expected at least 1")

    @property
    def exactness(self) -> Claim:
        """The posterior's mode without variance, of one member."""
        quick = replace(self, members=1, steps=600, lr=0.1, batch=20, by_epochs=False)
        return Claim(quick, lambda regression: regression.point)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        replicas, n = y.shape
        theta = model.init(generator, (replicas, self.members)).requires_grad_()
        low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)  # (R, 1, D)

        def loss(index: Tensor) -> Tensor:
            each = model.training_log_likelihood(theta, gather_points(x, index), gather_points(y, index))
            share = torch.rand((replicas, self.points, x.shape[2]), generator=generator, device=x.device)
            anywhere = (low + share * (high - low)).unsqueeze(1).expand(-1, self.members, -1, -1)
            f = model.mean(theta, anywhere)  # (R, K, points)
            pull = (f * crowding(f.detach())).sum(-1)
            energy = negative_log_posterior(each, model.log_prior(theta), n)
            return energy + pull - pull.detach()

        diagnostics = self.move([theta], loss, (replicas, self.members), n, generator)
        return PosteriorDraws(model, theta.detach(), diagnostics=diagnostics)


def crowding(f: Tensor) -> Tensor:
    """The gradient ∇ log Σⱼ k(fᵢ, fⱼ) by each fᵢ, which leads to the others, (R, K, points). f: that shape too."""
    if f.shape[1] == 1:
        return torch.zeros_like(f)
    k, width = rbf_kernel(f)
    return 2 / width * ((k @ f) / k.sum(-1, keepdim=True) - f)
