"""The options of `gapbench run` for one's own table, the answer in words and as a page, predictions for new rows."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gapbench.runners.cli.console import show
from gapbench.runners.cli.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from gapbench.evaluation.answer import Answer
    from gapbench.evaluation.results import Result
    from gapbench.runners.suites import Selection, Suite

PAGE, PREDICTIONS = "answer.html", "predictions.csv"
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OPTIONS = (
    click.option("--csv", type=_FILE, metavar="FILE", help="Your own table, CSV or Parquet, in place of a suite."),
    click.option("--target", metavar="COLUMN", help="With --csv: the column to predict."),
    click.option("--drop", multiple=True, metavar="COLUMN,…", help="With --csv: leave these columns out."),
    click.option(
        "--gap",
        multiple=True,
        metavar="COLUMN,…",
        help="With --csv: leave the middle third of these columns out of the training. auto (default): the five that "
        "say most about the target; all; none.",
    ),
    click.option("--group", metavar="COLUMN", help="With --csv: hold whole groups of rows out, by this column."),
    click.option("--time", metavar="COLUMN", help="With --csv: hold later rows out, in the order of this column."),
    click.option(
        "--impute", type=click.Choice(["median"]), help="With --csv: fill missing numbers by the training rows' median."
    ),
    click.option(
        "--predict",
        type=_FILE,
        metavar="FILE",
        help="With --csv: train the method that the answer names, or the only one of --methods, on all rows, and write "
        f"its predictions for the rows of FILE to OUT/{PREDICTIONS}.",
    ),
)


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of one's own table, added to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class OwnTable:
    """What the user said of a table; the fields are the options."""

    csv: Path | None
    target: str | None
    drop: tuple[str, ...]
    gap: tuple[str, ...]
    group: str | None
    time: str | None
    impute: str | None
    predict: Path | None

    def check(self) -> None:
        """Raises UserError if options of a table are there without one."""
        given = [name for name, value in vars(self).items() if value and name != "csv"]
        if self.csv is None and given:
            raise UserError(f"--{given[0]} is of --csv FILE, which is missing")
        if self.csv is not None and not self.target:
            from gapbench.datasets.table_file import read

            columns = ", ".join(map(str, read(self.csv).columns[:30]))
            raise UserError(f"--csv {self.csv}: which column is to be predicted? --target one of: {columns}")

    def suite(self, splits: int | None) -> Suite:
        """Raises TableError."""
        from gapbench.runners.own_table import SPLITS, suite_of

        assert self.csv is not None and self.target
        drop, gap = (self.columns(values) for values in (self.drop, self.gap))
        return suite_of(
            self.csv.absolute(),
            self.target,
            drop,
            gap,
            self.group or "",
            self.time or "",
            bool(self.impute),
            splits or SPLITS,
        )

    def columns(self, values: Sequence[str]) -> list[str]:
        """The columns that an option names: a column whose name has a comma is taken as it is."""
        from gapbench.datasets.table_file import read

        assert self.csv is not None
        known = set(read(self.csv).columns)
        found = [word for value in values for word in ([value] if value in known else value.split(","))]
        return [word.strip() for word in found if word.strip()]

    @property
    def folder(self) -> str:
        """The name of the default results folder: of the file's content, since a name must not become a path."""
        from gapbench.datasets.own_table import sha256_of

        return f"csv-{sha256_of(str(self.csv))[:8]}"

    @property
    def words(self) -> list[str]:
        """The options again, for a command line."""
        found = ["--csv", str(self.csv), "--target", str(self.target)]
        for name in ("drop", "gap"):
            found += [word for value in getattr(self, name) for word in (f"--{name}", value)]
        for name in ("group", "time", "impute"):
            found += [f"--{name}", getattr(self, name)] if getattr(self, name) else []
        return found


def tell_answer(
    own: OwnTable, suite: Suite, results: Sequence[Result], out: Path, console: Console, seed: int
) -> Answer:
    """Print the answer, and write its page into the results folder."""
    from rich.table import Table

    from gapbench.datasets.own_table import OwnTable as Dataset
    from gapbench.evaluation.answer import answer
    from gapbench.evaluation.answer_page import page
    from gapbench.evaluation.headline import percent
    from gapbench.evaluation.tables import number

    dataset = next(iter(suite.tasks.values())).dataset
    assert isinstance(dataset, Dataset)
    found = answer(results, dataset.table.names)
    for place in found.places:
        shown = Table(title=f"On {place.name}", title_justify="left", box=None, pad_edge=False)
        for heading in ("method", "its 90 % intervals", "hold", "right if", "CRPS", "width", "RMSE", "CPU s"):
            shown.add_column(heading, overflow="fold", justify="left" if heading == "method" else "right")
        for one in place.judged:
            low, high = map(percent, one.band)
            share = "n/a" if one.verdict == "n/a" else percent(one.coverage)
            name = one.method + ("" if one.status == "ranked" else f" ({one.status})")
            shown.add_row(
                name,
                f"are {one.verdict}",
                share,
                f"{low} to {high}",
                *map(number, (one.crps, one.width, one.rmse, found.seconds.get(one.method, math.nan))),
            )
        show(console, shown)
    command = ""
    if found.best:
        words = ["gapbench", "run", *own.words, "--methods", found.best, "--predict", "NEW.csv"]
        command = shlex.join([*words, *(["--seed", str(seed)] if seed else [])])
        click.echo(f"Use {found.best}. {' '.join(found.why)}")
        click.echo(f"Train it on all rows and predict new ones: {command}")
    else:
        click.echo(found.why[0])
    title = f"Whose error bars are right for {own.target}?"
    text = page(found, title, suite.description, str(own.target), suite.notes, command)
    (out / PAGE).write_text(text, encoding="utf-8")
    click.echo(f"This answer as a page: {out / PAGE}")
    return found


def predict(own: OwnTable, picked: Selection, name: str, out: Path, device: str, seed: int) -> Path:
    """Train a method on all rows, and write its mean, std and quantiles for the rows of a file. Raises TableError."""
    import numpy as np
    import pandas as pd

    from gapbench.datasets.own_table import OwnTable as Dataset
    from gapbench.datasets.own_table import filled
    from gapbench.datasets.table_file import TableError, encode, read
    from gapbench.evaluation.entries import Trained
    from gapbench.runners.api import fit

    assert own.predict is not None
    task, entry = next(iter(picked.tasks.values())), picked.entries[name]
    assert isinstance(task.dataset, Dataset) and isinstance(entry, Trained)
    table = task.dataset.table
    new = encode(table, read(own.predict))
    if np.isnan(new).any() and not own.impute:
        raise TableError(f"{own.predict}: missing values: --impute median fills them")
    fitted = fit(filled(table, table.x), table.y, entry.method, model=task.model, seed=seed, device=device)
    predicted = fitted.predict(filled(table, new))
    columns = {"mean": predicted.mean_y, "std": predicted.std_y}
    levels = {f"q{100 * level:02.0f}": level for level in LEVELS}
    try:
        columns |= dict(zip(levels, predicted.quantiles(list(levels.values())), strict=True))
    except ValueError as error:
        raise UserError(f"--predict: {name}: {error}") from error
    path = out / PREDICTIONS
    pd.DataFrame(columns).to_csv(path, index=False, lineterminator="\n")
    return path
