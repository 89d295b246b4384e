"""`gapbench merge`, `gc` and `verify`: results folders joined, cleaned, and run again."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from gapbench.runners.cli.console import DEVICE, JOBS, cores, folder_option, make_console, words
from gapbench.runners.cli.errors import Command, FileError, Interrupted, UserError


def folders_option(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[Path]:
    """The absolute paths of folders."""
    return [path for value in values if (path := folder_option(ctx, param, value)) is not None]


@click.command(cls=Command)
@click.argument("sources", nargs=-1, required=True, metavar="FOLDER...", callback=folders_option)
@click.option(
    "--out", required=True, callback=folder_option, metavar="FOLDER", help="What they are joined in; it may be there."
)
def merge(sources: list[Path], out: Path) -> None:
    """Join several results folders in one, such as those of several machines.

    Nothing in FOLDER... is changed, and what --out has stays: of records of the same cell the first stays. Damaged
    files are left out. The same command goes on after an interrupt, and a run may write to --out meanwhile.
    """
    console = make_console(stderr=True)
    with console.status("loading"):
        from rich.progress import track

        from gapbench.runners.merge import merge as merged

    def watch(items: Sequence[Any], what: str) -> Iterable[Any]:
        return track(items, what, console=console, transient=True, disable=not console.is_terminal)

    try:
        found = merged(sources, out, watch)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(f"{out} is sound; run the same command again to go on.") from interrupt
    for line in found.damaged:
        click.echo(f"Left out: {line}", err=True)
    for kind in ("records", "arrays", "failure notes"):
        click.echo(f"{kind}: {found.came[kind]} came, {found.there[kind]} were there")
    sys.exit(1 if found.damaged else 0)


@click.command(cls=Command)
@click.argument("folder", callback=folder_option)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def gc(folder: Path, dry_run: bool) -> None:
    """Remove what nothing in a results folder refers to: arrays that no record names, unfinished files of killed runs,
    and damaged files that were set aside.

    A run may write there meanwhile: arrays and unfinished files younger than an hour stay. While a record is damaged
    all arrays stay, because nobody can read which of them it names. Files of other names are not touched.
    """
    with make_console(stderr=True).status("reading the records"):
        from gapbench.runners.gc import find, remove

        found = find(folder)
    verb = "would remove" if dry_run else "removed"
    if not dry_run:
        with make_console(stderr=True).status("removing"):
            remove(found)
    for one in found.waste:
        click.echo(f"{verb} {one.path} ({one.size:,} bytes)")
    for kind in dict.fromkeys(one.kind for one in found.waste):
        sizes = [one.size for one in found.waste if one.kind == kind]
        click.echo(f"{kind}: {len(sizes)}, {sum(sizes):,} bytes")
    click.echo(f"{verb} {len(found.waste)} files, {sum(one.size for one in found.waste):,} bytes")
    for line in found.damaged:
        click.echo(f"No arrays are removed: {line}; `gapbench run --out {folder}` sets it aside", err=True)
    sys.exit(1 if found.damaged else 0)


def sample_option(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """The number of cells; None for all."""
    if value == "all":
        return None
    if not (value.isascii() and value.isdigit() and int(value[:9]) > 0):
        raise click.BadParameter(f"{value!r}: expected a number of cells from 1, or all")
    return int(value[:9])


@click.command(cls=Command)
@click.argument("folder", callback=folder_option)
@click.option(
    "--sample", default="5", show_default=True, metavar="N", callback=sample_option, help="How many cells, or all."
)
@click.option("--suite", help="Whose cells they are. Default: the suite that a published folder or the name says.")
@click.option(
    "--methods", multiple=True, metavar="NAME,…", help="Only cells of these methods; as for `run`. May be given again."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the draw of the cells.")
@DEVICE
@JOBS
def verify(
    folder: Path,
    sample: int | None,
    suite: str | None,
    methods: tuple[str, ...],
    seed: int,
    device: str,
    jobs: int | None,
) -> None:
    """Run random cells of a results folder again, and say whether they give what was recorded.

    FOLDER is your own, a published one, or a submission: then the code of its method.py is run, so read it first, and
    the method's cells are drawn before those of the controls. The verdicts: "same bits"; "within tolerance", if each
    replica's scores agree to 0.1 %; "statistically alike", if the headline's scores moved by no more than chance does;
    "different".
    """
    console = make_console(stderr=True)
    with console.status("loading torch, opacus and pyro"):
        from gapbench.runners.workers import start_server

        start_server()  # it loads the same meanwhile
        from gapbench.runners import verify as again
        from gapbench.runners.devices import device_named
        from gapbench.runners.submission import read
        from gapbench.runners.suites import CONTROLS, one_of, suites

        known, submitted = suites(), read(folder)
        asked = words(methods, "--methods")
        if submitted:
            console.print(
                f"{submitted.source.rpartition(':')[0]} is run now: it is somebody's code, to be read first",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            folder = submitted.published
            asked = [submitted.source if word == submitted.method else word for word in asked]
        name = suite or again.suite_name(folder)
        if suite is None and name not in known:
            raise UserError(f"{folder}: {name!r} is no suite: --suite says whose cells these are: {', '.join(known)}")
        chosen = one_of("suite", name, known)
        there, damaged = again.recorded(folder)
        pairs, rest = again.matched(there, chosen, asked or ([submitted.source, *CONTROLS] if submitted else ()))
        lacking = again.missing(pairs, chosen, submitted.source) if submitted and not asked else []
    device = device_named(device)
    for line in damaged:
        click.echo(f"Left out: {line}", err=True)
    if rest:
        click.echo(
            f"Left out: {rest} records that are of no cell of suite {name} as it is today (other settings or data, a "
            "method of your own), or older than another of the same cell",
            err=True,
        )
    for title in lacking:
        click.echo(f"Not there, though suite {name} has it: {title}", err=True)
    if not pairs:
        raise FileError(f"{folder}: no record there is of a cell of suite {name} that was asked for")
    drawn = again.drawn(pairs, sample, seed, submitted.method if submitted else None)
    spent = sum(one.cpu for one, _ in drawn)
    click.echo(f"{len(drawn)} of {len(pairs)} cells of suite {name}, which took {spent:.0f} CPU seconds", err=True)
    verdicts = again.verify(drawn, device, jobs or cores(), console)
    for verdict in verdicts:
        click.echo(verdict)
    counts = Counter(verdict.verdict for verdict in verdicts)
    click.echo(f"{len(verdicts)} cells: {', '.join(f'{number} {word}' for word, number in counts.items())}")
    sys.exit(1 if damaged or not all(verdict.sound for verdict in verdicts) else 0)
