"""Kronecker-factored Laplace approximation (Ritter, Botev & Barber 2018), with the linearised predictive and the exact
prior of Immer, Korzepa & Bauer 2021.

    θ* = argmin −Σₙ log p(yₙ | xₙ, θ) − log p(θ),    Λ_l = I/prior_std² + A ⊗ G for the weights of layer l,
    A = Σₙ aₙaₙᵀ,   G = 1/N Σₙ δₙHₙδₙᵀ,              f(x) ~ N(f(x; θ*), Σ_l (a ⊗ δ)ᵀ Λ_l⁻¹ (a ⊗ δ))

https://openreview.net/forum?id=Skdvd2xAZ, https://arxiv.org/abs/2008.08400
a is the layer's input, with 1 for the bias. δ has the derivatives by the layer's output: in G those of f and log σ, in
the law of f those of f. H = diag(1/σ², 2) is the Fisher information of N(f, σ²). σ is that of θ*.
With A = U diag(α) Uᵀ and G = V diag(β) Vᵀ, Λ_l is diagonal in U ⊗ V: its entries are αᵢβⱼ + 1/prior_std².
Family: around one mode.
Caveat: the averages forget which input met which slope, and layers are independent. So the std depends less on x: on
gapped sines it is too large in the data and too small in the gap. The paper tunes N and the prior, which are as the
model says here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim, FittedMethod
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.gradients import backward, forward, product, stacked_layers
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.noise import HeteroscedasticNoise
from gapbench.methods.engine.precision import widest
from gapbench.methods.engine.predictions import MixturePrediction


@dataclass(frozen=True)
class KroneckerLaplace(AdamTrained):
    """A normal law of θ around the MAP. The precision of each layer is a Kronecker product, and that of the prior."""

    steps: int = 12_000

    @property
    def exactness(self) -> Claim:
        """One layer with a known noise has one δ and one H, so that nothing is lost by the averages."""
        return Claim(replace(self, steps=1000, lr=0.05, batch=20), lambda regression: regression.posterior)

    def skip(self, model: Model, x: Tensor) -> str | None:
        return None if isinstance(model, MLP) else f"{type(model).__name__}: expected an MLP, whose layers are known"

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> KroneckerLaw:
        assert isinstance(model, MLP)  # `skip` refuses all else
        theta, diagnostics = self.train_map(model, x, y, generator)
        blocks = [inverted(a, g, model.prior_std) for a, g in factors(model, theta, x)]
        return KroneckerLaw(model, theta, blocks, diagnostics=diagnostics)


def slopes(model: MLP, theta: Tensor, x: Tensor, output: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """The pair of a (R, N, fan_in + 1) and δ (R, N, fan_out) of each layer: the gradient of an output of the network by
    the layer's weights, with the bias as their last row, is a δᵀ. theta: (R, P), x: (R, N, D)."""
    *hidden, last = stacked_layers(model, theta)
    inputs, outputs = forward(model, hidden, x)
    delta = x.new_zeros(len(x), model.network_outputs, x.shape[1])
    delta[:, output] = 1
    deltas = [delta]
    if hidden:
        deltas = [*backward(model, hidden, outputs, product(last[:, :-1], delta, model.layers[-1][2])), delta]
    wide = widest(x.device)
    for a, each, (_, _, scale) in zip(inputs, deltas, model.layers, strict=True):
        yield scale * a.mT.to(wide), each.mT.to(wide)


def factors(model: MLP, theta: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The factors A (R, fan_in + 1, fan_in + 1) and G (R, fan_out, fan_out) of each layer. x: the data, (R, N, D)."""
    roots = [1 / model.noise(theta, x).expand(x.shape[:2]).unsqueeze(-1)]  # √H of each output
    if isinstance(model.noise_std, HeteroscedasticNoise):
        roots.append(torch.full_like(roots[0], math.sqrt(2) * model.noise_std.spread))
    outputs = (slopes(model, theta, x, output) for output in range(len(roots)))
    for layer in zip(*outputs, strict=True):
        a = layer[0][0]  # the same for every output
        rows = torch.cat([root * delta for root, (_, delta) in zip(roots, layer, strict=True)], 1)  # √H δ
        yield a.mT @ a, rows.mT @ rows / x.shape[1]


@dataclass(frozen=True)
class Block:
    """The covariance Λ⁻¹ of one layer, diagonal in U ⊗ V. u: (R, fan_in + 1, fan_in + 1), v: (R, fan_out, fan_out),
    variances: (R, fan_in + 1, fan_out)."""

    u: Tensor
    v: Tensor
    variances: Tensor

    def variance(self, a: Tensor, delta: Tensor) -> Tensor:
        """The variance (a ⊗ δ)ᵀ Λ⁻¹ (a ⊗ δ) at each point, (R, M)."""
        return ((a @ self.u).square() @ self.variances * (delta @ self.v).square()).sum(-1)


def inverted(a: Tensor, g: Tensor, prior_std: float) -> Block:
    """The inverse of A ⊗ G + I/prior_std². a, g: (R, m, m) and (R, n, n), symmetric and positive semidefinite."""
    (alpha, u), (beta, v) = (torch.linalg.eigh(part) for part in (a, g))
    alpha, beta = (part.clamp(min=0) for part in (alpha, beta))  # rounding makes zeros negative
    return Block(u, v, 1 / (alpha.unsqueeze(-1) * beta.unsqueeze(-2) + 1 / prior_std**2))


@dataclass(frozen=True)
class KroneckerLaw(FittedMethod):
    """The normal law of f around the MAP. theta: (R, P)."""

    model: MLP
    theta: Tensor
    blocks: list[Block]

    def __call__(self, x: Tensor) -> MixturePrediction:
        mean, noise = self.model.mean_and_noise(self.theta, x)
        layers = zip(self.blocks, slopes(self.model, self.theta, x), strict=True)
        variance = torch.stack([block.variance(a, delta) for block, (a, delta) in layers]).sum(0)
        std = variance.sqrt().to(mean)
        return MixturePrediction(mean.unsqueeze(1), std.unsqueeze(1), noise if noise.ndim == 0 else noise.unsqueeze(1))
