"""SNGP, the spectral-normalised neural Gaussian process (Liu et al. 2020, https://arxiv.org/abs/2006.10108).

    hˡ = hˡ⁻¹ + a(W̄ˡhˡ⁻¹ + bˡ),   W̄ = W min(1, bound/‖W‖),   φ(x) = √(2/K) cos(ωᵀh + u),   f(x) = wᵀφ(x) + w₀
    θ* = argmin −Σₙ log p(yₙ | xₙ, θ) − log p(θ),   w | θ*, y ~ N(m, A⁻¹),   A = ΦᵀΛΦ + I/prior_std²,   m = A⁻¹ΦᵀΛy

Λ = diag(1/σ²); Φ has φ and the 1 of w₀. ‖W‖ is the spectral norm. ω ~ N(0, I/length_scale²) and u ~ U(0, 2π) are drawn
once, K of each. For K → ∞ and fixed h the prior of f is a Gaussian process, whose kernel is
prior_std² (exp(−‖h − h′‖²/(2 length_scale²)) + 1). A layer with the sum multiplies distances by at least
1 − bound and at most 1 + bound (ReLU, tanh). A layer whose two widths differ has no sum, and may bring points together.
SNGP keeps the suite's hidden parameters with their prior and start, its noise and the prior of its output layer. The
sum, the bound and φ are its own. Three things differ from the paper. The paper's A has no σ. Its m is where training
ends, and here m is exact. It divides W by an estimate of ‖W‖ after each step, and here the exact ‖W‖ is in the loss.
Family: Gaussian process.
Caveat: how fast the std grows in a gap is decided by length_scale and bound, which are settings and not learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.gradients import stacked_layers
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import ACTIVATIONS, MLP, Model, linear
from gapbench.methods.engine.optimise import negative_log_posterior
from gapbench.methods.engine.precision import widest
from gapbench.methods.engine.predictions import MixturePrediction

CHUNK = 1024  # points whose features are held at once


@dataclass(frozen=True)
class SNGP(AdamTrained):
    """Bayesian linear regression on random Fourier features of a network that keeps distances.

    frequencies: K. bound: on the spectral norm of each hidden layer. length_scale: of the kernel, in units of h.
    """

    frequencies: int = 256
    bound: float = 0.95
    length_scale: float = 1.0
    steps: int = 12_000
    lr: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frequencies < 1:
            raise ValueError(f"SNGP: frequencies = {self.frequencies}: expected at least 1")
        for name in ("bound", "length_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"SNGP: {name} = {getattr(self, name)}: expected a positive number")

    def skip(self, model: Model, x: Tensor) -> str | None:
        if not isinstance(model, MLP):
            return f"{type(model).__name__}: expected an MLP, whose hidden layers have spectral norms"
        return None if model.outputs == 1 else f"outputs = {model.outputs}: expected 1, the function itself"

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> SNGPFit:
        assert isinstance(model, MLP)
        stack, n = (len(y),), y.shape[1]
        features = Features.draw(model, self, stack, generator)
        head = MLP(features=self.frequencies, hidden=(), prior_std=model.prior_std, noise_std=model.noise_std)

        def loss(theta: Tensor, index: Tensor) -> Tensor:
            phi = features(theta, gather_points(x, index))
            likelihood = head.log_likelihood(theta[:, -head.size :], phi, gather_points(y, index))
            return negative_log_posterior(likelihood, head.log_prior(theta), n)

        start = torch.cat([model.init(generator, stack)[:, : features.size], head.init(generator, stack)], -1)
        theta, diagnostics = self.train(loss, start, n, generator)
        return SNGPFit(features, head, theta, *posterior(features, head, theta, x, y), diagnostics=diagnostics)


@dataclass(frozen=True)
class Features:
    """The random Fourier features √2 cos(ωᵀh + u), which the output layer divides by √K.

    omega: ω, (R, H, K), for H units in the last hidden layer. phase: u, (R, 1, K).
    """

    model: MLP
    bound: float
    omega: Tensor
    phase: Tensor

    @staticmethod
    def draw(model: MLP, method: SNGP, stack: tuple[int, ...], generator: Generator) -> Features:
        """Those of R replicas. stack: (R,)."""
        last, k, device = (model.features, *model.hidden)[-1], method.frequencies, generator.device
        omega = torch.randn((*stack, last, k), generator=generator, device=device) / method.length_scale
        phase = 2 * math.pi * torch.rand((*stack, 1, k), generator=generator, device=device)
        return Features(model, method.bound, omega, phase)

    @property
    def size(self) -> int:
        """The number of parameters of the hidden layers, which are the first of θ."""
        return sum((m + 1) * n for m, n, _ in self.model.layers[:-1])

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """The features at x, (R, N, K). theta: (R, P), contiguous; x: (R, N, D)."""
        return math.sqrt(2) * torch.baddbmm(self.phase, self.last_hidden(theta, x), self.omega).cos()

    def last_hidden(self, theta: Tensor, x: Tensor) -> Tensor:
        """The hidden units h, (R, N, H); x itself if the network has no hidden layer."""
        h, activation = x, ACTIVATIONS[self.model.activation]
        for weight, bias in self.bounded_layers(theta):
            a = activation(linear(h, weight, bias, 1.0))
            h = h + a if h.shape == a.shape else a
        return h

    def bounded_layers(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The pair W̄, (R, fan_in, fan_out), and b, (R, fan_out), of each hidden layer."""
        layers = stacked_layers(self.model, theta, len(self.model.hidden))
        scaled = [
            (scale * layer[:, :-1], layer[:, -1])
            for layer, (_, _, scale) in zip(layers, self.model.layers, strict=False)
        ]
        return [(weight * self.shrinkage(weight), bias) for weight, bias in scaled]

    def shrinkage(self, weight: Tensor) -> Tensor:
        """The factor min(1, bound/‖W‖), (R, 1, 1). weight: W, (R, fan_in, fan_out)."""
        norm: Tensor = torch.linalg.matrix_norm(weight, 2, keepdim=True)
        clipped = norm.clamp(min=self.bound)  # no division by 0 where the prior shrinks W to nothing
        return self.bound / clipped


def rows(features: Features, head: MLP, theta: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The rows [φ(x), 1], (R, N, K + 1), and the noise σ, (R, N), in the widest float. x: (R, N, D)."""
    kind, each = widest(x.device), features(theta, x)
    noise = head.mean_and_noise(theta[:, -head.size :], each)[1].to(kind).expand(each.shape[:2])
    phi = each.to(kind) / math.sqrt(each.shape[-1])
    return torch.cat([phi, torch.ones_like(phi[..., :1])], -1), noise


def posterior(features: Features, head: MLP, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The mean m, (R, K + 1, 1), and the Cholesky factor of A, (R, K + 1, K + 1), of the output layer."""
    total: Tensor | float = 0.0
    for at, targets in zip(x.split(CHUNK, 1), y.split(CHUNK, 1), strict=True):
        phi, noise = rows(features, head, theta, at)
        both = torch.cat([phi, targets.to(phi).unsqueeze(-1)], -1) / noise.unsqueeze(-1)
        total = total + both[..., :-1].mT @ both  # ΦᵀΛΦ and ΦᵀΛy
    assert isinstance(total, Tensor)
    prior = torch.eye(total.shape[1]).to(total) / head.prior_std**2
    factor = torch.linalg.cholesky(total[..., :-1] + prior)
    return torch.cholesky_solve(total[..., -1:], factor), factor


@dataclass(frozen=True)
class SNGPFit(FittedMethod):
    """The normal law of f given the features. theta: (R, P); mean and factor: of the output layer, see `posterior`."""

    features: Features
    head: MLP
    theta: Tensor
    mean: Tensor
    factor: Tensor

    def __call__(self, x: Tensor) -> MixturePrediction:
        laws = [self._law(part) for part in x.split(CHUNK, 1)]
        mean, std, noise = (torch.cat(parts, 1).to(x).unsqueeze(1) for parts in zip(*laws, strict=True))
        return MixturePrediction(mean, std, noise)

    def _law(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        phi, noise = rows(self.features, self.head, self.theta, x)
        half = torch.linalg.solve_triangular(self.factor, phi.mT, upper=False)
        return (phi @ self.mean).squeeze(-1), half.square().sum(1).sqrt(), noise
