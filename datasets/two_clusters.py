"""Two clusters of data in the plane, and test points on the line through them: are error bars wider in between?

The in-between test of Foong, Li, Hernández-Lobato & Turner 2019 (https://arxiv.org/abs/1906.11537), who find mean-field
variational inference too sure there, in two dimensions. The line is a diagonal, so it is no feature's axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gapbench.datasets.base import Dataset, Layout, Problems
from gapbench.datasets.streams import stream

# Rows: the unit vectors along the line and across it. A position (t, s) is the point x = (t, s) @ AXES.
AXES = np.array([[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2)


@dataclass(frozen=True, kw_only=True)
class TwoClusters(Dataset):
    """Training points uniform in two discs, n / 2 in each. Their centres are the points ±distance·(1, 1)/√2.

    Discs have ends, so that the regions are exact: no training point is beside the gap. The truth is
    f = sin 2t + 0.2 sin 2s  at the position t along the line and s across it. By default it has a maximum and a minimum
    in the gap, which no training point shows.

    noise_std: std of the observation noise, units of y. distance: from the origin to each centre, units of x. radius:
    of each disc, units of x; the std of each feature within a disc is half of it. extrapolation: the length of the line
    beyond each disc. line_points: the number of test points on the line, equally spaced, both ends included. They come
    first. side_points: the number of test points on each side of a square grid, whose diagonal is the line; some of
    these lie on the line too.

    Regions of the line's points are "data" in the discs, "gap" between them and "extrapolation" beyond. The region
    "square" is the square grid.
    """

    n: int = 100
    noise_std: float = 0.1
    distance: float = 2.0
    radius: float = 0.6
    extrapolation: float = 1.4
    line_points: int = 101
    side_points: int = 9

    def __post_init__(self) -> None:
        problems = {
            f"n = {self.n}: expected an even number of at least 2, half for each cluster": self.n < 2 or self.n % 2,
            f"noise_std = {self.noise_std}: expected a std of at least 0": not 0 <= self.noise_std < np.inf,
            f"distance = {self.distance}, radius = {self.radius}: expected 0 < radius < distance, for a gap "
            "between the clusters": not 0 < self.radius < self.distance < np.inf,
            f"extrapolation = {self.extrapolation}: expected at least 0": not 0 <= self.extrapolation < np.inf,
            f"line_points = {self.line_points}: expected at least 2": self.line_points < 2,
            f"side_points = {self.side_points}: expected at least 2": self.side_points < 2,
        }
        for problem, holds in problems.items():
            if holds:
                raise ValueError(f"{type(self).__name__}: {problem}")

    @property
    def layout(self) -> Layout:
        return Layout("grid", line=self.line_points)

    def truth(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """The noise-free function at positions (t, s), (..., 2) -> (...), units of y."""
        return np.sin(2 * position[..., 0]) + 0.2 * np.sin(2 * position[..., 1])

    def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
        # Rounded, so that a region's ends lie on the line's points exactly.
        inner, outer = round(self.distance - self.radius, 12), round(self.distance + self.radius, 12)
        reach = outer + self.extrapolation
        line = np.linspace(-reach, reach, self.line_points).round(12)
        side = np.linspace(-reach, reach, self.side_points) / np.sqrt(2)
        square = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2) @ AXES.T
        test = np.concatenate([np.stack([line, np.zeros_like(line)], 1), square])  # positions (M, 2)
        truth = self.truth(test)

        train, y, y_test = [], [], []
        for replica in replicas:
            key = (type(self).__name__, seed, replica)
            train.append(self._clusters(stream(*key, "x")))
            y.append(self.truth(train[-1]) + self.noise_std * stream(*key, "noise").standard_normal(self.n))
            y_test.append(truth + self.noise_std * stream(*key, "test noise").standard_normal(len(test)))

        def repeated(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.tile(values, (len(replicas), *[1] * values.ndim)))

        on_line = np.arange(len(test)) < len(line)
        from_origin = np.abs(test[:, 0])
        return Problems(
            x=torch.from_numpy(np.stack(train) @ AXES).float(),
            y=torch.from_numpy(np.stack(y)).float(),
            x_test=repeated(test @ AXES).float(),
            y_test=torch.from_numpy(np.stack(y_test)).float(),
            f_test=repeated(truth).float(),
            noise_test=repeated(np.full_like(truth, self.noise_std)).float(),
            regions={
                "data": repeated(on_line & (inner <= from_origin) & (from_origin <= outer)),
                "gap": repeated(on_line & (from_origin < inner)),
                "extrapolation": repeated(on_line & (from_origin > outer)),
                "square": repeated(~on_line),
            },
        )

    def _clusters(self, random: np.random.Generator) -> NDArray[np.float64]:
        """Positions of the training points, (n, 2): the cluster at −distance first."""
        area, turn = random.random((2, self.n))
        radius, angle = self.radius * np.sqrt(area), 2 * np.pi * turn  # uniform over the disc: its area grows as r²
        centre = np.repeat([-self.distance, self.distance], self.n // 2)
        return np.stack([centre + radius * np.cos(angle), radius * np.sin(angle)], 1)
