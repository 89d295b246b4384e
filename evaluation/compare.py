"""Two methods on the same replicas: what may be said of their difference, and of the next replica.

With few replicas, Student's interval of the paired differences covers what it says, where bootstraps of the mean cover
90 % in place of 95 % and, of skewed scores, less. Scores that are positive are compared by their ratio: the differences
are those of logs. Random splits of one table share most of their training rows, so their differences are correlated:
the variance of their mean is then the corrected one of Nadeau & Bengio 2003 (https://doi.org/10.1023/A:1024068626366),
σ² (1/n + test rows ÷ training rows), which no number of splits brings below σ² · test ÷ training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import chdtri, nctdtr, ndtr, ndtri, stdtr, stdtrit  # scipy.stats takes most of a second to import

from gapbench.evaluation.results import Column, Floats, Result
from gapbench.evaluation.scores import SCORES

LEVEL = 0.95  # of all intervals
POWER = 0.8  # the probability with which a detectable difference is significant
MOST = 1_000_000  # replicas: more are "never"


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The paired comparison of two methods by one score.

    replicas: on which both have the score. better, worse: how many of these `this` wins, and loses. ratio: True if
    `difference` and `detectable` are factors, this ÷ other; else they are this − other. naive: for splits that share
    training rows, the interval that ignores it; else None. next_better: the probability that `this` wins the next
    replica (of splits: the next split of the same table). detectable: the smallest true difference that as many
    replicas find significant with probability 0.8. needed: the replicas after which the observed difference is so, inf
    if more than a million. Where the replicas are all that there are, only the first five are known, and the ends of
    the interval are nan.
    """

    replicas: int
    better: int
    worse: int
    ratio: bool
    difference: Estimate
    naive: Estimate | None = None
    next_better: Estimate | None = None
    detectable: Estimate | None = None
    needed: Estimate | None = None

    @property
    def significant(self) -> bool:
        """True if the interval excludes equality."""
        equal = 1.0 if self.ratio else 0.0
        return self.difference.low > equal or self.difference.high < equal


class Incomparable(ValueError):
    """Two methods that a score cannot compare; the message says why."""


def compare(this: Result, other: Result, column: Column) -> Comparison:
    """Compare two methods on one dataset by a column. Raises Incomparable."""
    name, region = column
    score = SCORES[name]
    if score.better is None or score.pooled is not None:
        raise Incomparable(f"{name}: expected a score of each replica, of which less or more is better")
    if isinstance(score.better, float) and score.better:
        # Chance moves the coverage of few points away from the right value, but not that of bars that are too wide.
        raise Incomparable(
            f"{name}: it should be {score.better:g}, and one replica may be so by chance: expected a score of which "
            "less or more is better; interval_90_y judges coverage and width together"
        )
    shared = np.intersect1d(this.valid(column), other.valid(column))
    if len(shared) < 3:
        raise Incomparable(
            f"{name} · {region}: {this.method} and {other.method} share {len(shared)} replicas of {this.dataset}, "
            "expected three at least"
        )
    a, b = (one.scores[name][region][np.searchsorted(one.replicas, shared)] for one in (this, other))
    for one, part in ((this, a), (other, b)):
        if not np.isfinite(part).all():
            raise Incomparable(f"{name} · {region}: a value of {one.method} on {one.dataset} is infinite")
    if score.better == 0.0:  # the nearer to 0 the better, from both sides
        a, b = np.abs(a), np.abs(b)
    ratio = score.better != "higher" and score.unit != "nats" and min(a.min(), b.min()) > 0
    differences = np.log(a) - np.log(b) if ratio else a - b
    layout = this.layout
    if not layout.sample:
        return finite(differences, ratio, score.better != "higher")
    return paired(differences, ratio, score.better != "higher", layout.overlap or 0.0)


def finite(differences: Floats, ratio: bool = False, better_below: bool = True) -> Comparison:
    """The comparison by these differences, (n,), of replicas that are all that there are."""
    mean, signed = float(differences.mean()), differences if better_below else -differences
    value = float(np.exp(mean)) if ratio else mean
    wins, losses = int((signed < 0).sum()), int((signed > 0).sum())
    return Comparison(len(differences), wins, losses, ratio, Estimate(value, np.nan, np.nan))


def paired(differences: Floats, ratio: bool = False, better_below: bool = True, overlap: float = 0.0) -> Comparison:
    """The comparison by these differences of a sample of replicas, (n,); of logs if `ratio`.

    better_below: a negative difference is the better. overlap: test rows ÷ training rows of splits of one table.
    """
    n, mean, std = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    # Equal differences up to rounding have no scale; nothing but this keeps the formulas finite.
    std = max(std, 1e-12 * max(abs(mean), 1e-300))
    units: Callable[[float], float] = (lambda value: float(np.exp(value))) if ratio else float

    def interval(error: float) -> Estimate:
        half = critical(n) * std * error
        return Estimate(units(mean), units(mean - half), units(mean + half))

    effect = mean / std  # differences in their stds
    # One more split of this table shares what the others share, so that they are a sample of it.
    sign = -1.0 if better_below else 1.0
    chances = sorted(float(ndtr(sign * end)) for end in effect_interval(effect, n))
    # The next difference, given these, is Student's: both the mean and the std are estimates.
    chance = float(stdtr(n - 1, sign * effect / np.sqrt(1 + 1 / n)))
    least = least_effect(n, overlap) * std
    spread = [np.sqrt((n - 1) / chdtri(n - 1, tail)) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    low, high = effect_interval(effect, n, overlap)
    near, far = sorted((abs(low), abs(high)))
    return replace(
        finite(differences, ratio, better_below),
        difference=interval(standard_error(n, overlap)),
        naive=interval(standard_error(n)) if overlap else None,
        next_better=Estimate(chance, chances[0], chances[1]),
        detectable=Estimate(units(least), units(least * spread[0]), units(least * spread[1])),
        needed=Estimate(
            needed(abs(effect), overlap),
            needed(far, overlap),
            np.inf if low <= 0 <= high else needed(near, overlap),
        ),
    )


def holm(p: ArrayLike) -> Floats:
    """The p-values of tests that are judged together, corrected for their number (Holm 1979)."""
    raw = np.asarray(p, float)
    order = np.argsort(raw, kind="stable")
    corrected = np.empty_like(raw)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, raw[order] * np.arange(len(raw), 0, -1)))
    return corrected


def standard_error(n: int, overlap: float = 0.0) -> float:
    """The std of the mean of n differences, in their stds."""
    return float(np.sqrt(1 / n + overlap))


def effect_interval(effect: float, n: int, overlap: float = 0.0) -> tuple[float, float]:
    """The 95 % interval of mean ÷ std of a normal law, from that of n draws: by the noncentral t law."""
    error = standard_error(n, overlap)
    t, outside = effect / error, (1 - LEVEL) / 2
    if abs(t) > 30:  # there the noncentral law cannot be computed; the spreads of s and of the mean are combined
        spread = [np.sqrt(chdtri(n - 1, tail) / (n - 1)) - 1 for tail in (1 - outside, outside)]
        down, up = sorted(effect * one for one in spread)
        half = -ndtri(outside) * error
        return effect - float(np.hypot(down, half)), effect + float(np.hypot(up, half))

    def end(probability: float) -> float:
        """The noncentrality under which t is this quantile."""
        width = 10 + 3 * abs(t)
        found = brentq(lambda shift: noncentral(t, n - 1, shift) - probability, t - width, t + width)
        return float(found * error)

    return end(1 - outside), end(outside)


@cache
def critical(n: int) -> float:
    """The |t| of n draws above which a two-sided test is significant."""
    return float(stdtrit(n - 1, (1 + LEVEL) / 2))


@cache
def least_effect(n: int, overlap: float = 0.0) -> float:
    """The mean ÷ std that n draws find significant with probability POWER."""
    return float(brentq(lambda effect: power(effect, n, overlap) - POWER, 0, 100))


def power(effect: float, n: int, overlap: float = 0.0) -> float:
    """The probability that Student's two-sided test of n draws finds this mean ÷ std."""
    limit, shift = critical(n), effect / standard_error(n, overlap)
    return 1 - noncentral(limit, n - 1, shift) + noncentral(-limit, n - 1, shift)


def noncentral(t: float, freedom: int, shift: float) -> float:
    """The distribution function of the noncentral t law; where scipy has none, far in a tail, 0 or 1."""
    found = float(nctdtr(freedom, shift, t))
    return found if np.isfinite(found) else float(shift < t)


def needed(effect: float, overlap: float = 0.0) -> float:
    """The smallest number of draws, from 3, that finds this mean ÷ std with probability POWER; inf beyond MOST."""
    if power(effect, MOST, overlap) < POWER:
        return np.inf
    low, high = 2, MOST
    while high - low > 1:
        middle = max(low + 1, math.isqrt(low * high))  # most answers are small
        low, high = (low, middle) if power(effect, middle, overlap) >= POWER else (middle, high)
    return float(high)
