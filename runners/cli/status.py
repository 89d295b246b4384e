"""`gapbench status`: what has become of a run; and what `gapbench run --dry-run` tells."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gapbench.runners.cli.console import folder_option, make_console
from gapbench.runners.cli.errors import Command

if TYPE_CHECKING:
    from gapbench.runners.cell import Cell
    from gapbench.runners.plan import Status
    from gapbench.runners.store import Store
    from gapbench.runners.workers import Limits

T = TypeVar("T", bound="Status | None")

SHOWN = 20  # lines of a kind, unless --all asks for more


@click.command(cls=Command)
@click.argument("folder", callback=folder_option, metavar="DIR")
@click.option("--watch", is_flag=True, help="Show it again every few seconds, until nothing runs or waits.")
@click.option("--all", "everything", is_flag=True, help=f"All cells, not only {SHOWN} of a kind.")
@click.option("--every", type=click.FloatRange(min=0.1), default=5.0, hidden=True)
def status(folder: Path, watch: bool, everything: bool, every: float) -> None:
    """What of a run is done, what runs where, what failed and why, and the time that is left.

    It reads the folder that `gapbench run --out DIR` writes, on this machine or another.
    """
    from gapbench.runners.plan import status as look
    from gapbench.runners.store import Store

    console = make_console()
    for found in looks(lambda: look(Store(folder)), every):
        lines = list(words(found, math.inf if everything else SHOWN))
        if watch and console.is_terminal:
            console.clear()
        for line in lines if not watch or console.is_terminal else lines[:1]:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if not watch:
            return


def looks(look: Callable[[], T], every: float) -> Iterator[T]:
    """What a run looks like, every so many seconds, until nothing of it runs or waits. None: nothing is known yet."""
    while True:
        yield (found := look())
        if found is not None and found.over:
            return
        time.sleep(every)


def words(found: Status, shown: float) -> list[str]:
    """The lines that tell a status."""
    from gapbench.runners.costs import duration

    counts = {
        "done": len(found.done),
        "running": len(found.running),
        "waiting": len(found.waiting),
        "failed": len(found.failed),
        "skipped": len(found.skipped),
    }
    first = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    if found.running or found.waiting:
        first += f"; about {duration(found.left)} of CPU time left"
        if found.running:
            first += f", {duration(found.left / len(found.running))} as it runs now"
    lines = [f"{found.total} cells: {first}"]
    running = [
        f"running: {one.title} on {one.host} since {one.since[:19]} UTC"
        + (f", silent for {one.silent:.0f} s" if one.silent > 60 else "")
        for one in found.running
    ]
    for kind in (
        [f"damaged: {line}" for line in found.damaged],
        [f"failed: {title}: {reason}" for title, reason in found.failed.items()],
        running,
        [f"waiting: {title}" for title in found.waiting],
        [f"skipped: {title}: {reason}" for title, reason in found.skipped.items()],
    ):
        lines += kind[: int(min(shown, len(kind)))]
        if len(kind) > shown:
            lines.append(f"and {len(kind) - int(shown)} more; --all shows them")
    if found.waiting and not found.running:
        lines.append("Nothing runs. If no run waits for its workers, the same command goes on.")
    return lines


def tell_plan(store: Store, cells: Sequence[Cell], at_once: int | None, limits: Limits, retry: bool) -> None:
    """Print what a run would do: which cells there are, which are done, and what the rest should cost.

    at_once: how many run at a time, if that is known. limits, retry: those of the run.
    """
    from gapbench.runners.cell import early_key
    from gapbench.runners.costs import duration, expected
    from gapbench.runners.run import failed_before
    from gapbench.runners.store import Damaged

    there = set()
    for key in store.keys():  # noqa: SIM118 a store is no dict
        with suppress(Damaged, KeyError, TypeError):
            there.add(early_key(store.record(key).identity))
    skipped, before = store.skipped(), dict[str, list[Mapping[str, Any]]]()
    for key, note in store.attempts():
        before.setdefault(key, []).append(note)
    console = make_console()
    todo = []
    for cell in cells:
        try:
            key = cell.early_key
        except Exception as error:  # a cell without content fails by itself
            console.print(f"{cell.title}: it would fail: {error}", markup=False, highlight=False)
            continue
        notes = before.get(key, [])
        state = "done" if key in there else "skipped" if key in skipped else "failed before" if notes else "to do"
        if state == "failed before" and (retry or failed_before(cell, notes, limits) is None):
            state = "failed before, to do"
        if state.endswith("to do"):
            todo.append(expected(cell))
        console.print(f"{cell.title}: {state}, about {duration(expected(cell))}", markup=False, highlight=False)
    wall = max(sum(todo) / (at_once or 1), max(todo, default=0.0))
    console.print(
        f"{len(cells)} cells, {len(todo)} to do: about {duration(sum(todo))} of CPU time"
        + (f", {duration(wall)} with {at_once} at a time" if at_once else "")
        + ". Nothing was run.",
        markup=False,
        highlight=False,
    )
