"""`gapbench run`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gapbench.runners.cli.console import (
    DEVICE,
    JOBS,
    REPLICAS,
    ExistingFile,
    cores,
    default_folder,
    folder_option,
    make_console,
    print_headlines,
    words,
)
from gapbench.runners.cli.errors import Command, Interrupted, UserError
from gapbench.runners.cli.how import SECONDS, How, how_options, number
from gapbench.runners.cli.own_table import OwnTable, new_rows, predict, table_options, tell_answer
from gapbench.runners.cli.status import tell_plan

if TYPE_CHECKING:
    from rich.console import Console

    from gapbench.runners.cell import Cell
    from gapbench.runners.complete import Outcome
    from gapbench.runners.store import Store


@click.command(cls=Command)
@click.option("--suite", default="default", show_default=True, help="Which suite; see `gapbench list`.")
@click.option(
    "--from",
    "source",
    type=ExistingFile(),
    metavar="FILE.TOML",
    help="A suite of yours, in place of --suite; `gapbench suite show NAME` prints one to start from. Code that it "
    "names as PATH.PY:CLASS is run, so use files you trust.",
)
@click.option(
    "--methods",
    multiple=True,
    metavar="NAME,…",
    help="Only these methods, of the suite or of `gapbench list`. PATH.PY:CLASS is a class of yours, with its default "
    "settings; its code is run, so name files you trust. May be given again.",
)
@click.option(
    "--datasets",
    multiple=True,
    metavar="NAME,…",
    help="Only these datasets of the suite. PATH.PY:CLASS is a class of yours. May be given again.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME.FIELD=VALUE",
    help="Another setting of a method: mc_dropout.rate=0.2 gives the row mc_dropout[rate=0.2]. May be given again.",
)
@click.option(
    "--budget",
    metavar="TIME",
    help="Give every method the same CPU time a replica, such as 20s: its steps follow from what it cost in the "
    "published results, and are told.",
)
@REPLICAS
@DEVICE
@click.option(
    "--out",
    callback=folder_option,
    metavar="FOLDER",
    help="Results folder; finished cells found there are kept. Default: results/local/SUITE in a checkout, else "
    "gapbench-results/SUITE.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of data and training.")
@JOBS
@how_options
@table_options
@click.option("--report", is_flag=True, help="At the end, also write the page of `gapbench report`.")
@click.option("-q", "--quiet", is_flag=True, help="Only the table, and what went wrong.")
@click.option("-v", "--verbose", is_flag=True, help="Also each cell's diagnostics, cost and record.")
def run(
    suite: str,
    source: Path | None,
    methods: tuple[str, ...],
    datasets: tuple[str, ...],
    settings: tuple[str, ...],
    budget: str | None,
    replicas: int | None,
    device: str,
    out: Path | None,
    seed: int,
    jobs: int | None,
    report: bool,
    quiet: bool,
    verbose: bool,
    **more: Any,
) -> None:
    """Train, score and print the table. Run it again to resume: finished cells are not trained twice.

    With --csv FILE --target COLUMN the data are yours: which method's error bars are right there, and in gaps of it?
    """
    own = OwnTable(**{one.name: more.pop(one.name) for one in fields(OwnTable)})
    how = How(**more)
    own.check()
    how.check()
    seconds = number("--budget", budget, SECONDS, "a time above 0, such as 20s or 1m")
    if quiet and verbose:
        raise UserError("--quiet and --verbose: expected one of them")
    named = click.get_current_context().get_parameter_source("suite") == ParameterSource.COMMANDLINE
    if source and (own.csv or named):
        raise UserError("--from: it takes the place of --suite and --csv: expected one of them")
    if own.csv and seconds is not None:
        raise UserError("--budget: it is for the suites, whose costs are known, not for --csv")
    if own.csv and (datasets or named):
        raise UserError("--csv: it takes the place of --suite and --datasets: expected one of them")
    console = make_console(stderr=True)

    def tell(line: str, problem: bool = False) -> None:
        if problem or not quiet:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    with console.status("loading torch, opacus and pyro") if not quiet else nullcontext():
        from gapbench.runners.workers import start_server

        if how.engine == "local" and not how.dry_run:
            start_server()  # it loads the same meanwhile
        from gapbench.evaluation.entries import Trained
        from gapbench.runners.costs import longest_first, shard
        from gapbench.runners.devices import device_named
        from gapbench.runners.load import collect
        from gapbench.runners.plan import write_plan
        from gapbench.runners.store import Store
        from gapbench.runners.suite_file import name_of, read
        from gapbench.runners.suites import one_of, select, suites

        if source:
            chosen, suite = read(source), source.stem if out else name_of(source)
        else:
            chosen = own.suite(replicas) if own.csv else one_of("suite", suite, suites())
        picked = select(chosen, words(methods, "--methods"), words(datasets, "--datasets"), settings)
        if seconds is not None and chosen.shrinks:
            raise UserError(f"--budget: the steps of suite {suite} are cut already: expected another --suite")
        if seconds is not None:
            picked = picked.within(seconds)
        everything = longest_first(picked.cells((not own.csv and replicas) or chosen.replicas, seed, chosen.block))
        part = how.part()
        todo = shard(everything, *part) if part else everything
        new = new_rows(own, picked)  # what is wrong with these is told before anything is trained
    for line in (chosen.description, *chosen.notes) if own.csv or source else ():
        tell(line)
    for line in picked.changes() if picked.budget is not None else ():
        tell(line)
    slots = how.slots(device, jobs or cores())
    store = Store(out or default_folder(own.folder if own.csv else suite).absolute())
    if how.dry_run:
        tell_plan(store, todo, how.at_once(slots, jobs or cores()), how.limits, how.retry_failed)
        return
    store.prepare()
    asked = {"suite": suite, "methods": methods, "datasets": datasets, "settings": settings, "seed": seed}
    write_plan(store, everything, {**asked, "budget": budget, "replicas": replicas}, part and part[1])
    outcomes = run_as_asked(todo, store, how, slots, jobs or cores(), console, tell, verbose - quiet)
    found = collect(store.root, {outcome.key for outcome in outcomes if outcome.recorded})
    if found.results:
        if chosen.shrinks:
            tell(f"Suite {suite} cuts training to seconds: do not compare methods by these numbers.", problem=True)
        if own.csv:
            command = partial(own.command, settings=settings, seed=seed, out=out)
            best = tell_answer(own, chosen, found.results, store.root, make_console(), command).best
            trained = [name for name, entry in picked.entries.items() if isinstance(entry, Trained)]
            use = trained[0] if len(trained) == 1 else best
            if new is not None and use is None:
                raise UserError("--predict: no method is sound; name one by --methods")
            if new is not None and use is not None:
                tell(
                    f"Predictions of {use}: {predict(new, picked, use, store.root, device_named(device), seed)}",
                    problem=True,
                )
        else:
            print_headlines(found.results)
        if report:
            from gapbench.runners.report import default_file, write

            path = default_file(store.root)
            write(collect(store.root), store.root, path)
            tell(f"Report: {path}", problem=True)
    left = len(todo) - len(outcomes)
    if own.csv:  # a control that cannot be there is not worth a word
        outcomes = [one for one in outcomes if one.status != "skipped" or isinstance(one.cell.entry, Trained)]
    counts = Counter[str](outcome.status for outcome in outcomes)
    order = ("finished", "rescored", "kept", "skipped", "failed")
    if part:
        tell(f"Shard {how.shard}: {len(todo)} of {len(everything)} cells. `gapbench status {store.root}` tells of all.")
    if left:
        tell(f"Stopped at the first failure: {left} cells have no outcome", problem=True)
    tell(f"{len(outcomes)} cells: {', '.join(f'{counts[word]} {word}' for word in order if counts[word])}")
    columns = "" if own.csv else " --columns summary --intervals"
    tell(f"Results: {store.root}. All numbers: gapbench table {store.root}{columns}")
    tell(f"Figures: gapbench plot {store.root}")
    for outcome in outcomes:
        if outcome.status == "skipped":
            tell(f"Skipped {outcome.cell.title}: {outcome.reason}")
    for outcome in outcomes:
        if outcome.failed:
            tell(f"Failed {outcome.cell.title}: {outcome.reason}", problem=True)
    for line in found.damaged:
        tell(line, problem=True)
    if how.engine != "local" and any(line.endswith(": missing") for line in found.damaged):
        tell("Workers wrote to a folder that is not this one: --out must be the same folder for all", problem=True)
    sys.exit(1 if found.damaged or any(outcome.failed for outcome in outcomes) else 0)


def run_as_asked(
    cells: Sequence[Cell],
    store: Store,
    how: How,
    slots: Sequence[str],
    jobs: int,
    console: Console,
    tell: Callable[..., None],
    verbosity: int,
) -> list[Outcome]:
    """The outcomes of cells. tell: is told what is wrong with the store. Raises Interrupted."""
    from gapbench.runners.run import run_cells
    from gapbench.runners.store import has_links

    if how.unkept:
        tell("--memory: this system does not keep it: cells may take what they need", problem=True)
    if not has_links(store.root):
        tell(f"{store.root} has no hard links: a kill while a record is written leaves half of it, to be made again")
    for path in store.set_aside_damaged():
        tell(f"{path} was damaged: moved to {store.root / 'damaged'}, and made again if asked for", problem=True)
    try:
        with how.engine_for(cells, jobs, tell) as engine:
            return run_cells(
                cells,
                store,
                slots,
                console,
                verbosity,
                limits=how.limits,
                retry=how.retry_failed,
                stop=how.stop_at_failure,
                engine=engine,
            )
    except KeyboardInterrupt as interrupt:
        raise Interrupted(f"Finished cells are in {store.root}; run the same command again to go on.") from interrupt
