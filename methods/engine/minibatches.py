"""Sampling schemes of minibatches. Every replica and chain has its own minibatch, on the device of the data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gapbench.methods.engine.precision import widest


@dataclass(frozen=True)
class Batch:
    """A minibatch. index: (..., B), positions in the training set. present: (..., B), 1, or 0 for padding (needed if
    the batches of a stack differ in size); None without padding."""

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
        """The number that the summed gradients are divided by."""

    @abstractmethod
    def draw(self, shape: Sequence[int], batch: int, n: int, generator: Generator) -> Iterator[Batch]:
        """An endless iterator of batches, for a stack of this leading shape."""


@dataclass(frozen=True)
class FixedSize(Minibatches):
    """Batches of b different points, where every subset has the same probability; the whole set if b ≥ n."""

    def rate(self, batch: int, n: int) -> float:
        return batch / n

    def divisor(self, batch: int, n: int) -> int:
        return batch

    def draw(self, shape: Sequence[int], batch: int, n: int, generator: Generator) -> Iterator[Batch]:
        if batch >= n:
            yield from everything(shape, n, generator)
        # Floyd's algorithm (Bentley & Floyd 1987): b random numbers a batch, not n. A block of steps is drawn at once.
        while True:
            # The points of a batch come first, so that a search through them passes over whole rows of memory.
            chosen = torch.empty((batch, BLOCK, *shape), dtype=torch.long, device=generator.device)
            for k, last in enumerate(range(n - batch, n)):
                one = torch.randint(last + 1, (BLOCK, *shape), generator=generator, device=generator.device)
                taken = (chosen[:k] == one).any(0)
                chosen[k] = one.masked_fill(taken, last)
            yield from map(Batch, chosen.movedim(0, -1).contiguous())


@dataclass(frozen=True)
class Epochs(Minibatches):
    """Passes over all points in random order, cut into batches of b; the last one of a pass is smaller if b does not
    divide n. Most published code trains like this. A point of a smaller batch has more weight."""

    def rate(self, batch: int, n: int) -> float:
        return min(batch, n) / n

    def divisor(self, batch: int, n: int) -> int:
        return batch

    def draw(self, shape: Sequence[int], batch: int, n: int, generator: Generator) -> Iterator[Batch]:
        while True:
            order = torch.rand((*shape, n), generator=generator, device=generator.device).argsort(-1)
            yield from map(Batch, order.split(batch, -1))


@dataclass(frozen=True)
class Poisson(Minibatches):
    """Batches that each point enters independently with probability q = b/n, as privacy accountants assume."""

    def rate(self, batch: int, n: int) -> float:
        return batch / n

    def divisor(self, batch: int, n: int) -> int:
        return batch

    def draw(self, shape: Sequence[int], batch: int, n: int, generator: Generator) -> Iterator[Batch]:
        return poisson_batches(shape, self.rate(batch, n), n, generator)


@dataclass(frozen=True)
class OpacusLoader(Minibatches):
    """Poisson sampling with the rate and divisor that Opacus's PrivacyEngine derives from a DataLoader.

    The rate is q = 1/(number of batches), and the divisor is ⌊nq⌋. If b does not divide n, they differ from b/n and b:
    for b = 16 and n = 1000, they are 1/63 and 15.
    """

    def rate(self, batch: int, n: int) -> float:
        return 1 / math.ceil(n / batch)

    def divisor(self, batch: int, n: int) -> int:
        return int(n * self.rate(batch, n))

    def draw(self, shape: Sequence[int], batch: int, n: int, generator: Generator) -> Iterator[Batch]:
        return poisson_batches(shape, self.rate(batch, n), n, generator)


def too_few_points(batch: int, n: int) -> str | None:
    """The reason why batches of this size cannot be drawn from n points; None if they can."""
    return f"batch = {batch} is larger than the {n} training points" if batch > n else None


BLOCK = 64  # steps drawn at once: one pass of random numbers and, on a GPU, one synchronisation for a block


def poisson_batches(shape: Sequence[int], rate: float, n: int, generator: Generator) -> Iterator[Batch]:
    """Poisson samples from the gaps between their members. Gaps are geometric: about b random numbers a batch, not n.

    The number of gaps drawn is enough for a batch's size with probability 1 − 1e-15.
    """
    from scipy import stats  # here, because most commands need none

    if rate >= 1:
        yield from everything(shape, n, generator)
    most = min(n, int(stats.binom.isf(1e-15, n, rate)) + 1)
    while True:
        gaps = torch.empty((BLOCK, *shape, most), device=generator.device, dtype=widest(generator.device))
        gaps.geometric_(rate, generator=generator).clamp_(1, n + 1)
        index = gaps.cumsum(-1).long() - 1  # (BLOCK, ..., most), increasing
        present = index < n
        widths = present.sum(-1).flatten(1).amax(1).clamp(min=1).tolist()
        index, weights = index.clamp_(max=n - 1), present.float()
        for step, width in enumerate(widths):
            yield Batch(index[step, ..., :width], weights[step, ..., :width])


def everything(shape: Sequence[int], n: int, generator: Generator) -> Iterator[Batch]:
    """The whole training set as a batch, in an endless iterator."""
    whole = Batch(torch.arange(n, device=generator.device).expand(*shape, n))
    while True:
        yield whole


def gather_points(values: Tensor, index: Tensor) -> Tensor:
    """The chosen points of each replica. values: (R, N) or (R, N, D); index: (R, ..., B). Returns (R, ..., B[, D])."""
    chosen = index.flatten(1)
    if values.ndim == 3:
        chosen = chosen.unsqueeze(-1).expand(-1, -1, values.shape[-1])
    return values.gather(1, chosen).view(*index.shape, *values.shape[2:])
