"""`gapbench compare`: two methods of a results folder, pair by pair of replicas."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from gapbench.evaluation.compare import Estimate

SCORES, REGIONS = ("crps_y", "nll_y", "reference_w1"), ("data", "gap")


@click.command(cls=Command)
@click.argument("this")
@click.argument("other")
@click.argument("folder", callback=folder_option, required=False)
@click.option("--columns", multiple=True, metavar="NAME,…", help=f"These scores. Default: {','.join(SCORES)}.")
@click.option("--region", multiple=True, metavar="NAME,…", help=f"These regions. Default: {','.join(REGIONS)}.")
@uncollected()
def compare(this: str, other: str, folder: Path | None, columns: tuple[str, ...], region: tuple[str, ...]) -> None:
    """Is method THIS better than OTHER, by how much, and how sure is that?

    Differences are paired over replicas, with Student's 95 % interval. docs/scores.md explains the columns.
    """
    from rich.markup import escape
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
        pair = rows[dataset, this], rows[dataset, other]
        title = f"{dataset}: {pair[0].label} against {pair[1].label}"
        shown = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
        headings = ("score", "wins", "difference", "P(better next)", "detectable", "replicas needed")
        for heading in headings:
            shown.add_column(heading, overflow="fold")
        for name in scores:
            for where in regions:
                try:
                    found = compared(*pair, (name, where))
                except Incomparable as error:
                    refused.append(f"Not compared: {error}")
                    continue
                factor, sure = "× " if found.ratio else "", "*" if found.significant else ""
                shown.add_row(
                    f"{name} · {where}",
                    f"{found.better} of {found.replicas}",
                    _interval(found.difference, _number, factor) + sure,
                    _interval(found.next_better, percent),
                    _interval(found.detectable, _number, factor),
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
    "wins: the replicas on which THIS has the better score, of those that both have.",
    "difference: × is the factor between the scores, THIS ÷ OTHER; without it, THIS − OTHER. Of a score whose best "
    "value is 0, from both sides, the distances from 0 are compared.",
    "[ ]: 95 % intervals. * marks differences whose interval leaves equality out; of twenty lines between equal "
    "methods one has a * by chance. Random splits of a table share training rows, and the interval allows for that. "
    "Splits that are all that there are, such as one for each feature, have no interval.",
    "P(better next): the probability that THIS has the better score on one more replica, or split of the same table.",
    "detectable: the difference that as many replicas find in four of five cases.",
    "replicas needed: to find the observed difference in four of five cases; the splits of one table may never do.",
)


def _count(value: float) -> str:
    return f"{value:.0f}" if value < math.inf else "never"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _interval(estimate: Estimate | None, word: Callable[[float], str], factor: str = "") -> str:
    if estimate is None:
        return "–"
    if math.isnan(estimate.low):
        return factor + word(estimate.value)
    low, high = (word(end).removesuffix(" %") for end in (estimate.low, estimate.high))
    return f"{factor}{word(estimate.value)} [{low}, {high}]"
