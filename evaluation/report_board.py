"""The leaderboard of a report: a line a method that folds out to what is known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gapbench.evaluation.bootstrap import estimate
from gapbench.evaluation.drawing import Style
from gapbench.evaluation.headline import CONTROLS, HEADINGS, Heading, Headline
from gapbench.evaluation.report_charts import judged, label, ratio_words
from gapbench.evaluation.results import Column, Result
from gapbench.evaluation.tables import Line, RunTable, Table, cpu_seconds, number

Facts = Sequence[tuple[str, str]]
EXPECTED = " ᵉ"  # behind a value that is known to be wrong
PRIVACY = ("epsilon", "noise multiplier", "clipping norm", "clipped fraction")


@dataclass(frozen=True)
class About:
    """What is known of a method beside its results. expected: how its error bars are known to be wrong, such as "too
    narrow in a gap". facts: such as its settings."""

    family: str = ""
    expected: str = ""
    facts: Facts = ()


@dataclass(frozen=True)
class Row:
    """A line of the leaderboard. words: a word for each column; values: the numbers to sort by. facts: what the line
    folds out to."""

    method: str
    name: str
    family: str
    control: bool
    status: str
    style: Style
    words: tuple[str, ...]
    values: tuple[float, ...]
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Board:
    """The leaderboard of a dataset. beside: the values of the controls, for each column. notes: sentences below."""

    title: str
    headings: tuple[str, ...]
    beside: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def board(
    headline: Headline,
    results: Sequence[Result],
    style: Mapping[str, Style],
    costs: RunTable,
    known: Mapping[tuple[str, str], About],
) -> Board:
    """The leaderboard of the dataset of a headline."""
    table = headline.table
    assert table is not None  # `headlines` gives every one its table
    by_name = {one.method: one for one in results if one.dataset == table.dataset}
    ran = {method: values for dataset, method, values in costs.lines if dataset == table.dataset}
    rows, controls = [], []
    for line, (name, _, words) in zip(table.lines, headline.lines, strict=True):
        own = by_name[line.method]
        about = known.get((own.dataset, own.method), About())
        measured = zip(costs.columns, ran.get(line.method, ()), strict=False)
        facts = [*_status(own), *_intervals(line, table, headline.headings)]
        facts += [(column, number(value)) for column, value in measured if value is not None]
        spent = cpu_seconds(own)
        rows.append(
            Row(
                own.method,
                name,
                about.family,
                own.kind != "method",
                own.status,
                style[own.method],
                _marked(words, table.columns, about.expected),
                (*(cell.value for cell in line.cells), math.nan if spent is None else spent),
                (*facts, *about.facts),
            )
        )
        controls += [(line.status, words)] if line.status in CONTROLS else []
    beside = tuple(
        ", ".join(f"{status} {words[at]}" for status, words in controls if words[at] not in ("", "n/a"))
        for at in range(len(headline.headings))
    )
    known_to_fail = any(word.endswith(EXPECTED) for row in rows for word in row.words)
    notes = ["Order: ranked methods by CRPS, what did not converge, what failed, controls."]
    if any(" × too " in word for row in rows for word in row.words):
        notes.append("Too narrow and too wide are said of the mean here; the findings ask the whole interval.")
    notes += [f"{EXPECTED.strip()} expected: theory says so of this method."] if known_to_fail else []
    return Board(headline.title, headline.headings, beside, tuple(rows), (*headline.notes, *notes))


def _marked(words: Sequence[str], columns: Sequence[Column], expected: str) -> tuple[str, ...]:
    """The words, with a mark behind those that are wrong as expected."""
    regions = (*(region for _, region in columns), "")
    return tuple(
        word + EXPECTED if expected and f"{word.partition(' × ')[2]} in a {region}" == expected else word
        for word, region in zip(words, regions, strict=True)
    )


def _status(result: Result) -> Facts:
    found = "; ".join(reasons(result)) or "sound"
    return [("status", f"{result.status}: {found}")] if result.kind == "method" else []


def _intervals(line: Line, table: Table, headings: Sequence[str]) -> Facts:
    return [
        (heading + ", 95 % interval", f"{_plain(column, cell.low)} to {_plain(column, cell.high)}")
        for column, cell, heading in zip(table.columns, line.cells, headings, strict=False)
        if not np.isnan(cell.low)
    ]


def _plain(column: Column, value: float) -> str:
    """A number of a column without a verdict."""
    if column[0] == "reference_log_std":
        return ratio_words(math.exp(min(value, 700.0)))
    return HEADINGS.get(column[0], Heading(column[0])).print(value)


def reasons(result: Result) -> list[str]:
    """Why a method's numbers are not all there, or not to be believed; none for a sound method."""
    groups: dict[str, list[int]] = {}
    for replica, reason in sorted(result.failures.items()):
        groups.setdefault(reason, []).append(replica)
    found = [f"replica {', '.join(map(str, own))} failed: {reason}" for reason, own in groups.items()]
    if result.status == "not converged" and result.arrived is not None:
        arrived, why = result.arrived, "its chains disagree (R-hat)" if result.chained else "its loss still falls"
        found.append(f"{int((~arrived).sum())} of {len(arrived)} replicas: {why}")
    return found


def privacy(rows: Sequence[Result]) -> tuple[tuple[str, ...], ...]:
    """The table of a dataset's private methods, its head first: their promise, and its cost; empty without any."""
    column = judged(rows)
    lines = []
    for one in rows:
        unknown = np.full(len(one.replicas), np.nan)
        each = [one.diagnostics.get(name, unknown)[one.sound] for name in PRIVACY]
        if np.isfinite(each[0]).any():
            means = [float(values.mean()) for values in each]
            lines.append((label(one), *map(number, means), number(estimate(one, column, one.valid(column)))))
    head = ("method", "ε of one point", *PRIVACY[1:], f"{HEADINGS[column[0]].words} · {column[1]}")
    return (head, *lines) if lines else ()
