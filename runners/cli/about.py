"""`gapbench list`, `check` and `doctor`: what there is, whether it keeps its promises, and what is missing."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gapbench.runners.cli.console import default_folder, folder_option, make_console, show
from gapbench.runners.cli.errors import Command, UserError

if TYPE_CHECKING:
    from gapbench.evaluation.conformance import Verdict
    from gapbench.runners.suites import Suite


@click.command("list", cls=Command)
def list_() -> None:
    """Methods, controls, datasets, scores and suites, a line each."""
    from rich.table import Table

    from gapbench.evaluation.render import header
    from gapbench.evaluation.scores import SCORES
    from gapbench.runners.suites import CONTROLS, discovered, suites

    console, made, found = make_console(), suites(), discovered()

    def section(title: str, lines: Iterable[tuple[str, ...]]) -> None:
        table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        for line in lines:
            table.add_row(*line)
        for column in table.columns:
            column.overflow = "fold"
        show(console, table)

    section("Methods", ((name, description(cls)) for name, cls in found.methods.items()))
    if found.unavailable:
        section("Not available", found.unavailable.items())
    section("Controls, which run beside every method", ((name, first_line(one)) for name, one in CONTROLS.items()))

    def aim(score: str) -> str:
        return header((score, "all")).removeprefix(score).replace("· all", "").strip()

    def methods(suite: Suite) -> str:
        more = f"; if named: {', '.join(suite.on_request)}" if suite.on_request else ""
        return f"{suite.description}; methods: {', '.join(suite.methods)}{more}"

    default = made["default"]
    section("Settings", ((name, settings(one)) for name, one in {**default.methods, **default.on_request}.items()))
    section("Suites", ((name, methods(suite)) for name, suite in made.items()))
    datasets = {name: task.dataset for suite in made.values() for name, task in suite.tasks.items()}
    section("Datasets", ((name, repr(dataset)) for name, dataset in datasets.items()))
    section("Scores", ((name, aim(name), score.description) for name, score in SCORES.items()))


def settings(method: object) -> str:
    """The fields of a method, as `run --set` takes them."""
    return repr(method).partition("(")[2].removesuffix(")")


def description(cls: type) -> str:
    """A method's one line, its paper included, from its file's docstring."""
    doc = (sys.modules[cls.__module__].__doc__ or cls.__doc__ or "").strip()
    return doc.partition("\n")[0].rstrip(".")


def first_line(value: object) -> str:
    """The first sentence of a class's docstring."""
    return (type(value).__doc__ or "").strip().partition("\n")[0].rstrip(".")


@click.command(cls=Command)
@click.argument("methods", nargs=-1, metavar="METHOD...")
@click.option(
    "--all", "everything", is_flag=True, help="Every method that is found; eight times the repeats; some minutes."
)
def check(methods: tuple[str, ...], everything: bool) -> None:
    """Check that each METHOD keeps the promises of every method, and has the law that it claims: a verdict a line.

    METHOD is a method's name, such as sgld, or PATH.PY:CLASS, a class of yours; its code is run.
    """
    if bool(methods) == everything:
        raise UserError("expected one METHOD or more, or --all")
    with make_console(stderr=True).status("loading torch, opacus and pyro"):
        from gapbench.evaluation.conformance import MANY_REPEATS, REPEATS, verdicts
        from gapbench.methods.base import UncertaintyMethod
        from gapbench.runners.suites import method_of, suites

        default = suites()["default"]
        found = suites()["all"].methods if everything else dict(method_of(word, default) for word in methods)
    chosen: dict[str, UncertaintyMethod] = {}
    for name, one in found.items():
        if not isinstance(one, UncertaintyMethod):
            raise UserError(f"{name} is a control, which promises nothing: expected a method")
        chosen[name] = one
    sound = True
    for one in chosen.values():
        click.echo(repr(one))
        for verdict in verdicts(one, MANY_REPEATS if everything else REPEATS):
            sound = sound and verdict.outcome != "broken"
            click.echo(in_words(verdict))
    sys.exit(0 if sound else 1)


def in_words(verdict: Verdict) -> str:
    """The line of a verdict; below it, the traceback of an error of the method's own code."""
    line = f"{verdict.outcome:9} {verdict.promise}" + (f": {verdict.detail}" if verdict.detail else "")
    trace = textwrap.indent(verdict.traceback.rstrip(), "          ")
    return f"{line}\n{trace}" if trace else line


@click.command(cls=Command)
@click.argument("folder", callback=folder_option, required=False)
def doctor(folder: Path | None) -> None:
    """Show what is installed, which device is there, whether FOLDER can be written, and advice on what is missing."""
    from gapbench.runners.doctor import examine

    found = examine(folder or default_folder("default"))
    width = max(len(finding.name) for finding in found)
    for finding in found:
        click.echo(f"{finding.name:{width}}  {finding.found}" + (f" — {finding.advice}" if finding.advice else ""))
