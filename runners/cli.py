"""The command line. Everything heavy is imported inside the commands, so that --help is instant."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gapbench.evaluation.controls import Control
    from gapbench.evaluation.tables import Result
    from gapbench.methods.base import UncertaintyMethod

EXIT_CODES = """\b
Exit codes:
  0    done
  1    done, but a cell or a replica failed (the table says which)
  2    the command line asks for something that is not there or makes no sense
  3    the results folder cannot be read or written
  130  interrupted: run the same command again to go on
"""


class UserError(click.ClickException):
    exit_code = 2


class FolderError(click.ClickException):
    exit_code = 3


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gapbench")
def main() -> None:
    """Are a regression method's error bars right, above all where there are no data?

    `gapbench run` trains every method on the gapped sine data, scores it and prints the table.
    """


@main.command(epilog=EXIT_CODES)
@click.option("--suite", default="default", show_default=True, help="Which suite; see `gapbench list`.")
@click.option("--methods", help="Only these rows of the suite, separated by commas.")
@click.option("--datasets", help="Only these datasets of the suite, separated by commas.")
@click.option("--replicas", type=click.IntRange(min=1), help="How many (data, seed) pairs. Default: the suite's.")
@click.option("--device", default="auto", show_default=True, help="auto (CUDA if there, else CPU), cpu, cuda, cuda:1.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Results folder; finished cells found there are kept. Default: results/local in a checkout, else "
    "gapbench-results.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of data and training.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Cells side by side, one thread each; the numbers do not depend on it. Default: one for each core.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def run(
    suite: str,
    methods: str | None,
    datasets: str | None,
    replicas: int | None,
    device: str,
    out: Path | None,
    seed: int,
    jobs: int | None,
    debug: bool,
) -> None:
    """Train, score and print the table. Run it again to resume: finished cells are not trained twice."""
    console = _console(stderr=True)
    with console.status("loading torch, opacus and pyro"):
        from gapbench.runners.benchmark import cells
        from gapbench.runners.execute import run_cells
        from gapbench.runners.store import Store, StoreError, results
        from gapbench.runners.suites import CONTROLS, suites

        chosen = suites()[_known("suite", suite, suites())]
    rows: dict[str, UncertaintyMethod | Control] = {**chosen.methods, **CONTROLS}
    names = _chosen("method", methods, rows)
    if methods is not None:
        names += [name for name in CONTROLS if name not in names]
    picked = _chosen("dataset", datasets, chosen.datasets)
    device = _device(device)
    folder = out or default_folder()
    store = Store(folder)
    try:
        store.prepare()
        for path in store.set_aside_damaged():
            console.print(f"{path} was damaged: set aside, and made again if asked for", markup=False)
        todo = cells(
            {name: chosen.datasets[name] for name in picked},
            chosen.model,
            {name: rows[name] for name in names},
            replicas or chosen.replicas,
            seed,
        )
        outcomes = run_cells(todo, folder, device, jobs or len(os.sched_getaffinity(0)), console)
        _print_table([result for result in results(folder) if result.dataset in picked and result.row in names])
    except StoreError as error:
        if debug:
            raise
        raise FolderError(str(error)) from error
    except KeyboardInterrupt:
        console.print(f"\nInterrupted. Finished cells are in {folder}; run the same command again to go on.")
        sys.exit(130)
    console.print(f"Results: {folder}. Figures: gapbench plot {folder}", markup=False, soft_wrap=True)
    skipped = [outcome for outcome in outcomes if outcome.status == "skipped"]
    for outcome in skipped:
        console.print(f"Skipped {outcome.cell.name}: {outcome.message}", markup=False, soft_wrap=True)
    failed = [outcome for outcome in outcomes if outcome.status == "failed" or outcome.failed_replicas]
    for outcome in failed:
        console.print(f"Failed {outcome.cell.name}: {outcome.message}", markup=False, soft_wrap=True)
    sys.exit(1 if failed else 0)


@main.command("list")
def list_() -> None:
    """Methods, datasets, scores and suites, a line each."""
    from rich.table import Table

    from gapbench.evaluation.scores import SCORES
    from gapbench.methods.registry import methods
    from gapbench.runners.suites import suites

    console = _console()

    def section(title: str, rows: Iterable[tuple[str, ...]]) -> None:
        table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print(table, highlight=False)
        console.print()

    section("Methods", ((name, *_about(cls)) for name, cls in methods().items()))
    found = suites()
    section(
        "Suites",
        ((name, suite.about, f"rows: {', '.join(suite.methods)}") for name, suite in found.items()),
    )
    datasets = {name: dataset for suite in found.values() for name, dataset in suite.datasets.items()}
    section("Datasets", ((name, repr(dataset)) for name, dataset in datasets.items()))
    section("Scores", ((name, score.direction, score.unit, score.about) for name, score in SCORES.items()))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "markdown", "csv"]), default="text", show_default=True)
@click.option("--by", type=click.Choice(["region"]), help="Every score in every region, not the summary alone.")
def table(folder: Path, form: str, by: str | None) -> None:
    """The table of a results folder."""
    from gapbench.evaluation.tables import EVERYTHING, SUMMARY, markdown, summarise

    rows = _results(folder)
    columns = SUMMARY if by is None else EVERYTHING
    if form == "text" and by is None:
        _print_table(rows)
    elif form == "text":
        for region in dict.fromkeys(region for _, region in columns):
            _print_table(rows, [column for column in columns if column[1] == region])
    elif form == "markdown":
        click.echo(markdown(summarise(rows, columns)))
    else:
        click.echo(summarise(rows, columns).to_csv(index=False), nl=False)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where the PNG files go. Default: FOLDER/figures.")
def plot(folder: Path, out: Path | None) -> None:
    """The figures of a results folder, as PNG files."""
    from gapbench.evaluation.plots import plot as draw

    for path in draw(_results(folder), out or folder / "figures"):
        click.echo(path)


@main.command()
@click.argument("readme", type=click.Path(exists=True, dir_okay=False, path_type=Path), default="README.md")
def readme(readme: Path) -> None:
    """Write the generated parts of the README (tables, figures) from results/published."""
    from gapbench.runners.readme import refresh

    for path in refresh(readme):
        click.echo(path)


def default_folder() -> Path:
    return Path("results/local") if Path("results/published").is_dir() else Path("gapbench-results")


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    console = Console(stderr=stderr)
    # Where there is no terminal to fit, a table is as wide as it needs to be.
    return console if console.is_terminal else Console(stderr=stderr, width=240)


def _results(folder: Path) -> list[Result]:
    from gapbench.runners.store import StoreError, results

    try:
        return results(folder)
    except StoreError as error:
        raise FolderError(str(error)) from error


def _print_table(rows: list[Result], columns: Any = None) -> None:
    from gapbench.evaluation.tables import SUMMARY, provenance, remarks, run_table, summarise, text

    console = _console()
    frame = summarise(rows, columns or SUMMARY)
    for part in text(frame):
        console.print(part)
    console.print(
        "* significantly best of the ranked rows: paired 95 % interval over replicas. "
        "Rows marked not converged, failed or a control are not ranked.",
        style="dim",
        highlight=False,
    )
    if columns is None:
        console.print(run_table(rows))
        for sentence in (*remarks(frame), *provenance(rows)):
            console.print(sentence, markup=False, highlight=False)


def _known(kind: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
    raise UserError(f"unknown {kind} {name!r}: {hint} `gapbench list` shows all")


def _chosen(kind: str, names: str | None, known: Iterable[str]) -> list[str]:
    known = list(known)
    if names is None:
        return known
    wanted = [_known(kind, name.strip(), known) for name in names.split(",") if name.strip()]
    if not wanted:
        raise UserError(f"--{kind}s is empty: expected names separated by commas, of {', '.join(known)}")
    return list(dict.fromkeys(wanted))


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu, or install a CUDA build of torch"
        )
    return name


def _about(cls: type) -> tuple[str, str]:
    """A method's one line and its paper, from its file's docstring."""
    doc = sys.modules[cls.__module__].__doc__ or cls.__doc__ or ""
    first = doc.strip().splitlines()[0] if doc.strip() else ""
    links = [word.strip("(),.") for word in doc.split() if word.strip("(").startswith("http")]
    return first.split(", http")[0].rstrip("."), links[0] if links else ""
