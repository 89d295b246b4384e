"""Agreement against cost: what a method's error bars cost, and the methods that no other one beats in both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gapbench.evaluation.bootstrap import Bootstrap, estimate
from gapbench.evaluation.compare import Estimate
from gapbench.evaluation.drawing import Style
from gapbench.evaluation.headline import HEADINGS
from gapbench.evaluation.report_charts import Scatter, Spot, judged, label
from gapbench.evaluation.results import Result
from gapbench.evaluation.tables import cpu_seconds


def cost(rows: Sequence[Result], style: Mapping[str, Style]) -> Scatter | None:
    """The score by which a dataset's methods are judged, against the CPU seconds of a replica."""
    column = judged(rows)
    spent = {one.method: seconds for one in rows if (seconds := cpu_seconds(one))}
    shown = [one for one in rows if one.kind == "method" and one.method in spent]
    bootstrap, independent = Bootstrap(column), rows[0].layout.independent
    spots = []
    for one in shown:
        ends = bootstrap.interval(one) if independent else (np.nan, np.nan)
        value = estimate(one, column, one.valid(column))
        if np.isfinite(value) and value > 0:
            made = Estimate(value, *ends)
            spots.append(
                Spot(one.method, label(one), style[one.method], spent[one.method], made, one.status == "ranked")
            )
    if len(spots) < 2:
        return None
    words = f"{HEADINGS[column[0]].words} · {column[1]}"
    return Scatter(
        f"{rows[0].dataset}: {words} against cost",
        "CPU seconds, for a replica",
        words,
        tuple(sorted(spots, key=lambda spot: spot.x)),
        tuple(front((spot.method, spot.x, spot.y.value) for spot in spots if spot.ranked)),
    )


def front(points: Iterable[tuple[str, float, float]]) -> list[str]:
    """The names on the Pareto front of (name, cost, loss), from the cheapest: no other one is as cheap and as good, and
    better in one of the two."""
    found: list[str] = []
    best, at = np.inf, np.inf
    for name, spent, loss in sorted(points, key=lambda one: one[1:]):
        if loss < best or (loss, spent) == (best, at):
            found.append(name)
            best, at = loss, spent
    return found
