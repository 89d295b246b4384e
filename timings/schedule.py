"""What a suite costs, and how long it takes on some workers if its cells run in one order or another.

    python timings/schedule.py > results/published/timings/schedule.txt

Simulated from costs, nothing is trained: so the output is the same on every machine. Methods that nobody has measured
on a dataset of the suite are left out: in all these are hmc, mala and validated. A cell takes the CPU seconds of its
published record; without one, those that runners/costs.py expects. Scores come on top: about 2 s for ten replicas.

enough: from that many workers on the longest cell is the limit, and more of them do not help. least: no order takes
less than the longest cell, or than the sum over the workers. The times are multiples of it: a free worker takes the
next cell in the suite's order, or the longest one that is left; or each worker has a shard, dealt out beforehand. off:
the same if every cell takes between half and twice its time, at random, and the orders do not know it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heapreplace
from pathlib import Path

from gapbench.datasets.streams import stream
from gapbench.datasets.uci import SPLITS, UCI
from gapbench.evaluation.entries import Trained
from gapbench.runners.cell import Cell, Place
from gapbench.runners.costs import expected, longest_first, measured, shards
from gapbench.runners.publish import read_manifest
from gapbench.runners.suites import CONTROLS, Selection, suites

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
SUITES = ("default", "all", "uci", "uci_gap", "knobs", "prior")
WORKERS = (2, 4, 64, 1000)
GAPS = {"boston": 11, "concrete": 7, "energy": 8, "kin8nm": 8, "naval": 14, "power": 4, "wine": 11, "yacht": 4}


class Counted(UCI):
    """A table whose splits are counted without its data, which need not be here."""

    @property
    def count(self) -> int:
        return GAPS[self.table] if self.gap else SPLITS


def cells_of(name: str) -> list[Cell]:
    """The cells of a suite, in its order, with the methods that were measured on one of its datasets."""
    suite = suites()[name]
    methods = {
        name: Trained(method)
        for name, method in suite.methods.items()
        if not measured().get(name, {}).keys().isdisjoint(suite.tasks)
    }
    tasks = {
        name: replace(task, dataset=Counted(**vars(task.dataset))) if isinstance(task.dataset, UCI) else task
        for name, task in suite.tasks.items()
    }
    return Selection({**methods, **CONTROLS}, tasks, suite.adapted).cells(suite.replicas, 0, suite.block)


def recorded(name: str) -> dict[tuple[str, str, int, int], float]:
    """The CPU seconds of a suite's published records, by dataset, method and block."""
    return {
        (result["dataset"], result["method"], *record["block"]): record["cpu seconds"]
        for result in read_manifest(PUBLISHED / name)["results"]
        for record in result["records"]
    }


def makespan(seconds: Sequence[float], workers: int) -> float:
    """The seconds until all cells are done, if the worker that is free first takes the next one."""
    free = [0.0] * workers
    for one in seconds:
        heapreplace(free, free[0] + one)
    return max(free)


def times(cells: Sequence[Cell], spent: Mapping[Place, float], workers: int) -> list[float]:
    """The least seconds; then, as multiples of these, in the suite's order, the longest first, and in shards."""

    def seconds(some: Sequence[Cell]) -> list[float]:
        return [spent[cell.place] for cell in some]

    least = max(*seconds(cells), sum(seconds(cells)) / workers)
    took = [makespan(seconds(order), workers) for order in (cells, longest_first(cells))]
    took.append(max(sum(seconds(part)) for part in shards(cells, workers)))
    return [least, *(one / least for one in took)]


def lines() -> Iterator[str]:
    """The lines of the output."""
    costs, orders = [], []
    for name in SUITES:
        cells, records = cells_of(name), recorded(name)
        spent = {cell.place: records.get(cell.place[:4], expected(cell)) for cell in cells}
        off = {place: seconds * 2 ** stream("schedule", *place).uniform(-1, 1) for place, seconds in spent.items()}
        total, longest = sum(spent.values()), max(cells, key=lambda cell, spent=spent: spent[cell.place])
        share = sum(seconds for place, seconds in spent.items() if place[:4] in records) / total
        enough = math.ceil(total / spent[longest.place])
        fastest = makespan([spent[cell.place] for cell in longest_first(cells)], 1000)
        costs.append(
            f"{name:8} {len(cells):5} {total / 3600:9.2f} {share:8.0%} {fastest:11.0f} s {enough:7}  {longest.title}"
        )
        for workers in WORKERS:
            least, *ratios = times(cells, spent, workers) + times(cells, off, workers)[2:]
            orders.append(f"{name:8} {workers:7} {least:8.0f} s" + "".join(f"{ratio:15.2f}" for ratio in ratios))
    yield f"{'suite':8} {'cells':>5} {'CPU hours':>9} {'recorded':>8} {'1,000 cores':>13} {'enough':>7}  longest cell"
    yield from costs
    words = ("suite's order", "longest first", "shards", "off: longest", "off: shards")
    yield ""
    yield f"{'suite':8} {'workers':>7} {'least':>10}" + "".join(f"{word:>15}" for word in words)
    yield from orders


if __name__ == "__main__":
    print("\n".join(lines()))
