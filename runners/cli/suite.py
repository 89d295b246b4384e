"""`gapbench suite`: the suites as files."""

from __future__ import annotations

import click

from gapbench.runners.cli.errors import Group


@click.group(cls=Group)
def suite() -> None:
    """The suites as files, which `gapbench run --from` takes."""


@suite.command()
@click.argument("name")
def show(name: str) -> None:
    """Print the TOML of the suite NAME, to start one of your own from. Settings that it leaves out are the defaults."""
    from gapbench.runners.suite_file import written
    from gapbench.runners.suites import one_of, suites

    click.echo(written(one_of("suite", name, suites())).encode(), nl=False)  # TOML is UTF-8, whatever the locale is
