"""The overhead of a cell's own process: cells through the runner against the same cells in this process, in one run.

    python timings/runner.py [--rounds 5] [--cells 10]

A cell of the runner is sent to a child of the fork server, which computes and commits it; one at a time here. Beside it
the same cells are completed in this process, and through an executor (a thread that asks for such a child). The cells
are as small as can be, so what is left is overhead.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from side_by_side import arguments, cost, timed

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.entries import Trained
from gapbench.methods.engine.model import MLP
from gapbench.methods.mc_dropout import MCDropout
from gapbench.runners.cell import Cell
from gapbench.runners.complete import complete
from gapbench.runners.engines import through
from gapbench.runners.run import run_cells
from gapbench.runners.store import Store
from gapbench.runners.workers import start_server


def cells(count: int) -> list[Cell]:
    """Cells of milliseconds, each with another setting."""
    data = GappedSine(n=12, noise_std=0.1, test_points=13)
    methods = [MCDropout(rate=0.5 / (at + 2), steps=2, draws=2) for at in range(count)]
    return [Cell("sine", data, MLP(hidden=(4,)), f"row {at}", Trained(one), 0, 1, 0) for at, one in enumerate(methods)]


def seconds_of(work: Callable[[list[Cell], Store], object], count: int) -> Callable[[], float]:
    """A function that gives the seconds that these cells take in an empty store."""

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder) / "results")
            store.prepare()
            started = time.perf_counter()
            work(cells(count), store)
            return time.perf_counter() - started

    return run


def main() -> None:
    options = arguments(__doc__, rounds=5, steps=2, cells="10")
    (count,) = options.cells
    start_server()
    quiet = Console(quiet=True)
    with ThreadPoolExecutor(1) as executor:
        variants = {
            "in this process": lambda todo, store: [complete(cell, store, "cpu") for cell in todo],
            "a child each": lambda todo, store: run_cells(todo, store, ["cpu"], quiet, -1),
            "through an executor": lambda todo, store: run_cells(
                todo, store, ["cpu"], quiet, -1, engine=through(executor)
            ),
        }
        rounds = timed({name: seconds_of(work, count) for name, work in variants.items()}, options.rounds)
    print(f"{'':22} {'ms a cell':>10} {'overhead ms':>12}")
    for name in variants:
        each, least = (1e3 * cost(rounds, one) / count for one in (name, "in this process"))
        print(f"{name:22} {each:10.1f} {each - least:12.1f}")


if __name__ == "__main__":
    main()
