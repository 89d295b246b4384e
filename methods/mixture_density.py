"""Mixture density network (Bishop 1994, https://publications.aston.ac.uk/id/eprint/373/).

    p(y | x, θ) = Σₖ πₖ(x) N(y; μₖ(x), σₖ(x)²),   π = softmax of K outputs,   σₖ = center · exp(spread · output),
    minimise  −Σₙ log p(yₙ | xₙ, θ) − log p(θ)

center is the noise that the model knows or expects, and spread is that of a noise that depends on x.
Family: learned noise.
Expected: too narrow in a gap.
Caveat: one network has one f, the mean of its mixture. The mixture is the law of y given x and is learned where the
data are; in a gap it is whatever the network extrapolates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod
from gapbench.methods.engine.adam_trained import AdamTrained, map_loss
from gapbench.methods.engine.distributions import HasCdf, HasDensity, NormalMixture
from gapbench.methods.engine.model import Model, log_density
from gapbench.methods.engine.noise import HeteroscedasticNoise
from gapbench.methods.engine.predictions import (
    DIVERGED,
    Prediction,
    PredictionError,
    first_faults,
    floating,
    precision,
)
from gapbench.methods.mean_variance import with_variance


@dataclass(frozen=True)
class MixtureDensity(AdamTrained):
    """One network with 3K outputs: the means, stds and weights of K normals. components: K."""

    components: int = 3
    steps: int = 16_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components < 1:
            raise ValueError(f"MixtureDensity: components = {self.components}: expected at least 1")

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> MixtureFit:
        noise = with_variance(model).noise_std
        assert isinstance(noise, HeteroscedasticNoise)
        network = replace(model, noise_std=model.expected_noise).with_outputs(3 * self.components)

        def likelihood(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return log_mixture(y, *mixture_of(network, noise, theta, x))

        loss = map_loss(network, x, y, y.shape[1], likelihood)
        theta, diagnostics = self.train(loss, network.init(generator, (len(y),)), y.shape[1], generator)
        return MixtureFit(network, noise, theta, diagnostics=diagnostics)


def mixture_of(model: Model, noise: HeteroscedasticNoise, theta: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The log weights, the means and the stds of the components at x, (..., N, K) each."""
    location, z, logits = model.network(theta, x).unflatten(-1, (3, -1)).unbind(-2)
    return logits.log_softmax(-1), location, noise.std(z)


def log_mixture(y: Tensor, log_weights: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """The log density of y (..., N). The others: (..., N, K)."""
    return torch.logsumexp(log_weights + log_density(y.unsqueeze(-1), location, scale), -1)


@dataclass(frozen=True)
class MixtureFit(FittedMethod):
    """The network of the mixture. theta: (R, P)."""

    model: Model
    noise: HeteroscedasticNoise
    theta: Tensor

    def __call__(self, x: Tensor) -> WeightedPrediction:
        return WeightedPrediction(*mixture_of(self.model, self.noise, self.theta, x))


@dataclass(frozen=True)
class WeightedMixture(HasCdf, HasDensity):
    """The mixture Σₖ wₖ N(locationₖ, scaleₖ²). log_weights, location, scale: (R, M, K), float64, scale > 0."""

    log_weights: Tensor
    location: Tensor
    scale: Tensor

    @cached_property
    def weights(self) -> Tensor:
        """The weights w, (R, M, K)."""
        return self.log_weights.exp()

    @property
    def mean(self) -> Tensor:
        return (self.weights * self.location).sum(-1)

    @property
    def std(self) -> Tensor:
        """The std of the whole mixture, in which the spread of the components' means counts too."""
        centred = self.location - self.mean.unsqueeze(-1)
        found: Tensor = torch.linalg.vector_norm(self.weights.sqrt() * torch.hypot(centred, self.scale), dim=-1)
        return found

    def cdf(self, t: Tensor) -> Tensor:
        each: Tensor = torch.special.ndtr((t.unsqueeze(-1) - self.location) / self.scale)
        return (self.weights * each).sum(-1)

    def cdf_below(self, t: Tensor) -> Tensor:
        return self.cdf(t)

    def log_density(self, t: Tensor) -> Tensor:
        return log_mixture(t, self.log_weights, self.location, self.scale)

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        return torch.stack([self._quantile(p) for p in levels], 1)

    def _quantile(self, p: float) -> Tensor:
        """The quantile of level p, (R, M), by halving: those of the components bracket it."""
        if not 0 < p < 1:
            raise ValueError(f"quantile level p = {p}: expected 0 < p < 1")
        each = self.location + self.scale * torch.special.ndtri(torch.tensor(p, dtype=self.scale.dtype))
        low: Tensor = each.amin(-1)
        high: Tensor = each.amax(-1)
        for _ in range(60):
            middle = (low + high) / 2
            above = self.cdf(middle) >= p
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return high

    def crps(self, t: Tensor) -> Tensor:
        """The CRPS in closed form, E|X − t| − ½ E|X − X′|."""
        pairs = self.location.unsqueeze(-1) - self.location.unsqueeze(-2)
        pairs = distance(pairs, torch.hypot(self.scale.unsqueeze(-1), self.scale.unsqueeze(-2)))
        within = (self.weights.unsqueeze(-1) * self.weights.unsqueeze(-2) * pairs).sum((-1, -2))
        outside = (self.weights * distance(t.unsqueeze(-1) - self.location, self.scale)).sum(-1)
        return (outside - within / 2).clamp(min=0)


def distance(location: Tensor, scale: Tensor) -> Tensor:
    """The mean E|X| of X ~ N(location, scale²)."""
    z = location / scale
    return location * (z * math.sqrt(0.5)).erf() + scale * math.sqrt(2 / math.pi) * (-0.5 * z.square()).exp()


@dataclass(frozen=True)
class WeightedPrediction(Prediction):
    """The mixture of y, and its mean as the one f. Fields as those of `WeightedMixture`, (R, M, K) of any precision."""

    log_weights: Tensor
    location: Tensor
    scale: Tensor

    @cached_property
    def y(self) -> WeightedMixture:
        weights = self.log_weights.double().log_softmax(-1)  # whose sum is 1 to more digits than float32 has
        return WeightedMixture(weights, self.location.double(), self.scale.double())

    @cached_property
    def f(self) -> NormalMixture:
        """The mean of y without any spread, as the f of one network with a noise has none."""
        return NormalMixture(self.y.mean.unsqueeze(1), self.y.mean.new_zeros(()))

    @property
    def aleatoric_std(self) -> Tensor:
        return self.y.std

    @property
    def draws(self) -> int:
        return 1

    def faults(self, replicas: int, points: int) -> dict[int, str]:
        names = ("log_weights", "location", "scale")
        floating(self, *names)
        shapes = {name: tuple(getattr(self, name).shape) for name in names}
        for name, shape in shapes.items():
            if len(shape) != 3 or shape[:2] != (replicas, points) or not shape[2] or shape != shapes["location"]:
                raise PredictionError(f"{name}: shape {shape}, expected (R, M, K) = ({replicas}, {points}, K)")
        finite = self.log_weights.isfinite() & self.location.isfinite() & self.scale.isfinite()
        sums = self.log_weights.double().logsumexp(-1)
        return first_faults(
            replicas,
            {
                DIVERGED: ~finite,
                "a scale is not above 0": self.scale <= 0,
                "the weights do not sum to 1": sums.abs() > 1e-3,
            },
        )

    def rescaled(self, shift: Tensor, scale: Tensor) -> Self:
        to, by = precision(self.location, shift, scale), scale.double().view(-1, 1, 1)
        location = shift.double().view(-1, 1, 1) + by * self.location.double()
        return replace(self, location=location.to(to), scale=(by * self.scale.double()).to(to))
