"""The model every method shares: pure functions of one flat parameter vector θ.

θ is (..., P) and x is (..., N, D); leading dimensions broadcast, so one model, R replicas (R, P), an
ensemble (R, members, P) and posterior draws (R, S, P) read the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

Perturb = Callable[[Tensor, int], Tensor]  # (hidden activations (..., N, width), layer index) -> the same shape


class PerSampleGradients(ABC):
    """∇θ of −log p(yᵢ | xᵢ, θ) for every training point i of a batch, without making them if possible."""

    @property
    @abstractmethod
    def norms(self) -> Tensor:
        """(..., B): ‖gᵢ‖ over the whole of θ."""

    @abstractmethod
    def add_weighted_sum(self, weights: Tensor, out: Tensor) -> None:
        """out ← out + Σᵢ weightsᵢ gᵢ, in place. weights: (..., B), out: (..., P), contiguous."""


@dataclass(frozen=True, kw_only=True)
class Model(ABC):
    """y ~ N(f(x; θ), noise²),  θ ~ N(0, prior_std² I).

    prior_std: the prior's std, the same for every parameter: scales belong inside `mean`.
    noise_std: the known std of the observation noise.
    f_std: std added (in variance) to every draw of f at prediction; 0 except to replay published recipes.
    """

    prior_std: float = math.sqrt(2)
    noise_std: float = 0.1
    f_std: float = 0.0

    def __post_init__(self) -> None:
        if not (self.prior_std > 0 and self.noise_std > 0 and self.f_std >= 0):
            raise ValueError(
                f"prior_std = {self.prior_std}, noise_std = {self.noise_std}, f_std = {self.f_std}: expected "
                "prior_std > 0, noise_std > 0 and f_std ≥ 0"
            )

    @property
    @abstractmethod
    def size(self) -> int:
        """P."""

    @abstractmethod
    def mean(self, theta: Tensor, x: Tensor, perturb: Perturb | None = None) -> Tensor:
        """f(x; θ), (..., N). `perturb` is applied to each hidden layer's activations."""

    @abstractmethod
    def per_sample_gradients(self, theta: Tensor, x: Tensor, y: Tensor) -> PerSampleGradients:
        """theta (..., P), x (..., B, D), y (..., B) with the same leading dimensions."""

    def init(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Where training starts, (*shape, P): a draw from the prior."""
        return self.sample_prior(generator, shape)

    def sample_prior(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """(*shape, P) on the generator's device."""
        draws = torch.randn((*shape, self.size), generator=generator, device=generator.device)
        return draws * self.prior_std

    def noise(self, theta: Tensor, x: Tensor) -> Tensor:
        """Std of y given f; broadcasts to (..., N). Methods read the noise nowhere else."""
        return theta.new_tensor(self.noise_std)

    def log_likelihood(self, theta: Tensor, x: Tensor, y: Tensor, perturb: Perturb | None = None) -> Tensor:
        """log p(yᵢ | xᵢ, θ) of each point, (..., N)."""
        noise = self.noise(theta, x)
        z = (y - self.mean(theta, x, perturb)) / noise
        return -0.5 * z.square() - noise.log() - 0.5 * math.log(2 * math.pi)

    def log_prior(self, theta: Tensor) -> Tensor:
        """log p(θ), (...)."""
        z = theta / self.prior_std
        return (-0.5 * z.square() - math.log(self.prior_std) - 0.5 * math.log(2 * math.pi)).sum(-1)


ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "silu": functional.silu}


@dataclass(frozen=True, kw_only=True)
class MLP(Model):
    """A multilayer perceptron with one output. hidden = () is linear regression with an intercept.

    features: D. hidden: the widths. activation: after each hidden layer.
    scale_by_fan_in: weights are divided by √fan_in inside `mean`, so that an isotropic prior on θ is
        N(0, prior_std² / fan_in) on the weights, and one step size suits every layer. False: θ holds the weights.
    default_init: training starts at torch.nn.Linear's default U(−1/√fan_in, 1/√fan_in) for weights and biases
        instead of a draw from the prior. Only without scale_by_fan_in, whose weights it is meant for.
    """

    features: int = 1
    hidden: tuple[int, ...] = (50, 50)
    activation: Literal["relu", "tanh", "silu"] = "relu"
    scale_by_fan_in: bool = True
    default_init: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features < 1 or any(width < 1 for width in self.hidden):
            raise ValueError(f"features = {self.features}, hidden = {self.hidden}: expected widths of at least 1")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation = {self.activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        if self.default_init and self.scale_by_fan_in:
            raise ValueError("default_init = True: expected scale_by_fan_in = False with it")

    @property
    def _layers(self) -> list[tuple[int, int, float]]:
        """(fan_in, fan_out, what the weights are multiplied by) of each linear layer."""
        widths = (self.features, *self.hidden, 1)
        return [(m, n, 1 / math.sqrt(m) if self.scale_by_fan_in else 1.0) for m, n in pairwise(widths)]

    @property
    def size(self) -> int:
        return sum((fan_in + 1) * fan_out for fan_in, fan_out, _ in self._layers)

    def init(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        if not self.default_init:
            return self.sample_prior(generator, shape)
        bounds = torch.cat([torch.full(((m + 1) * n,), 1 / math.sqrt(m)) for m, n, _ in self._layers])
        uniform = torch.rand((*shape, self.size), generator=generator, device=generator.device)
        return (2 * uniform - 1) * bounds.to(uniform)

    def weights(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """θ cut into (weight (..., fan_in, fan_out), bias (..., fan_out)) per layer: views, unscaled."""
        # One split, not several slices: the backward of a split is a single concatenation.
        parts = theta.split([size for m, n, _ in self._layers for size in (m * n, n)], dim=-1)
        return [
            (weight.unflatten(-1, (m, n)), bias)
            for (m, n, _), weight, bias in zip(self._layers, parts[::2], parts[1::2], strict=True)
        ]

    def mean(self, theta: Tensor, x: Tensor, perturb: Perturb | None = None) -> Tensor:
        activation, last = ACTIVATIONS[self.activation], len(self.hidden)
        h = x
        for index, ((_, _, scale), (weight, bias)) in enumerate(zip(self._layers, self.weights(theta), strict=True)):
            h = linear(h, weight, bias, scale)
            if index < last:
                h = activation(h)
                h = h if perturb is None else perturb(h, index)
        return h.squeeze(-1)

    def per_sample_gradients(self, theta: Tensor, x: Tensor, y: Tensor) -> MLPGradients:
        activation, last = ACTIVATIONS[self.activation], len(self.hidden)
        inputs, scales = [x], [scale for _, _, scale in self._layers]
        outputs: list[Tensor] = []
        with torch.enable_grad():
            for index, (weight, bias) in enumerate(self.weights(theta)):
                z = linear(inputs[-1], weight, bias, scales[index])
                outputs.append(z if outputs else z.requires_grad_())  # differentiate from the first layer on
                if index < last:
                    inputs.append(activation(z))
            z = (y - outputs[-1].squeeze(-1)) / self.noise(theta, x)
            loss = 0.5 * z.square().sum()
        deltas = torch.autograd.grad(loss, outputs)
        return MLPGradients([h.detach() for h in inputs], list(deltas), scales)


@dataclass(frozen=True)
class MLPGradients(PerSampleGradients):
    """Per-sample gradients of a stack of MLPs by book-keeping (arXiv 2210.00038): layer l's is scale·aᵢ δᵢᵀ
    for its weight and δᵢ for its bias, so norms and weighted sums never need the (..., B, P) tensor.

    inputs: a, (..., B, fan_in) per layer. deltas: δ = ∂(−log p)/∂(pre-activation), (..., B, fan_out).
    """

    inputs: list[Tensor]
    deltas: list[Tensor]
    scales: list[float]

    @property
    def norms(self) -> Tensor:
        squares = [
            delta.square().sum(-1) * (scale**2 * a.square().sum(-1) + 1)
            for a, delta, scale in zip(self.inputs, self.deltas, self.scales, strict=True)
        ]
        return torch.stack(squares).sum(0).sqrt()

    def add_weighted_sum(self, weights: Tensor, out: Tensor) -> None:
        rows, start = out.view(-1, out.shape[-1]), 0
        for a, delta, scale in zip(self.inputs, self.deltas, self.scales, strict=True):
            a, weighted = a.reshape(-1, *a.shape[-2:]), (delta * weights.unsqueeze(-1)).reshape(-1, *delta.shape[-2:])
            m, n = a.shape[-1], weighted.shape[-1]
            weight, bias = rows[:, start : start + m * n].view(-1, m, n), rows[:, start + m * n :][:, :n]
            torch.baddbmm(weight, a.mT, weighted, alpha=scale, out=weight)
            bias += weighted.sum(-2)
            start += (m + 1) * n


def linear(h: Tensor, weight: Tensor, bias: Tensor, scale: float) -> Tensor:
    """scale · h @ weight + bias for stacks. h (..., N, m), weight (..., m, n), bias (..., n) -> (..., N, n)."""
    lead = h.shape[:-2]
    if lead != weight.shape[:-2]:
        lead = torch.Size(np.broadcast_shapes(lead, weight.shape[:-2]))
        h, weight = h.expand(*lead, *h.shape[-2:]), weight.expand(*lead, *weight.shape[-2:])
        bias = bias.expand(*lead, bias.shape[-1])
    if not lead:
        return torch.addmm(bias, h, weight, alpha=scale)
    flat = (part.flatten(0, -3) for part in (bias.unsqueeze(-2), h, weight))
    return torch.baddbmm(*flat, alpha=scale).reshape(*lead, h.shape[-2], weight.shape[-1])
