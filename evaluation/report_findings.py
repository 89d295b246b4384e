"""The findings of a report: sentences made from numbers and their uncertainty.

Whatever is said of "right" is said of an interval: a method is right in a region if the whole 95 % interval lies in the
range of right values, too narrow if the whole interval lies below it, and open where the interval crosses an end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gapbench.evaluation.bootstrap import estimate
from gapbench.evaluation.compare import Estimate
from gapbench.evaluation.headline import NARROW, WIDE, percent
from gapbench.evaluation.report_charts import HOLDS, Dots, Measured
from gapbench.evaluation.results import Result
from gapbench.evaluation.tables import cpu_seconds, number

FEW = 3  # datasets whose findings all stand at the top


def verdict(one: Estimate, right: tuple[float, float]) -> str:
    """ "right", "too narrow", "too wide", or "open" where the interval crosses an end of the range of right values."""
    low, high = (one.value, one.value) if np.isnan([one.low, one.high]).any() else (one.low, one.high)
    if np.isnan(one.value):
        return "n/a"
    if right[0] <= low and high <= right[1]:
        return "right"
    return "too narrow" if high < right[0] else "too wide" if low > right[1] else "open"


def findings(rows: Sequence[Result], chart: Dots) -> list[str]:
    """Sentences on a dataset: who is right where it matters, who is not, who predicts best, and what it costs."""
    ratio, place = chart.log, where(chart.series[-1])
    ranked = {one.method for one in rows if one.status == "ranked"}
    groups: dict[str, list[Measured]] = {}
    for row in chart.rows:
        if row.method in ranked:
            groups.setdefault(verdict(row.estimates[-1], chart.about), []).append(row)

    def told(kind: str) -> str:
        own = sorted(groups.get(kind, []), key=lambda row: row.estimates[-1].value)
        return ", ".join(f"{row.method} {_told(row.estimates[-1], chart.word)}" for row in own)

    if ratio:
        right = f"Right {place} (std {NARROW:g} to {WIDE:g} of the true posterior's)"
        narrow, wide = f"Too narrow {place}", f"Too wide {place}"
    else:
        right = f"Right {place} (90 % intervals hold {percent(HOLDS[0])} to {percent(HOLDS[1])})"
        narrow, wide = f"Too narrow {place} (they hold less)", f"Too wide {place} (they hold more)"
    sentences = [f"{right}: {told('right') or 'no ranked method for sure'}."]
    sentences += [
        f"{words}: {said}." for words, kind in ((narrow, "too narrow"), (wide, "too wide")) if (said := told(kind))
    ]
    sentences += [f"Open, as the interval crosses a limit: {said}." if (said := told("open")) else ""]
    sentences += [_sharp(rows, ranked, chart.series[-1])]
    stuck = [row.method for row in chart.rows if row.method not in ranked]
    sentences += [f"Not ranked, as some of their replicas did not converge: {', '.join(stuck)}." if stuck else ""]
    spent = {one.method: seconds for one in rows if one.method in ranked and (seconds := cpu_seconds(one)) is not None}
    good = sorted((spent[row.method], row.method) for row in groups.get("right", []) if row.method in spent)
    rest = sorted((seconds, name) for name, seconds in spent.items() if name not in {name for _, name in good})
    cost = ", ".join(f"{name} {number(seconds)}" for seconds, name in good)
    if good:
        others = f"; the others from {number(rest[0][0])} to {number(rest[-1][0])}" if rest else ""
        sentences.append(f"What right error bars cost, in CPU seconds a replica: {cost}{others}.")
    elif rest:
        span = f"from {number(rest[0][0])} ({rest[0][1]}) to {number(rest[-1][0])} ({rest[-1][1]})"
        sentences.append(f"The cost, in CPU seconds a replica: {span}.")
    return [sentence for sentence in sentences if sentence]


def _sharp(rows: Sequence[Result], ranked: set[str], region: str) -> str:
    """Whose predictions are best, which is another question: bars may be right and wide, or too narrow and near."""
    column = ("crps_y", region)
    values = {one.method: estimate(one, column, one.valid(column)) for one in rows if one.method in ranked}
    best = sorted((value, name) for name, value in values.items() if np.isfinite(value))[:3]
    said = ", ".join(f"{name} {number(value)}" for value, name in best)
    return f"The best predictions of y {where(region)}, by CRPS, whatever their bars: {said}." if len(best) == 3 else ""


def _told(one: Estimate, word: Callable[[float], str]) -> str:
    interval = "" if np.isnan([one.low, one.high]).any() else f" [{word(one.low)}, {word(one.high)}]"
    return word(one.value) + interval


def top(
    told: Sequence[tuple[str, tuple[str, ...], Dots | None]], results: Sequence[Result]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The findings at the top, (heading, sentences): of each dataset if they are few, else how often a method is right.

    told: the name of each dataset, its findings and its chart.
    """
    known = [(name, sentences, chart) for name, sentences, chart in told if chart is not None]
    if len(known) <= FEW:
        return tuple((name, sentences) for name, sentences, _ in known)
    ranked = {(one.dataset, one.method) for one in results if one.status == "ranked"}
    verdicts: dict[str, list[str]] = {}
    for name, _, chart in known:
        for row in chart.rows:
            if (name, row.method) in ranked:
                verdicts.setdefault(row.method, []).append(verdict(row.estimates[-1], chart.about))
    sentences = []
    for kind in ("right", "too narrow", "too wide"):
        counts = {name: own.count(kind) for name, own in verdicts.items()}
        order = sorted(filter(counts.get, counts), key=lambda name: (-counts[name] / len(verdicts[name]), name))
        said = ", ".join(f"{name} on {counts[name]} of {len(verdicts[name])}" for name in order)
        sentences.append(f"{kind.capitalize()}: {said or 'no method'}.")
    costs: dict[str, list[float]] = {}
    for one in results:
        if one.status == "ranked" and (spent := cpu_seconds(one)) is not None:
            costs.setdefault(one.method, []).append(spent)
    medians = sorted((float(np.median(own)), name) for name, own in costs.items())
    if medians:
        said = ", ".join(f"{name} {number(median)}" for median, name in medians)
        sentences.append(f"The cost, in CPU seconds a replica, median over datasets: {said}.")
    place = where(known[0][2].series[-1])
    return ((f"{len(known)} datasets, {place}; each method on those where it is ranked", tuple(sentences)),)


def where(region: str) -> str:
    """A region in words."""
    return {"gap": "in the gap", "all": "over all points"}.get(region, f"in the region {region}")
