"""Methods ranked over several datasets: average ranks, and which differences many datasets would show again.

Each dataset ranks the methods by their mean score. A pair of methods is told apart by Wilcoxon's signed-rank test over
datasets, with Holm's correction for the number of pairs (Benavoli, Corani & Mangili 2016,
https://jmlr.org/papers/v17/benavoli16a.html): unlike Nemenyi's critical difference, it does not depend on the other
methods that are there. With eight datasets no p-value is below 0.008, so that of many pairs none can be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gapbench.evaluation.bootstrap import estimate
from gapbench.evaluation.compare import Incomparable, holm
from gapbench.evaluation.results import Column, Result
from gapbench.evaluation.scores import SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Ranking:
    """Average ranks, 1 the best. values: the mean score over the replicas that all methods have, datasets × methods.
    goodness: the same, so that less is better. ranks: method -> average rank, the best first. raw: p of each pair of
    methods; p: the same, corrected by Holm. left_out: method -> the datasets that it has no score of."""

    column: Column
    values: pd.DataFrame
    goodness: pd.DataFrame
    ranks: pd.Series[float]
    raw: pd.DataFrame
    p: pd.DataFrame
    left_out: dict[str, list[str]]

    @property
    def alike(self) -> dict[str, list[str]]:
        """The methods that are not told apart from each method."""
        return {
            one: [other for other in self.ranks.index if other != one and self.p.loc[one, other] >= LEVEL]
            for one in self.ranks.index
        }


def ranking(results: Sequence[Result], column: Column, methods: Sequence[str] = ()) -> Ranking:
    """The ranking by a column. methods: only these; ranks are among them alone. Raises Incomparable."""
    name, region = column
    score = SCORES[name]
    if score.better is None or (isinstance(score.better, float) and score.better):
        raise Incomparable(f"{name}: expected a score of which less or more is better")
    chosen = [one for one in results if one.kind == "method" and (not methods or one.method in methods)]
    valid = {(one.dataset, one.method): v for one in chosen if len(v := one.valid(column))}
    datasets = sorted({dataset for dataset, _ in valid})
    # Over the replicas that all have: where one method failed may be where the others score badly.
    shared = {of: reduce(np.intersect1d, [v for (at, _), v in valid.items() if at == of]) for of in datasets}
    found = {
        (one.dataset, one.method): estimate(one, column, shared[one.dataset])
        for one in chosen
        if (one.dataset, one.method) in valid and len(shared[one.dataset])
    }
    names = list(dict.fromkeys(one.method for one in chosen))
    table = pd.DataFrame([[found.get((d, m), np.nan) for m in names] for d in datasets], datasets, names)
    lacking = {method: [at for at in datasets if (at, method) not in found] for method in names}
    left_out = {method: where for method, where in lacking.items() if where}
    values = table.drop(columns=list(left_out))
    if len(values) < 3 or values.shape[1] < 2:
        raise Incomparable(
            f"{name} · {region}: {len(values)} datasets and {values.shape[1]} methods that all of them have: expected "
            "three datasets and two methods at least"
        )
    goodness = -values if score.better == "higher" else values.abs() if score.better == 0.0 else values
    ranks = goodness.rank(axis=1).mean().sort_values(kind="stable")
    raw = _tested(goodness, ratio=score.unit == "y")
    return Ranking(column, values, goodness, ranks, raw, _corrected(raw), left_out)


def _tested(goodness: pd.DataFrame, ratio: bool) -> pd.DataFrame:
    """Wilcoxon's p of each pair. ratio: the logs of scores are compared, since units differ between datasets."""
    from scipy.stats import wilcoxon  # here, because most pages need none

    names = list(goodness.columns)
    numbers = np.log(goodness) if ratio and (goodness > 0).all(axis=None) else goodness
    p = pd.DataFrame(1.0, names, names)
    for one, other in combinations(names, 2):
        differences = (numbers[one] - numbers[other]).to_numpy()
        if differences.any():
            p.loc[one, other] = p.loc[other, one] = float(wilcoxon(differences).pvalue)
    return p


def _corrected(raw: pd.DataFrame) -> pd.DataFrame:
    """The p of all pairs, corrected by Holm."""
    upper, p = np.triu_indices(len(raw), 1), np.ones(raw.shape)
    p[upper] = p.T[upper] = holm(raw.to_numpy()[upper])
    return pd.DataFrame(p, raw.index, raw.columns)


def critical_differences(ranking: Ranking) -> Figure:
    """The diagram of average ranks, in which a bar joins methods that are not told apart (Demšar 2006). It needs
    scikit-posthocs: pip install 'gapbench[ranks]'."""
    from matplotlib.figure import Figure
    from scikit_posthocs import critical_difference_diagram

    name, region = ranking.column
    figure = Figure(figsize=(8, 1.4 + 0.17 * len(ranking.ranks)), layout="constrained")
    ax = figure.subplots()
    critical_difference_diagram(ranking.ranks, ranking.p, alpha=LEVEL, ax=ax, text_h_margin=0.05)
    ax.set_title(f"Average rank by {name} · {region} over {len(ranking.values)} datasets; a bar: not told apart")
    return figure
