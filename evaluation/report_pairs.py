"""Every pair of methods of a dataset: who is better, and what so many replicas can tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gapbench.evaluation.compare import Comparison, Estimate, Incomparable, compare
from gapbench.evaluation.headline import HEADINGS, percent
from gapbench.evaluation.report_charts import judged, label
from gapbench.evaluation.results import Result

Words = tuple[str, bool]  # of a cell; True if the difference is significant


@dataclass(frozen=True)
class Grid:
    """A matrix of words: a row and a column a method. cells: empty on the diagonal."""

    title: str
    meaning: str
    labels: tuple[str, ...]
    cells: tuple[tuple[Words, ...], ...]


def pairs(rows: Sequence[Result]) -> tuple[Grid, ...]:
    """The matrices of a dataset's methods, by the score by which they are judged; none if no two can be compared."""
    column = judged(rows)
    methods = [one for one in rows if one.kind == "method" and len(one.valid(column)) >= 3]
    found: dict[tuple[str, str], Comparison] = {}
    for one, other in combinations(methods, 2):
        with suppress(Incomparable):
            found[one.method, other.method] = compare(one, other, column)
    there = [one for one in methods if any(one.method in pair for pair in found)]
    if not there:
        return ()
    shown = f"{HEADINGS[column[0]].words} · {column[1]}"
    sampled = any(one.next_better for one in found.values())
    ratio = any(one.ratio for one in found.values())
    next_one = "split of the table" if rows[0].layout.overlap else "replica"

    def cell(one: Result, other: Result, word: Callable[[Comparison, bool], str]) -> Words:
        turned = (one.method, other.method) not in found
        pair = found.get((other.method, one.method) if turned else (one.method, other.method))
        return ("", False) if pair is None else (word(pair, turned), pair.significant)

    def grid(title: str, meaning: str, word: Callable[[Comparison, bool], str]) -> Grid:
        cells = tuple(tuple(cell(one, other, word) for other in there) for one in there)
        return Grid(f"{title}, by {shown}", meaning, tuple(map(label, there)), cells)

    if not sampled:
        meaning = "On how many replicas the method of the row is better. These replicas are all that there are."
        return (grid("Better on", meaning, _wins),)
    return (
        grid(
            "P(better)",
            f"The probability that the method of the row is better than that of the column on one more {next_one}. "
            "Bold: the difference of their means is significant (one such pair in twenty is so by chance).",
            lambda pair, turned: _chance(pair.next_better, turned),
        ),
        grid(
            "Detectable difference",
            "The smallest true difference that as many replicas find in four of five cases"
            + (", as a factor." if ratio else "."),
            lambda pair, _: f"{pair.detectable.value:.3g}" if pair.detectable else "",
        ),
        grid(
            "Replicas needed",
            "To find the difference that was seen in four of five cases.",
            lambda pair, _: _count(pair.needed.value) if pair.needed else "",
        ),
    )


def _wins(pair: Comparison, turned: bool) -> str:
    return f"{pair.worse if turned else pair.better} of {pair.replicas}"


def _chance(better: Estimate | None, turned: bool) -> str:
    return percent(1 - better.value if turned else better.value) if better else ""


def _count(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "never"
