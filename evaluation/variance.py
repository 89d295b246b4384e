"""The variance of a score, split into that of the data and that of the seed: of a training's own random numbers.

With several trainings of each training set, a score is y[d, s] = m + a[d] + e[d, s], where a has the variance σ²_data
and e has σ²_seed. The mean squares within and between training sets give both by the analysis of variance. The share of
the seed has the exact F interval of one-way random effects (Searle 1971, Linear Models, chapter 9), if a and e are
normal. Scores that are positive are split by their logs, so their stds are relative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from gapbench.evaluation.compare import LEVEL, Estimate, Incomparable
from gapbench.evaluation.results import Column, Floats, Result
from gapbench.evaluation.scores import SCORES


@dataclass(frozen=True)
class Split:
    """Where a score's variance comes from.

    relative: True if the stds are those of the score's log. data, seed: the std over training sets, and over trainings
    of one set. share: σ²_seed ÷ (σ²_data + σ²_seed). sets, seeds: how many training sets, and trainings of each.
    """

    relative: bool
    data: float
    seed: float
    share: Estimate
    sets: int
    seeds: int


def split(result: Result, column: Column) -> Split:
    """Split the variance of a column of one method on one dataset. Training sets of which a training failed are left
    out. Raises Incomparable where the dataset does not repeat its training sets, or the column is no score of each
    replica."""
    name, region = column
    score, seeds = SCORES[name], result.layout.seeds
    if seeds < 2:
        raise Incomparable(
            f"{result.dataset} trains on each training set once: expected several seeds, as in suite seeds"
        )
    if score.pooled is not None:
        raise Incomparable(f"{name}: expected a score of each replica")
    valid = result.valid(column)
    values = result.scores[name][region][np.searchsorted(result.replicas, valid)] if len(valid) else np.empty(0)
    whole = [values[valid // seeds == which] for which in np.unique(valid // seeds)]
    table = np.array([one for one in whole if len(one) == seeds])
    if len(table) < 3 or not np.isfinite(table).all():
        raise Incomparable(
            f"{name} · {region}: {result.method} on {result.dataset} has {len(table)} training sets with all "
            f"{seeds} trainings: expected three at least, and finite scores"
        )
    relative = score.unit != "nats" and bool((table > 0).all())
    return components(np.log(table) if relative else table, relative)


def components(table: Floats, relative: bool = False) -> Split:
    """The split of these values, (training sets, seeds)."""
    sets, seeds = table.shape
    within = float(table.var(1, ddof=1).mean())
    between = float(seeds * table.mean(1).var(ddof=1))
    data = max(0.0, (between - within) / seeds)
    degrees, tail = (sets - 1, sets * (seeds - 1)), (1 - LEVEL) / 2

    def share(ratio: float) -> float:
        """σ²_seed ÷ all, if this is the ratio of the expected mean squares."""
        return float(min(1.0, seeds / (ratio - 1 + seeds)))

    if within == 0:
        found = Estimate(0.0, 0.0, 0.0) if between else Estimate(np.nan, np.nan, np.nan)
    else:
        f = between / within
        ends = [share(f / stats.f.ppf(one, *degrees)) for one in (tail, 1 - tail)]
        found = Estimate(within / (within + data), *ends)
    return Split(relative, float(np.sqrt(data)), float(np.sqrt(within)), found, sets, seeds)
