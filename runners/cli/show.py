"""`gapbench table`, `plot` and `export`: a results folder shown. And what the maintainers publish."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gapbench.runners.cli.console import (
    collected,
    default_folder,
    folder_option,
    print_headlines,
    print_tables,
    uncollected,
    words,
)
from gapbench.runners.cli.errors import Command, UserError

if TYPE_CHECKING:
    from gapbench.evaluation.results import Column, Result

FOLDER = click.argument("folder", callback=folder_option, required=False)


@click.command(cls=Command)
@FOLDER
@click.option(
    "--format", "form", type=click.Choice(["text", "markdown", "latex", "csv"]), default="text", show_default=True
)
@click.option(
    "--columns",
    multiple=True,
    metavar="NAME,…",
    help="Numbers in place of the headline: these scores of `gapbench list`, or `summary`, those that say most. May be "
    "given again.",
)
@click.option("--region", multiple=True, metavar="NAME,…", help="Only these regions, such as gap. May be given again.")
@click.option("--intervals", is_flag=True, help="Also the 95 % interval of each number.")
@click.option("--by", type=click.Choice(["region"]), help="Every score in every region.")
@uncollected()
def table(
    folder: Path | None, form: str, columns: tuple[str, ...], region: tuple[str, ...], intervals: bool, by: str | None
) -> None:
    """Show the results of a folder, a line a method. Without FOLDER: those of the default suite.

    Any of --columns, --region, --intervals and --by shows numbers instead. --format csv and latex always do.
    """
    from gapbench.evaluation import render
    from gapbench.evaluation.notebooks import all_headlines
    from gapbench.evaluation.tables import tabulate

    scores, regions = words(columns, "--columns"), words(region, "--region")
    in_words = not (scores or regions or by or intervals)
    which = _columns(scores, regions, by)
    found = collected(folder or default_folder("default"))
    there = dict.fromkeys(("all", *(name for result in found.results for name in result.regions)))
    for name in regions:
        if name not in there:
            raise UserError(f"--region {name!r}: expected one of {', '.join(there)}")
    if found.results and not any(which([one]) for one in found.results):
        raise UserError(
            f"--columns {','.join(scores)} --region {','.join(regions)}: no score stands there; try --region all"
        )
    if form == "csv":
        click.echo(render.csv(tabulate(found.results, which)), nl=False)
    elif form == "latex":
        click.echo(render.latex(tabulate(found.results, which)), nl=False)
    elif form == "markdown" and in_words:
        click.echo(render.markdown_headlines(all_headlines(found.results)))
    elif form == "markdown":
        click.echo(render.markdown(tabulate(found.results, which), intervals))
    elif in_words:
        print_headlines(found.results)
    else:
        print_tables(found.results, which, intervals, runs=not regions and scores in ([], ["summary"]))
    sys.exit(1 if found.damaged else 0)


def _columns(scores: list[str], regions: list[str], by: str | None) -> Callable[[Sequence[Result]], list[Column]]:
    """A function from one dataset's results to its table's columns. Raises Unknown for a score that is none."""
    from gapbench.evaluation.scores import SCORES
    from gapbench.evaluation.tables import everything, summary
    from gapbench.runners.suites import one_of

    if scores and by:
        raise UserError("--columns and --by: expected one of them")
    for name in scores:
        one_of("score", name, {**SCORES, "summary": None})

    def columns(rows: Sequence[Result]) -> list[Column]:
        first = summary(rows) if "summary" in scores or not (scores or regions or by) else ()
        rest = (column for column in everything(rows) if column[0] in scores or (not scores and (regions or by)))
        return [column for column in dict.fromkeys((*first, *rest)) if not regions or column[1] in regions]

    return columns


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
@click.option(
    "--format", "form", type=click.Choice(["csv", "parquet", "latex", "netcdf"]), default="parquet", show_default=True
)
@click.option(
    "--out", callback=folder_option, metavar="FILE", help="Default: FOLDER/results.csv, .parquet, .tex or .nc."
)
@click.option("--dataset", metavar="NAME", help="With netcdf: of this dataset. Needed if there are several.")
@click.option("--method", metavar="NAME", help="With netcdf: of this method. Needed if there are several.")
def export(folder: Path | None, form: str, out: Path | None, dataset: str | None, method: str | None) -> None:
    """The results for other tools: every replica's scores (csv, parquet), or the summary as LaTeX; or the draws of f of
    one method, which ArviZ reads (netcdf, which needs the extra of this name)."""
    from gapbench.runners.export import SUFFIX
    from gapbench.runners.export import export as write

    folder = folder or default_folder("default")
    found = collected(folder)
    path = out or folder / f"results.{SUFFIX.get(form, 'nc')}"
    if form == "netcdf":
        _netcdf(found.results, folder, path, dataset, method)
    elif dataset or method:
        raise UserError("--dataset and --method are of --format netcdf")
    else:
        write(found.results, form, path)
    click.echo(path)
    sys.exit(1 if found.damaged else 0)


def _netcdf(results: Sequence[Result], folder: Path, path: Path, dataset: str | None, method: str | None) -> None:
    from gapbench.runners.suites import one_of

    methods = [one for one in results if one.kind == "method"]
    known = dict.fromkeys(one.dataset for one in methods)
    if dataset is None and len(known) != 1:
        raise UserError(f"--format netcdf: which dataset? --dataset one of {', '.join(known)}")
    of = dataset or next(iter(known))
    one_of("dataset", of, known)
    names = dict.fromkeys(one.method for one in methods if one.dataset == of)
    if method is None and len(names) != 1:
        raise UserError(f"--format netcdf: which method? --method one of {', '.join(names)}")
    chosen = method or next(iter(names))
    one_of("method", chosen, names)
    try:
        from gapbench.runners.netcdf import write

        write(folder, of, chosen, path)
    except ImportError as error:
        raise UserError("--format netcdf needs arviz-base and h5netcdf: pip install 'gapbench[netcdf]'") from error


@click.command(cls=Command, hidden=True)
@click.argument("suite")
@click.option("--from", "folder", callback=folder_option, metavar="FOLDER", help="Default: results/local/SUITE.")
@click.option("--add", is_flag=True, help="Keep what is published of methods that the folder lacks.")
def publish(suite: str, folder: Path | None, add: bool) -> None:
    """Write what is tracked of a suite's results to results/published/SUITE: scores, curves, figures, a manifest."""
    from gapbench.runners.publish import publish as write
    from gapbench.runners.publish import read_manifest
    from gapbench.runners.suites import one_of, suites

    made = one_of("suite", suite, suites())
    published = Path("results/published") / suite
    for path in write(folder or default_folder(suite), published, add):
        click.echo(path)
    there = {(one["dataset"], one["method"]) for one in read_manifest(published)["results"]}
    for of, task in made.tasks.items():
        if missing := [name for name in task.methods or made.methods if (of, name) not in there]:
            click.echo(f"{of}: without {', '.join(missing)}, which were not run", err=True)


@click.command(cls=Command, hidden=True)
@click.argument("readme", type=click.Path(exists=True, dir_okay=False, path_type=Path), default="README.md")
def readme(readme: Path) -> None:
    """Write the README's headline, the page of each suite, and what is generated of docs/."""
    from gapbench.runners.readme import refresh

    for path in refresh(readme):
        click.echo(path)
