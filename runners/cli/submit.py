"""`gapbench submit`: a method of one's own file, checked, run on a suite, and written down for a pull request."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from gapbench.runners.cli.about import in_words
from gapbench.runners.cli.console import (
    DEVICE,
    JOBS,
    REPLICAS,
    cores,
    folder_option,
    make_console,
    print_headlines,
    words,
)
from gapbench.runners.cli.errors import Command, FileError, UserError
from gapbench.runners.cli.how import How, how_options
from gapbench.runners.cli.run import run_as_asked
from gapbench.runners.cli.status import tell_plan


@click.command(cls=Command)
@click.argument("method", metavar="METHOD.PY:CLASS")
@click.option("--suite", default="default", show_default=True, help="Which suite; see `gapbench list`.")
@click.option(
    "--datasets", multiple=True, metavar="NAME,…", help="Only these datasets of the suite. May be given again."
)
@REPLICAS
@DEVICE
@click.option(
    "--out",
    callback=folder_option,
    metavar="FOLDER",
    help="Where the submission goes. Default: submissions/METHOD-SUITE in this folder.",
)
@JOBS
@how_options
def submit(
    method: str,
    suite: str,
    datasets: tuple[str, ...],
    replicas: int | None,
    device: str,
    out: Path | None,
    jobs: int | None,
    **more: Any,
) -> None:
    """Check a method of yours, run it on a suite, and write a folder that is ready for a pull request.

    The method is the class of one file, with its default settings; its code is run. If it breaks a promise of
    `gapbench check`, nothing is trained. Run the same command again to resume: finished cells are not trained twice.
    """
    how = How(**more)
    how.check()
    if how.shard:
        raise UserError("--shard: a submission needs all cells; --engine shares them among machines")
    chosen = words(datasets, "--datasets")
    console = make_console(stderr=True)

    def tell(line: str, problem: bool = False) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with console.status("loading torch, opacus and pyro"):
        from gapbench.runners.workers import start_server

        start_server()  # it loads the same meanwhile
        from gapbench.evaluation.conformance import verdicts
        from gapbench.methods.base import UncertaintyMethod
        from gapbench.methods.registry import method_name
        from gapbench.runners import submission
        from gapbench.runners.costs import longest_first
        from gapbench.runners.guard import undisturbed
        from gapbench.runners.load import collect
        from gapbench.runners.plan import write_plan
        from gapbench.runners.store import Store
        from gapbench.runners.suites import explained, is_source, load_class, one_of, select, suites

        asked = one_of("suite", suite, suites())
        for word in chosen:
            one_of("dataset", word, asked.tasks)
        if not is_source(method):
            raise UserError(f"{method!r}: expected METHOD.PY:CLASS, the class of a file of yours")
        file = Path(method.rpartition(":")[0]).absolute()
        cls = load_class(method, UncertaintyMethod)
        code, name = file.read_bytes(), method_name(cls)
        if not cls.__name__.isidentifier():  # it becomes the name of a folder
            raise UserError(f"{method}: the class is called {cls.__name__!r}: expected a name of letters, digits and _")
        made = submission.Submission(
            out or Path("submissions", f"{name}-{suite}").absolute(), cls.__name__, name, suite
        )
        made.claim()
        slots = how.slots(device, jobs or cores())
        cells = select(asked, [method], chosen).cells(replicas or asked.replicas, 0, asked.block)
        if not any(cell.name == name for cell in cells):
            raise UserError(f"--suite {suite}: its tasks are run with methods of its own alone: choose another suite")
        with explained(method):
            promising = cls()
            foreign = submission.strangers(promising, file)
        if foreign:
            raise UserError(f"{method}: it imports {foreign[0]}, which is of no installed package: put all in one file")

    store = Store(made.store)
    if how.dry_run:
        tell_plan(store, longest_first(cells), how.at_once(slots, jobs or cores()), how.limits, how.retry_failed)
        return
    tell(f"Does {name} keep its promises?")
    lines, broken = [repr(promising)], 0
    with undisturbed():
        for verdict in verdicts(promising):
            broken += verdict.outcome == "broken"
            lines.append(in_words(verdict))
            tell(lines[-1])
    if broken:
        tell(
            f"{name} breaks {broken} of its promises: nothing was trained. `gapbench check {method}` tells this again."
        )
        sys.exit(1)

    made.begin(code)
    cells = select(asked, [made.source], chosen).cells(replicas or asked.replicas, 0, asked.block)
    store.prepare()
    options = {"suite": suite, "methods": [made.source], "datasets": chosen, "replicas": replicas}
    write_plan(store, cells, options)
    outcomes = run_as_asked(longest_first(cells), store, how, slots, jobs or cores(), console, tell, 0)
    if len(outcomes) < len(cells):
        tell("Stopped at the first failure: nothing is written; run it without --stop-at-failure")
        sys.exit(1)
    keys = {outcome.key for outcome in outcomes if outcome.recorded}
    if not keys:
        raise FileError(
            f"every cell failed, those of the controls too: there is nothing to submit ({outcomes[0].reason})"
        )
    given = ["--datasets", ",".join(chosen)] if chosen else []
    given += ["--replicas", str(replicas)] if replicas else []
    given += ["--device", device] if device != "auto" else []
    with console.status("writing the submission"):
        made.finish(
            keys,
            "\n".join(lines) + "\n",
            {cell.dataset_name: repr(cell.entry.subject) for cell in cells if cell.name == name},
            problems := submission.problems(store, outcomes, name),
            shlex.join(["gapbench", "submit", f"{submission.METHOD}:{cls.__name__}", "--suite", suite, *given]),
        )
        found = collect(made.published).results
    print_headlines(found)
    if asked.shrinks:
        tell(f"Suite {suite} cuts training to seconds: do not compare methods by these numbers.")
    for line in problems:
        tell(line)
    if not any(result.method == name and result.sound.any() for result in found):
        tell(f"{name} has no sound result: the submission says so, and why")
    tell(f"Submission: {made.folder}. Read its {submission.README}; a reader runs `gapbench verify` on it.")
    sys.exit(1 if any(outcome.failed for outcome in outcomes) else 0)
