"""Laplace approximation with the generalised Gauss–Newton matrix and the linearised predictive (MacKay 1992; Immer,
Korzepa & Bauer 2021, https://arxiv.org/abs/2008.08400).

    θ* = argmin −Σₙ log p(yₙ | xₙ, θ) − log p(θ),     Λ = I/prior_std² + Σₙ JₙᵀHₙJₙ
    f(x) ~ N(f(x; θ*), J(x) Λ⁻¹ J(x)ᵀ),               J = ∂(f, log σ)/∂θ at θ*,   H = diag(1/σ², 2)

H is the Fisher information of N(f, σ²). σ is that of θ*.
Family: around one mode.
Caveat: the law is of a network that is linear in θ around one mode. The further the data let θ go from there, as in
a gap, the less the network is linear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Generator, Tensor

from gapbench.methods.base import Claim, FittedMethod
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.noise import HeteroscedasticNoise
from gapbench.methods.engine.precision import widest
from gapbench.methods.engine.predictions import MixturePrediction

Floats = NDArray[np.float64]
CHUNK = 256  # test points whose gradients are held at once


@dataclass(frozen=True)
class Laplace(AdamTrained):
    """A normal law of θ around the MAP, through the network's linearisation there.

    structure: "full"; "last_layer": only the output layer is uncertain; "diagonal": Λ without its off-diagonal.
    tune: prior_std and a constant σ are those that maximise the marginal likelihood of this normal law, at θ* as it is.
    """

    structure: Literal["full", "last_layer", "diagonal"] = "full"
    tune: bool = False
    steps: int = 12_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.structure not in ("full", "last_layer", "diagonal"):
            raise ValueError(f"Laplace: structure = {self.structure!r}: expected 'full', 'last_layer' or 'diagonal'")

    @property
    def exactness(self) -> Claim:
        """With the prior and the noise of the model: tuned ones are others."""
        quick = replace(self, tune=False, steps=1000, lr=0.05, batch=20)
        if self.structure == "diagonal":
            return Claim(quick, lambda regression: regression.mean_field)
        return Claim(quick, lambda regression: regression.posterior)

    def skip(self, model: Model, x: Tensor) -> str | None:
        if self.structure == "last_layer" and not isinstance(model, MLP):
            return f"structure = 'last_layer': {type(model).__name__} has no output layer that is known"
        if self.tune and isinstance(model.noise_std, HeteroscedasticNoise):
            return "tune = True: expected a constant noise, and this model's depends on x"
        return None

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> LinearisedLaw:
        theta, diagnostics = self.train_map(model, x, y, generator)
        used = slice(last_layer(model) if self.structure == "last_layer" else 0, None)
        rows = information(model, theta, x)[..., used].to(widest(x.device))  # (R, N or 2N, P')
        if rows.shape[1] > rows.shape[2]:  # P' rows with the same rowsᵀrows, which is all that the law depends on
            rows = torch.linalg.qr(rows, mode="r").R
        law = LinearisedLaw(model, theta, used, rows, self.structure == "diagonal", diagnostics=diagnostics)
        return law.tuned(x, y) if self.tune else law


def last_layer(model: Model) -> int:
    """The position in θ at which the output layer begins."""
    assert isinstance(model, MLP)
    fan_in, fan_out, _ = model.layers[-1]
    return model.network_size - (fan_in + 1) * fan_out


def jacobian(model: Model, theta: Tensor, x: Tensor, output: int = 0) -> Tensor:
    """The gradients ∂/∂θ of an output of the network at each point, (R, N, P). theta: (R, P), x: (R, N, D)."""

    def one(theta: Tensor, x: Tensor) -> Tensor:
        return model.network(theta, x.unsqueeze(0))[0, output]

    each: Tensor = torch.func.vmap(torch.func.vmap(torch.func.grad(one), (None, 0)))(theta, x)
    return each


def information(model: Model, theta: Tensor, x: Tensor) -> Tensor:
    """The rows √H J of the Fisher information Σ JᵀHJ at the points x, (R, N, P), or (R, 2N, P) if σ depends on x."""
    noise = model.noise(theta, x).expand(x.shape[:2])
    rows = jacobian(model, theta, x) / noise.unsqueeze(-1)
    if isinstance(model.noise_std, HeteroscedasticNoise):
        by_log_std = model.noise_std.spread * jacobian(model, theta, x, 1)
        rows = torch.cat([rows, math.sqrt(2) * by_log_std], 1)
    return rows


@dataclass(frozen=True)
class LinearisedLaw(FittedMethod):
    """The normal law of f around the MAP. theta: (R, P). rows: √H J at the data, (R, K, P'), or P' rows
    with the same rowsᵀrows; used: these P' of P.

    prior_factor, noise_factor: (R, 1) or 1, what prior_std and σ are multiplied by.
    With F = rows·rowsᵀ and τ = prior_std:  Λ⁻¹ = τ²(I − rowsᵀ(F + I/τ²)⁻¹rows), which needs no P × P matrix.
    """

    model: Model
    theta: Tensor
    used: slice
    rows: Tensor
    diagonal: bool
    prior_factor: Tensor | float = 1.0
    noise_factor: Tensor | float = 1.0

    def __call__(self, x: Tensor) -> MixturePrediction:
        mean, noise = self.model.mean_and_noise(self.theta, x)
        std = torch.cat([self._std(part) for part in x.split(CHUNK, 1)], 1)
        noise = noise * self.noise_factor
        return MixturePrediction(mean.unsqueeze(1), std.unsqueeze(1), noise if noise.ndim == 0 else noise.unsqueeze(1))

    def _std(self, x: Tensor) -> Tensor:
        j = jacobian(self.model, self.theta, x)[..., self.used].to(self.rows)
        tau2 = torch.as_tensor(self.model.prior_std * self.prior_factor).to(self.rows).square().view(-1, 1, 1)
        rows = self.rows / torch.as_tensor(self.noise_factor).to(self.rows).view(-1, 1, 1)
        if self.diagonal:
            variance = (j.square() / (rows.square().sum(1, keepdim=True) + 1 / tau2)).sum(-1)
        else:
            gram = rows @ rows.mT + torch.eye(rows.shape[1]).to(rows) / tau2
            half = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), rows @ j.mT, upper=False)
            variance = tau2.squeeze(-1) * (j.square().sum(-1) - half.square().sum(-2))
        return variance.clamp(min=0).sqrt().to(x)

    def tuned(self, x: Tensor, y: Tensor) -> LinearisedLaw:
        """The law whose prior_std τ and σ maximise its marginal likelihood. x: (R, N, D), y: (R, N).

        With s the eigenvalues of F, and a, b the logs of the two factors:
        log p(y) = const − N b − ‖y − f‖²e^−2b/(2σ²) − ‖θ*‖²e^−2a/(2τ²) − ½ Σ log(1 + e^(2a−2b) τ² s).
        """
        mean, noise = self.model.mean_and_noise(self.theta, x)
        tau, n = self.model.prior_std, y.shape[1]
        misfit = ((y - mean) / noise).square().sum(1).tolist()
        length = (self.theta[..., self.used].double().square().sum(1) / tau**2).tolist()
        spectrum = tau**2 * torch.linalg.eigvalsh(self.rows @ self.rows.mT).clamp(min=0).cpu().double().numpy()
        if self.diagonal:
            spectrum = tau**2 * self.rows.square().sum(1).cpu().double().numpy()

        def best(misfit: float, length: float, s: Floats) -> Floats:
            def loss(logs: Floats) -> float:
                a, b = logs
                fit = misfit * np.exp(-2 * b) + length * np.exp(-2 * a) + np.log1p(np.exp(2 * (a - b)) * s).sum()
                return float(n * b + fit / 2)

            return np.asarray(optimize.minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-5, 5)] * 2).x)

        logs = np.stack([best(*each) for each in zip(misfit, length, spectrum, strict=True)])
        a, b = torch.from_numpy(np.exp(logs)).to(self.theta).unsqueeze(-1).unbind(1)  # (R, 1) each
        return replace(self, prior_factor=a, noise_factor=b)
