"""The report: what its page shows, as numbers and words. `report_svg` draws its charts, `report_page` is the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gapbench.evaluation import report_charts as charts
from gapbench.evaluation.headline import HEADINGS, STATUSES, Heading, Headline, headlines
from gapbench.evaluation.plots import Style, styles
from gapbench.evaluation.report_charts import Bands, Curves, Dots
from gapbench.evaluation.report_findings import findings, top
from gapbench.evaluation.results import Column, Result
from gapbench.evaluation.tables import (
    RunTable,
    Table,
    cpu_seconds,
    departures,
    number,
    provenance,
    remarks,
    run_table,
)

Facts = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """A line of the leaderboard. words: a word for each column; values: the numbers to sort by. facts: what the line
    folds out to."""

    method: str
    name: str
    control: bool
    status: str
    style: Style
    words: tuple[str, ...]
    values: tuple[float, ...]
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """One dataset."""

    name: str
    title: str
    findings: tuple[str, ...]
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    answer: Dots | None
    stds: Curves | None
    calibration: tuple[Curves, ...]
    bands: Bands | None


@dataclass(frozen=True)
class Report:
    """The report of a folder. findings: (heading, sentences). unsound: dataset, method, status and reason of what
    failed or did not converge. notes: sentences on what is not shown. origin: where the numbers come from."""

    title: str
    findings: tuple[tuple[str, tuple[str, ...]], ...]
    sections: tuple[Section, ...]
    unsound: tuple[tuple[str, str, str, str], ...]
    remarks: tuple[str, ...]
    notes: tuple[str, ...]
    origin: tuple[tuple[str, str], ...]


def report(
    results: Sequence[Result],
    title: str,
    known: Mapping[tuple[str, str], Facts] | None = None,
    notes: Sequence[str] = (),
    origin: Facts = (),
) -> Report:
    """The report of results. known: more facts on a dataset's method, such as its settings."""
    style, costs, known = styles(results), run_table(results), known or {}
    sections = []
    for headline in headlines(results):
        table = headline.table
        assert table is not None  # `headlines` gives every one its table
        rows = [one for one in results if one.dataset == table.dataset]
        sections.append(_section(headline, table, rows, style, costs, known))
    return Report(
        title,
        top([(one.name, one.findings, one.answer) for one in sections], results),
        tuple(sections),
        tuple((one.dataset, one.method, one.status, reason) for one in results for reason in reasons(one)),
        (*departures(results), *remarks(results)),
        tuple(notes),
        (*origin, *(("computed on", sentence) for sentence in provenance(results)), *_versions(results)),
    )


def _section(
    headline: Headline,
    table: Table,
    rows: Sequence[Result],
    style: Mapping[str, Style],
    costs: RunTable,
    known: Mapping[tuple[str, str], Facts],
) -> Section:
    by_name = {one.method: one for one in rows}
    ran = {method: values for dataset, method, values in costs.lines if dataset == table.dataset}
    lines = []
    for line, (name, _, words) in zip(table.lines, headline.lines, strict=True):
        own = by_name[line.method]
        facts = [("status", f"{own.status}: {'; '.join(reasons(own)) or 'sound'}")] if own.kind == "method" else []
        facts += [
            (heading + ", 95 % interval", f"{_plain(column, cell.low)} to {_plain(column, cell.high)}")
            for column, cell, heading in zip(table.columns, line.cells, headline.headings, strict=False)
            if not np.isnan(cell.low)
        ]
        measured = zip(costs.columns, ran.get(line.method, ()), strict=False)
        facts += [(column, number(value)) for column, value in measured if value is not None]
        spent = cpu_seconds(own)
        values = (*(cell.value for cell in line.cells), math.nan if spent is None else spent)
        facts += known.get((own.dataset, own.method), ())
        lines.append(
            Row(own.method, name, own.kind != "method", own.status, style[own.method], words, values, tuple(facts))
        )
    answer = charts.answer(rows, style)
    return Section(
        table.dataset,
        headline.title,
        tuple(findings(rows, answer)) if answer else (),
        headline.headings,
        tuple(lines),
        headline.notes,
        answer,
        charts.stds(rows, style),
        tuple(charts.calibration(rows, style)),
        charts.bands(rows, style),
    )


def reasons(result: Result) -> list[str]:
    """Why a method's numbers are not all there, or not to be believed; none for a sound method."""
    groups: dict[str, list[int]] = {}
    for replica, reason in sorted(result.failures.items()):
        groups.setdefault(reason, []).append(replica)
    found = [f"replica {', '.join(map(str, own))} failed: {reason}" for reason, own in groups.items()]
    if result.status == "not converged" and result.arrived is not None:
        arrived = result.arrived
        found.append(f"{int((~arrived).sum())} of {len(arrived)} replicas: {STATUSES['not converged'].split(',')[0]}")
    return found


def _plain(column: Column, value: float) -> str:
    """A number of a column without a verdict."""
    if column[0] == "reference_log_std":
        return f"{math.exp(min(value, 700.0)):.2g}"
    return HEADINGS.get(column[0], Heading(column[0])).print(value)


def _versions(results: Sequence[Result]) -> list[tuple[str, str]]:
    """The versions of all packages, the Python and the commit, each combination once."""
    found: dict[str, None] = {}
    for run in (run for result in results for run in result.provenance):
        words = [f"{name} {version}" for name, version in sorted(dict(run.get("versions", {})).items())]
        words += [f"{name} {run[name]}" for name in ("python", "commit") if run.get(name)]
        found[", ".join(words)] = None
    return [("versions", words) for words in found]
