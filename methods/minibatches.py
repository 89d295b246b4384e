"""How a minibatch is drawn: for every replica and chain its own, on the training data's device."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Generator, Tensor


@dataclass(frozen=True)
class Batch:
    """index: (..., B) positions in the training set. present: (..., B) 1 or 0 where a stack's batches differ in
    size and are padded; None if nothing is padded."""

    index: Tensor
    present: Tensor | None = None


@dataclass(frozen=True)
class Minibatches(ABC):
    """A sampling scheme. `batch` is the nominal size b, n the number of training points."""

    @abstractmethod
    def rate(self, batch: int, n: int) -> float:
        """The probability that a given point is in a given batch."""

    @abstractmethod
    def divisor(self, batch: int, n: int) -> int:
        """What the summed gradients are divided by."""

    @abstractmethod
    def draw(self, shape: Sequence[int], batch: int, n: int, generator: Generator) -> Iterator[Batch]:
        """Batches without end, for a stack of this leading shape."""


@dataclass(frozen=True)
class FixedSize(Minibatches):
    """b different points, every subset alike; the whole set if b = n."""

    def rate(self, batch: int, n: int) -> float:
        return batch / n

    def divisor(self, batch: int, n: int) -> int:
        return batch

    def draw(self, shape: Sequence[int], batch: int, n: int, generator: Generator) -> Iterator[Batch]:
        everything = torch.arange(n, device=generator.device).expand(*shape, n)
        while True:
            if batch == n:
                yield Batch(everything)
            else:
                keys = torch.rand((*shape, n), generator=generator, device=generator.device)
                yield Batch(keys.topk(batch, sorted=False).indices)


@dataclass(frozen=True)
class Poisson(Minibatches):
    """Each point enters each batch by itself with probability q = b/n, as privacy accountants assume."""

    def rate(self, batch: int, n: int) -> float:
        return batch / n

    def divisor(self, batch: int, n: int) -> int:
        return batch

    def draw(self, shape: Sequence[int], batch: int, n: int, generator: Generator) -> Iterator[Batch]:
        return poisson_batches(shape, self.rate(batch, n), n, generator)


@dataclass(frozen=True)
class OpacusLoader(Minibatches):
    """Poisson sampling with the rate and divisor that Opacus's PrivacyEngine derives from a DataLoader: q = 1/(number
    of batches), divided by ⌊nq⌋. Where b does not divide n neither is b/n and b: 1/63 and 15 for b = 16, n = 1000."""

    def rate(self, batch: int, n: int) -> float:
        return 1 / math.ceil(n / batch)

    def divisor(self, batch: int, n: int) -> int:
        return int(n * self.rate(batch, n))

    def draw(self, shape: Sequence[int], batch: int, n: int, generator: Generator) -> Iterator[Batch]:
        return poisson_batches(shape, self.rate(batch, n), n, generator)


BLOCK = 64  # steps drawn at once: one pass of random numbers, and on a GPU one synchronisation, for all of them


def poisson_batches(shape: Sequence[int], rate: float, n: int, generator: Generator) -> Iterator[Batch]:
    """Poisson samples by the gaps between their members, which are geometric: b numbers a batch instead of n.

    The number of gaps drawn covers all but 1e-15 of a batch's possible sizes.
    """
    if rate >= 1:
        while True:
            yield Batch(torch.arange(n, device=generator.device).expand(*shape, n))
    most = min(n, int(stats.binom.isf(1e-15, n, rate)) + 1)
    while True:
        gaps = torch.empty((BLOCK, *shape, most), device=generator.device, dtype=torch.float64)
        gaps.geometric_(rate, generator=generator).clamp_(1, n + 1)
        index = gaps.cumsum(-1).long() - 1  # (BLOCK, ..., most), increasing
        present = index < n
        widest = max(1, int(present.sum(-1).amax()))
        index, present = index[..., :widest].clamp(max=n - 1), present[..., :widest]
        for step in range(BLOCK):
            yield Batch(index[step], present[step].float())


def take(values: Tensor, index: Tensor) -> Tensor:
    """The chosen points of each replica. values: (R, N) or (R, N, D); index: (R, ..., B). Returns (R, ..., B[, D])."""
    replica = torch.arange(len(index), device=index.device).view(-1, *[1] * (index.ndim - 1))
    return values[replica, index]
