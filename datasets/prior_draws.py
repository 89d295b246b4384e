"""Tasks whose truth is a draw from a model's own prior, so that exact Bayes is calibrated on them, in the gap too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gapbench.datasets.base import Dataset, Layout, Problems
from gapbench.datasets.streams import stream, torch_stream
from gapbench.methods.engine.model import MLP, Model


@dataclass(frozen=True, kw_only=True)
class PriorDraws(Dataset):
    """One task for each replica: θ ~ the prior, n points (x, f(x; θ) + noise), half on each side of the gap.

    If p(f | x, data) is the posterior under this model, the PITs of the truth are uniform over tasks, at any point.
    PITs of one task are dependent. So each task has only one test point in each region: in the data (spread as the
    training points are), in the gap and in the extrapolation. The PITs of a region are then independent.

    model: the model whose prior and noise are used. span, gap, extrapolation: as in GappedSine, units of x.
    """

    model: Model = field(default_factory=lambda: MLP(hidden=(20, 20)))
    n: int = 40
    span: tuple[float, float] = (-4.0, 4.0)
    gap: tuple[float, float] = (-1.0, 1.0)
    extrapolation: float = 2.0

    def __post_init__(self) -> None:
        (low, high), (left, right) = self.span, self.gap
        if self.n < 2 or self.n % 2:
            raise ValueError(f"PriorDraws: n = {self.n}: expected an even number of at least 2, half for each side")
        if not (low < left < right < high and 0 < self.extrapolation < np.inf):
            raise ValueError(
                f"PriorDraws: span = {self.span}, gap = {self.gap}, extrapolation = {self.extrapolation}: expected the "
                "gap inside the span, and an extrapolation of some width"
            )

    @property
    def layout(self) -> Layout:
        return Layout("tasks")

    @property
    def network(self) -> Model:
        return self.model

    def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
        tasks = torch.stack([self._task(seed, replica) for replica in replicas]).float()
        x, y, f, noise = tasks.unbind(1)  # (R, n + 3) each
        train, test = slice(None, self.n), slice(self.n, None)
        names = list(self._pieces)
        return Problems(
            x=x[:, train].unsqueeze(-1),
            y=y[:, train],
            x_test=x[:, test].unsqueeze(-1),
            y_test=y[:, test],
            f_test=f[:, test],
            noise_test=noise[:, test],
            regions={name: torch.tensor([[one == name for one in names]] * len(replicas)) for name in names},
        )

    @property
    def _pieces(self) -> dict[str, list[tuple[float, float]]]:
        """The intervals of each region. A test point lies in each interval of its region with equal probability."""
        (low, high), (left, right) = self.span, self.gap
        return {
            "data": [(low, left), (right, high)],
            "gap": [(left, right)],
            "extrapolation": [(low - self.extrapolation, low), (high, high + self.extrapolation)],
        }

    def _task(self, seed: int, replica: int) -> Tensor:
        """The values x, y, f and noise at the n training points, then at the test points, (4, n + 3), float64."""
        key = (type(self).__name__, seed, replica)
        random = stream(*key, "x")
        sides = np.array(self._pieces["data"])
        train = (sides[:, :1] + np.diff(sides) * random.random((2, self.n // 2))).ravel()
        chosen = np.array([pieces[random.integers(len(pieces))] for pieces in self._pieces.values()])
        test = chosen[:, 0] + np.diff(chosen)[:, 0] * random.random(len(chosen))

        x = torch.from_numpy(np.concatenate([train, test])).float().double()  # as methods will see it
        theta = self.model.sample_prior(torch_stream("cpu", *key, "truth"), ()).double()
        f = self.model.mean(theta, x.unsqueeze(-1))
        noise = self.model.noise(theta, x.unsqueeze(-1)).expand_as(f)
        y = f + noise * torch.from_numpy(stream(*key, "noise").standard_normal(len(f)))
        return torch.stack([x, y, f, noise])
