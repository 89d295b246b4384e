"""Quantile regression forest (Meinshausen 2006, https://jmlr.org/papers/v7/meinshausen06a.html), by scikit-learn.

    wᵢ(x) = 1/T Σₜ 1{xᵢ in the leaf of x in tree t} / (points of this leaf)
    q_p(x) = inf {t : Σᵢ wᵢ(x) 1{yᵢ ≤ t} ≥ p}

The weights are of all training points, whether or not a tree's bootstrap sample has them, as in the paper.
Family: trees.
Caveat: no network, no prior, no f. Quantiles are training targets, so a gap is as wide as its edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.ensemble import RandomForestRegressor
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.boosted_quantiles import arrays
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import QuantilePrediction
from gapbench.methods.quantile_regression import LEVELS, are_levels

CHUNK = 256  # test points at once: their weights on all training points are in memory


@dataclass(frozen=True)
class QuantileForest(UncertaintyMethod):
    """A random forest whose leaves weigh the training targets.

    members: the number of trees. smallest: points of a leaf, at least. share: of the features, those that a split may
    choose from.
    """

    levels: tuple[float, ...] = LEVELS
    members: int = 200
    smallest: int = 5
    share: float = 1 / 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (len(self.levels) > 1 and are_levels(self.levels) and self.smallest > 0 and 0 < self.share <= 1):
            raise ValueError(
                f"QuantileForest: levels = {self.levels}, smallest = {self.smallest}, share = {self.share}: expected "
                "two levels or more, increasing, in (0, 1), at least 1, and a share above 0 and at most 1"
            )

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Forests:
        seeds = torch.randint(2**31 - 1, (len(y),), generator=generator, device=y.device).tolist()
        forests = [
            RandomForestRegressor(
                self.members, min_samples_leaf=self.smallest, max_features=self.share, random_state=seed
            ).fit(*points)
            for seed, *points in zip(seeds, arrays(x), arrays(y), strict=True)
        ]
        return Forests(forests, x, y, self.levels)


@dataclass(frozen=True)
class Forests(FittedMethod):
    """The forest of each replica, and the training data that its leaves weigh. x: (R, N, D), y: (R, N)."""

    forests: Sequence[RandomForestRegressor]
    x: Tensor
    y: Tensor
    levels: tuple[float, ...]

    def __call__(self, x: Tensor) -> QuantilePrediction:
        replicas = zip(self.forests, arrays(self.x), arrays(self.y), arrays(x), strict=True)
        values = [quantiles(*replica, self.levels) for replica in replicas]
        return QuantilePrediction(self.levels, torch.from_numpy(np.stack(values)).to(x))


def quantiles(
    forest: RandomForestRegressor, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, levels: Sequence[float]
) -> np.ndarray:
    """The quantiles at x_test (M, D), (L, M). x: (N, D), y: (N,), the training data."""
    order = y.argsort(kind="stable")
    leaves = forest.apply(x[order])  # (N, T)
    found = []
    for chunk in np.array_split(x_test, -(-len(x_test) // CHUNK)):
        weights = np.zeros((len(chunk), len(y)))
        for own, theirs in zip(forest.apply(chunk).T, leaves.T, strict=True):
            same = own[:, None] == theirs
            weights += same / same.sum(1, keepdims=True)
        reached = weights.cumsum(1) / len(leaves.T)
        # The last sum is 1 but for rounding, which must not keep a level from being reached.
        found.append([y[order[np.minimum((reached < p - 1e-9).sum(1), len(y) - 1)]] for p in levels])
    return np.concatenate(found, 1)
