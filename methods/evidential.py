"""Deep evidential regression (Amini et al. 2020, https://arxiv.org/abs/1910.02600).

    the network's outputs are γ, ν, α, β of a normal-inverse-gamma law of (f, σ²):
    y ~ St(2α, γ, scale² β(1+ν)/(να)),   f ~ St(2α, γ, scale² β/(να)),
    minimise  −Σₙ log p(yₙ) + λ Σₙ |yₙ − γ|/scale (2ν + α) − log p(θ)

scale is the noise that the model knows or expects, so that the regulariser has no units.
Family: learned noise.
Caveat: the likelihood sees β(1+ν)/ν alone, so ν and β are not identified: how much of the spread of y is said to be f's
is decided by the regulariser and the start (Meinert, Gawlikowski & Lavin 2023, https://arxiv.org/abs/2205.10060).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from gapbench.methods.base import FittedMethod
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.optimise import negative_log_posterior
from gapbench.methods.engine.predictions import StudentTPrediction

LEAST_EVIDENCE = 1e-4  # of ν and β, and of α above 1: softplus underflows to 0 in float32


@dataclass(frozen=True)
class Evidential(AdamTrained):
    """One network with four outputs. regularisation: λ, the cost of evidence for a wrong prediction."""

    regularisation: float = 0.01
    steps: int = 5_000
    lr: float = 3e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.regularisation < math.inf:
            raise ValueError(f"Evidential: regularisation = {self.regularisation}: expected a number of at least 0")

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> EvidentialFit:
        scale = model.expected_noise
        evidence = replace(model, noise_std=scale).with_outputs(4)

        def loss(theta: Tensor, index: Tensor) -> Tensor:
            law = evidence_of(evidence, theta, gather_points(x, index), scale)
            targets = gather_points(y, index)
            penalty = (targets - law[0]).abs() / scale * (2 * law[1] + law[2])
            likelihood = log_density(targets, *law) - self.regularisation * penalty
            return negative_log_posterior(likelihood, evidence.log_prior(theta), y.shape[1])

        start = evidence.init(generator, (len(y),))
        theta, diagnostics = self.train(loss, start, y.shape[1], generator)
        return EvidentialFit(evidence, theta, scale, diagnostics=diagnostics)


def evidence_of(model: Model, theta: Tensor, x: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The parameters γ, ν, α, β at x, (..., N) each; β in units of y²."""
    gamma, *raw = model.network(theta, x).unbind(-1)
    nu, alpha, beta = (softplus(part) + LEAST_EVIDENCE for part in raw)
    return gamma, nu, alpha + 1, beta * scale**2


def log_density(y: Tensor, gamma: Tensor, nu: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """The log density of y, Student's t with 2α degrees of freedom and scale² β(1+ν)/(να)."""
    square = beta * (1 + nu) / (nu * alpha)
    z = (y - gamma).square() / square
    normaliser = torch.lgamma(alpha + 0.5) - torch.lgamma(alpha) - 0.5 * (2 * math.pi * alpha * square).log()
    return normaliser - (alpha + 0.5) * torch.log1p(z / (2 * alpha))


@dataclass(frozen=True)
class EvidentialFit(FittedMethod):
    """The network of the four parameters. theta: (R, P)."""

    model: Model
    theta: Tensor
    scale: float

    def __call__(self, x: Tensor) -> StudentTPrediction:
        gamma, nu, alpha, beta = evidence_of(self.model, self.theta, x, self.scale)
        square = beta / (nu * alpha)
        return StudentTPrediction(2 * alpha, gamma, (square * (1 + nu)).sqrt(), square.sqrt())
