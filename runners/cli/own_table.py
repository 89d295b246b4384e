"""The options of `gapbench run` for one's own table, the answer in words and as a page, predictions for new rows."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gapbench.runners.cli.console import ExistingFile, adding, show
from gapbench.runners.cli.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from gapbench.evaluation.answer import Answer
    from gapbench.evaluation.results import Result
    from gapbench.runners.suites import Selection, Suite

PAGE, PREDICTIONS = "answer.html", "predictions.csv"
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)

OPTIONS = (
    click.option(
        "--csv", type=ExistingFile(), metavar="FILE", help="Your own table, CSV or Parquet, in place of a suite."
    ),
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
        type=ExistingFile(),
        metavar="FILE",
        help="With --csv: train the method that the answer names, or the only one of --methods, on all rows, and write "
        f"its predictions for the rows of FILE to OUT/{PREDICTIONS}.",
    ),
)

table_options = adding(OPTIONS)


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

    def command(self, method: str, settings: Sequence[str], seed: int, out: Path | None) -> str:
        """The command that trains a method on all rows, with the options that were given. method: as in a table, with
        its other settings in brackets. settings: those of --set."""
        found = ["gapbench", "run", "--csv", str(self.csv), "--target", str(self.target)]
        for name in ("drop", "gap"):
            found += [word for value in getattr(self, name) for word in (f"--{name}", value)]
        for name in ("group", "time", "impute"):
            found += [f"--{name}", getattr(self, name)] if getattr(self, name) else []
        plain = method.partition("[")[0]
        found += ["--methods", plain]
        found += [word for one in settings if one.partition(".")[0] == plain for word in ("--set", one)]
        found += [*(["--seed", str(seed)] if seed else []), *(["--out", str(out)] if out else [])]
        return shlex.join([*found, "--predict", "NEW.csv"])


def tell_answer(
    own: OwnTable,
    suite: Suite,
    results: Sequence[Result],
    folder: Path,
    console: Console,
    command: Callable[[str], str],
) -> Answer:
    """Print the answer, and write its page into the results folder; a run that predicts leaves the page as it is.

    command: method -> the command that trains it.
    """
    from rich.markup import escape
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
                escape(name),
                f"are {one.verdict}",
                share,
                f"{low} to {high}",
                *map(number, (one.crps, one.width, one.rmse, found.seconds.get(one.method, math.nan))),
            )
        show(console, shown)
    if found.best:
        click.echo(f"Use {found.best}. {' '.join(found.why)}")
        click.echo(f"Train it on all rows and predict new ones: {command(found.best)}")
    else:
        click.echo(found.why[0])
    if not own.predict:
        title = f"Whose error bars are right for {own.target}?"
        trains = command(found.best) if found.best else ""
        text = page(found, title, suite.description, str(own.target), suite.notes, trains)
        (folder / PAGE).write_text(text, encoding="utf-8")
        click.echo(f"This answer as a page: {folder / PAGE}")
    return found


def new_rows(own: OwnTable, picked: Selection) -> NDArray[np.float64] | None:
    """The features of the rows of --predict, (M, D), with medians for what is missing, and nan in rows of which nothing
    was learned; None without the option. Raises TableError."""
    import numpy as np

    from gapbench.datasets.own_table import OwnTable as Dataset
    from gapbench.datasets.own_table import filled
    from gapbench.datasets.table_file import TableError, encode, read, strangers

    if own.predict is None:
        return None
    dataset = next(iter(picked.tasks.values())).dataset
    assert isinstance(dataset, Dataset)
    frame = read(own.predict)
    new = encode(dataset.table, frame)
    if np.isnan(new).any() and not own.impute:
        raise TableError(f"{own.predict}: missing values: --impute median fills them")
    rows, words = strangers(dataset.table, frame)
    if rows.all():
        raise TableError(f"{own.predict}: every row has a word that the table does not have: {', '.join(words[:5])}")
    if rows.any():
        told = f"{', '.join(words[:5])}{', …' if len(words) > 5 else ''}"
        click.echo(f"{own.predict}: the table does not have {told}: rows without a prediction: {rows.sum()}", err=True)
    new = filled(dataset.table, new)
    new[rows] = np.nan
    return new


def predict(new: NDArray[np.float64], picked: Selection, name: str, folder: Path, device: str, seed: int) -> Path:
    """Train a method on all rows, and write its mean, std and quantiles for new rows, (M, D); nothing for nan."""
    import numpy as np
    import pandas as pd

    from gapbench.datasets.own_table import OwnTable as Dataset
    from gapbench.datasets.own_table import filled
    from gapbench.evaluation.entries import Trained
    from gapbench.runners.api import fit

    task, entry = next(iter(picked.tasks.values())), picked.entries[name]
    assert isinstance(task.dataset, Dataset) and isinstance(entry, Trained)
    table = task.dataset.table
    fitted = fit(filled(table, table.x), table.y, entry.method, model=task.model, seed=seed, device=device)
    known = np.flatnonzero(np.isfinite(new).all(1))
    predicted = fitted.predict(new[known])
    columns = {"mean": predicted.mean_y, "std": predicted.std_y}
    levels = {f"q{100 * level:02.0f}": level for level in LEVELS}
    try:
        columns |= dict(zip(levels, predicted.quantiles(list(levels.values())), strict=True))
    except ValueError as error:
        raise UserError(f"--predict: {name}: {error}") from error
    path = folder / PREDICTIONS
    numbered = pd.RangeIndex(1, len(new) + 1, name="row")
    frame = pd.DataFrame(columns, index=numbered[known]).reindex(numbered)
    frame.to_csv(path, float_format="%.7g", lineterminator="\n")
    return path
