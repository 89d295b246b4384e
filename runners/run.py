"""Runs of cells side by side, each in a process of its own with one torch thread, with reports on progress."""

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
    """The outcome of every cell. The number `jobs` does not change any cell's numbers. On a GPU the cells take turns.

    verbosity: −1 reports nothing, 1 also reports each record's diagnostics. Raises StoreError, and passes an interrupt
    on. Then no process is left behind, and committed records stay.
    """
    with _Announcer(len(cells), store, console, verbosity) as announce:
        earlier, waiting = records_by_place(store), deque[_Job]()

        def add(cell: Cell) -> None:
            waiting.append(_Job(cell, store, device, earlier.get(cell.place, [])))

        for cell in cells:
            try:
                cell.content  # noqa: B018 a cell without content is refused before training
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
    """A cell with its store and device, and the keys of its earlier records."""

    cell: Cell
    store: Store
    device: str
    candidates: Sequence[str]


def _work(job: _Job, tell: Tell) -> Outcome:
    """The work of a child process: complete the job's cell."""
    return complete(job.cell, job.store, job.device, lambda: tell("begins"), job.candidates)


def _explained(cell: Cell, error: BaseException) -> BaseException:
    """The error, with advice, of a cell that could not be sent to its process or whose result could not come back."""
    if isinstance(error, Died | NoRecipe):
        return error
    advice = "its settings must be plain values, or functions that stand by themselves in a file"
    return RuntimeError(f"{cell.name}: {type(error).__name__}: {error}: {advice}")


class _Announcer:
    """The report on progress: on a terminal a bar and a line for each running cell, else plain lines."""

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
        """Announce that the run has this many more cells than expected."""
        self._total += cells
        self._progress.update(self._all, total=self._total)

    def start(self, cell: Cell) -> None:
        """Announce that a cell has no record and starts now."""
        self._tasks[cell.title] = self._progress.add_task(f"  {cell.title}", total=None, count="")
        if self._verbosity >= 0 and not self._console.is_terminal:
            self._tell(f"{cell.title}: started")

    def end(self, outcome: Outcome) -> None:
        """Announce the outcome of a cell."""
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
