"""Where in x is a 90 % interval not one of 90 %: its coverage among the rows with low, middling and high values of each
feature (feature-stratified coverage, Angelopoulos & Bates 2023, https://arxiv.org/abs/2107.07511).

An interval can be right on average and wrong everywhere. With D features there are 3D such groups, and chance makes one
of them look bad: so the band of the binomial law is that of 1 − 0.05/3D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gapbench.evaluation.results import Floats, Result

LEVEL, CHANCE = 0.9, 0.05
OUTSIDE = round((1 - LEVEL) / 2, 12)
PARTS = ("low", "middling", "high")


@dataclass(frozen=True)
class Group:
    """The rows with one part of a feature's values, between `low` and `high`. coverage: the share of `rows` that the
    90 % intervals hold; band: where that share is if they are right there, with the chance of all groups together."""

    feature: int
    part: str
    low: float
    high: float
    coverage: float
    rows: int
    band: tuple[float, float]

    @property
    def wrong(self) -> bool:
        return not self.band[0] <= self.coverage <= self.band[1]


def held(result: Result, region: str) -> tuple[Floats, Floats, NDArray[np.bool_]] | None:
    """The test rows of a region in all sound replicas: their x (N, D), their y (N,), and which of them the 90 %
    intervals hold, (N,). None if the results do not have them, as published folders of tables do not.

    A row is held if its PIT is between 0.05 and 0.95. Methods that predict intervals alone have these in place of PITs.
    """
    curves, pits = result.curves, result.pits["pit_y"]
    if "x_test" not in curves:
        return None
    where = (pits >= OUTSIDE) & (pits <= 1 - OUTSIDE)
    known = np.isfinite(pits)
    y = curves.get("y_test", np.zeros_like(pits))  # published curves are without: rows of equal x count as one
    if {"y_test", "y_05", "y_95"} <= curves.keys():
        low, high = curves["y_05"], curves["y_95"]
        where, known = (low <= y) & (y <= high), np.isfinite(low) & np.isfinite(high) & np.isfinite(y)
    known &= result.inside(region) & result.sound[:, None]
    return (curves["x_test"][known], y[known], where[known]) if known.any() else None


def different(x: Floats, y: Floats) -> int:
    """The number of different rows: one that several splits hold out says little more than once. x: (N, D); y: (N,)."""
    return len(np.unique(np.column_stack([x, y]), axis=0))


def groups(x: Floats, y: Floats, inside: NDArray[np.bool_]) -> list[Group]:
    """The groups of rows, the least covered first. x: (N, D); y, inside: (N,).

    They are thirds of the rows in the order of a feature. Equal values stay together: a feature of few has fewer.
    """
    cut = []
    for feature, values in enumerate(x.T):
        edges = np.unique(np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf"))
        which = np.searchsorted(edges, values, side="left")
        there = [part for part in range(3) if (which == part).any()]
        if len(there) > 1:
            # With two groups, the upper one holds the high values.
            names = PARTS if len(there) == 3 else (PARTS[0], PARTS[2])
            cut += [(feature, name, which == part) for part, name in zip(there, names, strict=True)]
    found = []
    for feature, name, rows in cut:
        count = different(x[rows], y[rows])
        low, high = stats.binom.interval(1 - CHANCE / len(cut), count, LEVEL)
        values = x[rows, feature]
        share = float(inside[rows].mean())
        band = float(low) / count, float(high) / count
        found.append(Group(feature, name, float(values.min()), float(values.max()), share, int(rows.sum()), band))
    return sorted(found, key=lambda group: group.coverage)


def worst(result: Result, region: str) -> Group | None:
    """The group whose coverage is the furthest below its band, or the nearest to it from above; None if unknown."""
    rows = held(result, region)
    found = groups(*rows) if rows is not None else []
    return min(found, key=lambda group: group.coverage - group.band[0], default=None)


def told(group: Group, names: Sequence[str]) -> str:
    """A group in words, such as "age is 3 to 14: 71 % of 120 rows"."""
    name = names[group.feature] if group.feature < len(names) else f"feature {group.feature}"
    return f"{name} is {group.low:.3g} to {group.high:.3g}: {100 * group.coverage:.0f} % of {group.rows} rows"
