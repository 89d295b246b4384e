"""`gapbench coverage`: where in x are 90 % intervals not intervals of 90 %?"""

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
@click.option("--methods", multiple=True, metavar="NAME,…", help="Only these methods.")
@click.option("--region", default="data", show_default=True, help="Among the test points of this region.")
@uncollected()
def coverage(folder: Path | None, methods: tuple[str, ...], region: str) -> None:
    """Where each method's 90 % intervals of y are too narrow most: the part of a feature with the least coverage.

    Published folders of tables do not have the rows; it needs the folder of a run of these.
    """
    from rich.markup import escape
    from rich.table import Table

    from gapbench.evaluation.conditional import told, worst
    from gapbench.evaluation.headline import percent
    from gapbench.runners.suites import one_of

    results = [one for one in collected(folder or default_folder("default")).results if one.kind == "method"]
    chosen = words(methods, "--methods")
    for name in chosen:
        one_of("method", name, {one.method: one for one in results})
    found = [(one, worst(one, region)) for one in results if not chosen or one.method in chosen]
    if not any(group for _, group in found):
        raise UserError(f"--region {region}: no method has test rows there with their 90 % intervals")
    for dataset in dict.fromkeys(one.dataset for one, _ in found):
        shown = Table(title=escape(f"{dataset}, {region}"), title_justify="left", box=None, pad_edge=False)
        for heading in ("method", "least covered", "right if", ""):
            shown.add_column(heading, overflow="fold")
        here = [(one, group) for one, group in found if one.dataset == dataset]
        if not any(group for _, group in here):
            click.echo(f"{dataset}: left out: no rows of features to look at", err=True)
            continue
        for one, group in here:
            if group is not None:
                low, high = map(percent, group.band)
                words_of = "too narrow there" if group.coverage < group.band[0] else ""
                shown.add_row(escape(one.label), told(group, one.layout.names), f"{low} to {high}", words_of)
        show(make_console(), shown)
    click.echo(
        "Right if: where the share is with probability 95 % in all parts of all features, if it is 90 % everywhere."
    )
