"""Two methods on the same replicas: what may be said of their difference, and of the next replica.

With few replicas, Student's interval of the paired differences covers what it says, where bootstraps of the mean cover
90 % in place of 95 % and, of skewed scores, less. Scores that are positive are compared by their ratio: the differences
are those of logs. Random splits of one table share most of their training rows, so their differences are correlated;
the corrected interval has the variance of Nadeau & Bengio 2003 (https://doi.org/10.1023/A:1024068626366).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import nctdtr

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

    replicas: on which both have the score. ratio: True if `difference` and `detectable` are factors, this ÷ other; else
    they are this − other. corrected: the interval for splits that share training rows; None for other replicas.
    next_better: the probability that `this` has the better value on the next replica. detectable: the smallest true
    difference that as many replicas find significant with probability 0.8. needed: the replicas after which the
    observed difference is so, inf if more than a million.
    """

    replicas: int
    ratio: bool
    difference: Estimate
    corrected: Estimate | None
    next_better: Estimate
    detectable: Estimate
    needed: Estimate

    @property
    def significant(self) -> bool:
        """True if the interval, the corrected one if there is one, excludes equality."""
        interval, equal = self.corrected or self.difference, 1.0 if self.ratio else 0.0
        return not interval.low <= equal <= interval.high


class Incomparable(ValueError):
    """Two methods that a score cannot compare; the message says why."""


def compare(this: Result, other: Result, column: Column) -> Comparison:
    """Compare two methods on one dataset by a column. Raises Incomparable."""
    name, region = column
    score = SCORES[name]
    if score.better is None or score.pooled is not None:
        raise Incomparable(f"{name}: expected a score of each replica, of which less or more is better")
    shared = np.intersect1d(this.valid(column), other.valid(column))
    if len(shared) < 3:
        raise Incomparable(
            f"{name} · {region}: {this.method} and {other.method} share {len(shared)} replicas of {this.dataset}, "
            "expected three at least"
        )
    values = [one.scores[name][region][np.searchsorted(one.replicas, shared)] for one in (this, other)]
    for one, part in zip((this, other), values, strict=True):
        if not np.isfinite(part).all():
            raise Incomparable(f"{name} · {region}: a value of {one.method} on {one.dataset} is infinite")
    if isinstance(score.better, float):
        a, b = (np.abs(part - score.better) for part in values)
    else:
        a, b = values
    ratio = score.better == "lower" and score.unit != "nats" and min(a.min(), b.min()) > 0
    differences = np.log(a) - np.log(b) if ratio else a - b
    better_below = score.better != "higher"
    overlap = None
    if this.layout.points == "rows":
        overlap = float(this.inside(region).sum(1).mean()) / this.curves["x"].shape[1]
    return paired(differences, ratio, better_below, overlap)


def paired(
    differences: Floats, ratio: bool = False, better_below: bool = True, overlap: float | None = None
) -> Comparison:
    """The comparison by these differences of independent replicas, (n,); of logs if `ratio`.

    better_below: a negative difference is the better. overlap: test rows ÷ training rows of splits of one table.
    """
    n, mean, std = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    # Equal differences up to rounding have no scale; nothing but this keeps the formulas finite.
    std = max(std, 1e-12 * max(abs(mean), 1e-300))
    half = critical(n) * std
    units: Callable[[float], float] = (lambda value: float(np.exp(value))) if ratio else float

    def interval(width: float) -> Estimate:
        return Estimate(units(mean), units(mean - width), units(mean + width))

    effect = Estimate(mean / std, *effect_interval(mean / std, n))  # differences in their stds
    sign = -1.0 if better_below else 1.0
    chances = sorted(float(stats.norm.cdf(sign * end)) for end in (effect.low, effect.high))
    # The next difference, given these, is Student's: both the mean and the std are estimates.
    chance = float(stats.t.cdf(sign * effect.value / np.sqrt(1 + 1 / n), n - 1))
    least = least_effect(n) * std
    spread = [np.sqrt((n - 1) / stats.chi2.isf(tail, n - 1)) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    crosses = effect.low <= 0 <= effect.high
    ends = sorted(abs(end) for end in (effect.low, effect.high))
    return Comparison(
        n,
        ratio,
        interval(half / np.sqrt(n)),
        None if overlap is None else interval(half * np.sqrt(1 / n + overlap)),
        Estimate(chance, chances[0], chances[1]),
        Estimate(units(least), units(least * spread[0]), units(least * spread[1])),
        Estimate(needed(abs(effect.value)), needed(ends[1]), np.inf if crosses else needed(ends[0])),
    )


def effect_interval(effect: float, n: int) -> tuple[float, float]:
    """The 95 % interval of mean ÷ std of a normal law, from that of n draws: by the noncentral t law."""
    t = effect * np.sqrt(n)

    def end(probability: float) -> float:
        """The noncentrality under which t is this quantile."""
        width = 10 + 3 * abs(t)
        found = brentq(lambda shift: noncentral(t, n - 1, shift) - probability, t - width, t + width)
        return float(found / np.sqrt(n))

    if abs(t) > 30:  # there the noncentral law cannot be computed; Student's own spread of s is what is left
        spread = [np.sqrt(stats.chi2.isf(tail, n - 1) / (n - 1)) for tail in ((1 + LEVEL) / 2, (1 - LEVEL) / 2)]
        low, high = sorted(effect * one for one in spread)
        return low, high
    return end((1 + LEVEL) / 2), end((1 - LEVEL) / 2)


@cache
def critical(n: int) -> float:
    """The |t| of n draws above which a two-sided test is significant."""
    return float(stats.t.isf((1 - LEVEL) / 2, n - 1))


@cache
def least_effect(n: int) -> float:
    """The mean ÷ std that n draws find significant with probability POWER."""
    return float(brentq(lambda effect: power(effect, n) - POWER, 0, 100))


def power(effect: float, n: int) -> float:
    """The probability that Student's two-sided test of n draws finds this mean ÷ std."""
    limit, shift = critical(n), effect * float(np.sqrt(n))
    return 1 - noncentral(limit, n - 1, shift) + noncentral(-limit, n - 1, shift)


def noncentral(t: float, freedom: int, shift: float) -> float:
    """The distribution function of the noncentral t law; where scipy has none, far in a tail, 0 or 1."""
    found = float(nctdtr(freedom, shift, t))
    return found if np.isfinite(found) else float(shift < t)


def needed(effect: float) -> float:
    """The smallest number of draws, from 3, that finds this mean ÷ std with probability POWER; inf beyond MOST."""
    if power(effect, 3) >= POWER:
        return 3.0
    # Beyond a few thousand draws Student's law is the normal one.
    rough = ((stats.norm.isf((1 - LEVEL) / 2) + stats.norm.ppf(POWER)) / effect) ** 2 if effect > 0 else np.inf
    if rough > 5000:
        return float(np.ceil(rough)) if rough <= MOST else np.inf
    low, high = 3, int(rough) + 10
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle) >= POWER else (middle, high)
    return float(high)
