"""Runs cells side by side, one process and one torch thread each, and tells what is going on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from gapbench.methods.registry import from_file
from gapbench.runners.benchmark import Cell, Outcome, complete, failed
from gapbench.runners.store import Store, StoreError, floats


def run_cells(
    cells: Sequence[Cell],
    store: Store,
    device: str,
    jobs: int,
    console: Console,
    verbosity: int = 0,
    sources: Sequence[str] = (),
) -> list[Outcome]:
    """Every cell's outcome. What a cell computes does not depend on `jobs`. On CUDA the cells share the one device.

    sources: files of methods ("path.py:Class") that the cells use. verbosity: -1 tells nothing, 1 of each record's
    diagnostics too. Raises StoreError, and passes an interrupt on, with no process left behind; what is
    committed stays.
    """
    with _Announcer(len(cells), store, console, verbosity) as announce:
        if jobs == 1 or device.startswith("cuda") or len(cells) == 1:
            for cell in cells:
                announce.end(complete(cell, store, device, lambda cell=cell: announce.start(cell)))  # type: ignore[misc]
        else:
            _side_by_side(cells, store, device, jobs, sources, announce)
    return announce.outcomes


def _side_by_side(
    cells: Sequence[Cell], store: Store, device: str, jobs: int, sources: Sequence[str], announce: _Announcer
) -> None:
    waiting = list(reversed(cells))
    idle: list[_Worker] = []
    busy: dict[Connection, tuple[_Worker, Cell]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                worker = idle.pop() if idle else _Worker.start(store, device, sources)
                cell = waiting.pop()
                busy[worker.pipe] = worker, cell
                with suppress(OSError):  # it was killed while idle: its pipe has ended, which is seen below
                    worker.pipe.send(cell)
            for pipe in wait(busy):
                assert isinstance(pipe, Connection)
                worker, cell = busy[pipe]
                try:
                    word = pipe.recv()
                except (EOFError, OSError):  # killed from outside: it alone is lost, and a new one takes its place
                    why = ProcessKilled("perhaps for want of memory, of which --jobs 1 takes the least")
                    word = failed(cell, store, device, why)
                else:
                    if word is None:
                        announce.start(cell)
                        continue
                    idle.append(worker)
                del busy[pipe]
                if isinstance(word, StoreError):
                    raise word
                announce.end(word)
    finally:  # also on an interrupt: what is running is given up
        with _no_interrupts():
            for worker in [*idle, *(worker for worker, _ in busy.values())]:
                worker.process.kill()
                worker.process.join()


class ProcessKilled(Exception):
    """A cell's process was killed by something else."""


@dataclass(frozen=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection

    @staticmethod
    def start(store: Store, device: str, sources: Sequence[str]) -> _Worker:
        context = multiprocessing.get_context("spawn")  # a fork of a process that has used torch may hang
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, store, device, sources))
        resource_tracker.ensure_running()  # its start would let interrupts through again
        with _no_interrupts():  # inherited, and for good: Ctrl-C is the parent's to handle
            process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        return _Worker(process, ours)


def _work(pipe: Connection, store: Store, device: str, sources: Sequence[str]) -> None:
    """What a worker process does: a cell, its outcome, and so on; None says that a cell is not there yet."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    for source in sources:  # a cell cannot be received before its class is known
        from_file(source)
    while True:
        cell: Cell = pipe.recv()
        try:
            pipe.send(complete(cell, store, device, lambda: pipe.send(None)))
        except StoreError as error:
            pipe.send(error)


def end_with_parent() -> None:
    """However it ended: kill -9 must not leave workers behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """SIGINT waits until the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Announcer:
    """A bar and a line for each running cell on a terminal, plain lines elsewhere."""

    def __init__(self, total: int, store: Store, console: Console, verbosity: int) -> None:
        self.outcomes: list[Outcome] = []
        self._total, self._store, self._console, self._verbosity = total, store, console, verbosity
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=console,
            disable=verbosity < 0 or not console.is_terminal,
            transient=True,
        )
        self._all = self._progress.add_task("cells", total=total, count=f"0/{total}")
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Announcer:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, cell: Cell) -> None:
        """It is not there yet."""
        self._tasks[cell.name] = self._progress.add_task(f"  {cell.name}", total=None, count="")
        if self._verbosity >= 0 and not self._console.is_terminal:
            self._tell(f"{cell.name}: started")

    def end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if outcome.cell.name in self._tasks:
            self._progress.remove_task(self._tasks.pop(outcome.cell.name))
        self._progress.update(self._all, advance=1, count=f"{len(self.outcomes)}/{self._total}")
        if self._verbosity > 0 or (self._verbosity == 0 and outcome.status not in ("kept", "skipped")):
            seconds = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
            reason = f": {outcome.reason}" if outcome.reason else ""
            self._tell(f"{outcome.cell.name}: {outcome.status}{seconds}{reason}")
        if self._verbosity > 0:
            for line in self._details(outcome):
                self._tell(f"    {line}")

    def _tell(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _details(self, outcome: Outcome) -> Iterator[str]:
        record = self._store.read(outcome.key)
        if record is not None:
            for name, values in record["diagnostics"].items():
                yield f"{name}: {', '.join(f'{value:g}' for value in floats(values))}"
            run = record["provenance"]
            yield f"{run['device']}, {run['seconds']:.1f} s, peak {run['peak memory (bytes)'] / 2**20:.0f} MiB"
            yield str(self._store.path(outcome.key))
