"""Runs cells side by side, each in a process of its own with one torch thread, and tells what is going on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from gapbench.runners.cell import Cell
from gapbench.runners.complete import Outcome, complete, failed
from gapbench.runners.earlier import records_by_place
from gapbench.runners.recipes import NoRecipe
from gapbench.runners.store import Damaged, Store, StoreError, floats
from gapbench.runners.workers import Died, Tell, run_all


def run_cells(
    cells: Sequence[Cell], store: Store, device: str, jobs: int, console: Console, verbosity: int = 0
) -> list[Outcome]:
    """Every cell's outcome. What a cell computes does not depend on `jobs`. On a GPU the cells take turns.

    verbosity: −1 tells nothing, 1 of each record's diagnostics too. Raises StoreError, and passes an interrupt on, with
    no process left behind; what is committed stays.
    """
    with _Announcer(len(cells), store, console, verbosity) as announce:
        earlier, waiting = records_by_place(store), deque[_Job]()

        def add(cell: Cell) -> None:
            waiting.append(_Job(cell, store, device, earlier.get(cell.place, [])))

        for cell in cells:
            try:
                cell.content  # noqa: B018 what cannot be keyed is refused before anything is trained
            except Exception as error:
                announce.end(failed(cell, store, device, error))
            else:
                add(cell)
        limit = jobs if device == "cpu" else 1
        with closing(run_all(_work, waiting, limit, lambda job, _: announce.start(job.cell))) as jobs_ended:
            for ended in jobs_ended:
                cell = ended.job.cell
                if isinstance(ended.error, StoreError):
                    raise ended.error
                outcome = failed(cell, store, device, _explained(cell, ended.error)) if ended.error else ended.value
                if outcome.status == "halved":
                    announce.more(1)
                    for half in cell.halves():
                        add(half)
                announce.end(outcome)
    return announce.outcomes


@dataclass(frozen=True)
class _Job:
    """A cell with where it is to go, and the keys of its records that were there before."""

    cell: Cell
    store: Store
    device: str
    candidates: Sequence[str]


def _work(job: _Job, tell: Tell) -> Outcome:
    """What a child process does."""
    return complete(job.cell, job.store, job.device, lambda: tell("begins"), job.candidates)


def _explained(cell: Cell, error: BaseException) -> BaseException:
    """The error of a cell that could not be sent to its process, or did not come back from it, in words."""
    if isinstance(error, Died | NoRecipe):
        return error
    advice = "its settings must be plain values, or functions that stand by themselves in a file"
    return RuntimeError(f"{cell.name}: {type(error).__name__}: {error}: {advice}")


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

    def more(self, cells: int) -> None:
        """Announce that there are so many more cells than was thought."""
        self._total += cells
        self._progress.update(self._all, total=self._total)

    def start(self, cell: Cell) -> None:
        """Announce that a cell has no record and starts now."""
        self._tasks[cell.title] = self._progress.add_task(f"  {cell.title}", total=None, count="")
        if self._verbosity >= 0 and not self._console.is_terminal:
            self._tell(f"{cell.title}: started")

    def end(self, outcome: Outcome) -> None:
        """Announce what became of a cell."""
        if outcome.status != "halved":
            self.outcomes.append(outcome)
        if outcome.cell.title in self._tasks:
            self._progress.remove_task(self._tasks.pop(outcome.cell.title))
        self._progress.update(self._all, completed=len(self.outcomes), count=f"{len(self.outcomes)}/{self._total}")
        if self._verbosity > 0 or (self._verbosity == 0 and outcome.status not in ("kept", "skipped")):
            seconds = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
            reason = f": {outcome.reason}" if outcome.reason else ""
            self._tell(f"{outcome.cell.title}: {outcome.status}{seconds}{reason}")
        if self._verbosity > 0 and outcome.recorded:
            for line in self._details(outcome):
                self._tell(f"    {line}")

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
