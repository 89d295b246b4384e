"""`gapbench reference`: reference posteriors made, checked and shown."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gapbench.runners.cli.console import DEVICE, JOBS, cores, folder_option, make_console, print_whole
from gapbench.runners.cli.errors import Group, Interrupted

if TYPE_CHECKING:
    from gapbench.evaluation.reference_file import Reference
    from gapbench.runners.suites import Task


@click.group(cls=Group)
def reference() -> None:
    """Reference posteriors: make, check and show them."""


def of_datasets(command: Any) -> Any:
    """DATASETS, --suite and --replicas, which every command on references takes."""
    for add in (
        click.option("--replicas", callback=numbers, help="Which: 3, 0-9 or 0,2,4. Default: those of the suite."),
        click.option("--suite", default="default", show_default=True, help="Whose datasets and networks are meant."),
        click.argument("datasets", nargs=-1),
    ):
        command = add(command)
    return command


def numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
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
@of_datasets
@DEVICE
@click.option(
    "--out", callback=folder_option, metavar="FOLDER", help="Default: the package's own evaluation/references."
)
@JOBS
def make(
    datasets: tuple[str, ...],
    suite: str,
    replicas: list[int] | None,
    device: str,
    out: Path | None,
    jobs: int | None,
) -> None:
    """Make the references of DATASETS, by default of every dataset of the suite: a few minutes each. What exists is
    kept; run it again to resume."""
    from gapbench.evaluation.reference_file import FOLDER
    from gapbench.runners import make_references
    from gapbench.runners.devices import device_named

    tasks, replicas = _tasks(suite, datasets, replicas)
    folder, device = out or FOLDER, device_named(device)
    jobs = jobs or cores() if device == "cpu" else 1
    todo = [
        make_references.Task(
            name, one.dataset, one.model, r, folder, device, make_references.sampler(one.model), one.mcse
        )
        for r in replicas
        for name, one in tasks.items()
    ]
    sound = True
    try:
        for made in make_references.make_all(todo, jobs, lambda line: click.echo(line, err=True)):
            sound = sound and isinstance(made, Path)
            click.echo(made, err=not isinstance(made, Path))
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"Checkpoints, one a minute, are in {folder}: run the same command again to go on from them."
        ) from interrupt
    sys.exit(0 if sound else 1)


@reference.command("check")
@of_datasets
@click.option("--folder", callback=folder_option, help="Default: the package's own evaluation/references.")
def check_reference(datasets: tuple[str, ...], suite: str, replicas: list[int] | None, folder: Path | None) -> None:
    """Judge the references of DATASETS, by default of every dataset of the suite, by their files: a verdict for each
    replica."""
    sound = True
    for name, number, problems, _ in _references(datasets, suite, replicas, folder):
        sound = sound and not problems
        click.echo(f"{name} replica {number}: {'certified' if not problems else '; '.join(problems)}")
    sys.exit(0 if sound else 1)


@reference.command()
@of_datasets
@click.option("--folder", callback=folder_option, help="Default: the package's own evaluation/references.")
def show(datasets: tuple[str, ...], suite: str, replicas: list[int] | None, folder: Path | None) -> None:
    """Show the references of DATASETS: certificate by region, cost and settings."""
    from rich.table import Table

    from gapbench.evaluation.certificate import MAX_RHAT

    columns = ("rhat", "rhat of components", "ess", "mcse_mean", "mcse_log_std", "halves apart")
    table = Table(title="References", title_justify="left", pad_edge=False)
    for name in ("dataset", "replica", "region", *columns, "rhat of U", "draws", "gradients", "seconds"):
        table.add_column(name, justify="left" if name in ("dataset", "replica", "region") else "right")
    settings: dict[str, None] = {}
    for dataset, number, problems, found in _references(datasets, suite, replicas, folder):
        if found is None:
            click.echo(f"{dataset} replica {number}: {'; '.join(problems)}", err=True)
            continue
        about = found.about
        settings[f"{about['method']}, {about['device']}, torch {about['torch']}"] = None
        recorded = about["certificate"]
        for region in sorted(recorded["regions"], key=lambda name: (name not in MAX_RHAT, name)):
            values = (f"{recorded['regions'][region][column]:.4g}" for column in columns)
            rest = (
                f"{recorded['energy']['rhat']:.4g}",
                f"{recorded['draws']}",
                f"{about['gradient evaluations']:.3g}",
                f"{about['seconds']}",
            )
            table.add_row(dataset, str(number), region, *values, *rest)
    if table.rows:
        print_whole(make_console(), table)
    for setting in settings:
        click.echo(setting)
    sys.exit(0 if settings else 1)


def _tasks(suite: str, datasets: tuple[str, ...], replicas: list[int] | None) -> tuple[dict[str, Task], list[int]]:
    """The named tasks of a suite, by default all; and the replicas, by default the suite's."""
    from gapbench.runners.suites import one_of, suites

    chosen = one_of("suite", suite, suites())
    names = datasets or tuple(chosen.tasks)
    return {name: one_of("dataset", name, chosen.tasks) for name in names}, replicas or list(range(chosen.replicas))


def _references(
    datasets: tuple[str, ...], suite: str, replicas: list[int] | None, folder: Path | None
) -> Iterator[tuple[str, int, list[str], Reference | None]]:
    """The dataset, the replica, the problems of its reference, and the reference, of each.

    Where no replicas are named, of those that have one, if any has; a line says which have none."""
    from gapbench.evaluation.certificate import verdict
    from gapbench.evaluation.reference_file import FOLDER, Refused, digests, find

    tasks, chosen = _tasks(suite, datasets, replicas)
    for name, task in tasks.items():
        left = chosen
        if replicas is None:
            kept = digests(task.dataset.problems(chosen), task.model, folder or FOLDER)
            absent = [number for number, digest in zip(chosen, kept, strict=True) if digest is None]
            if len(absent) < len(chosen):
                left = [number for number in chosen if number not in absent]
                if absent:
                    click.echo(f"{name}: no reference of replicas {', '.join(map(str, absent))}", err=True)
        for number in left:
            try:
                found = find(task.dataset.problems([number]), 0, task.model, folder or FOLDER)
            except Refused as error:
                yield name, number, [str(error)], None
                continue
            if found is None:
                more = ("" if suite == "default" else f" --suite {suite}") + (f" --out {folder}" if folder else "")
                hint = f"`gapbench reference make {name} --replicas {number}{more}` makes it"
                yield name, number, [f"no reference; {hint}"], None
            else:
                yield name, number, verdict(found, task.mcse), found
