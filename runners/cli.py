"""The command line. Everything heavy is imported inside the commands, so that --help is instant."""

from __future__ import annotations

import difflib
import io
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table

    from gapbench.evaluation.controls import Control
    from gapbench.evaluation.tables import Result
    from gapbench.methods.base import UncertaintyMethod
    from gapbench.runners.store import Survey
    from gapbench.runners.suites import Suite

EXIT_CODES = """\b
Exit codes:
  0    done
  1    done, but a cell or a replica failed, or a damaged file is left out (the output says which)
  2    the command line asks for something that is not there or makes no sense
  3    a folder or file cannot be read or written, or has no results
  4    something unexpected, a bug: --debug shows where
  130  interrupted: run the same command again to go on
"""


class UserError(click.ClickException):
    exit_code = 2


class FileError(click.ClickException):
    exit_code = 3


class Unexpected(click.ClickException):
    exit_code = 4


class Interrupted(click.ClickException):
    exit_code = 130

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Interrupted. {self.message}".rstrip(), err=True)


class Command(click.Command):
    """Ends in one line, whatever happens; --debug shows the traceback before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."))

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params.pop("debug")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # where there is no ↓ to be had, a ? has to do
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):  # click's own business
            raise
        except (KeyboardInterrupt, Exception) as error:
            if debug:
                traceback.print_exc()
            raise _told(error) from error


def _told(error: BaseException) -> click.ClickException:
    if isinstance(error, click.ClickException):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("")
    if isinstance(error, OSError):
        return FileError(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    registry = sys.modules.get("gapbench.methods.registry")  # if it could raise anything, it is there
    if registry is not None and isinstance(error, registry.NotAMethod):
        return UserError(str(error).partition("\n")[0])
    what = str(error).strip().partition("\n")[0]
    return Unexpected(f"{type(error).__name__}: {what}; this should not happen: --debug shows where it did")


class Group(click.Group):
    command_class = Command


def _folder(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """A path that may or may not be there. An empty one is a shell variable that was not set, not this folder."""
    if value is not None and (not value or "\0" in value):
        raise click.BadParameter(f"{value!r}: expected the path of a folder")
    return None if value is None else Path(value)


@click.group(cls=Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gapbench")
def main() -> None:
    """Are a regression method's error bars right, above all where there are no data?

    `gapbench run` trains every method on the gapped sine data, scores it and prints the table.
    """


@main.command(epilog=EXIT_CODES)
@click.option("--suite", default="default", show_default=True, help="Which suite; see `gapbench list`.")
@click.option("--methods", help="Only these rows of the suite, separated by commas.")
@click.option(
    "--method",
    "sources",
    multiple=True,
    metavar="PATH.PY:CLASS",
    help="Also a method from a file of yours, with its default settings. Its code is run: name files you trust.",
)
@click.option("--datasets", help="Only these datasets of the suite, separated by commas.")
@click.option(
    "--replicas", type=click.IntRange(1, 100_000), help="How many (data, seed) pairs. Default: the suite's number."
)
@click.option("--device", default="auto", show_default=True, help="auto (CUDA if there, else CPU), cpu, cuda, cuda:1.")
@click.option(
    "--out",
    callback=_folder,
    metavar="FOLDER",
    help="Results folder; finished cells found there are kept. Default: results/local/SUITE in a checkout, else "
    "gapbench-results/SUITE.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of data and training.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Cells side by side, one thread each; the numbers do not depend on it. Default: one for each core.",
)
@click.option("-q", "--quiet", is_flag=True, help="Only the table, and what went wrong.")
@click.option("-v", "--verbose", is_flag=True, help="Also each cell's diagnostics, cost and record.")
def run(
    suite: str,
    methods: str | None,
    sources: tuple[str, ...],
    datasets: str | None,
    replicas: int | None,
    device: str,
    out: Path | None,
    seed: int,
    jobs: int | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Train, score and print the table. Run it again to resume: finished cells are not trained twice."""
    if quiet and verbose:
        raise UserError("--quiet and --verbose: expected one of them")
    console = _console(stderr=True)

    def tell(line: str, problem: bool = False) -> None:
        if problem or not quiet:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    with console.status("loading torch, opacus and pyro") if not quiet else nullcontext():
        from gapbench.runners.benchmark import cells
        from gapbench.runners.execute import run_cells
        from gapbench.runners.store import Store, survey
        from gapbench.runners.suites import CONTROLS, suites

        chosen = suites()[_known("suite", suite, suites())]
    rows: dict[str, UncertaintyMethod | Control] = {**chosen.methods, **chosen.on_request, **CONTROLS}
    own = dict(_from_file(source) for source in sources)
    rows |= own
    names = _chosen("method", methods, rows)
    if methods is None:
        names = [name for name in names if name not in chosen.on_request]
    names += [name for name in own if name not in names]
    if methods is not None:
        names += [name for name in CONTROLS if name not in names]
    picked = _chosen("dataset", datasets, chosen.datasets)
    device = _device(device)
    store = Store(out or default_folder(suite))
    store.prepare()
    for path in store.set_aside_damaged():
        tell(f"{path} was damaged: moved to {store.root / 'damaged'}, and made again if asked for", problem=True)
    todo = cells(
        {name: chosen.datasets[name] for name in picked},
        chosen.model,
        {name: rows[name] for name in names},
        replicas or chosen.replicas,
        seed,
        chosen.block,
    )
    try:
        outcomes = run_cells(todo, store, device, jobs or _cores(), console, verbose - quiet, sources)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(f"Finished cells are in {store.root}; run the same command again to go on.") from interrupt

    found = survey(store.root, {outcome.key for outcome in outcomes if outcome.recorded})
    if found.results:
        _print_table(found.results)
    counts = Counter[str](outcome.status for outcome in outcomes)
    order = ("finished", "rescored", "kept", "skipped", "failed")
    tell(f"{len(outcomes)} cells: {', '.join(f'{counts[word]} {word}' for word in order if counts[word])}")
    tell(f"Results: {store.root}. Figures: gapbench plot {store.root}")
    for outcome in outcomes:
        if outcome.status == "skipped":
            tell(f"Skipped {outcome.cell.name}: {outcome.reason}")
    for outcome in outcomes:
        if outcome.failed:
            tell(f"Failed {outcome.cell.name}: {outcome.reason}", problem=True)
    for line in found.damaged:
        tell(line, problem=True)
    sys.exit(1 if found.damaged or any(outcome.failed for outcome in outcomes) else 0)


@main.command("list", epilog=EXIT_CODES)
def list_() -> None:
    """Methods, datasets, scores and suites, a line each."""
    from rich.table import Table

    from gapbench.evaluation.scores import SCORES
    from gapbench.methods.registry import methods
    from gapbench.runners.suites import suites

    console, found = _console(), suites()

    def section(title: str, rows: Iterable[tuple[str, ...]]) -> None:
        table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        for column in table.columns:
            column.overflow = "fold"
        _show(console, table)

    section("Methods", ((name, _about(cls)) for name, cls in methods().items()))

    def rows(suite: Suite) -> str:
        more = f"; if named: {', '.join(suite.on_request)}" if suite.on_request else ""
        return f"{suite.about}; rows: {', '.join(suite.methods)}{more}"

    section("Suites", ((name, rows(suite)) for name, suite in found.items()))
    datasets = {name: dataset for suite in found.values() for name, dataset in suite.datasets.items()}
    section("Datasets", ((name, repr(dataset)) for name, dataset in datasets.items()))
    section("Scores", ((name, score.direction, score.unit, score.about) for name, score in SCORES.items()))


@main.command(epilog=EXIT_CODES)
@click.argument("method")
def check(method: str) -> None:
    """Whether METHOD keeps the promises of every method, and has the law it claims: a verdict a line.

    METHOD is a row of the default suite, such as sgld, or PATH.PY:CLASS, a class of yours; its code is run.
    """
    with _console(stderr=True).status("loading torch, opacus and pyro"):
        from gapbench.evaluation.conformance import verdicts
        from gapbench.runners.suites import suites

        default = suites()["default"]
    rows = {**default.methods, **default.on_request}
    one = _from_file(method)[1] if ":" in method else rows[_known("method", method, rows)]
    sound = True
    click.echo(repr(one))
    for verdict in verdicts(one):
        sound = sound and verdict.outcome != "broken"
        click.echo(f"{verdict.outcome:8}  {verdict.promise}" + (f": {verdict.detail}" if verdict.detail else ""))
    sys.exit(0 if sound else 1)


@main.command(epilog=EXIT_CODES)
@click.argument("folder", callback=_folder)
@click.option("--format", "form", type=click.Choice(["text", "markdown", "csv"]), default="text", show_default=True)
@click.option("--by", type=click.Choice(["region"]), help="Every score in every region, not the summary alone.")
def table(folder: Path, form: str, by: str | None) -> None:
    """The table of a results folder."""
    from gapbench.evaluation.tables import EVERYTHING, markdown, summarise

    found = _survey(folder)
    rows = found.results
    columns = None if by is None else EVERYTHING
    if form == "text" and columns is None:
        _print_table(rows)
    elif form == "text":
        for region in dict.fromkeys(region for _, region in EVERYTHING):
            _print_table(rows, [column for column in EVERYTHING if column[1] == region])
    elif form == "markdown":
        click.echo(markdown(summarise(rows, columns)))
    else:
        click.echo(summarise(rows, columns).to_csv(index=False), nl=False)
    sys.exit(1 if found.damaged else 0)


@main.command(epilog=EXIT_CODES)
@click.argument("folder", callback=_folder)
@click.option("--out", callback=_folder, metavar="FOLDER", help="Where the files go. Default: FOLDER/figures.")
def plot(folder: Path, out: Path | None) -> None:
    """The figures of a results folder, as PNG and SVG files."""
    from gapbench.evaluation.plots import plot as draw

    found = _survey(folder)
    for path in draw(found.results, out or folder / "figures", ("png", "svg")):
        click.echo(path)
    sys.exit(1 if found.damaged else 0)


@main.command(epilog=EXIT_CODES)
@click.argument("folder", callback=_folder)
@click.option("--format", "form", type=click.Choice(["csv", "parquet", "latex"]), default="parquet", show_default=True)
@click.option("--out", callback=_folder, metavar="FILE", help="Default: FOLDER/results.csv, .parquet or .tex.")
def export(folder: Path, form: str, out: Path | None) -> None:
    """The results for other tools: every replica's scores (csv, parquet), or the summary as LaTeX."""
    from gapbench.runners.export import SUFFIX
    from gapbench.runners.export import export as write

    found = _survey(folder)
    path = out or folder / f"results.{SUFFIX[form]}"
    write(found.results, form, path)
    click.echo(path)
    sys.exit(1 if found.damaged else 0)


@main.command(epilog=EXIT_CODES)
@click.argument("folder", callback=_folder, required=False)
def doctor(folder: Path | None) -> None:
    """What is installed, which device is there, whether FOLDER can be written, and what to do about what is missing."""
    from gapbench.runners.doctor import examine

    found = examine(folder or default_folder("default"))
    width = max(len(finding.name) for finding in found)
    for finding in found:
        click.echo(f"{finding.name:{width}}  {finding.found}" + (f" — {finding.advice}" if finding.advice else ""))


@main.group(cls=Group)
def reference() -> None:
    """Reference posteriors: make, check and show them."""


def _of_dataset(command: Any) -> Any:
    """DATASET, --suite and --replicas, which every command on references takes."""
    for add in (
        click.option("--replicas", default="0-9", show_default=True, callback=_numbers, help="Which: 3, 0-9 or 0,2,4."),
        click.option("--suite", default="default", show_default=True, help="Whose dataset and network are meant."),
        click.argument("dataset"),
    ):
        command = add(command)
    return command


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> list[int]:
    found: list[int] = []
    for part in value.split(","):
        ends = re.fullmatch(r"([0-9]{1,3})(?:-([0-9]{1,3}))?", part.strip())
        if ends is None:
            raise click.BadParameter(f"{value!r}: expected numbers below 1000 and ranges, such as 3, 0-9 or 0,2,4")
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    if not found:
        raise click.BadParameter(f"{value!r}: a range that ends before it begins")
    return list(dict.fromkeys(found))


@reference.command(epilog=EXIT_CODES)
@_of_dataset
@click.option("--device", default="auto", show_default=True, help="auto (CUDA if there, else CPU), cpu, cuda, cuda:1.")
@click.option("--out", callback=_folder, metavar="FOLDER", help="Default: the package's own evaluation/references.")
@click.option("--jobs", type=click.IntRange(min=1), help="Replicas side by side. Default: one for each core.")
def make(dataset: str, suite: str, replicas: list[int], device: str, out: Path | None, jobs: int | None) -> None:
    """Make the references of DATASET: a quarter of an hour or, for a thousand points, two hours for each replica. Run
    it again to resume."""
    from gapbench.evaluation.reference import FOLDER
    from gapbench.runners.references import NotCertified, Task, make_all
    from gapbench.runners.suites import suites

    chosen = suites()[_known("suite", suite, suites())]
    data, folder = chosen.datasets[_known("dataset", dataset, chosen.datasets)], out or FOLDER
    device = _device(device)
    tasks = [Task(dataset, data, chosen.model, r, folder, device) for r in replicas]
    sound = True
    try:
        for made in make_all(
            tasks, 1 if device != "cpu" else jobs or _cores(), lambda line: click.echo(line, err=True)
        ):
            sound = sound and not isinstance(made, NotCertified)
            click.echo(made, err=isinstance(made, NotCertified))
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"Checkpoints, one a minute, are in {folder}: run the same command again to go on from them."
        ) from interrupt
    sys.exit(0 if sound else 1)


@reference.command("check", epilog=EXIT_CODES)
@_of_dataset
@click.option("--folder", callback=_folder, help="Default: the package's own evaluation/references.")
def check_reference(dataset: str, suite: str, replicas: list[int], folder: Path | None) -> None:
    """Certify the references of DATASET again, from the files alone: a verdict for each replica."""
    sound = True
    for number, problems, _ in _references(dataset, suite, replicas, folder):
        sound = sound and not problems
        click.echo(f"{dataset} replica {number}: {'certified' if not problems else '; '.join(problems)}")
    sys.exit(0 if sound else 1)


@reference.command(epilog=EXIT_CODES)
@_of_dataset
@click.option("--folder", callback=_folder, help="Default: the package's own evaluation/references.")
def show(dataset: str, suite: str, replicas: list[int], folder: Path | None) -> None:
    """What is recorded of the references of DATASET: certificate by region, cost and settings."""
    from rich.table import Table

    from gapbench.evaluation.reference import RHAT

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
        for region in (name for name in RHAT if name in found):
            numbers = (f"{found[region][column]:.4g}" for column in columns)
            rest = (f"{found['draws']}", f"{about['gradient evaluations']:.3g}", f"{about['seconds']}")
            table.add_row(str(number), region, *numbers, *rest)
    if table.rows:
        _print_whole(_console(), table)
    for setting in settings:
        click.echo(setting)
    sys.exit(0 if settings else 1)


def _references(
    dataset: str, suite: str, replicas: list[int], folder: Path | None
) -> Iterator[tuple[int, list[str], dict[str, Any] | None]]:
    """(replica, what is wrong with its reference, what is recorded of it) of each.

    Where no replicas are named, of those that have one, if any has; a line says which have none."""
    from gapbench.evaluation.reference import FOLDER, Refused, digests, find, verdict
    from gapbench.runners.suites import suites

    chosen = suites()[_known("suite", suite, suites())]
    data = chosen.datasets[_known("dataset", dataset, chosen.datasets)]
    if click.get_current_context().get_parameter_source("replicas") is ParameterSource.DEFAULT:
        kept = digests(data.splits(replicas), chosen.model, folder or FOLDER)
        absent = [str(number) for number, digest in zip(replicas, kept, strict=True) if digest is None]
        if len(absent) < len(replicas):
            replicas = [number for number in replicas if str(number) not in absent]
            if absent:
                click.echo(f"{dataset}: no reference of replicas {', '.join(absent)}", err=True)
    for number in replicas:
        splits = data.splits([number])
        try:
            found = find(splits, 0, chosen.model, folder or FOLDER)
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
            yield number, verdict(found, {name: mask[0] for name, mask in splits.regions.items()}), dict(found.about)


@main.command(epilog=EXIT_CODES)
@click.argument("readme", type=click.Path(exists=True, dir_okay=False, path_type=Path), default="README.md")
def readme(readme: Path) -> None:
    """Write the README's tables and figures from results/published."""
    from gapbench.runners.readme import refresh

    for path in refresh(readme):
        click.echo(path)


def default_folder(suite: str) -> Path:
    return (Path("results/local") if Path("results/published").is_dir() else Path("gapbench-results")) / suite


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _survey(folder: Path) -> Survey:
    """What a results folder has to show; what it has not is told."""
    from gapbench.runners.store import survey

    found = survey(folder)
    for line in found.damaged:
        click.echo(f"Left out: {line}; `gapbench run --out {folder}` makes it again", err=True)
    for line in found.notes:
        click.echo(line, err=True)
    return found


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr)
    # Where there is no terminal to fit, a table is as wide as it needs to be.
    return console if console.is_terminal else Console(stderr=stderr, width=10_000)


def _print_table(rows: list[Result], columns: Any = None) -> None:
    from gapbench.evaluation.tables import COMPARED, departures, provenance, remarks, run_table, summarise, text

    console = _console()
    frame = summarise(rows, columns)
    for table in text(frame):
        _print_whole(console, table)
    console.print(
        "* significantly best of the ranked rows: paired 95 % interval over replicas. "
        "Rows marked not converged, failed or a control are not ranked.",
        style="dim",
        highlight=False,
    )
    if columns is None:
        _print_whole(console, run_table(rows))
        for sentence in (*departures(rows), *remarks(summarise(rows, COMPARED)), *provenance(rows)):
            console.print(sentence, markup=False, highlight=False)


def _print_whole(console: Console, table: Table) -> None:
    """In as many pieces as the width asks for, each with the columns that name the rows: no digit is cut."""
    names = [column for column in table.columns if column.justify == "left"]
    rest = [column for column in table.columns if column.justify != "left"]
    title = table.title
    while rest:
        for number in range(len(rest), 0, -1):
            piece = _piece(table, [*names, *rest[:number]], title)
            wanted = console.measure(piece, options=console.options.update_width(10_000)).maximum
            if wanted <= console.width:
                break
        _show(console, piece)
        rest, title = rest[number:], None


def _show(console: Console, table: Table) -> None:
    """With a line after it, and without the spaces that rich leaves at the ends."""
    with console.capture() as drawn:
        console.print(table, highlight=False)
    for line in drawn.get().splitlines():
        print(line.rstrip(), file=console.file)
    print(file=console.file)


def _piece(table: Table, columns: list[Column], title: Any) -> Table:
    from rich import box
    from rich.table import Table

    piece = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        piece.add_column(column.header, justify=column.justify, overflow="fold")
    for row, *cells in zip(table.rows, *(column.cells for column in columns), strict=True):
        piece.add_row(*cells, end_section=row.end_section)
    return piece


def _known(kind: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}" if near else f"expected one of {', '.join(known)}"
    raise UserError(f"unknown {kind} {name!r}: {hint}; `gapbench list` shows all")


def _chosen(kind: str, names: str | None, known: Iterable[str]) -> list[str]:
    known = list(known)
    if names is None:
        return known
    wanted = [_known(kind, name.strip(), known) for name in names.split(",") if name.strip()]
    if not wanted:
        raise UserError(f"--{kind}s is empty: expected names separated by commas, of {', '.join(known)}")
    return list(dict.fromkeys(wanted))


def _from_file(source: str) -> tuple[str, UncertaintyMethod]:
    """The row of a method in the user's own file."""
    from gapbench.methods.registry import from_file, row_name

    try:
        cls = from_file(source)
        return row_name(cls), cls()
    except Exception as error:
        raise UserError(f"--method {source}: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise UserError(f"--device {name!r}: expected auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu, or install a CUDA build of torch"
        )
    return name


def _about(cls: type) -> str:
    """A method's one line, its paper included, from its file's docstring."""
    doc = (sys.modules[cls.__module__].__doc__ or cls.__doc__ or "").strip()
    return doc.partition("\n")[0].rstrip(".")
