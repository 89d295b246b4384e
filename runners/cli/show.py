"""`gapbench table`, `plot` and `export`: a results folder shown. And what the maintainers publish."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gapbench.runners.cli.console import collected, default_folder, folder_option, print_results
from gapbench.runners.cli.errors import Command

FOLDER = click.argument("folder", callback=folder_option, required=False)


@click.command(cls=Command)
@FOLDER
@click.option("--format", "form", type=click.Choice(["text", "markdown", "csv"]), default="text", show_default=True)
@click.option("--by", type=click.Choice(["region"]), help="Every score in every region, not the summary alone.")
def table(folder: Path | None, form: str, by: str | None) -> None:
    """The table of a results folder; without FOLDER, of the default suite's."""
    from gapbench.evaluation import render
    from gapbench.evaluation.tables import everything, summary, tabulate

    found = collected(folder or default_folder("default"))
    columns = summary if by is None else everything
    if form == "text":
        print_results(found.results, None if by is None else everything)
    elif form == "markdown":
        click.echo(render.markdown(tabulate(found.results, columns)))
    else:
        click.echo(render.csv(tabulate(found.results, columns)), nl=False)
    sys.exit(1 if found.damaged else 0)


@click.command(cls=Command)
@FOLDER
@click.option("--out", callback=folder_option, metavar="FOLDER", help="Where the files go. Default: FOLDER/figures.")
def plot(folder: Path | None, out: Path | None) -> None:
    """The figures of a results folder, as PNG and SVG files."""
    from gapbench.evaluation.plots import plot as draw

    folder = folder or default_folder("default")
    found = collected(folder)
    drawn = draw(found.results, out or folder / "figures", ("png", "svg"))
    for path in drawn.paths:
        click.echo(path)
    for line in drawn.skipped:
        click.echo(line, err=True)
    sys.exit(1 if found.damaged else 0)


@click.command(cls=Command)
@FOLDER
@click.option("--format", "form", type=click.Choice(["csv", "parquet", "latex"]), default="parquet", show_default=True)
@click.option("--out", callback=folder_option, metavar="FILE", help="Default: FOLDER/results.csv, .parquet or .tex.")
def export(folder: Path | None, form: str, out: Path | None) -> None:
    """The results for other tools: every replica's scores (csv, parquet), or the summary as LaTeX."""
    from gapbench.runners.export import SUFFIX
    from gapbench.runners.export import export as write

    folder = folder or default_folder("default")
    found = collected(folder)
    path = out or folder / f"results.{SUFFIX[form]}"
    write(found.results, form, path)
    click.echo(path)
    sys.exit(1 if found.damaged else 0)


@click.command(cls=Command, hidden=True)
@click.argument("suite")
@click.option("--from", "folder", callback=folder_option, metavar="FOLDER", help="Default: results/local/SUITE.")
def publish(suite: str, folder: Path | None) -> None:
    """Write what is tracked of a suite's results to results/published/SUITE: scores, curves, figures, a manifest."""
    from gapbench.runners.publish import publish as write
    from gapbench.runners.suites import one_of, suites

    one_of("suite", suite, suites())
    for path in write(folder or default_folder(suite), Path("results/published") / suite):
        click.echo(path)


@click.command(cls=Command, hidden=True)
@click.argument("readme", type=click.Path(exists=True, dir_okay=False, path_type=Path), default="README.md")
def readme(readme: Path) -> None:
    """Write the README's headline and the page of each suite from results/published."""
    from gapbench.runners.readme import refresh

    for path in refresh(readme):
        click.echo(path)
