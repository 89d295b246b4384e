"""Deep Gaussian process by gpytorch, doubly stochastic (Salimbeni & Deisenroth 2017,
https://arxiv.org/abs/1705.08933).

    h⁰ = x,   hˡ = mˡ(hˡ⁻¹) + sˡ(hˡ⁻¹) ξˡ,   ξˡ ~ N(0, I),   f | h ~ N(mᴸ(h), sᴸ(h)²)
    maximise  Σₙ E[log p(yₙ | fₙ)] − kl_weight Σˡ KL(q(uˡ) ‖ p(uˡ))

mˡ and sˡ are the law of a sparse process, whose inducing points are learned. A prediction is the mixture over draws
of ξ. Each draw has one ξ for all points, so that the law at a point does not depend on which others are asked for.
Family: Gaussian process.
Caveat: the variational law is independent between layers, and its noise in the hidden layers tends to vanish. Its prior
is its own, and not the one of the suite's network; only the noise is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.precision import widest
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.engine.sparse_gp import KERNELS, NoiseStd, SparseGP, exact_arithmetic, needs_constant_noise
from gapbench.methods.engine.streams import own_streams

CHUNK = 512  # test points at once


@dataclass(frozen=True)
class DeepGP(AdamTrained):
    """Layers of sparse Gaussian processes.

    width: processes in each hidden layer. hidden: hidden layers; 0 is a sparse process. inducing: points of each layer.
    samples: draws of ξ in training; draws: in a prediction. average_variances: predict as some published code does, one
    normal law with the mean of the draws' variances, which leaves out the spread of their means.
    """

    width: int = 5
    hidden: int = 1
    inducing: int = 32
    kernel: str = "rbf"
    kl_weight: float = 1.0
    samples: int = 4
    steps: int = 1000
    lr: float = 0.02
    batch: int = 200
    draws: int = 100
    average_variances: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel not in KERNELS:
            raise ValueError(f"DeepGP: kernel = {self.kernel!r}: expected one of {', '.join(KERNELS)}")
        if self.width < 1 or self.hidden < 0 or self.inducing < 1 or self.samples < 1 or not self.kl_weight > 0:
            raise ValueError(
                f"DeepGP: width = {self.width}, hidden = {self.hidden}, inducing = {self.inducing}, samples = "
                f"{self.samples}, kl_weight = {self.kl_weight}: expected hidden of at least 0 and the others positive"
            )

    def skip(self, model: Model, x: Tensor) -> str | None:
        n = x.shape[1]
        if self.inducing > n:
            return f"inducing = {self.inducing} is more than the {n} training points"
        return needs_constant_noise(model)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> DeepGPFit:
        (replicas, n), wide = y.shape, widest(x.device)
        with own_streams(generator), exact_arithmetic():
            layers = [layer.to(x.device, wide) for layer in self.layers(x.to(wide))]
            noise = NoiseStd(model, replicas).to(x.device, wide)
            samples = self.samples if self.hidden else 1

            def loss(index: Tensor) -> Tensor:
                shapes = [(samples, *index.shape, self.width)] * self.hidden
                xi = [torch.randn(shape, generator=generator, device=x.device, dtype=wide) for shape in shapes]
                mean, std = forward(layers, gather_points(x, index).to(wide), xi)
                sigma = noise()
                residual = (gather_points(y, index) - mean).square() + std.square()
                expected = (-residual / (2 * sigma**2) - sigma.log()).mean((0, -1)) - math.log(2 * math.pi) / 2
                divergence = torch.stack([layer.divergence() for layer in layers]).sum(0)
                total: Tensor = self.kl_weight * divergence - n * expected - noise.log_prior()
                return total

            parameters = [p for part in (*layers, noise) for p in part.parameters() if p.requires_grad]
            diagnostics = self.move(parameters, loss, (replicas,), n, generator)
        xi = [
            torch.randn((self.draws, 1, 1, self.width), generator=generator, device=x.device, dtype=wide)
            for _ in range(self.hidden)
        ]
        diagnostics["gradient evaluations"] *= samples
        layers = [layer.eval() for layer in layers]
        return DeepGPFit(layers, xi, noise().detach(), self.average_variances, diagnostics=diagnostics)

    def layers(self, x: Tensor) -> list[SparseGP]:
        """The layers at their start: inducing points spread over the data; those of hidden layers are normal numbers.

        Every replica starts alike but for its data.
        """
        n = x.shape[1]
        first = x[:, torch.linspace(0, n - 1, self.inducing).round().long()]
        made, features = [], x.shape[2]
        for layer in range(self.hidden + 1):
            last = layer == self.hidden
            outputs = 1 if last else self.width
            if layer == 0:
                inducing = first.unsqueeze(1).expand(-1, outputs, -1, -1).clone()
            else:
                inducing = torch.randn(outputs, self.inducing, features).to(x).expand(len(x), -1, -1, -1).clone()
            made.append(SparseGP(inducing, self.kernel, linear_mean=not last))
            features = outputs
        return made


def forward(layers: Sequence[SparseGP], x: Tensor, xi: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The mean and the std of f given the draws xi, (S, R, N) each; S = 1 without hidden layers. x: (R, N, D)."""
    h = x.unsqueeze(0)
    for layer, noise in zip(layers, xi, strict=False):
        mean, std = layer.law(h)
        h = mean + std * noise
    mean, std = layers[-1].law(h)
    return mean.squeeze(-1), std.squeeze(-1)


@dataclass(frozen=True)
class DeepGPFit(FittedMethod):
    """The trained layers. xi: of each hidden layer, (S, 1, 1, H). noise: σ, (R, 1)."""

    layers: Sequence[SparseGP]
    xi: list[Tensor]
    noise: Tensor
    average_variances: bool

    @torch.no_grad()
    def __call__(self, x: Tensor) -> MixturePrediction:
        with exact_arithmetic():
            laws = [forward(self.layers, part.to(self.noise), self.xi) for part in x.split(CHUNK, 1)]
        mean, std = (torch.cat(parts, -1).transpose(0, 1).to(x) for parts in zip(*laws, strict=True))
        if self.average_variances:
            mean, std = mean.mean(1, keepdim=True), std.square().mean(1, keepdim=True).sqrt()
        return MixturePrediction(mean, std, self.noise.unsqueeze(1).to(x))
