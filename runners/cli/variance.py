"""`gapbench variance`: how much of a score's variance is of the data, and how much of the seed?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gapbench.runners.cli.console import collected, default_folder, folder_option, make_console, show, words
from gapbench.runners.cli.errors import Command, UserError

if TYPE_CHECKING:
    from gapbench.evaluation.compare import Estimate

SCORES, REGIONS = ("crps_y", "std_f"), ("data", "gap")


@click.command(cls=Command)
@click.argument("folder", callback=folder_option, required=False)
@click.option("--columns", multiple=True, metavar="NAME,…", help=f"These scores. Default: {','.join(SCORES)}.")
@click.option("--region", multiple=True, metavar="NAME,…", help=f"These regions. Default: {','.join(REGIONS)}.")
@click.option("--methods", multiple=True, metavar="NAME,…", help="Only these methods.")
def variance(folder: Path | None, columns: tuple[str, ...], region: tuple[str, ...], methods: tuple[str, ...]) -> None:
    """How much of a score's variance is of the data, and how much of the seed?

    It needs a suite that trains on each training set several times, as `--suite seeds` does.
    """
    from rich.markup import escape
    from rich.table import Table

    from gapbench.evaluation.compare import Incomparable
    from gapbench.evaluation.headline import percent
    from gapbench.evaluation.scores import SCORES as KNOWN
    from gapbench.evaluation.variance import split
    from gapbench.runners.suites import one_of

    scores, regions = words(columns, "--columns") or SCORES, words(region, "--region") or REGIONS
    for name in scores:
        one_of("score", name, KNOWN)
    results = [one for one in collected(folder or default_folder("seeds")).results if one.kind == "method"]
    chosen = words(methods, "--methods")
    for name in chosen:
        one_of("method", name, {one.method: one for one in results})
    console, refused, shown_any = make_console(), list[str](), False
    for dataset in dict.fromkeys(one.dataset for one in results):
        shown = Table(title=escape(dataset), title_justify="left", box=None, pad_edge=False)
        for heading in ("method", "score", "std of data", "std of seed", "share of seed"):
            shown.add_column(heading, overflow="fold")
        for one in results:
            if one.dataset != dataset or (chosen and one.method not in chosen):
                continue
            for name in scores:
                for where in regions:
                    try:
                        found = split(one, (name, where))
                    except Incomparable as error:
                        refused.append(str(error))
                        continue
                    stds = [percent(std) if found.relative else f"{std:.3g}" for std in (found.data, found.seed)]
                    shown.add_row(escape(one.label), f"{name} · {where}", *stds, _share(found.share))
        if shown.rows:
            show(console, shown)
            shown_any = True
    if not shown_any:
        raise UserError(refused[0] if refused else "no method is there")
    for line in NOTES:
        console.print(f"* {line}", highlight=False, markup=False)
    for line in dict.fromkeys(refused):
        click.echo(f"Left out: {line}", err=True)


def _share(share: Estimate) -> str:
    """In words; n/a for a score that does not vary at all."""
    from gapbench.evaluation.headline import percent

    if math.isnan(share.value):
        return "n/a"
    low, high = (percent(end).removesuffix(" %") for end in (share.low, share.high))
    return f"{percent(share.value)} [{low}, {high}]"


NOTES = (
    "std of data: over training sets. std of seed: over trainings of one training set, by the training's own random "
    "numbers alone. In % of the score, if all its values are positive.",
    "share of seed: of the variance, with its 95 % interval. Where it is small, more seeds of the same data tell "
    "little; more training sets tell more.",
)
