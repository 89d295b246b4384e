"""`gapbench report`: a results folder as one page to look at."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gapbench.runners.cli.console import collected, default_folder, folder_option
from gapbench.runners.cli.errors import Command, UserError


@click.command(cls=Command)
@click.argument("folder", callback=folder_option, required=False)
@click.option(
    "--out",
    callback=folder_option,
    metavar="FILE",
    help="Default: FOLDER/report.html; of published results, SUITE-report.html in this folder.",
)
def report(folder: Path | None, out: Path | None) -> None:
    """Write a report of a folder: one HTML file with findings, charts and tables, which needs no network.

    Without FOLDER: that of the default suite.
    """
    from gapbench.runners.report import default_file, write

    folder = folder or default_folder("default").absolute()
    path = out or default_file(folder)
    if path.is_dir():
        raise UserError(f"--out {path}: it is a folder, expected the name of a file")
    found = collected(folder)
    write(found, folder, path)
    click.echo(path)
    sys.exit(1 if found.damaged else 0)
