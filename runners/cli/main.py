"""The command line. Everything heavy is imported inside the commands, so that --help is instant."""

from __future__ import annotations

import click

from gapbench.runners.cli.about import check, doctor, list_
from gapbench.runners.cli.compare import compare
from gapbench.runners.cli.coverage import coverage
from gapbench.runners.cli.data import data
from gapbench.runners.cli.errors import EXIT_CODES, HELP, Group
from gapbench.runners.cli.ranks import ranks
from gapbench.runners.cli.reference import reference
from gapbench.runners.cli.report import report
from gapbench.runners.cli.run import run
from gapbench.runners.cli.show import export, plot, publish, readme, table
from gapbench.runners.cli.status import status
from gapbench.runners.cli.submit import submit
from gapbench.runners.cli.suite import suite
from gapbench.runners.cli.tune import tune
from gapbench.runners.cli.upkeep import gc, merge, verify
from gapbench.runners.cli.variance import variance


@click.group(cls=Group, epilog=EXIT_CODES, context_settings=HELP)
@click.version_option(package_name="gapbench")
def main() -> None:
    """Are a regression method's error bars right, above all where there are no data?

    `gapbench run` trains the methods of a suite on the gapped sine data, scores it and prints the table.
    """


for command in (
    run,
    tune,
    status,
    table,
    report,
    compare,
    ranks,
    coverage,
    variance,
    plot,
    export,
    list_,
    suite,
    check,
    doctor,
    data,
    reference,
    merge,
    gc,
    verify,
    submit,
    publish,
    readme,
):
    main.add_command(command)
