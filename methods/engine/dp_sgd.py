"""DP-SGD (Abadi et al. 2016, https://arxiv.org/abs/1607.00133) on a stack of replicas and chains, by Opacus.

    θ ← θ − η [ (1/d) (Σᵢ clip_C(gᵢ) + σ C ξ) + λ θ + ∇r(θ) ],    clip_C(g) = g · min(1, C/‖g‖)

r sees no data, so its gradient needs neither clip nor noise.
Caveat: a sample's norm is taken over the last dimension of θ, so for each replica and chain. The stock optimiser takes
the norm over all dimensions.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import torch
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.optimizers import DPOptimizer
from torch import Tensor

from gapbench.methods.engine.gradients import PerSampleGradients
from gapbench.methods.engine.precision import widest

NO_GUARANTEE = 50.0  # e^ε is meaningless above this ε; the PRV accountant would take minutes to refine such an ε


class StackedDPOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimiser on a stack θ (R, chains, P). Scaling and accounting are still those of Opacus."""

    def __init__(self, optimizer: torch.optim.Optimizer, **settings: Any) -> None:
        super().__init__(optimizer, **settings)
        (theta,) = self.params
        theta.grad = torch.zeros_like(theta)
        self.cold = self.noise_multiplier, self.param_groups[0]["weight_decay"]  # type: ignore[has-type]  # at temperature 1
        # The number of per-sample gradients so far, and of those that were clipped, (R, chains).
        self.seen, self.clipped = torch.zeros(2, *theta.shape[:-1], device=theta.device, dtype=widest(theta.device))

    @property
    def clipped_fraction(self) -> Tensor:
        """The fraction of all per-sample gradients so far that were longer than C, (R,), the mean over chains."""
        return (self.clipped / self.seen.clamp(min=1)).mean(1)  # type: ignore[no-any-return]

    @property
    def accumulated_iterations(self) -> int:
        """The number of batches that a step sums over."""
        return 1

    def set_temperature(self, temperature: float) -> None:
        """Give the next steps √T times the noise and T times the weight decay."""
        noise_multiplier, weight_decay = self.cold
        self.noise_multiplier = noise_multiplier * math.sqrt(temperature)
        self.param_groups[0]["weight_decay"] = weight_decay * temperature

    def step(self, gradients: PerSampleGradients, present: Tensor | None, without_data: Tensor | None = None) -> None:
        """Take one DP-SGD step, θ ← θ − η [ (1/d) (Σᵢ clip_C(gᵢ) + σ C ξ) + λ θ + ∇r(θ) ].

        present: (R, chains, B), 0 for padding; None without padding. without_data: ∇r(θ), θ's shape.
        """
        (theta,) = self.params
        factors = self.clip(gradients, present)
        # Noise first, drawn in place: on a stack, fresh memory for θ-sized tensors costs more than the arithmetic.
        theta.grad.normal_(0, self.noise_multiplier * self.max_grad_norm, generator=self.generator)
        gradients.add_weighted_sum(factors, theta.grad)
        self.scale_grad()
        if without_data is not None:
            theta.grad += without_data
        self.original_optimizer.step()

    def clip(self, gradients: PerSampleGradients, present: Tensor | None) -> Tensor | None:
        """The clipping factor min(1, C/‖gᵢ‖) of each gradient, 0 for padding, (R, chains, B); None if all are 1.
        Updates the counts."""
        bound = gradients.norm_bound
        # Only a CPU can look at numbers without waiting for them. 1e-6 is Opacus's.
        if bound.device.type == "cpu" and bool((bound + 1e-6 < 0.99 * self.max_grad_norm).all()):
            self.seen += gradients.points if present is None else present.sum(-1)
            return present
        norms = gradients.norms
        longer, factors = norms > self.max_grad_norm, (self.max_grad_norm / (norms + 1e-6)).clamp_(max=1.0)
        if present is None:
            self.seen += norms.shape[-1]
        else:
            self.seen += present.sum(-1)
            longer, factors = longer * present, factors * present
        self.clipped += longer.sum(-1)
        return factors  # type: ignore[no-any-return]


@cache  # an accountant takes a second, and every block of replicas asks for the same
def privacy_loss(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """The ε(δ) of these parts of a training by Poisson batches, each (σ, sampling rate, steps), for adding or removing
    one point; inf if the RDP bound on ε is NO_GUARANTEE or more."""
    bound, accountant = RDPAccountant(), PRVAccountant()
    bound.history, accountant.history = list(history), list(history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the warning: a wider range of orders would tighten the bound
        loose = bound.get_epsilon(delta, alphas=list(range(2, 64)))
        return accountant.get_epsilon(delta) if loose < NO_GUARANTEE else math.inf
