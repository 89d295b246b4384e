"""`gapbench reference`: reference posteriors made, checked and shown."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gapbench.runners.cli.console import DEVICE, JOBS, cores, folder_option, make_console, print_whole
from gapbench.runners.cli.errors import Group, Interrupted

if TYPE_CHECKING:
    from gapbench.datasets.base import Dataset
    from gapbench.methods.engine.model import Model


@click.group(cls=Group)
def reference() -> None:
    """Reference posteriors: make, check and show them."""


def of_dataset(command: Any) -> Any:
    """DATASET, --suite and --replicas, which every command on references takes."""
    for add in (
        click.option("--replicas", default="0-9", show_default=True, callback=numbers, help="Which: 3, 0-9 or 0,2,4."),
        click.option("--suite", default="default", show_default=True, help="Whose dataset and network are meant."),
        click.argument("dataset"),
    ):
        command = add(command)
    return command


def numbers(ctx: click.Context, param: click.Parameter, value: str) -> list[int]:
    found: list[int] = []
    for part in value.split(","):
        ends = re.fullmatch(r"([0-9]{1,3})(?:-([0-9]{1,3}))?", part.strip())
        if ends is None:
            raise click.BadParameter(f"{value!r}: expected numbers below 1000 and ranges, such as 3, 0-9 or 0,2,4")
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    if not found:
        raise click.BadParameter(f"{value!r}: a range that ends before it begins")
    return list(dict.fromkeys(found))


@reference.command()
@of_dataset
@DEVICE
@click.option(
    "--out", callback=folder_option, metavar="FOLDER", help="Default: the package's own evaluation/references."
)
@JOBS
def make(dataset: str, suite: str, replicas: list[int], device: str, out: Path | None, jobs: int | None) -> None:
    """Make the references of DATASET: a quarter of an hour or, for a thousand points, two hours for each replica. Run
    it again to resume."""
    from gapbench.evaluation.reference_file import FOLDER
    from gapbench.runners.devices import device_named
    from gapbench.runners.make_references import Task, make_all

    data, model = _task(suite, dataset)
    folder, device = out or FOLDER, device_named(device)
    tasks = [Task(dataset, data, model, r, folder, device) for r in replicas]
    sound = True
    try:
        for made in make_all(tasks, jobs or cores() if device == "cpu" else 1, lambda line: click.echo(line, err=True)):
            sound = sound and isinstance(made, Path)
            click.echo(made, err=not isinstance(made, Path))
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"Checkpoints, one a minute, are in {folder}: run the same command again to go on from them."
        ) from interrupt
    sys.exit(0 if sound else 1)


@reference.command("check")
@of_dataset
@click.option("--folder", callback=folder_option, help="Default: the package's own evaluation/references.")
def check_reference(dataset: str, suite: str, replicas: list[int], folder: Path | None) -> None:
    """Certify the references of DATASET again, from the files alone: a verdict for each replica."""
    sound = True
    for number, problems, _ in _references(dataset, suite, replicas, folder):
        sound = sound and not problems
        click.echo(f"{dataset} replica {number}: {'certified' if not problems else '; '.join(problems)}")
    sys.exit(0 if sound else 1)


@reference.command()
@of_dataset
@click.option("--folder", callback=folder_option, help="Default: the package's own evaluation/references.")
def show(dataset: str, suite: str, replicas: list[int], folder: Path | None) -> None:
    """Show the references of DATASET: certificate by region, cost and settings."""
    from rich.table import Table

    from gapbench.evaluation.certificate import MAX_RHAT

    columns = ("rhat", "ess_bulk", "ess_tail", "halves apart")
    table = Table(title=f"References of {dataset}", title_justify="left", pad_edge=False)
    for name in ("replica", "region", *columns, "draws", "gradients", "seconds"):
        table.add_column(name, justify="left" if name in ("replica", "region") else "right")
    settings: dict[str, None] = {}
    for number, problems, about in _references(dataset, suite, replicas, folder):
        if about is None:
            click.echo(f"{dataset} replica {number}: {'; '.join(problems)}", err=True)
            continue
        settings[f"{about['method']}, {about['device']}, torch {about['torch']}"] = None
        found = about["certificate"]
        regions = [name for name, value in found.items() if isinstance(value, dict)]
        for region in sorted(regions, key=lambda name: (name not in MAX_RHAT, name)):
            numbers = (f"{found[region][column]:.4g}" for column in columns)
            rest = (f"{found['draws']}", f"{about['gradient evaluations']:.3g}", f"{about['seconds']}")
            table.add_row(str(number), region, *numbers, *rest)
    if table.rows:
        print_whole(make_console(), table)
    for setting in settings:
        click.echo(setting)
    sys.exit(0 if settings else 1)


def _task(suite: str, dataset: str) -> tuple[Dataset, Model]:
    """A dataset of a suite, and its model."""
    from gapbench.runners.suites import one_of, suites

    task = one_of("dataset", dataset, one_of("suite", suite, suites()).tasks)
    return task.dataset, task.model


def _references(
    dataset: str, suite: str, replicas: list[int], folder: Path | None
) -> Iterator[tuple[int, list[str], dict[str, Any] | None]]:
    """(replica, what is wrong with its reference, what is recorded of it) of each.

    Where no replicas are named, of those that have one, if any has; a line says which have none."""
    from gapbench.evaluation.certificate import verdict
    from gapbench.evaluation.reference_file import FOLDER, Refused, digests, find

    data, model = _task(suite, dataset)
    if click.get_current_context().get_parameter_source("replicas") is ParameterSource.DEFAULT:
        kept = digests(data.problems(replicas), model, folder or FOLDER)
        absent = [str(number) for number, digest in zip(replicas, kept, strict=True) if digest is None]
        if len(absent) < len(replicas):
            replicas = [number for number in replicas if str(number) not in absent]
            if absent:
                click.echo(f"{dataset}: no reference of replicas {', '.join(absent)}", err=True)
    for number in replicas:
        problems = data.problems([number])
        try:
            found = find(problems, 0, model, folder or FOLDER)
        except Refused as error:
            yield number, [str(error)], None
            continue
        if found is None:
            more = ("" if suite == "default" else f" --suite {suite}") + (f" --out {folder}" if folder else "")
            yield (
                number,
                [f"no reference; `gapbench reference make {dataset} --replicas {number}{more}` makes it"],
                None,
            )
        else:
            regions = {name: mask[0] for name, mask in problems.regions.items()}
            yield number, verdict(found, regions), dict(found.about)
