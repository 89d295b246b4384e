"""Runs of cells side by side, each in a process of its own with one torch thread, with reports on progress."""

from __future__ import annotations

import math
import os
import platform
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from gapbench.evaluation.entries import Trained
from gapbench.evaluation.headline import headlines
from gapbench.runners.cell import Cell, early_key
from gapbench.runners.complete import Outcome, complete, failed
from gapbench.runners.costs import duration, expected
from gapbench.runners.devices import device_named
from gapbench.runners.earlier import records_by_place
from gapbench.runners.engines import Engine
from gapbench.runners.load import collect
from gapbench.runners.plan import write_plan
from gapbench.runners.provenance import now
from gapbench.runners.recipes import NoRecipe
from gapbench.runners.store import Damaged, Store, StoreError, first_line, floats
from gapbench.runners.workers import NO_LIMITS, Died, Limits, Tell, TimedOut, run_all

PAUSE = 60.0  # seconds between lines on the time left, where there is no terminal
TRIES = 3  # of a cell whose process was ended by a signal, which may be the machine's fault


def run_cells(
    cells: Sequence[Cell],
    store: Store,
    slots: Sequence[str],
    console: Console,
    verbosity: int = 0,
    *,
    limits: Limits = NO_LIMITS,
    retry: bool = False,
    stop: bool = False,
    engine: Engine | None = None,
) -> list[Outcome]:
    """The outcome of every cell. Neither slots nor engine change any cell's numbers.

    slots: a device for each cell that may run at a time. retry: also try cells that failed before, under limits that
    were no tighter. stop: end at the first failure; then not all cells have an outcome. engine: where the cells run if
    not here (`engines`); then the devices are those of its workers. verbosity: −1 reports nothing, 1 also reports each
    record's diagnostics.
    Raises StoreError, and passes an interrupt on. Then no process is left behind, and committed records stay.
    """
    with _Announcer(cells, store, console, verbosity) as announce:
        earlier, before = records_by_place(store), dict[str, list[dict[str, Any]]]()
        for key, note in store.attempts():
            before.setdefault(key, []).append(note)
        waiting, planned = _Jobs(slots), store.planned

        def add(cell: Cell) -> None:
            waiting.append(Job(cell, store, slots[0], limits, earlier.get(cell.place, [])))

        for cell in cells:
            try:
                notes = [] if retry else before.get(cell.early_key, [])
                there = notes and _is_there(cell, store, earlier.get(cell.place, []))
                found = None if there else failed_before(cell, notes, limits)
            except Exception as error:  # a cell without content is refused before training
                found = failed(cell, store, slots[0], error)
            if found is None:
                add(cell)
            else:
                announce.end(found)
                if stop:
                    return announce.outcomes
        jobs = engine(_work, waiting, limits) if engine else run_all(_work, waiting, len(slots), announce.began, limits)
        with closing(jobs) as jobs_ended:
            for ended in jobs_ended:
                cell = ended.job.cell
                waiting.free(ended.job)
                if isinstance(ended.error, StoreError):
                    raise ended.error
                if planned and not store.planned:
                    raise StoreError(f"{store.root}: it was removed while cells ran; the same command begins again")
                outcome = ended.value
                if ended.error:
                    why = _explained(cell, ended.error)
                    outcome = failed(cell, store, ended.job.device, why, limits=limits, used=ended.used)
                if outcome.status == "halved":
                    announce.more(1)
                    halves = cell.halves()
                    store.skip(cell.early_key, f"{outcome.message}: it is run as two halves")
                    write_plan(store, halves, {})
                    for half in halves:
                        add(half)
                announce.end(outcome)
                if stop and outcome.failed:
                    break
    return announce.outcomes


@dataclass(frozen=True)
class Job:
    """A cell with its store, device and limits, and the keys of its earlier records."""

    cell: Cell
    store: Store
    device: str
    limits: Limits
    candidates: Sequence[str]


class _Jobs(deque[Job]):
    """Jobs that wait. Each gets a device that is free when it starts."""

    def __init__(self, slots: Sequence[str]) -> None:
        super().__init__()
        self._slots = list(slots)

    def popleft(self) -> Job:
        job = super().popleft()
        return replace(job, device=self._slots.pop(0)) if self._slots else job

    def free(self, job: Job) -> None:
        self._slots.append(job.device)


def _work(job: Job, tell: Tell) -> Outcome:
    """The work of a child process: complete the job's cell. While it is computed, the store shows where."""
    note = {"cell": job.cell.title, "host": platform.node(), "process": os.getpid(), "since": now()}
    with ExitStack() as while_computed:

        def begins() -> None:
            while_computed.enter_context(job.store.running(job.cell.early_key, note))
            tell("begins")

        device = device_named(job.device)
        return complete(job.cell, job.store, device, begins, job.candidates, job.limits)


def _is_there(cell: Cell, store: Store, keys: Sequence[str]) -> bool:
    """True if one of these records is the cell's."""
    for key in keys:
        with suppress(Damaged):
            if early_key(store.record(key).identity) == cell.early_key:
                return True
    return False


def failed_before(cell: Cell, notes: Sequence[Mapping[str, Any]], limits: Limits) -> Outcome | None:
    """The outcome of a cell that would fail again; None if it may not."""
    if not notes:
        return None
    last = notes[-1]
    why, were = last.get("cause", "exception"), Limits(**last.get("limits", {}))
    may_not = {
        "time-out": (limits.timeout or math.inf) > (were.timeout or math.inf),
        "memory": (limits.memory or math.inf) > (were.memory or math.inf),
        "signal": len(notes) < TRIES,
    }
    if may_not.get(why, False):
        return None
    count = f"{len(notes)} times" if len(notes) > 1 else "before"
    reason = f"failed {count} ({last['status']}: {first_line(last['reason'])}); --retry-failed tries it again"
    return Outcome(cell, cell.early_key, "failed", message=reason)


def _explained(cell: Cell, error: BaseException) -> BaseException:
    """The error, with advice, of a cell that could not be sent to its process or whose result could not come back."""
    if isinstance(error, Died | TimedOut | NoRecipe):
        return error
    if isinstance(error, FileNotFoundError):  # of a user's file
        return RuntimeError(f"{error.filename}: there is no such file where {cell.name} ran: all need it at this path")
    advice = "its settings must be plain values, or functions that stand by themselves in a file"
    return RuntimeError(f"{cell.name}: {type(error).__name__}: {error}: {advice}")


class _Announcer:
    """The report on progress: on a terminal a bar and a line for each running cell, else plain lines."""

    def __init__(self, cells: Sequence[Cell], store: Store, console: Console, verbosity: int) -> None:
        self.outcomes: list[Outcome] = []
        self._began = self._told = time.monotonic()
        self._left = sum(map(expected, cells))  # CPU seconds, by what the cells cost elsewhere
        self._trained = 0.0
        # The cells of each row of the table that have no outcome yet, and the keys of those that have a record.
        self._open = Counter((cell.dataset_name, cell.name) for cell in cells)
        self._keys: dict[tuple[str, str], list[str]] = {}
        self._new: set[tuple[str, str]] = set()  # rows of which a cell was trained
        total = len(cells)
        self._total, self._store, self._console, self._verbosity = total, store, console, verbosity
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=verbosity < 0 or not console.is_terminal,
            transient=True,
        )
        self._all = self._progress.add_task("cells", total=total, count=f"0/{total}", left="")
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Announcer:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def more(self, cells: int) -> None:
        """Announce that the run has this many more cells than expected."""
        self._total += cells
        self._progress.update(self._all, total=self._total)

    def began(self, job: Job, message: object) -> None:
        """Announce that a cell has no record and starts now."""
        cell = job.cell
        self._tasks[cell.title] = self._progress.add_task(f"  {cell.title}", total=None, count="", left="")
        if self._verbosity >= 0 and not self._console.is_terminal:
            self._tell(f"{cell.title}: started")

    def end(self, outcome: Outcome) -> None:
        """Announce the outcome of a cell."""
        if outcome.status != "halved":
            self.outcomes.append(outcome)
        if outcome.cell.title in self._tasks:
            self._progress.remove_task(self._tasks.pop(outcome.cell.title))
        self._account(outcome)
        count, left = f"{len(self.outcomes)}/{self._total}", self._time_left()
        self._progress.update(self._all, completed=len(self.outcomes), count=count, left=left)
        if self._verbosity > 0 or (self._verbosity == 0 and outcome.status not in ("kept", "skipped")):
            seconds = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
            reason = f": {outcome.reason}" if outcome.reason else ""
            self._tell(f"{outcome.cell.title}: {outcome.status}{seconds}{reason}")
        if self._verbosity > 0 and outcome.recorded:
            for line in self._details(outcome):
                self._tell(f"    {line}")
        if self._verbosity >= 0:
            for line in self._row(outcome):
                self._tell(line)
            if left and not self._console.is_terminal and time.monotonic() > self._told + PAUSE:
                self._told = time.monotonic()
                self._tell(f"{count} cells, {left}")

    def _account(self, outcome: Outcome) -> None:
        """Count an outcome. Cells that were there, or are not run, say nothing of how fast this machine is."""
        cost = expected(outcome.cell)
        if outcome.status != "halved":
            self._left -= cost
        if outcome.status == "finished":
            self._trained += cost

    def _time_left(self) -> str:
        if not self._trained or self._left <= 0:
            return ""
        elapsed = time.monotonic() - self._began
        return f"about {duration(elapsed * self._left / self._trained)} left"

    def _row(self, outcome: Outcome) -> Iterator[str]:
        """The line of a method's numbers, when its last cell of a dataset has an outcome."""
        row = (outcome.cell.dataset_name, outcome.cell.name)
        if outcome.status == "halved":
            self._open[row] += 1
            return
        self._open[row] -= 1
        if outcome.recorded:
            self._keys.setdefault(row, []).append(outcome.key)
        if outcome.status == "finished":
            self._new.add(row)
        if self._open[row] or row not in self._new or not isinstance(outcome.cell.entry, Trained):
            return
        for headline in headlines(collect(self._store.root, self._keys[row]).results):
            for _, _, words in headline.lines:
                said = (f"{heading} {word}" for heading, word in zip(headline.headings, words, strict=True))
                yield f"{' · '.join(row)}: {', '.join(said)}"

    def _tell(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _details(self, outcome: Outcome) -> Iterator[str]:
        try:
            record = self._store.record(outcome.key)
        except Damaged:
            return
        yield repr(outcome.cell.entry.subject)
        for name, values in record.diagnostics.items():
            yield f"{name}: {', '.join(f'{value:g}' for value in floats(values))}"
        run = record.provenance
        yield (
            f"{run['device']}, {run['seconds']:.1f} s, {run['cpu seconds']:.1f} CPU s, "
            f"peak {run['peak memory (bytes)'] / 2**20:.0f} MiB"
        )
        yield str(self._store.path(outcome.key))
