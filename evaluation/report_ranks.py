"""Ranks over datasets, for a report: average ranks, which methods are told apart, and the numbers to rank fewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gapbench.evaluation.compare import Incomparable
from gapbench.evaluation.drawing import Style
from gapbench.evaluation.headline import HEADINGS, MARKS
from gapbench.evaluation.ranks import LEVEL, Ranking, ranking
from gapbench.evaluation.report_charts import judged
from gapbench.evaluation.results import Column, Floats, Result


@dataclass(frozen=True)
class Rank:
    """A method's line. alike: the methods that are not told apart from it."""

    method: str
    label: str
    style: Style
    rank: float
    alike: tuple[str, ...]


@dataclass(frozen=True)
class Ranks:
    """Methods by average rank, the best first. bars: (first, last) row of methods that are not told apart. left_out:
    sentences. few: a sentence if so few datasets cannot tell methods apart. goodness: less is better, (datasets,
    methods); p: of each pair, not corrected, (methods, methods); both in the order of rows."""

    title: str
    datasets: tuple[str, ...]
    rows: tuple[Rank, ...]
    bars: tuple[tuple[int, int], ...]
    left_out: tuple[str, ...]
    few: str
    goodness: Floats
    p: Floats


def ranks(results: Sequence[Result], style: Mapping[str, Style]) -> Ranks | None:
    """The ranks by the score by which most datasets are judged; None with fewer than three datasets or two methods."""
    by_dataset: dict[str, list[Result]] = {}
    for one in results:
        by_dataset.setdefault(one.dataset, []).append(one)
    columns = [judged(rows) for rows in by_dataset.values()]
    for column in sorted(set(columns), key=lambda own: (-columns.count(own), own)):
        try:
            return _ranks(ranking(results, column), results, style, column)
        except Incomparable:
            continue
    return None


def _ranks(found: Ranking, results: Sequence[Result], style: Mapping[str, Style], column: Column) -> Ranks:
    order = [str(name) for name in found.ranks.index]
    statuses = {name: {one.status for one in results if one.method == name} for name in order}
    marks = {name: next((f" {MARKS[status]}" for status in MARKS if status in statuses[name]), "") for name in order}
    rows = [
        Rank(name, name + marks[name], style[name], float(found.ranks[name]), tuple(found.alike[name]))
        for name in order
    ]
    return Ranks(
        f"Average rank by {HEADINGS[column[0]].words} · {column[1]} over {len(found.values)} datasets",
        tuple(map(str, found.values.index)),
        tuple(rows),
        bars(found.p.loc[order, order].to_numpy() >= LEVEL),
        tuple(f"Left out: {name}, which has no such score on {', '.join(at)}" for name, at in found.left_out.items()),
        _few(len(found.values), len(order)),
        found.goodness[order].to_numpy(),
        found.raw.loc[order, order].to_numpy(),
    )


def _few(datasets: int, methods: int) -> str:
    least = 2 * 0.5**datasets  # Wilcoxon's p where one method is the better on every dataset
    never = least * methods * (methods - 1) / 2 >= LEVEL
    return (
        f"{datasets} datasets are too few to tell two of {methods} methods apart: expect a bar over all."
        if never
        else ""
    )


def bars(alike: np.ndarray) -> tuple[tuple[int, int], ...]:
    """The longest runs of neighbours, (first, last), in which no pair is told apart. alike: (methods, methods)."""
    found: list[tuple[int, int]] = []
    for first in range(len(alike)):
        last = first
        while last + 1 < len(alike) and alike[first : last + 2, first : last + 2].all():
            last += 1
        if last > first and not (found and found[-1][1] >= last):
            found.append((first, last))
    return tuple(found)
