"""Targets: the densities that samplers walk on, for a stack of replicas and chains."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.optimise import minimise
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.engine.precision import widest

CACHED = 2**23  # bytes of activations of a block of chains on a CPU; no number depends on it


@dataclass(frozen=True)
class Point:
    """The positions q of chains, (..., size), with the energy U(q), (...), and the gradient ∇U(q), (..., size)."""

    q: Tensor
    energy: Tensor
    gradient: Tensor

    def moved(self, there: Tensor, other: Point) -> Point:
        """The other point for the chains that are there, (...) bool; this point for the rest."""
        wide = there.unsqueeze(-1)
        return Point(
            torch.where(wide, other.q, self.q),
            torch.where(there, other.energy, self.energy),
            torch.where(wide, other.gradient, self.gradient),
        )


def flattened(q: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The chains in one dimension: q (L, size), x (L, N, D), y (L, N). q, x, y: as `Target.at` takes them."""
    x, y = x.expand(*q.shape[:-1], *x.shape[-2:]), y.expand(*q.shape[:-1], y.shape[-1])
    return q.view(-1, q.shape[-1]), x.flatten(0, -3), y.flatten(0, -2)


def in_cache(q: Tensor, n: int, width: float) -> Iterator[slice]:
    """The blocks of chains whose activations fit a CPU's cache; all chains at once on other devices.

    q: (..., size). n: the number of points. width: that of a hidden layer.
    """
    chains = q.shape[:-1].numel()
    together = max(1, CACHED // int(32 * max(n, 1) * width)) if q.device.type == "cpu" else chains
    return (slice(first, first + together) for first in range(0, chains, together))


@dataclass(frozen=True)
class Target(ABC):
    """A density p(q | data) ∝ exp(−U(q)) of a vector q from which functions follow."""

    model: Model

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of entries of q."""

    @abstractmethod
    def part(self, theta: Tensor) -> Tensor:
        """The vector q, (..., size), of all parameters θ, (..., P)."""

    @abstractmethod
    def at(self, q: Tensor, x: Tensor, y: Tensor) -> Point:
        """The point at q: energy in the widest float of the device, gradient in the float of q.

        q: (..., size), contiguous; x: (..., N, D) and y: (..., N), which broadcast to q's leading dimensions.
        """

    @abstractmethod
    def log_likelihood(self, q: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The number log p(y | q) = −U(q) − log p(q), (...), in the widest float. q, x, y: as `at` takes them."""

    def log_prior(self, q: Tensor) -> Tensor:
        """The log density of the prior N(0, prior_std² I), (...), in the widest float."""
        tau, wide = self.model.prior_std, q.to(widest(q.device))
        return -0.5 * (wide / tau).square().sum(-1) - self.size * (math.log(tau) + 0.5 * math.log(2 * math.pi))

    def gradient(self, q: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The gradient ∇U(q) alone."""
        return self.at(q, x, y).gradient

    @abstractmethod
    def fitted(
        self, q: Tensor, x: Tensor, y: Tensor, diagnostics: Mapping[str, Tensor], failures: Mapping[int, str]
    ) -> FittedMethod:
        """The fitted method of draws along chains. q: (R, chains, draws, size), x: (R, N, D), y: (R, N)."""

    def optima(self, q: Tensor, x: Tensor, y: Tensor, steps: int, lr: float) -> Tensor:
        """The places of low energy that Adam reaches from q, (R, ..., size). x, y: as `at` takes them."""

        def surrogate(q: Tensor) -> Tensor:  # its gradient is that of U
            return (q * self.gradient(q.detach(), x, y)).sum(-1)

        return minimise(surrogate, q, steps, lr)[0]

    def start(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """The start of chains, (*shape, size): draws of the prior, as `Model.init` makes them."""
        return self.part(self.model.init(generator, shape))

    def prior_draws(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        """Draws of q from the prior, (*shape, size)."""
        return self.part(self.model.sample_prior(generator, shape))


@dataclass(frozen=True)
class AllParameters(Target):
    """The posterior of all parameters: q = θ."""

    @property
    def size(self) -> int:
        return self.model.size

    def part(self, theta: Tensor) -> Tensor:
        return theta

    def at(self, q: Tensor, x: Tensor, y: Tensor) -> Point:
        return Point(q, -self.log_prior(q) - self.log_likelihood(q, x, y), self.gradient(q, x, y))

    def log_likelihood(self, q: Tensor, x: Tensor, y: Tensor) -> Tensor:
        flat, x, y = flattened(q, x, y)
        found = flat.new_empty(len(flat), dtype=widest(q.device))
        for block in in_cache(q, y.shape[-1], math.sqrt(self.size)):
            found[block] = self.model.log_likelihood(flat[block], x[block], y[block]).to(found).sum(-1)
        return found.view(q.shape[:-1])

    def gradient(self, q: Tensor, x: Tensor, y: Tensor) -> Tensor:
        gradient = q / self.model.prior_std**2
        flat, parts = gradient.view(-1, self.size), flattened(q, x, y)
        for block in in_cache(q, y.shape[-1], math.sqrt(self.size)):
            self.model.per_sample_gradients(*(part[block] for part in parts)).add_weighted_sum(None, flat[block])
        return gradient

    def fitted(
        self, q: Tensor, x: Tensor, y: Tensor, diagnostics: Mapping[str, Tensor], failures: Mapping[int, str]
    ) -> FittedMethod:
        return PosteriorDraws(self.model, q.flatten(1, 2), q.shape[1], diagnostics=diagnostics, failures=failures)
