"""Data on both sides of a gap in one dimension: what the gapped datasets share. They differ in truth and noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gapbench.datasets.base import Dataset, Layout, Problems
from gapbench.datasets.streams import stream


@dataclass(frozen=True, kw_only=True)
class Gapped(Dataset):
    """Training points uniform on both sides of the gap, n / 2 on each, and a grid of test points over everything.

    noise_std: std of the observation noise, units of y. span: the interval of the data. gap: the interval inside the
    span that has no data. extrapolation: the width of the test grid beyond each end of the span. test_points: M,
    equally spaced, both ends included.
    """

    n: int = 1000
    noise_std: float = 0.0
    span: tuple[float, float] = (-4.0, 4.0)
    gap: tuple[float, float] = (-1.0, 1.0)
    extrapolation: float = 2.0
    test_points: int = 241

    def __post_init__(self) -> None:
        (low, high), (left, right) = self.span, self.gap
        problems = {
            f"n = {self.n}: expected an even number of at least 2, half for each side": self.n < 2 or self.n % 2,
            f"noise_std = {self.noise_std}: expected a std of at least 0": not 0 <= self.noise_std < np.inf,
            f"gap = {self.gap}: expected low < high, inside the span {self.span}": not low < left < right < high,
            f"extrapolation = {self.extrapolation}: expected at least 0": not 0 <= self.extrapolation < np.inf,
            f"test_points = {self.test_points}: expected at least 2": self.test_points < 2,
        }
        for problem, holds in problems.items():
            if holds:
                raise ValueError(f"{type(self).__name__}: {problem}")

    @abstractmethod
    def truth(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The noise-free function at x, of the shape of x, units of y."""

    def noise(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The std of the noise at x, of the shape of x, units of y."""
        return np.full_like(x, self.noise_std)

    @property
    def layout(self) -> Layout:
        return Layout("grid", feature=0)

    def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
        low, high = self.span[0] - self.extrapolation, self.span[1] + self.extrapolation
        grid = np.linspace(low, high, self.test_points).round(12)  # so that a region's ends lie on it exactly
        in_gap = (grid > self.gap[0]) & (grid < self.gap[1])
        in_span = (grid >= self.span[0]) & (grid <= self.span[1])
        truth, noise = self.truth(grid), self.noise(grid)

        x, y, y_test = [], [], []
        for replica in replicas:
            key = (type(self).__name__, seed, replica)
            unit = stream(*key, "x").random((2, self.n // 2))
            sides = np.array([[self.span[0], self.gap[0]], [self.gap[1], self.span[1]]])
            x.append((sides[:, :1] + (sides[:, 1:] - sides[:, :1]) * unit).ravel())
            y.append(self.truth(x[-1]) + self.noise(x[-1]) * stream(*key, "noise").standard_normal(self.n))
            y_test.append(truth + noise * stream(*key, "test noise").standard_normal(len(grid)))

        def repeated(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.tile(values, (len(replicas), 1)))

        return Problems(
            x=torch.from_numpy(np.stack(x)).float().unsqueeze(-1),
            y=torch.from_numpy(np.stack(y)).float(),
            x_test=repeated(grid).float().unsqueeze(-1),
            y_test=torch.from_numpy(np.stack(y_test)).float(),
            f_test=repeated(truth).float(),
            noise_test=repeated(noise).float(),
            regions={
                "data": repeated(in_span & ~in_gap),
                "gap": repeated(in_gap),
                "extrapolation": repeated(~in_span),
            },
        )
