"""Standardisation: the affine change of units between the data and what methods see."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Standardisation:
    """Means and stds of each replica, float64. x_mean, x_std: (R, D), units of x; y_mean, y_std: (R,), units of y."""

    x_mean: Tensor
    x_std: Tensor
    y_mean: Tensor
    y_std: Tensor

    @classmethod
    def identity(cls, replicas: int, features: int) -> Self:
        """The standardisation that changes nothing: for tasks whose prior and noise are in the units of the data."""
        zero, one = torch.zeros(replicas, features, dtype=torch.float64), torch.ones(replicas, dtype=torch.float64)
        return cls(zero, torch.ones_like(zero), torch.zeros_like(one), one)

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Self:
        """The training data's own means and stds. x: (R, N, D), y: (R, N): training data only.

        A column whose values are all equal is centred and keeps its units.
        """
        x_mean, x_std, y_mean, y_std = (part for column in (x, y) for part in _moments(column.double()))
        return cls(x_mean, x_std, y_mean, y_std)

    def x(self, x: Tensor) -> Tensor:
        """The inputs x as methods see them, float32. x: (R, points, D), units of the data."""
        return ((x.double() - self.x_mean.unsqueeze(1)) / self.x_std.unsqueeze(1)).float()

    def y(self, y: Tensor) -> Tensor:
        """The targets y as methods see them, float32. y: (R, points), units of the data."""
        return ((y.double() - self.y_mean.unsqueeze(1)) / self.y_std.unsqueeze(1)).float()

    def select(self, keep: Tensor) -> Self:
        """The standardisation of some of the replicas. keep: (R,) bool."""
        return type(self)(*(getattr(self, one.name)[keep] for one in fields(self)))


def constant(column: Tensor) -> Tensor:
    """True for the columns whose values are all equal, (R, ...) bool. column: (R, N, ...)."""
    return column.amax(1) == column.amin(1)


def _moments(column: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std over dimension 1. The std of a constant column is set to 1, since it would be rounding alone."""
    std = column.std(1, correction=0)
    return column.mean(1), std.masked_fill(constant(column) | (std == 0), 1.0)
