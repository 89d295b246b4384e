"""`gapbench ranks`: methods ranked over all datasets of a results folder."""

from __future__ import annotations

from pathlib import Path

import click

from gapbench.runners.cli.console import (
    collected,
    default_folder,
    folder_option,
    make_console,
    show,
    uncollected,
    words,
)
from gapbench.runners.cli.errors import Command, UserError


@click.command(cls=Command)
@click.argument("folder", callback=folder_option, required=False)
@click.option("--score", default="crps_y", show_default=True, help="By which score.")
@click.option("--region", default="data", show_default=True, help="In which region.")
@click.option("--methods", multiple=True, metavar="NAME,…", help="Ranks among these methods alone.")
@click.option(
    "--figure",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also draw the diagram of critical differences, as .png, .svg or .pdf; it needs the extra `ranks`.",
)
@uncollected()
def ranks(folder: Path | None, score: str, region: str, methods: tuple[str, ...], figure: Path | None) -> None:
    """Average ranks over the datasets of a folder, and which methods are told apart.

    By Wilcoxon's test over datasets with Holm's correction. docs/scores.md explains it.
    """
    from rich.markup import escape
    from rich.table import Table

    from gapbench.evaluation.compare import Incomparable
    from gapbench.evaluation.ranks import LEVEL, critical_differences, ranking
    from gapbench.evaluation.scores import SCORES
    from gapbench.runners.suites import one_of

    one_of("score", score, SCORES)
    results = collected(folder or default_folder("uci")).results
    known = {result.method: result for result in results if result.kind == "method"}
    chosen = words(methods, "--methods")
    for name in chosen:
        one_of("method", name, known)
    try:
        found = ranking(results, (score, region), chosen)
    except Incomparable as error:
        raise UserError(str(error)) from error
    arrived = {m: all(one.status == "ranked" for one in results if one.method == m) for m in found.ranks.index}
    title = f"{score} · {region} over {len(found.values)} datasets: {', '.join(map(str, found.values.index))}"
    shown = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for heading in ("method", "average rank", "not told apart from"):
        shown.add_column(heading, overflow="fold")
    for method, rank in found.ranks.items():
        others = found.alike[str(method)]
        shown.add_row(
            escape(f"{method}{'' if arrived[method] else ' †'}"),
            f"{rank:.2f}",
            "all others" if len(others) == len(found.ranks) - 1 else escape(", ".join(others)) or "none",
        )
    show(make_console(), shown)
    if not all(arrived.values()):
        click.echo("† did not converge, or failed, on some datasets.")
    click.echo(f"Told apart: Wilcoxon's test over datasets, p < {LEVEL} after Holm's correction for all pairs.")
    for method, where in found.left_out.items():
        click.echo(f"Left out: {method}, which has no {score} on {', '.join(where)}", err=True)
    if figure is not None:
        try:
            critical_differences(found).savefig(figure, dpi=150)
        except ImportError as error:
            raise UserError("--figure needs scikit-posthocs: pip install 'gapbench[ranks]'") from error
        click.echo(figure)
