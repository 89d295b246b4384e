"""Stein variational gradient descent (Liu & Wang 2016, https://arxiv.org/abs/1608.04471).

    θᵢ ← θᵢ + lr φ(θᵢ),   φ(θᵢ) = 1/K Σⱼ [k(θⱼ, θᵢ) ∇ log p(θⱼ | data) + ∇ⱼ k(θⱼ, θᵢ)],   K particles

    "rbf":     k(θ, θ′) = exp(−‖θ − θ′‖²/w),   w = median of ‖θᵢ − θⱼ‖², i < j, / log(K + 1)
    "linear":  k(θ, θ′) = θᵀθ′ + 1, which has the exact mean and covariance of a normal posterior if K > P
               (Liu & Wang 2018, https://arxiv.org/abs/1810.11693)

The step is Adam's. One particle of the RBF kernel is the MAP.
Family: ensemble.
Caveat: in as many dimensions as a network has, the RBF kernel hardly repels, and the particles are too near the modes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.optimise import negative_log_posterior, with_gradient
from gapbench.methods.engine.posterior_draws import PosteriorDraws


@dataclass(frozen=True)
class SVGD(AdamTrained):
    """Particles that climb the posterior together and repel each other. kernel: "rbf" or "linear"."""

    particles: int = 10
    kernel: Literal["rbf", "linear"] = "rbf"
    steps: int = 6_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel not in ("rbf", "linear"):
            raise ValueError(f"SVGD: kernel = {self.kernel!r}: expected 'rbf' or 'linear'")

    @property
    def exactness(self) -> Claim:
        """The posterior's mean and covariance, by the linear kernel; its mode, by one particle and the other kernel."""
        quick = replace(self, steps=1500, lr=0.3, batch=20, by_epochs=False)
        if self.particles == 1:
            return Claim(replace(quick, kernel="rbf"), lambda regression: regression.point)
        return Claim(replace(quick, kernel="linear", particles=6), lambda regression: regression.posterior)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        replicas, n = y.shape
        theta = model.init(generator, (replicas, self.particles)).requires_grad_()

        def loss(index: Tensor) -> Tensor:
            each = model.training_log_likelihood(theta, gather_points(x, index), gather_points(y, index))
            energy = negative_log_posterior(each, model.log_prior(theta), n)  # (R, K)
            (uphill,) = torch.autograd.grad(-energy.sum(), theta)
            return with_gradient(energy, theta, -self.phi(theta.detach(), uphill))

        diagnostics = self.move([theta], loss, (replicas, self.particles), n, generator)
        return PosteriorDraws(model, theta.detach(), diagnostics=diagnostics)

    def phi(self, theta: Tensor, uphill: Tensor) -> Tensor:
        """The direction φ of each particle, (R, K, P). theta: (R, K, P); uphill: ∇ log p there."""
        count = theta.shape[1]
        if self.kernel == "linear":
            return (theta @ theta.mT + 1) @ uphill / count + theta
        if count == 1:
            return uphill
        k, width = rbf_kernel(theta)
        return (k @ uphill + 2 / width * (theta * k.sum(-1, keepdim=True) - k @ theta)) / count


def rbf_kernel(members: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel k of all pairs of two members or more, (R, K, K), and its width w, (R, 1, 1). members: (R, K, P)."""
    count = members.shape[1]
    square = torch.cdist(members, members, compute_mode="donot_use_mm_for_euclid_dist").square()
    first, second = torch.triu_indices(count, count, offset=1)
    width = (square[:, first, second].median(1).values[:, None, None] / math.log(count + 1)).clamp(min=1e-30)
    return (-square / width).exp(), width
