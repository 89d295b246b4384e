"""Per-sample gradients ∇θ of −log p(yᵢ | xᵢ, θ) for every point of a batch, if possible without storing them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise

if TYPE_CHECKING:
    from gapbench.methods.engine.model import MLP, Model


class PerSampleGradients(ABC):
    """The gradients gᵢ of a batch, through the two operations that a sampler needs: norms and weighted sums."""

    @property
    def points(self) -> int:
        """The number B of points of a batch."""
        return self.norms.shape[-1]

    @property
    @abstractmethod
    def norms(self) -> Tensor:
        """The norms ‖gᵢ‖ over the whole of θ, (..., B)."""

    @property
    def norm_bound(self) -> Tensor:
        """A number that no norm of a batch exceeds, (...), if possible for less than the norms cost."""
        return self.norms.amax(-1)

    @abstractmethod
    def add_weighted_sum(self, weights: Tensor | None, out: Tensor) -> None:
        """Add Σᵢ weightsᵢ gᵢ to out, in place. weights: (..., B), None for 1; out: (..., P), contiguous."""


@dataclass(frozen=True)
class FullGradients(PerSampleGradients):
    """The gradients themselves. values: (..., B, P)."""

    values: Tensor

    @property
    def norms(self) -> Tensor:
        found: Tensor = vector_norm(self.values, dim=-1)
        return found

    def add_weighted_sum(self, weights: Tensor | None, out: Tensor) -> None:
        weighted = self.values if weights is None else self.values * weights.unsqueeze(-1)
        out.add_(weighted.sum(-2))


def functional_gradients(model: Model, theta: Tensor, x: Tensor, y: Tensor) -> FullGradients:
    """The gradients of any model, by torch.func. Shapes as in `Model.per_sample_gradients`."""
    return pointwise_gradients(lambda theta, x, y: -model.log_likelihood(theta, x, y).sum(), theta, x, y)


def pointwise_gradients(loss: Callable[..., Tensor], theta: Tensor, *points: Tensor) -> FullGradients:
    """The gradients by θ of the loss of each point, by torch.func.

    theta: (..., P). points: (..., B, …) each, with the same leading dimensions. loss: takes one θ and of each of
    `points` a batch of one point, and returns a number.
    """

    def of_point(theta: Tensor, *point: Tensor) -> Tensor:
        return loss(theta, *(part.unsqueeze(0) for part in point))

    lead = theta.ndim - 1
    of_points = torch.func.vmap(torch.func.grad(of_point), (None, *(0 for _ in points)))
    flat = (part.reshape(-1, *part.shape[lead:]) for part in points)
    values = torch.func.vmap(of_points)(theta.reshape(-1, theta.shape[-1]), *flat)
    return FullGradients(values.view(*points[0].shape[: lead + 1], theta.shape[-1]))


class ByHand(torch.autograd.Function):
    """log p(yᵢ | xᵢ, θ) of each point, (..., B), whose derivative by θ is that of `Model.per_sample_gradients`."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, model: MLP, x: Tensor, y: Tensor) -> Tensor:
        gradients = mlp_gradients(model, theta, x, y)
        ctx.gradients, ctx.shape = gradients, theta.shape
        return gradients.log_likelihood

    @staticmethod
    def backward(ctx: Any, by_point: Tensor) -> tuple[Tensor, None, None, None]:
        by_theta = by_point.new_zeros(ctx.shape)
        ctx.gradients.add_weighted_sum(-by_point, by_theta)
        return by_theta, None, None, None


def energy_gradient(model: Model, theta: Tensor, x: Tensor, y: Tensor, n: int) -> Tensor:
    """The estimate of −∇ log p(θ | data) from a batch of n points, (..., P). theta: (..., P); x, y: (..., B[, D])."""
    total = torch.zeros_like(theta)
    model.per_sample_gradients(theta, x, y).add_weighted_sum(None, total)
    return total.mul_(n / y.shape[-1]).add_(theta, alpha=1 / model.prior_std**2)


@dataclass(frozen=True)
class Kernels:
    """An activation φ, by the kernels that autograd calls.

    forward: (z, out): writes φ(z) to out. backward: (∂/∂φ(z), z): changes the first argument to ∂/∂z, in place.
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor], object]


aten = torch.ops.aten
KERNELS = {
    "relu": Kernels(
        lambda z, out: torch.clamp_min(z, 0, out=out),
        lambda delta, z: aten.threshold_backward.grad_input(delta, z, 0, grad_input=delta),
    ),
    "tanh": Kernels(
        lambda z, out: torch.tanh(z, out=out),
        lambda delta, z: aten.tanh_backward.grad_input(delta, z.tanh(), grad_input=delta),
    ),
    "silu": Kernels(
        lambda z, out: aten.silu.out(z, out=out),
        lambda delta, z: aten.silu_backward.grad_input(delta, z, grad_input=delta),
    ),
}


@dataclass(frozen=True)
class MLPGradients(PerSampleGradients):
    """Gradients of a stack of MLPs by book-keeping (arXiv 2210.00038). The gradient of a layer is scale · aᵢ δᵢᵀ, so
    norms and weighted sums never need the (..., B, P) tensor.

    shape: (..., B); L is the product of the leading dimensions.
    inputs: a, (L, fan_in + 1, B) per layer: the activations and a 1/scale for the bias.
    deltas: δ = ∂(−log p)/∂(pre-activation), (L, fan_out, B).
    Points come last, so that the part of a without the bias is one piece of memory: passes over many pieces took a
    third of a step.
    noise: ∂(−log p)/∂(the noise's entry of θ), (L, B); None if θ has none.
    error, std: f − y, (L, B), and σ, which broadcasts to that.
    """

    model: MLP
    shape: torch.Size
    inputs: list[Tensor]
    deltas: list[Tensor]
    noise: Tensor | None
    error: Tensor
    std: Tensor

    @property
    def log_likelihood(self) -> Tensor:
        """The log likelihood of each point, (..., B)."""
        z = self.error / self.std
        return (-0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)).view(self.shape)

    @property
    def points(self) -> int:
        return self.shape[-1]

    @property
    def norms(self) -> Tensor:
        parts = [
            (square_norm(delta) * square_norm(a)).mul_(scale**2)
            for a, delta, (_, _, scale) in zip(self.inputs, self.deltas, self.model.layers, strict=True)
        ]
        parts += [] if self.noise is None else [self.noise.square()]
        whole: Tensor = sum(parts[1:], parts[0])
        return whole.sqrt().view(self.shape)

    @property
    def norm_bound(self) -> Tensor:
        # Σᵢ ‖aᵢ‖² ‖δᵢ‖² ≤ Σᵢ ‖aᵢ‖² Σᵢ ‖δᵢ‖²: each sum is one pass over one piece of memory.
        parts = [
            (vector_norm(a, dim=(1, 2)) * vector_norm(delta, dim=(1, 2))).mul_(scale)
            for a, delta, (_, _, scale) in zip(self.inputs, self.deltas, self.model.layers, strict=True)
        ]
        parts += [] if self.noise is None else [vector_norm(self.noise, dim=1)]
        found: Tensor = vector_norm(torch.stack(parts), dim=0)
        return found.view(self.shape[:-1])

    def add_weighted_sum(self, weights: Tensor | None, out: Tensor) -> None:
        layers = stacked_layers(self.model, out)
        for layer, a, delta, (_, _, scale) in zip(layers, self.inputs, self.deltas, self.model.layers, strict=True):
            weighted = delta if weights is None else delta * weights.reshape(len(delta), 1, -1)
            # A batched product cannot write into a view. The extra sum costs less than a loop of single products.
            layer.add_(product(a, weighted.mT), alpha=scale)
        if self.noise is not None:
            weighted = self.noise if weights is None else self.noise * weights.reshape(self.noise.shape)
            out.view(-1, out.shape[-1]).select(1, -1).add_(weighted.sum(-1))


def square_norm(columns: Tensor) -> Tensor:
    """The squared norm of each column, (L, B). columns: (L, m, B)."""
    return columns.square().sum(1)


def mlp_gradients(model: MLP, theta: Tensor, x: Tensor, y: Tensor) -> MLPGradients:
    """The gradients of a stack of MLPs, by one forward and one backward pass. theta must not require gradients."""
    *hidden, last = stacked_layers(model, theta)
    inputs, outputs = forward(model, hidden, x.reshape(-1, *x.shape[-2:]))
    scale = model.layers[-1][2]
    f = product(last.mT, inputs[-1], scale)  # (L, K, B)
    std = model.noise_of(theta.view(-1, theta.shape[-1]), f.mT)
    error = f.select(1, 0) - y.reshape(len(f), -1)
    delta, noise = _likelihood_gradients(model, f, error, std)
    deltas = [delta]
    if hidden:
        by_hidden = product(last.narrow(1, 0, last.shape[1] - 1), delta, scale)
        deltas = [*backward(model, hidden, outputs, by_hidden), delta]
    return MLPGradients(model, y.shape, inputs, deltas, noise, error, std)


def forward(model: MLP, layers: Sequence[Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs a of each of the first layers and of the layer behind them, and the outputs z of each of them.

    layers: as `stacked_layers` gives them, any number of a network's first ones. x: (L, B, D). a: (L, fan_in + 1, B):
    activations, and a 1/scale for the bias. z: (L, fan_out, B).
    """
    kernels = KERNELS[model.activation]
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for number, (m, _, scale) in enumerate(model.layers[: len(layers) + 1]):
        h = x.new_empty(len(x), m + 1, x.shape[1])
        h.select(1, m).fill_(1 / scale)  # the factor of the bias
        if outputs:
            kernels.forward(outputs[-1], h.narrow(1, 0, m))
        else:
            h.narrow(1, 0, m).copy_(x.mT)
        inputs.append(h)
        if number < len(layers):
            outputs.append(product(layers[number].mT, h, scale))
    return inputs, outputs


def backward(model: MLP, layers: Sequence[Tensor], outputs: Sequence[Tensor], by_hidden: Tensor) -> list[Tensor]:
    """The derivatives δ by the outputs z of each of the first layers, (L, fan_out, B). by_hidden: that by the last
    activation; changed in place."""
    kernels = KERNELS[model.activation]
    kernels.backward(by_hidden, outputs[-1])
    deltas = [by_hidden]
    for number in range(len(layers) - 1, 0, -1):
        m, _, scale = model.layers[number]
        deltas.append(product(layers[number].narrow(1, 0, m), deltas[-1], scale))
        kernels.backward(deltas[-1], outputs[number - 1])
    return deltas[::-1]


def _likelihood_gradients(model: MLP, outputs: Tensor, error: Tensor, std: Tensor) -> tuple[Tensor, Tensor | None]:
    """The derivatives of −log p by the network's outputs, (L, K, B), and by the noise's entry of θ, (L, B) or None.

    With e = f − y:  ∂/∂f = e/σ²,  ∂/∂ log σ = 1 − e²/σ².
    """
    by_mean = error / std.square()
    if model.network_outputs == 1:
        last = by_mean.unsqueeze(1)
    else:
        last = torch.zeros_like(outputs)
        last.select(1, 0).copy_(by_mean)
    if isinstance(model.noise_std, HeteroscedasticNoise):
        last.select(1, 1).copy_(model.noise_std.spread * (1 - error * by_mean))
    if isinstance(model.noise_std, LearnedNoise):
        return last, model.noise_std.spread / model.prior_std * (1 - error * by_mean)
    return last, None


def stacked_layers(model: MLP, theta: Tensor, count: int | None = None) -> list[Tensor]:
    """The weight of each layer with the bias as its last row, (L, fan_in + 1, fan_out), unscaled.

    These are views of theta, which must be contiguous. Its leading dimensions are flattened to L. count: the number of
    layers, from the first; None for all.
    """
    shapes = [(m + 1, n) for m, n, _ in model.layers[:count]]
    sizes = [m * n for m, n in shapes]
    parts = theta.view(-1, theta.shape[-1]).split([*sizes, theta.shape[-1] - sum(sizes)], dim=1)
    return [part.view(-1, *shape) for part, shape in zip(parts[:-1], shapes, strict=True)]


def product(a: Tensor, b: Tensor, scale: float = 1) -> Tensor:
    """The products scale · a @ b of stacks of matrices (L, m, k), (L, k, n).

    Matrix libraries are slow for thin matrices, which a network has at its two ends; they are treated separately.
    """
    out = a.new_empty(len(a), a.shape[1], b.shape[2])
    if a.shape[2] == 1:
        return torch.mul(a * scale, b, out=out)
    if b.shape[2] == 1:
        torch.baddbmm(out.mT, b.mT, a.mT, beta=0, alpha=scale, out=out.mT)
        return out
    return torch.baddbmm(out, a, b, beta=0, alpha=scale, out=out)
