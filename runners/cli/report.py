"""`gapbench report`: a results folder as one page, once or while its run goes on; or what moved between two."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gapbench.runners.cli.console import collected, default_folder, folder_option, uncollected
from gapbench.runners.cli.errors import Command, Interrupted, UserError
from gapbench.runners.cli.status import looks

if TYPE_CHECKING:
    from gapbench.runners.load import Collected


def folder_options(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[Path, ...]:
    return tuple(path for value in values if (path := folder_option(ctx, param, value)))


@click.command(cls=Command)
@click.argument("folders", nargs=-1, metavar="[FOLDER] [OTHER]", callback=folder_options)
@click.option(
    "--out",
    callback=folder_option,
    metavar="FILE",
    help="Default: FOLDER/report.html; of published results, SUITE-report.html in this folder; of two folders, "
    "FOLDER-OTHER-moved.html in this folder.",
)
@click.option("--watch", is_flag=True, help="Write it again as cells finish, until nothing runs or waits.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: how often to look, and to show the page again in the browser.",
)
def report(folders: tuple[Path, ...], out: Path | None, watch: bool, every: float) -> None:
    """Write a report of a folder: one HTML file with findings, charts and tables, which needs no network.

    Without FOLDER: that of the default suite. With OTHER: what moved from FOLDER to OTHER, by how much, is it noise?
    """
    if out and out.is_dir():
        raise UserError(f"--out {out}: it is a folder, expected the name of a file")
    if len(folders) > 2:
        raise UserError(f"{len(folders)} folders: expected one, or two to compare")
    if len(folders) == 2:
        if watch:
            raise UserError("--watch: expected one folder, that of a run")
        compare(*folders, out)
    folder = folders[0] if folders else default_folder("default").absolute()
    if watch:
        follow(folder, out, every)
    found, path = written(folder, out)
    click.echo(path)
    sys.exit(1 if found.damaged else 0)


@uncollected()
def written(folder: Path, out: Path | None) -> tuple[Collected, Path]:
    """What was collected from a folder, and the file of its report."""
    from gapbench.runners.report import default_file, write

    found, path = collected(folder), out or default_file(folder)
    write(found, folder, path)
    return found, path


@uncollected()
def compare(a: Path, b: Path, out: Path | None) -> None:
    """Write what moved between two folders."""
    from gapbench.runners.moved import write

    path = out or Path(f"{a.name}-{b.name}-moved.html").absolute()
    found = collected(a), collected(b)
    write((found[0], a), (found[1], b), path)
    click.echo(path)
    sys.exit(1 if found[0].damaged or found[1].damaged else 0)


def follow(folder: Path, out: Path | None, every: float) -> None:
    """Write the report of a folder each time that cells have finished or failed, until the run is over."""
    from gapbench.runners.load import collect
    from gapbench.runners.publish import MANIFEST
    from gapbench.runners.report import default_file, planned, progress, write
    from gapbench.runners.store import Store, StoreError

    if (folder / MANIFEST).is_file():
        raise UserError(f"--watch: {folder} is published and does not change: expected the folder of a run")
    store, path, found = Store(folder), out or default_file(folder), None
    before: object = None
    try:
        for status in looks(lambda: planned(folder), every):
            now = store.keys(), store.notes()
            if now == before or (status and status.over):
                continue
            before = now
            try:
                found = collect(folder)
            except StoreError:
                click.echo(f"{folder}: no results yet, waiting for a run")
                continue
            write(found, folder, path, refresh=math.ceil(every))
            click.echo(f"{path}: {progress(status) or 'written'}")
    except KeyboardInterrupt as interrupt:
        if found:
            write(found, folder, path)  # a page that loads itself again would look as if somebody watched
        raise Interrupted(f"The page is {path}." if found else "There is no page yet.") from interrupt
