"""Conformal prediction (Vovk, Gammerman & Shafer 2005): intervals whose coverage is right on average over the data.

Points that no training saw give scores s₁ … sₙ. The k-th smallest, k = ⌈p(n + 1)⌉, bounds the score of a new point with
probability at least p, if all points are exchangeable. Given the calibration points, coverage is Beta(k, n + 1 − k).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

COVERAGES = (0.5, 0.9, 0.95)
LEVELS = tuple(sorted((1 + sign * p) / 2 for p in COVERAGES for sign in (-1, 1)))


@dataclass(frozen=True)
class Split:
    """The data in two parts. x, y: for training; x_held, y_held: for calibration."""

    x: Tensor
    y: Tensor
    x_held: Tensor
    y_held: Tensor

    @staticmethod
    def of(x: Tensor, y: Tensor, held: int, generator: Generator) -> Split:
        """A random split of each replica, with `held` points for calibration. x: (R, N, D), y: (R, N)."""
        order = torch.rand(y.shape, generator=generator, device=y.device).argsort(1)
        x, y = x.gather(1, order.unsqueeze(-1).expand_as(x)), y.gather(1, order)
        return Split(x[:, held:], y[:, held:], x[:, :held], y[:, :held])


def rank(coverage: float, count: int) -> int:
    """The rank k of the score that bounds a new one; above `count` if no score does."""
    return math.ceil(coverage * (count + 1) - 1e-9)


def too_few(share: float, n: int) -> str | None:
    """The reason why so few points cannot calibrate the widest interval; None if they can."""
    held = round(share * n)
    if 1 <= rank(max(COVERAGES), held) <= held < n:
        return None
    least = math.ceil(max(COVERAGES) / (1 - max(COVERAGES)) - 1e-9)
    return (
        f"calibration = {share}: {held} of {n} points: at least {least} for intervals of {max(COVERAGES):.0%}, "
        "and some left for training"
    )


def bounds(scores: Tensor) -> Tensor:
    """The bound on a new point's score for each of COVERAGES, (R, C). scores: (R, C, held)."""
    ordered = scores.sort(-1).values
    return torch.stack([ordered[:, c, rank(p, scores.shape[-1]) - 1] for c, p in enumerate(COVERAGES)], 1)
