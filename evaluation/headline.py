"""The headline: what a dataset's results say, a line a method, in at most 100 columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gapbench.evaluation.results import Column, Result
from gapbench.evaluation.scores import SCORES
from gapbench.evaluation.tables import Line, Table, cpu_seconds, declared, number, regions_of, scored_f, tabulate

WIDE, NARROW = 1.25, 0.8  # a std that many times the posterior's is called too wide, or too narrow
MARKS = {"not converged": "†", "failed": "‡"}
CONTROLS = {
    "reference": "the true posterior",
    "baseline": "the untrained network",
    "oracle": "the true law of y",
}
STATUSES = {
    "not converged": "its chains disagree (R-hat) or its loss still falls, so it is not ranked.",
    "failed": "every replica failed.",
}


def factor(log_ratio: float) -> str:
    """The std over the posterior's, and what it means."""
    if log_ratio == -math.inf:
        return "no std"
    ratio = math.exp(min(log_ratio, 700.0))
    verdict = " × too wide" if ratio > WIDE else " × too narrow" if ratio < NARROW else ""
    return (number(float(f"{ratio:.2g}")) if verdict else f"{ratio:.2f}") + verdict


def percent(share: float) -> str:
    return f"{math.floor(100 * share + 0.5)} %"


@dataclass(frozen=True)
class Heading:
    """A score's heading in the headline. words: the heading. print: the format of a value. meaning: a sentence below
    the table."""

    words: str
    print: Callable[[float], str] = number
    meaning: str = ""


CRPS = "CRPS: the continuous ranked probability score, of the whole distribution; less is better."
HEADINGS: Mapping[str, Heading] = {
    "reference_log_std": Heading(
        "std ÷ posterior's",
        factor,
        "std ÷ posterior's: the std of f over the true posterior's. 1 is right; 0.3 × too narrow is 0.3 of it.",
    ),
    "reference_w1": Heading(
        "distance to it", number, "distance to it: of f from the posterior (Wasserstein), in the posterior's stds."
    ),
    "coverage_90_f": Heading("90 % has f", percent, "90 % has f: how often the 90 % interval of f holds the truth."),
    "coverage_90_y": Heading(
        "90 % has y", percent, "90 % has y: how often the 90 % interval of y holds a new observation."
    ),
    "width_90_y": Heading("width of y", number, "width of y: of its 90 % interval."),
    "crps_y": Heading("CRPS of y", number, CRPS),
    "crps_f": Heading("CRPS of f", number, CRPS),
    "gap_ratio": Heading("std gap ÷ data", number, "std gap ÷ data: of f. Above 1 the error bars grow in the gap."),
    "rmse_y": Heading("RMSE of y"),
    "nll_y": Heading("NLL of y"),
    "pit_ks_f": Heading("PIT KS of f", number, "PIT KS: how far from calibrated; 0 is right."),
    "pit_ks_y": Heading("PIT KS of y", number, "PIT KS: how far from calibrated; 0 is right."),
}
SECONDS = "CPU s each"


@dataclass(frozen=True)
class Headline:
    """The headline of one dataset, as it is printed.

    headings: of the columns behind the method's. lines: method, whether it is ranked, and a word for each column.
    notes: sentences below. table: the numbers behind the words, in the same order.
    """

    title: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, bool, tuple[str, ...]], ...]
    notes: tuple[str, ...]
    table: Table | None = None


def headlines(results: Sequence[Result]) -> list[Headline]:
    """One for each dataset; where there is no f, no truth, no gap or no reference, it has fewer columns."""
    made = []
    for table in tabulate(results, most):
        made.append(_headline(table, [result for result in results if result.dataset == table.dataset]))
    return made


def most(rows: Sequence[Result]) -> Sequence[Column]:
    """The columns that say most: those that the dataset declares, else those that suit its layout."""
    if (columns := declared(rows)) is not None:
        return _few(columns)
    regions = regions_of(rows)
    if rows[0].layout.points == "tasks":
        of = "f" if scored_f(rows) else "y"
        where = "gap" if "gap" in regions else regions[-1]
        return [*((f"coverage_90_{of}", name) for name in regions[:4]), (f"pit_ks_{of}", where), (f"crps_{of}", where)]
    if {"data", "gap"} <= set(regions):
        near = [("reference_log_std", "data"), ("reference_log_std", "gap"), ("reference_w1", "gap")]
        known = any(len(row.valid(near[-1])) > 0 for row in rows)
        in_gap = [(name, "gap") for name in ("coverage_90_f", "coverage_90_y", "width_90_y", "crps_y")]
        return [*(near if known else [("gap_ratio", "all")]), *in_gap]
    return [(name, "all") for name in ("rmse_y", "coverage_90_f", "coverage_90_y", "width_90_y", "crps_y", "nll_y")]


def _few(columns: Sequence[Column], most: int = 7) -> Sequence[Column]:
    """The first columns; a score that stands there for one region keeps its next one."""
    more = len(columns) > most and columns[most][0] == columns[most - 1][0]
    return columns[: most + more]


def _headline(table: Table, rows: Sequence[Result]) -> Headline:
    shown = [HEADINGS.get(score, Heading(score)) for score, _ in table.columns]
    several = len({region for _, region in table.columns}) > 1
    places = [f" · {region}" if several and not SCORES[score].across else "" for score, region in table.columns]
    headings = [heading.words + place for heading, place in zip(shown, places, strict=True)]
    seconds = {row.method: cpu_seconds(row) for row in rows}
    lines = []
    for line in table.lines:
        words = [
            "n/a" if np.isnan(cell.value) else heading.print(cell.value) + ("*" if cell.best else "")
            for cell, heading in zip(line.cells, shown, strict=True)
        ]
        spent = seconds[line.method]
        words.append("" if spent is None else number(spent))
        lines.append((_name(line, table), line.status == "ranked", tuple(words)))
    notes = [heading.meaning for heading in shown if heading.meaning]
    notes += [f"{SECONDS}: of training and predicting one replica."] if any(words[-1] for *_, words in lines) else []
    notes += [*_incomplete(table), *_marks(table), *_controls(table), *privacy(rows)]
    return Headline(table.name, (*headings, SECONDS), tuple(lines), tuple(dict.fromkeys(notes)), table)


def _name(line: Line, table: Table) -> str:
    """The method's name with a mark or the kind of a control, and with its replicas where they are not all."""
    mark = MARKS.get(line.status)
    words = [] if mark or line.status in ("ranked", line.method) else [line.status]
    words += [f"{line.failed} of {line.replicas} failed"] if 0 < line.failed < line.replicas else []
    most = max(other.replicas for other in table.lines)
    words += [f"{line.replicas} replica{'s' if line.replicas > 1 else ''}"] if line.replicas < most else []
    return line.method + (f" {mark}" if mark else "") + (f" ({', '.join(words)})" if words else "")


def _incomplete(table: Table) -> list[str]:
    """A sentence on scores that only some of the replicas have, such as distances where few have a reference."""
    found = []
    for at, (score, _) in enumerate(table.columns):
        there = [(line, line.cells[at].known) for line in table.lines if line.cells[at].known]
        few = [(line, known) for line, known in there if known < line.replicas - line.failed]
        whose = "" if len(few) == len(there) else f" of {', '.join(line.method for line, _ in few)}"
        if few:
            known = min(known for _, known in few)
            words = HEADINGS.get(score, Heading(score)).words + whose
            found.append(f"{words}: only {known} of the replicas {'has' if known == 1 else 'have'} it.")
    return found


def _marks(table: Table) -> list[str]:
    there = {line.status for line in table.lines}
    return [f"{MARKS[status]} {status}: {meaning}" for status, meaning in STATUSES.items() if status in there]


def _controls(table: Table) -> list[str]:
    """A sentence on the lines that are no methods."""
    there = [f"{line.method} is {CONTROLS[line.status]}" for line in table.lines if line.status in CONTROLS]
    return [f"No methods, and not ranked: {', '.join(there)}."] if there else []


def privacy(rows: Sequence[Result]) -> list[str]:
    """A sentence on the methods that promise something about a point of the training data."""
    found = []
    for row in rows:
        epsilon = row.diagnostics.get("epsilon", np.full(len(row.replicas), np.nan))[row.sound]
        if np.isfinite(epsilon).any():
            found.append(f"{row.method} ε = {number(float(epsilon[np.isfinite(epsilon)].mean()))}")
    return [f"Differential privacy of one point: {', '.join(found)}; less is more private."] if found else []
