"""Helpers of the commands: consoles, tables that are wider than a terminal, folders, and lists of names."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gapbench.runners.cli.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table

    from gapbench.runners.load import Collected


PIPED = 100  # columns of what goes into a pipe or a file

DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (CUDA if there, else MPS, else CPU), cpu, mps, cuda, cuda:1.",
)
JOBS = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="How many at once, one thread each; the numbers do not depend on it. Default: one for each core.",
)
REPLICAS = click.option(
    "--replicas", type=click.IntRange(1, 100_000), help="How many (data, seed) pairs. Default: the suite's number."
)


class ExistingFile(click.Path):
    """The path of a file that is there."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "\0" in str(value):
            self.fail(f"{value!r}: expected the path of a file", param, ctx)
        return super().convert(value, param, ctx)


def adding(options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """The decorator that adds options to a command, in their order."""

    def added(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return added


def folder_option(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """The absolute path of a folder that may or may not be there: code that changes folders must not move it.

    An empty value is a shell variable that was not set, not this folder.
    """
    if value is not None and (not value or "\0" in value):
        raise click.BadParameter(f"{value!r}: expected the path of a folder")
    return None if value is None else Path(value).absolute()


def words(values: Iterable[str], option: str) -> list[str]:
    """The words of an option that takes several, separated by commas, and may be given again.

    Raises UserError if there is none although the option was given.
    """
    given = list(values)
    found = [word.strip() for value in given for word in value.split(",") if word.strip()]
    if given and not found:
        raise UserError(f"{option} is empty: expected names or path.py:Class, separated by commas")
    return list(dict.fromkeys(found))


def default_folder(suite: str) -> Path:
    """The folder of a suite's results."""
    return (Path("results/local") if Path("results/published").is_dir() else Path("gapbench-results")) / suite


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, or in a command that this decorates, Python does not look for garbage.

    A command that shows results imports much, leaves little behind, and ends soon: to look takes a sixth of its time.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def collected(folder: Path) -> Collected:
    """The results of a folder. Whatever is left out is printed on the error stream."""
    from gapbench.runners.load import collect

    found = collect(folder)
    for line in found.damaged:
        click.echo(f"Left out: {line}; `gapbench run --out {folder}` makes it again", err=True)
    for line in found.notes:
        click.echo(line, err=True)
    return found


def make_console(stderr: bool = False) -> Console:
    """A console. Where there is no terminal to fit, it is as wide as COLUMNS says, else PIPED columns."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # the group's to handle; rich would end with the code of a failed cell

    console = Piped(stderr=stderr)
    fits = console.is_terminal or "COLUMNS" in os.environ
    return console if fits else Piped(stderr=stderr, width=10_000 if stderr else PIPED)


def print_headlines(found: Any) -> None:
    """Print the headline of each dataset, a line a method, and below it the meaning of its words."""
    from gapbench.evaluation.notebooks import all_headlines
    from gapbench.evaluation.render import STAR, text_headline
    from gapbench.evaluation.tables import sentences

    console = make_console()
    for headline in all_headlines(found):
        print_whole(console, text_headline(headline))
        for note in headline.notes:
            console.print(note, style="dim", markup=False, highlight=False)
        console.print()
    console.print(STAR, style="dim", highlight=False)
    for sentence in sentences(found):
        console.print(sentence, markup=False, highlight=False)


def print_tables(found: Any, columns: Any, intervals: bool, runs: bool) -> None:
    """The tables of results in numbers. runs: also seconds, memory and each method's diagnostics."""
    from gapbench.evaluation.render import STAR, text, text_runs
    from gapbench.evaluation.tables import run_table, tabulate

    console = make_console()
    for table in text(tabulate(found, columns), intervals):
        print_whole(console, table)
    console.print(STAR, style="dim", highlight=False)
    if runs:
        print_whole(console, text_runs(run_table(found)))


def print_whole(console: Console, table: Table) -> None:
    """A table in as many pieces as the width asks for, each with the columns that name the methods: no digit is cut."""
    names = [column for column in table.columns if column.justify == "left"]
    rest = [column for column in table.columns if column.justify != "left"]
    title, wide = table.title, console.options.update_width(10_000)
    while rest:
        piece, number = _piece(table, [*names, rest[0]], title), 1
        while number < len(rest):  # from the narrowest: to measure a table of a hundred columns takes seconds
            larger = _piece(table, [*names, *rest[: number + 1]], title)
            if console.measure(larger, options=wide).maximum > console.width:
                break
            piece, number = larger, number + 1
        show(console, piece)
        rest, title = rest[number:], None


def show(console: Console, table: Table) -> None:
    """A table with a line after it, and without the spaces that rich leaves at the ends."""
    with console.capture() as drawn:
        console.print(table, highlight=False)
    for line in drawn.get().splitlines():
        print(line.rstrip(), file=console.file)
    print(file=console.file)


def _piece(table: Table, columns: list[Column], title: Any) -> Table:
    from rich import box
    from rich.table import Table

    piece = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=table.padding
    )
    for column in columns:
        piece.add_column(column.header, justify=column.justify, overflow="fold")
    for row, *cells in zip(table.rows, *(column.cells for column in columns), strict=True):
        piece.add_row(*cells, end_section=row.end_section)
    return piece
