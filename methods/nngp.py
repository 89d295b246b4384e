"""NNGP: the Gaussian process that the network is at infinite width (Neal 1996; Lee et al. 2018,
https://arxiv.org/abs/1711.00165).

    k⁰(x, x′) = v xᵀx′/D + v,   kˡ⁺¹ = v/2 · √(kˡ(x, x) kˡ(x′, x′)) · (sin ω + (π − ω) cos ω)/π + v,
    cos ω = kˡ(x, x′)/√(kˡ(x, x) kˡ(x′, x′)),   v = prior_std²,   f ~ GP(0, k of the output layer)

The recursion is that of ReLU (Cho & Saul 2009), under this suite's prior: weights N(0, v/fan_in), biases N(0, v).
Inference is exact. A noise that is learned is the one of the highest marginal likelihood times prior.
Family: Gaussian process.
Caveat: this is the exact posterior of another network: one of infinite width, whose features are fixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, optimize
from torch import Generator, Tensor

from gapbench.methods.base import Claim, FittedMethod, UncertaintyMethod
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise
from gapbench.methods.engine.precision import widest
from gapbench.methods.engine.predictions import MixturePrediction

MOST_POINTS = 12_000  # N × N float64 matrices of one replica: 1.2 GB
CHUNK = 1024  # test points at once
BLOCK = 64  # LAPACK's


@dataclass(frozen=True)
class NNGP(UncertaintyMethod):
    """Exact Gaussian-process regression with the kernel of the infinitely wide network. It has no settings."""

    @property
    def exactness(self) -> Claim:
        """Without hidden layers the process is the linear model."""
        return Claim(self, lambda regression: regression.posterior)

    def skip(self, model: Model, x: Tensor) -> str | None:
        if not (isinstance(model, MLP) and model.activation == "relu" and model.scale_by_fan_in):
            return f"{model}: the kernel is known for an MLP with ReLU and scale_by_fan_in = True"
        if isinstance(model.noise_std, HeteroscedasticNoise):
            return "the noise depends on x: expected a constant one, for which the law is normal"
        n = x.shape[1]
        return f"{n} training points: expected at most {MOST_POINTS}" if n > MOST_POINTS else None

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> GaussianProcess:
        assert isinstance(model, MLP)
        x, y = x.to(widest(x.device)), y.to(widest(y.device))
        factor, noise = x.new_empty(*y.shape, y.shape[1]), x.new_empty(len(y), 1)
        for r in range(len(y)):  # one at a time: a few N × N matrices stand beside the factors
            gram = kernel(model, x[r : r + 1], x[r : r + 1])[0]
            noise[r] = likeliest_noise(model, gram, y[r])
            gram.diagonal().add_(noise[r].square())
            factor[r] = torch.linalg.cholesky(gram)
        weights = torch.cholesky_solve(y.unsqueeze(-1), factor)
        return GaussianProcess(model, x, factor, weights, noise, diagnostics={"noise std": noise.squeeze(-1)})


def kernel(model: MLP, a: Tensor, b: Tensor) -> Tensor:
    """The prior covariance of f(a) and f(b), (R, A, B). a: (R, A, D), b: (R, B, D)."""
    v = model.prior_std**2
    own_a, own_b = variances(model, a), variances(model, b)  # of each layer
    k = v * (a @ b.mT) / a.shape[-1] + v
    for at_a, at_b in zip(own_a[:-1], own_b[:-1], strict=True):
        size = (at_a.unsqueeze(-1) * at_b.unsqueeze(-2)).sqrt()
        cosine = (k / size).clamp(-1, 1)
        angle = cosine.arccos()
        k = v / 2 * size * (angle.sin() + (math.pi - angle) * cosine) / math.pi + v
    return k


def variances(model: MLP, x: Tensor) -> list[Tensor]:
    """The prior variance of each layer's outputs at x, (R, N) each; the last one is f's. At ω = 0: k/2 · v + v."""
    v = model.prior_std**2
    found = [v * x.square().mean(-1) + v]
    for _ in model.hidden:
        found.append(v / 2 * found[-1] + v)
    return found


def likeliest_noise(model: MLP, gram: Tensor, y: Tensor) -> Tensor:
    """The std of the noise: the known one, or the maximum of log p(y | σ) + log p(σ). gram: (N, N), y: (N,)."""
    noise = model.noise_std
    if not isinstance(noise, LearnedNoise):
        return torch.full((), float(noise), dtype=gram.dtype, device=gram.device)  # type: ignore[arg-type]
    diagonal, beside, rotated = tridiagonal(gram.cpu().numpy(), y.cpu().numpy())

    def loss(z: float) -> float:
        variance = (noise.center * math.exp(noise.spread * z)) ** 2
        factor = linalg.cholesky_banded(np.stack([diagonal + variance, np.append(beside, 0)]), lower=True)
        squares = rotated @ linalg.cho_solve_banded((factor, True), rotated)
        return float(np.log(factor[0]).sum() + (squares + z**2) / 2)

    best = optimize.minimize_scalar(loss, bounds=(-8, 8), method="bounded").x
    return torch.full((), noise.center * math.exp(noise.spread * best), dtype=gram.dtype, device=gram.device)


def tridiagonal(gram: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """The diagonal, (N,), and the entries beside it, (N − 1,), of T = QᵀKQ, and Qᵀy, (N,), with an orthogonal Q.

    For every σ, K + σ²I and y have the likelihood of T + σ²I and Qᵀy, which takes N steps. T costs a third of K's
    eigenvectors. Its eigenvalues are made non-negative, as K's are but for rounding.
    """
    if len(y) == 1:
        return gram[0], gram[0, 1:], y
    # LAPACK keeps Q as reflections, those of a QR factorisation of all rows but the first.
    reflections, diagonal, beside, scales, _ = linalg.lapack.dsytrd(gram.T, lower=1, lwork=BLOCK * len(y))
    below, _, _ = linalg.lapack.dormqr("L", "T", reflections[1:, :-1], scales, y[1:, None], BLOCK)
    lowest = linalg.eigh_tridiagonal(diagonal, beside, eigvals_only=True, select="i", select_range=(0, 0))[0]
    return diagonal + max(0.0, -2 * lowest), beside, np.append(y[:1], below)


@dataclass(frozen=True)
class GaussianProcess(FittedMethod):
    """The law of f given data. x: (R, N, D), the training points; factor: Cholesky, (R, N, N), of K + σ²I;
    weights: (K + σ²I)⁻¹y, (R, N, 1); noise: σ, (R, 1)."""

    model: MLP
    x: Tensor
    factor: Tensor
    weights: Tensor
    noise: Tensor

    def __call__(self, x: Tensor) -> MixturePrediction:
        laws = [self._law(part.to(self.x)) for part in x.split(CHUNK, 1)]
        mean, std = (torch.cat(parts, 1).to(x).unsqueeze(1) for parts in zip(*laws, strict=True))
        return MixturePrediction(mean, std, self.noise.to(x).unsqueeze(1))

    def _law(self, x: Tensor) -> tuple[Tensor, Tensor]:
        across = kernel(self.model, self.x, x)
        half = torch.linalg.solve_triangular(self.factor, across, upper=False)
        variance = variances(self.model, x)[-1] - half.square().sum(1)
        return (across.mT @ self.weights).squeeze(-1), variance.clamp(min=0).sqrt()
