"""Likeness: how near the scores of a cell that was run again come to the scores of before.

Within tolerance: each replica's scores differ by rounding. Statistically alike: the runs may be two trainings of one
law. Both learn the same data, so each replica's difference is then as likely up as down, and Student's law says how
many standard errors their mean may be from 0. Replicas that share training rows need no correction here, since what
differs is the training alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from gapbench.evaluation.headline import most
from gapbench.evaluation.results import Column, Floats, Result
from gapbench.evaluation.scores import SCORES

TOLERANCE = 1e-3  # of a score's size: the larger of its two values and of its mean size over the replicas
FLOOR = 1e-9  # the least size, for scores that are 0 but for rounding
SIGMAS = 3.0  # of a normal law; the test of all headline scores together has the level that these have


@dataclass(frozen=True)
class Likeness:
    """A verdict with the numbers behind it, as half a sentence."""

    verdict: Literal["same bits", "within tolerance", "statistically alike", "different"]
    detail: str


def likeness(old: Result, new: Result) -> Likeness:
    """Compare two runs of the same replicas by the scores that both have; "same bits" is no verdict of this one."""
    if old.failures.keys() != new.failures.keys():
        return Likeness("different", f"replicas that failed: {_numbers(old)} before, {_numbers(new)} now")
    differences = {column: relative(*_values(old, new, column)) for column in shared(old, new)}
    if not differences:
        return Likeness("different", "no score in common")
    worst = max(differences, key=lambda column: differences[column])
    largest = f"scores differ by at most {differences[worst]:.1e} of their size ({' · '.join(worst)})"
    if differences[worst] <= TOLERANCE:
        return Likeness("within tolerance", largest)
    if not math.isfinite(differences[worst]):
        return Likeness("different", f"{' · '.join(worst)} is a finite number in one of the runs alone")
    shifts = sorted(_shifts(old, new), key=lambda shift: shift.errors / shift.limit)
    if not shifts:
        return Likeness("different", f"{largest}; one replica has no spread to judge this by")
    alike = shifts[-1].errors <= shifts[-1].limit
    return Likeness("statistically alike" if alike else "different", f"{shifts[-1]}; {largest}")


def shared(old: Result, new: Result) -> list[Column]:
    """The columns in which both runs have scores."""
    return [(name, where) for name, by in new.scores.items() for where in by if where in old.scores.get(name, {})]


def _numbers(result: Result) -> str:
    return ", ".join(map(str, sorted(result.failures))) or "none"


def _values(old: Result, new: Result, column: Column) -> tuple[Floats, Floats]:
    name, region = column
    return old.scores[name][region], new.scores[name][region]


def relative(a: Floats, b: Floats) -> float:
    """The largest difference of a replica, in the score's size; inf if only one of the two is finite.

    0 for a score that the old run did not have, such as a distance to a reference that was made later.
    """
    if np.isnan(a).all():
        return 0.0
    finite = np.abs(a[np.isfinite(a)])
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), max(FLOOR, finite.mean() if finite.size else 0.0))
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b) / size)
    return float(np.nan_to_num(apart, nan=np.inf).max())


@dataclass(frozen=True)
class _Shift:
    """The mean difference of a score, new − old. errors: its size in standard errors. limit: how many are alike."""

    column: Column
    mean: float
    errors: float
    limit: float
    replicas: int

    def __str__(self) -> str:
        return (
            f"{' · '.join(self.column)} moved by {self.mean:+.3g}, which is {self.errors:.1f} standard errors over "
            f"{self.replicas} replicas; up to {self.limit:.1f} are alike"
        )


def _shifts(old: Result, new: Result) -> Iterator[_Shift]:
    """The shifts of the headline's scores, of those that two replicas or more have."""
    columns = [column for column in most([new]) if SCORES[column[0]].pooled is None]
    for column in columns:
        both = np.intersect1d(old.valid(column), new.valid(column))
        if len(both) < 2:
            continue
        a, b = (
            values[np.searchsorted(one.replicas, both)]
            for one, values in zip((old, new), _values(old, new, column), strict=True)
        )
        with np.errstate(invalid="ignore"):
            differences = np.where(a == b, 0.0, b - a)
        mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(len(both))
        errors = abs(mean) / error if error else math.inf if mean else 0.0
        limit = float(stats.t.isf(stats.norm.sf(SIGMAS) / len(columns), len(both) - 1))
        yield _Shift(column, mean, errors, limit, len(both))
