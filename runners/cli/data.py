"""`gapbench data`: real tables, which are not in the package: listed, and got when they are asked for."""

from __future__ import annotations

from pathlib import Path

import click

from gapbench.runners.cli.console import folder_option, make_console, show
from gapbench.runners.cli.errors import Group


@click.group(cls=Group)
def data() -> None:
    """Real tables: list them, and get them."""


@data.command("list")
def list_() -> None:
    """The tables with their sizes, splits, origin and licence, and whether they are here."""
    from rich.table import Table

    from gapbench.datasets.downloads import folder
    from gapbench.datasets.uci import BASE, TABLES, UCI

    console = make_console()
    shown = Table(box=None, pad_edge=False)
    for heading in ("table", "rows", "features", "here", "what it is; its page has the licence"):
        shown.add_column(heading, overflow="fold")
    for name, table in TABLES.items():
        here = "yes" if UCI(table=name).missing is None else "no"
        told = "; ".join(part for part in (table.title, table.page, table.note) if part)
        shown.add_row(name, str(table.rows), str(table.features), here, told)
    show(console, shown)
    click.echo(f"Each has {len(UCI().splits)} standard splits, and a gap split for most features.")
    click.echo(f"They are kept in {folder()}; GAPBENCH_DATA names another folder.")
    click.echo(f"`gapbench data get uci` downloads them from {BASE} and checks their sha256.")


@data.command()
@click.argument("collection", type=click.Choice(["uci"]))
@click.argument("tables", nargs=-1)
@click.option(
    "--from",
    "source",
    callback=folder_option,
    metavar="FOLDER",
    help="Copy them from FOLDER/TABLE/data.txt instead of downloading them.",
)
def get(collection: str, tables: tuple[str, ...], source: Path | None) -> None:
    """Get the TABLES of a collection, by default all of them: 5 MB. What is here and right is kept."""
    from gapbench.datasets.uci import TABLES, download
    from gapbench.runners.suites import one_of

    for name in tables:
        one_of("table", name, TABLES)
    for name in tables or TABLES:
        file = download(name)
        if source is None:
            file.get()
        else:
            file.take(source / name / "data.txt")
        click.echo(f"{name}: {file.path}")
