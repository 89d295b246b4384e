"""Runs cells side by side, one process and one torch thread each, and tells what is going on."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from gapbench.runners.benchmark import Cell, Outcome, complete
from gapbench.runners.store import Store


def run_cells(cells: Sequence[Cell], folder: Path, device: str, jobs: int, console: Console) -> list[Outcome]:
    """Every cell's outcome. What a cell computes does not depend on `jobs`. On CUDA the cells share the one device."""
    announce = _Announcer(len(cells), console)
    store = Store(folder)
    with announce:
        if jobs == 1 or device.startswith("cuda") or len(cells) == 1:
            return [_announced(cell, store, device, announce) for cell in cells]
        return _side_by_side(cells, store, device, jobs, announce)


def _side_by_side(cells: Sequence[Cell], store: Store, device: str, jobs: int, announce: _Announcer) -> list[Outcome]:
    waiting, outcomes = list(cells), list[Outcome]()
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used torch may hang
    while waiting:  # once, unless a process is killed from outside: then the pool is lost and made anew
        running: dict[Future[Outcome], Cell] = {}
        with ProcessPoolExecutor(jobs, context, _leave_interrupts_to_the_parent) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < jobs:
                        announce.start(waiting[0])
                        running[pool.submit(complete, waiting[0], store, device)] = waiting.pop(0)
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        outcomes.append(future.result())
                        running.pop(future)
                        announce.end(outcomes[-1])
            except BrokenProcessPool:
                for cell in running.values():
                    reason = "its process was killed, perhaps for want of memory; --jobs 1 needs the least"
                    outcomes.append(Outcome(cell, "failed", message=reason))
                    announce.end(outcomes[-1])
            except BaseException:  # an interrupt above all: what is committed stays, what is running is given up
                for child in multiprocessing.active_children():
                    child.terminate()
                raise
    return outcomes


def _announced(cell: Cell, store: Store, device: str, announce: _Announcer) -> Outcome:
    announce.start(cell)
    outcome = complete(cell, store, device)
    announce.end(outcome)
    return outcome


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Announcer:
    """A bar and a line for each running cell on a terminal, plain lines elsewhere."""

    def __init__(self, total: int, console: Console) -> None:
        self._console, self._total, self._ended = console, total, 0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._progress.add_task("cells", total=total)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, cell: Cell) -> None:
        self._tasks[cell.name] = self._progress.add_task(f"  {cell.name}", total=None)
        if not self._console.is_terminal:
            self._console.print(f"        {cell.name}: started", highlight=False, soft_wrap=True)

    def end(self, outcome: Outcome) -> None:
        self._progress.remove_task(self._tasks.pop(outcome.cell.name))
        self._progress.advance(self._all)
        self._ended += 1
        seconds = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
        message = f": {outcome.message}" if outcome.message else ""
        line = f"[{self._ended}/{self._total}] {outcome.cell.name}: {outcome.status}{seconds}{message}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
