"""The overview of a report: each method's answer on each dataset, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gapbench.evaluation.report_charts import Dots
from gapbench.evaluation.report_findings import verdict, where

SIGNS = {"right": "✓", "too narrow": "−", "too wide": "+"}


@dataclass(frozen=True)
class Overview:
    """A row a method and a column a dataset. places: the positions of the datasets among all sections, and their names.
    rows: method, and for each dataset the answer in words, with its verdict; "" where there is none. What did not
    converge has a mark and no verdict."""

    title: str
    places: tuple[tuple[int, str], ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def overview(told: Sequence[tuple[str, Dots | None]]) -> Overview | None:
    """The overview of these datasets, in their order; None unless two have an answer of the same kind."""
    known = [(place, name, chart) for place, (name, chart) in enumerate(told) if chart is not None]
    if len(known) < 2 or len({(chart.log, chart.series[-1]) for _, _, chart in known}) > 1:
        return None
    cells: dict[str, dict[int, tuple[str, str]]] = {}
    for place, _, chart in known:
        for row in chart.rows:
            one, mark = row.estimates[-1], row.label.removeprefix(row.method).strip()
            kind = "n/a" if mark else verdict(one, chart.about)
            word = "" if np.isnan(one.value) else f"{chart.word(one.value)} {mark or SIGNS.get(kind, '')}".strip()
            cells.setdefault(row.method, {})[place] = word, kind
    rows = tuple(
        (method, tuple(own.get(place, ("", "n/a")) for place, _, _ in known)) for method, own in sorted(cells.items())
    )
    first = known[0][2]
    what = "Std of f ÷ the true posterior's" if first.log else "Share that 90 % intervals hold"
    return Overview(f"{what}, {where(first.series[-1])}", tuple((place, name) for place, name, _ in known), rows)
