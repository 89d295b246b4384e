"""`gapbench report`: a results folder as one page to look at, once or while its run goes on."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click

from gapbench.runners.cli.console import collected, default_folder, folder_option
from gapbench.runners.cli.errors import Command, Interrupted, UserError
from gapbench.runners.cli.status import looks


@click.command(cls=Command)
@click.argument("folder", callback=folder_option, required=False)
@click.option(
    "--out",
    callback=folder_option,
    metavar="FILE",
    help="Default: FOLDER/report.html; of published results, SUITE-report.html in this folder.",
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
def report(folder: Path | None, out: Path | None, watch: bool, every: float) -> None:
    """Write a report of a folder: one HTML file with findings, charts and tables, which needs no network.

    Without FOLDER: that of the default suite.
    """
    from gapbench.runners.publish import MANIFEST
    from gapbench.runners.report import default_file, write

    folder = folder or default_folder("default").absolute()
    path = out or default_file(folder)
    if path.is_dir():
        raise UserError(f"--out {path}: it is a folder, expected the name of a file")
    if watch and (folder / MANIFEST).is_file():
        raise UserError(f"--watch: {folder} is published and does not change: expected the folder of a run")
    if watch:
        follow(folder, path, every)
    found = collected(folder)
    write(found, folder, path)
    click.echo(path)
    sys.exit(1 if found.damaged else 0)


def follow(folder: Path, path: Path, every: float) -> None:
    """Write the report of a folder each time that cells have finished or failed, until the run is over."""
    from gapbench.runners.load import collect
    from gapbench.runners.report import planned, progress, write
    from gapbench.runners.store import Store, StoreError

    store, found = Store(folder), None
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
