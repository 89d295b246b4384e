"""`gapbench compare`: two methods of a results folder, pair by pair of replicas."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gapbench.runners.cli.console import collected, default_folder, folder_option, make_console, show, words
from gapbench.runners.cli.errors import Command, UserError

if TYPE_CHECKING:
    from gapbench.evaluation.compare import Estimate

SCORES, REGIONS = ("crps_y", "nll_y", "reference_w1"), ("data", "gap")


@click.command(cls=Command)
@click.argument("this")
@click.argument("other")
@click.argument("folder", callback=folder_option, required=False)
@click.option("--columns", multiple=True, metavar="NAME,…", help=f"These scores. Default: {','.join(SCORES)}.")
@click.option("--region", multiple=True, metavar="NAME,…", help=f"These regions. Default: {','.join(REGIONS)}.")
def compare(this: str, other: str, folder: Path | None, columns: tuple[str, ...], region: tuple[str, ...]) -> None:
    """Is method THIS better than OTHER, by how much, and how sure is that?

    Differences are paired over replicas, with Student's 95 % interval. docs/scores.md explains the columns.
    """
    from rich.table import Table

    from gapbench.evaluation.compare import Incomparable
    from gapbench.evaluation.compare import compare as compared
    from gapbench.evaluation.headline import percent
    from gapbench.evaluation.scores import SCORES as KNOWN
    from gapbench.runners.suites import one_of

    scores, regions = words(columns, "--columns") or SCORES, words(region, "--region") or REGIONS
    for name in scores:
        one_of("score", name, KNOWN)
    results = collected(folder or default_folder("default")).results
    rows = {(result.dataset, result.method): result for result in results}
    for name in (this, other):
        one_of("method", name, dict.fromkeys(method for _, method in rows))

    console, refused, shown_any = make_console(), list[str](), False
    for dataset in dict.fromkeys(of for of, _ in rows):
        if not {(dataset, this), (dataset, other)} <= rows.keys():
            continue
        shown = Table(title=f"{dataset}: {this} against {other}", title_justify="left", box=None, pad_edge=False)
        headings = ("score", "difference", "P(better next)", "detectable", "replicas needed")
        for heading in headings:
            shown.add_column(heading, overflow="fold")
        for name in scores:
            for where in regions:
                try:
                    found = compared(rows[dataset, this], rows[dataset, other], (name, where))
                except Incomparable as error:
                    refused.append(f"Not compared: {error}")
                    continue
                factor, sure = "× " if found.ratio else "", "*" if found.significant else ""
                shown.add_row(
                    f"{name} · {where}",
                    factor + _interval(found.corrected or found.difference, _number) + sure,
                    _interval(found.next_better, percent),
                    factor + _interval(found.detectable, _number),
                    _interval(found.needed, _count),
                )
        if shown.rows:
            show(console, shown)
            shown_any = True
    if not shown_any:
        why = refused[0].removeprefix("Not compared: ") if refused else "no dataset has both"
        raise UserError(f"{this} and {other} have nothing to compare: {why}")
    for line in NOTES:
        console.print(f"* {line}", highlight=False, markup=False)
    for line in refused:
        click.echo(line, err=True)


NOTES = (
    "difference: × is the factor between the scores, THIS ÷ OTHER; without it, THIS − OTHER. Of a score with a right "
    "value, such as coverage, the distances from that value are compared.",
    "[ ]: 95 % intervals. * marks differences whose interval leaves equality out. On splits of one table it allows for "
    "the training rows that splits share.",
    "P(better next): the probability that THIS has the better score on one more replica.",
    "detectable: the difference that as many replicas find in four of five cases.",
    "replicas needed: to find the observed difference in four of five cases.",
)


def _count(value: float) -> str:
    return f"{value:.0f}" if value < math.inf else "never"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _interval(estimate: Estimate, word: Callable[[float], str]) -> str:
    low, high = (word(end).removesuffix(" %") for end in (estimate.low, estimate.high))
    return f"{word(estimate.value)} [{low}, {high}]"
