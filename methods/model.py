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
from torch.linalg import vector_norm
from torch.nn import functional

Perturb = Callable[[Tensor, int], Tensor]  # (hidden activations (..., N, width), layer index) -> the same shape


class PerSampleGradients(ABC):
    """∇θ of −log p(yᵢ | xᵢ, θ) for every training point i of a batch, without making them if possible."""

    @property
    @abstractmethod
    def norms(self) -> Tensor:
        """(..., B): ‖gᵢ‖ over the whole of θ."""

    @abstractmethod
    def add_weighted_sum(self, weights: Tensor | None, out: Tensor) -> None:
        """out ← out + Σᵢ weightsᵢ gᵢ, in place. weights: (..., B), None for 1; out: (..., P), contiguous."""


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
        """theta (..., P), contiguous; x (..., B, D), y (..., B) with the same leading dimensions."""

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


@dataclass(frozen=True)
class Activation:
    """φ: z -> φ(z). into: (z, out), writes φ(z). backward: (∂/∂φ(z), z), makes the first ∂/∂z, in place."""

    value: Callable[[Tensor], Tensor]
    into: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor], object]


aten = torch.ops.aten  # the kernels that autograd calls
ACTIVATIONS = {
    "relu": Activation(
        torch.relu,
        lambda z, out: torch.clamp_min(z, 0, out=out),
        lambda delta, z: aten.threshold_backward.grad_input(delta, z, 0, grad_input=delta),
    ),
    "tanh": Activation(
        torch.tanh,
        lambda z, out: torch.tanh(z, out=out),
        lambda delta, z: aten.tanh_backward.grad_input(delta, z.tanh(), grad_input=delta),
    ),
    "silu": Activation(
        functional.silu,
        lambda z, out: aten.silu.out(z, out=out),
        lambda delta, z: aten.silu_backward.grad_input(delta, z, grad_input=delta),
    ),
}


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
        activation, last = ACTIVATIONS[self.activation].value, len(self.hidden)
        h = x
        for index, ((_, _, scale), (weight, bias)) in enumerate(zip(self._layers, self.weights(theta), strict=True)):
            h = linear(h, weight, bias, scale)
            if index < last:
                h = activation(h)
                h = h if perturb is None else perturb(h, index)
        return h.squeeze(-1)

    def stacked_layers(self, theta: Tensor) -> list[Tensor]:
        """Of each layer the weight with the bias as its last row, (L, fan_in + 1, fan_out), unscaled: views of θ, which
        is contiguous, its leading dimensions flattened to L."""
        shapes = [(m + 1, n) for m, n, _ in self._layers]
        parts = theta.view(-1, theta.shape[-1]).split([m * n for m, n in shapes], dim=1)
        return [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]

    def per_sample_gradients(self, theta: Tensor, x: Tensor, y: Tensor) -> MLPGradients:
        # By hand: autograd keeps, clears and passes over more than the arithmetic needs.
        activation, scales = ACTIVATIONS[self.activation], [scale for _, _, scale in self._layers]
        layers, x = self.stacked_layers(theta.detach()), x.reshape(-1, *x.shape[-2:])
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        for layer, scale in zip(layers, scales, strict=True):
            m = layer.shape[1] - 1
            h = x.new_empty(*x.shape[:2], m + 1)
            h.select(2, m).fill_(1 / scale)  # what the bias is multiplied by
            if outputs:
                activation.into(outputs[-1], h.narrow(2, 0, m))
            else:
                h.narrow(2, 0, m).copy_(x)
            inputs.append(h)
            outputs.append(product(h, layer, scale))
        error = outputs[-1].view(y.shape) - y
        deltas = [(error / self.noise(theta, x).square()).view(*x.shape[:2], 1)]
        for layer, scale, z in zip(layers[:0:-1], scales[:0:-1], outputs[-2::-1], strict=True):
            deltas.append(product(deltas[-1], layer.narrow(1, 0, z.shape[2]).mT, scale))
            activation.backward(deltas[-1], z)
        return MLPGradients(self, y.shape, inputs, deltas[::-1], scales)


@dataclass(frozen=True)
class MLPGradients(PerSampleGradients):
    """Per-sample gradients of a stack of MLPs by book-keeping (arXiv 2210.00038): layer l's is scale · aᵢ δᵢᵀ, so norms
    and weighted sums never need the (..., B, P) tensor.

    shape: (..., B); L is the product of the leading dimensions.
    inputs: a, (L, B, fan_in + 1) per layer: the activations and a 1/scale for the bias.
    deltas: δ = ∂(−log p)/∂(pre-activation), (L, B, fan_out).
    """

    model: MLP
    shape: torch.Size
    inputs: list[Tensor]
    deltas: list[Tensor]
    scales: list[float]

    @property
    def norms(self) -> Tensor:
        layers = [
            vector_norm(delta, dim=-1) * vector_norm(a, dim=-1) * scale
            for a, delta, scale in zip(self.inputs, self.deltas, self.scales, strict=True)
        ]
        whole: Tensor = vector_norm(torch.stack(layers), dim=0)
        return whole.view(self.shape)

    def add_weighted_sum(self, weights: Tensor | None, out: Tensor) -> None:
        layers = self.model.stacked_layers(out)
        for layer, a, delta, scale in zip(layers, self.inputs, self.deltas, self.scales, strict=True):
            weighted = delta if weights is None else delta * weights.reshape(*delta.shape[:-1], 1)
            # A view is no target for a batched product; the sum costs less than a loop of single ones.
            layer.add_(product(a.mT, weighted), alpha=scale)


def product(a: Tensor, b: Tensor, scale: float = 1) -> Tensor:
    """scale · a @ b for stacks of matrices (L, m, k), (L, k, n). The thin ones, at a network's two ends, in the ways
    that matrix libraries are not slow at."""
    out = a.new_empty(len(a), a.shape[1], b.shape[2])
    if a.shape[2] == 1:
        return torch.mul(a * scale, b, out=out)
    if b.shape[2] == 1:
        torch.baddbmm(out.mT, b.mT, a.mT, beta=0, alpha=scale, out=out.mT)
        return out
    return torch.baddbmm(out, a, b, beta=0, alpha=scale, out=out)


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
