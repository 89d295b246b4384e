"""Gradient-boosted quantile regression (Friedman 2001; Koenker & Bassett 1978), by scikit-learn's histogram trees.

    q_p(x) = constant + lr Σₜ treeₜ(x),   each tree fitted to the gradient of Σₙ max(p (yₙ − q), (p − 1)(yₙ − q)),
    one sum for each level p, sorted at each x (Chernozhukov, Fernández-Val & Galichon 2010)

https://doi.org/10.1214/aos/1013203451, https://scikit-learn.org/stable/modules/ensemble.html
Family: trees.
Caveat: no network, no prior, no f. In a gap a tree goes on with the values of the data at its edges, so nothing widens.
Where y changes fast and has little noise, the outer quantiles need more steps than the middle one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import QuantilePrediction
from gapbench.methods.quantile_regression import LEVELS, are_levels


@dataclass(frozen=True)
class BoostedQuantiles(UncertaintyMethod):
    """Trees for each quantile of y. steps: how many. leaves: of a tree, at most. smallest: leaf, in points."""

    levels: tuple[float, ...] = LEVELS
    steps: int = 100
    lr: float = 0.1
    leaves: int = 31
    smallest: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (
            len(self.levels) > 1
            and are_levels(self.levels)
            and self.steps > 0
            and self.leaves > 1
            and self.smallest > 0
        ):
            raise ValueError(
                f"BoostedQuantiles: levels = {self.levels}, steps = {self.steps}, leaves = {self.leaves}, smallest = "
                f"{self.smallest}: expected two levels or more, increasing, in (0, 1), and at least 1, 2 and 1"
            )

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Boosted:
        trees = [[self.boosted(p, *points) for p in self.levels] for points in zip(arrays(x), arrays(y), strict=True)]
        return Boosted(trees, self.levels)

    def boosted(self, level: float, x: np.ndarray, y: np.ndarray) -> HistGradientBoostingRegressor:
        """The trees of one quantile. x: (N, D), y: (N,)."""
        regressor = HistGradientBoostingRegressor(
            loss="quantile",
            quantile=level,
            max_iter=self.steps,
            learning_rate=self.lr,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=self.smallest,
            early_stopping=False,
            random_state=0,  # used for early stopping, and by bins of more than 200,000 points
        )
        return regressor.fit(x, y)


def arrays(values: Tensor) -> np.ndarray:
    """The values as a float64 array, which scikit-learn takes."""
    return values.detach().cpu().double().numpy()


@dataclass(frozen=True)
class Boosted(FittedMethod):
    """The trees of each replica and level."""

    trees: Sequence[Sequence[HistGradientBoostingRegressor]]
    levels: tuple[float, ...]

    def __call__(self, x: Tensor) -> QuantilePrediction:
        found = [[one.predict(points) for one in each] for each, points in zip(self.trees, arrays(x), strict=True)]
        return QuantilePrediction(self.levels, torch.from_numpy(np.sort(found, 1)).to(x))
