"""What cells cost, and the orders that follow from it: the longest first, or dealt out to shards.

The costs are those of the published results, in costs.json, which `gapbench readme` writes. They are the same on every
machine, because shards that run apart must compute the same partition. They are of training and predicting on one core
of the publishing machine. Other machines, settings and sizes of a block cost more or less, which changes no number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from heapq import heapify, heapreplace
from pathlib import Path

from gapbench.evaluation.entries import Trained
from gapbench.methods.validated import Validated
from gapbench.runners.cell import Cell

ANY = "any dataset"  # stands in costs.json for the median over datasets
CONTROL = 0.1  # CPU seconds of a control, which is not trained
UNKNOWN = 5.0  # CPU seconds a replica of a method that nobody has measured: about the median of the others


@cache
def measured() -> Mapping[str, Mapping[str, float]]:
    """The measured CPU seconds a replica: method -> dataset, or ANY for the median over datasets -> seconds."""
    found: dict[str, dict[str, float]] = json.loads(Path(__file__).with_name("costs.json").read_text(encoding="utf-8"))
    return found


def expected(cell: Cell) -> float:
    """The CPU seconds that a cell should take."""
    if not isinstance(cell.entry, Trained):
        return CONTROL
    budget = re.search(r"\bbudget=([0-9.]+)s", cell.name)
    known = float(budget[1]) if budget else cost(cell.name, cell.dataset_name)
    method = cell.entry.method
    times = 1
    if isinstance(method, Validated) and cell.name not in measured():  # the trials, and each winner on all points
        times = len(method.candidates) + min(len(method.candidates), len(cell.replicas))
    return len(cell.replicas) * (UNKNOWN if known is None else known) * times


def cost(name: str, dataset: str) -> float | None:
    """The CPU seconds a replica of a method; None if nobody has measured it. A method that was not measured on a
    dataset costs its median there, and a variant such as sgld[lr=0.001] or sgld@630 what its method does."""
    names = (name, re.split(r"[\[@]", name)[0])
    known = next((measured()[one] for one in names if one in measured()), {})
    return known.get(dataset, known.get(ANY))


def longest_first(cells: Sequence[Cell]) -> list[Cell]:
    """The cells by what they should cost, the dearest first; equally dear ones in the order given."""
    return sorted(cells, key=expected, reverse=True)


def shards(cells: Sequence[Cell], count: int) -> list[list[Cell]]:
    """The cells in `count` parts of about equal cost, some empty if there are fewer cells. The longest is dealt out
    first, each to the part with the least cost so far, of equal ones to the first."""
    parts: list[list[Cell]] = [[] for _ in range(count)]
    loads = [(0.0, part) for part in range(count)]
    heapify(loads)
    for cell in longest_first(cells):
        load, part = loads[0]
        parts[part].append(cell)
        heapreplace(loads, (load + expected(cell), part))
    return parts


def shard(cells: Sequence[Cell], which: int, count: int) -> list[Cell]:
    """One of the parts that `shards` makes, by its number from 1 to count. Every cell is in exactly one of them.

    Raises ValueError if there is no such part.
    """
    if not 1 <= which <= count:
        raise ValueError(f"shard {which}/{count}: expected WHICH/COUNT with WHICH from 1 to COUNT, such as 1/4")
    return shards(cells, count)[which - 1]


def duration(seconds: float) -> str:
    """The time in words that are short: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
