"""The model that every method shares: pure functions of one flat parameter vector θ.

θ is (..., P) and x is (..., N, D); leading dimensions broadcast. So one model, R replicas (R, P), an ensemble
(R, members, P) and posterior draws (R, S, P) use the same code.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Self

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from gapbench.methods.engine.gradients import ByHand, PerSampleGradients, functional_gradients, mlp_gradients
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise

Perturb = Callable[[Tensor, int], Tensor]  # (hidden activations (..., N, width), layer index) -> the same shape
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "silu": functional.silu,
}


@dataclass(frozen=True, kw_only=True)
class Model(ABC):
    """The model y ~ N(f(x; θ), σ²),  θ ~ N(0, prior_std² I). Likelihood and prior are defined only here.

    features: D. prior_std: the same for every entry of θ; scales belong inside `network`.
    noise_std: σ. A number: σ is known. LearnedNoise() or HeteroscedasticNoise(): σ is learned with the network.
    outputs: the number of outputs of the network, without those of the noise. The first output is f; the others are for
        methods with a loss of their own.
    """

    features: int = 1
    prior_std: float = math.sqrt(2)
    noise_std: float | Noise = 0.1
    outputs: int = 1

    def __post_init__(self) -> None:
        if self.features < 1 or self.outputs < 1:
            raise ValueError(f"features = {self.features}, outputs = {self.outputs}: expected at least 1 of each")
        if not (self.prior_std > 0 and (isinstance(self.noise_std, Noise) or self.noise_std > 0)):
            raise ValueError(
                f"prior_std = {self.prior_std}, noise_std = {self.noise_std}: expected prior_std > 0 and noise_std > 0"
            )

    @property
    @abstractmethod
    def network_size(self) -> int:
        """The number of parameters of the network."""

    @property
    @abstractmethod
    def hidden(self) -> tuple[int, ...]:
        """The widths of the hidden layers; `perturb` is called for each of these."""

    @abstractmethod
    def network(self, theta: Tensor, x: Tensor, perturb: Perturb | None = None) -> Tensor:
        """All outputs of the network, (..., N, K): f, then the noise's output if it has one, then the others."""

    @property
    def size(self) -> int:
        """The number P of parameters: those of the network, then those of the noise."""
        return self.network_size + (self.noise_std.coordinates if isinstance(self.noise_std, Noise) else 0)

    @property
    def network_outputs(self) -> int:
        """The number K of all outputs of the network, with those of the noise."""
        return self.outputs + (self.noise_std.outputs if isinstance(self.noise_std, Noise) else 0)

    @property
    def expected_noise(self) -> float:
        """The std σ of the noise that is known, or the center of its prior if it is learned."""
        return self.noise_std.center if isinstance(self.noise_std, Noise) else self.noise_std

    def with_features(self, features: int) -> Self:
        """The same model for x with this number of features."""
        return replace(self, features=features)

    def with_outputs(self, outputs: int) -> Self:
        """The same model with this number of outputs, without those of the noise."""
        return replace(self, outputs=outputs)

    def mean(self, theta: Tensor, x: Tensor, perturb: Perturb | None = None) -> Tensor:
        """The function f(x; θ), (..., N)."""
        return self.network(theta, x, perturb).select(-1, 0)

    def noise(self, theta: Tensor, x: Tensor) -> Tensor:
        """The std σ of the noise, which broadcasts to (..., N)."""
        outputs = self.network(theta, x) if isinstance(self.noise_std, HeteroscedasticNoise) else None
        return self.noise_of(theta, outputs)

    def noise_of(self, theta: Tensor, outputs: Tensor | None) -> Tensor:
        """The std σ of the noise, which broadcasts to (..., N). outputs: needed by heteroscedastic noise only."""
        if isinstance(self.noise_std, HeteroscedasticNoise):
            assert outputs is not None
            return self.noise_std.std(outputs.select(-1, 1))
        if isinstance(self.noise_std, LearnedNoise):
            return self.noise_std.std(theta.narrow(-1, self.size - 1, 1) / self.prior_std)
        assert not isinstance(self.noise_std, Noise), f"{self.noise_std}: expected one of the kinds in engine/noise.py"
        return torch.full((), self.noise_std, dtype=theta.dtype, device=theta.device)  # no copy from the host

    def mean_and_noise(self, theta: Tensor, x: Tensor, perturb: Perturb | None = None) -> tuple[Tensor, Tensor]:
        """The function f(x; θ), (..., N), and σ, which broadcasts to f, by one pass of the network."""
        outputs = self.network(theta, x, perturb)
        return outputs.select(-1, 0), self.noise_of(theta, outputs)

    def log_likelihood(self, theta: Tensor, x: Tensor, y: Tensor, perturb: Perturb | None = None) -> Tensor:
        """The log likelihood log p(yᵢ | xᵢ, θ) of each point, (..., N)."""
        return log_density(y, *self.mean_and_noise(theta, x, perturb))

    def training_log_likelihood(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The log likelihood of each point, (..., N), for a loss: it can be differentiated once, and by θ alone.

        theta (..., P), x (..., N, D), y (..., N), with the same leading dimensions.
        """
        return self.log_likelihood(theta, x, y)

    def log_prior(self, theta: Tensor) -> Tensor:
        """The log prior density log p(θ), (...)."""
        # θ meets only its own product: every further pass over it costs training, forth and back.
        square = (theta * theta).sum(-1) / self.prior_std**2
        return -0.5 * square - theta.shape[-1] * (math.log(self.prior_std) + 0.5 * math.log(2 * math.pi))

    def per_sample_gradients(self, theta: Tensor, x: Tensor, y: Tensor) -> PerSampleGradients:
        """The gradients ∇θ of −log p(yᵢ | xᵢ, θ) for each point of a batch.

        theta (..., P), contiguous; x (..., B, D), y (..., B) with the same leading dimensions. This default
        differentiates any `log_likelihood`.
        """
        return functional_gradients(self, theta, x, y)

    def init(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """The start of training, (*shape, P): a draw from the prior, but with the noise's entry of θ at its center.

        A first σ far below the first errors gives huge gradients, which Adam does not forget in thousands of steps.
        """
        theta = self.sample_prior(generator, shape)
        theta.narrow(-1, self.network_size, self.size - self.network_size).zero_()
        return theta

    def sample_prior(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Draws of θ from the prior, (*shape, P), float32, on the generator's device."""
        size = (*shape, self.size)
        draws = torch.randn(size, generator=generator, device=generator.device, dtype=torch.float32)
        return draws * self.prior_std


@dataclass(frozen=True, kw_only=True)
class MLP(Model):
    """A multilayer perceptron. hidden = () is linear regression with an intercept.

    hidden: the widths of the hidden layers. activation: the function after each hidden layer.
    scale_by_fan_in: True: weights are divided by √fan_in inside `network`. So an isotropic prior on θ is
        N(0, prior_std² / fan_in) on the weights, and one step size suits every layer. False: θ holds the weights.
    default_init: True: training starts at torch.nn.Linear's default U(−1/√fan_in, 1/√fan_in) for weights and biases
        instead of a draw from the prior. This needs scale_by_fan_in = False.
    """

    hidden: tuple[int, ...] = (50, 50)
    activation: Literal["relu", "tanh", "silu"] = "relu"
    scale_by_fan_in: bool = True
    default_init: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden = {self.hidden}: expected widths of at least 1")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation = {self.activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        if self.default_init and self.scale_by_fan_in:
            raise ValueError("default_init = True: expected scale_by_fan_in = False with it")

    @property
    def layers(self) -> list[tuple[int, int, float]]:
        """The triple (fan_in, fan_out, scale of the weights) of each linear layer."""
        widths = (self.features, *self.hidden, self.network_outputs)
        return [(m, n, 1 / math.sqrt(m) if self.scale_by_fan_in else 1.0) for m, n in pairwise(widths)]

    @property
    def network_size(self) -> int:
        return sum((fan_in + 1) * fan_out for fan_in, fan_out, _ in self.layers)

    def init(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        if not self.default_init:
            return super().init(generator, shape)
        bounds = [torch.full(((m + 1) * n,), 1 / math.sqrt(m)) for m, n, _ in self.layers]
        bound = torch.cat([*bounds, torch.zeros(self.size - self.network_size)])
        size = (*shape, self.size)
        uniform = torch.rand(size, generator=generator, device=generator.device, dtype=torch.float32)
        return (2 * uniform - 1) * bound.to(uniform)

    def weights(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The pair (weight (..., fan_in, fan_out), bias (..., fan_out)) of each layer: views of θ, unscaled."""
        # One split, not several slices: the backward of a split is a single concatenation.
        sizes = [size for m, n, _ in self.layers for size in (m * n, n)]
        parts = theta.split([*sizes, self.size - self.network_size], dim=-1)
        return [
            (weight.unflatten(-1, (m, n)), bias)
            for (m, n, _), weight, bias in zip(self.layers, parts[:-1:2], parts[1::2], strict=True)
        ]

    def last_hidden(self, theta: Tensor, x: Tensor, perturb: Perturb | None = None) -> Tensor:
        """Activations of the last hidden layer, (..., N, width); x itself if the network has no hidden layer."""
        activation = ACTIVATIONS[self.activation]
        h, weights = x, self.weights(theta)
        for index, ((_, _, scale), (weight, bias)) in enumerate(zip(self.layers[:-1], weights[:-1], strict=True)):
            h = activation(linear(h, weight, bias, scale))
            h = h if perturb is None else perturb(h, index)
        return h

    def network(self, theta: Tensor, x: Tensor, perturb: Perturb | None = None) -> Tensor:
        weight, bias = self.weights(theta)[-1]
        return linear(self.last_hidden(theta, x, perturb), weight, bias, self.layers[-1][2])

    def per_sample_gradients(self, theta: Tensor, x: Tensor, y: Tensor) -> PerSampleGradients:
        # Written by hand: autograd stores and touches more memory than the arithmetic needs.
        return mlp_gradients(self, theta.detach(), x, y)

    def training_log_likelihood(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = ByHand.apply(theta.contiguous(), self, x, y)  # type: ignore[no-untyped-call]
        return found


def log_density(y: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    """The log density of y under N(mean, noise²), with broadcasting."""
    z = (y - mean) / noise
    return -0.5 * z.square() - noise.log() - 0.5 * math.log(2 * math.pi)


def linear(h: Tensor, weight: Tensor, bias: Tensor, scale: float) -> Tensor:
    """The stacked scale · h @ weight + bias. h (..., N, m), weight (..., m, n), bias (..., n) -> (..., N, n)."""
    lead = h.shape[:-2]
    if lead != weight.shape[:-2]:
        lead = torch.Size(np.broadcast_shapes(lead, weight.shape[:-2]))
        h, weight = h.expand(*lead, *h.shape[-2:]), weight.expand(*lead, *weight.shape[-2:])
        bias = bias.expand(*lead, bias.shape[-1])
    if not lead:
        return torch.addmm(bias, h, weight, alpha=scale)
    flat = (part.flatten(0, -3) for part in (bias.unsqueeze(-2), h, weight))
    return torch.baddbmm(*flat, alpha=scale).reshape(*lead, h.shape[-2], weight.shape[-1])
