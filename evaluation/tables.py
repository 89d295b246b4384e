"""Tables from results: their columns, the value and interval of each cell, the best methods, and remarks.

`render` prints these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gapbench.evaluation.bootstrap import Bootstrap, estimate
from gapbench.evaluation.calibration import pit_band
from gapbench.evaluation.results import Column, Floats, Result
from gapbench.evaluation.scores import LEVELS, SCORES

SUMMARY = (  # for a grid of test points with a gap, if the truth is known
    ("rmse_f", "data"),
    ("rmse_f", "gap"),
    ("crps_y", "data"),
    ("crps_y", "gap"),
    ("nll_y", "gap"),
    ("calibration_error_y", "data"),
    ("coverage_90_f", "data"),
    ("coverage_90_f", "gap"),
    ("std_f", "data"),
    ("std_f", "gap"),
    ("gap_ratio", "all"),
    ("gap_wider", "all"),
    ("reference_w1", "data"),
    ("reference_w1", "gap"),
    ("reference_w1_mc_error", "gap"),
    ("reference_log_std", "data"),
    ("reference_log_std", "gap"),
    ("rhat", "all"),
)
NEAR = ("reference_log_std", "reference_w1")  # before the columns that a dataset declares, where references are known
ROWS_Y = ("rmse_y", "coverage_90_y", "width_90_y", "crps_y", "nll_y")  # in each region, for any other dataset
ROWS_F = ("rmse_f", "coverage_90_f", "std_f")  # and these, if the truth is known
SPENT: tuple[tuple[str, str, Callable[[Sequence[float]], float], float], ...] = (
    ("seconds", "seconds", sum, 1.0),
    ("cpu seconds", "CPU seconds", sum, 1.0),
    ("peak memory (bytes)", "peak MB", max, 1e6),
)
ORDER = ("ranked", "not converged", "failed", "reference", "baseline", "oracle")


@dataclass(frozen=True)
class Cell:
    """One method's value in one column.

    value: the mean over replicas (of a pooled score: the score of all replicas' PITs together); nan if not defined.
    low, high: the ends of the 95 % bootstrap interval over replicas; nan without an interval. known: the number of
    replicas in the value. best: True for a ranked method that is significantly better than every other ranked method.
    beats_oracle, loses_to_baseline: True for a method that is significantly better than the oracle, or worse than the
    baseline. Significantly: the paired 95 % interval of the difference does not contain 0.
    """

    value: float
    low: float
    high: float
    known: int
    best: bool = False
    beats_oracle: bool = False
    loses_to_baseline: bool = False


@dataclass(frozen=True)
class Line:
    """One method's cells, one for each column. replicas: the number of its replicas, failed ones included."""

    method: str
    status: str
    replicas: int
    failed: int
    cells: tuple[Cell, ...]

    @property
    def label(self) -> str:
        """The method's name, with its status if it is not ranked, and the number of its failed replicas."""
        words = [] if self.status in ("ranked", self.method) else [self.status]
        if self.failed:
            words.append(f"{self.failed} of {self.replicas} replicas failed")
        return self.method + (f" ({', '.join(words)})" if words else "")


@dataclass(frozen=True)
class Table:
    """The methods of one dataset: ranked methods by CRPS, then not converged ones, failed ones, and controls."""

    dataset: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]

    @property
    def name(self) -> str:
        """The dataset and the largest number of replicas of a method."""
        replicas = max(line.replicas for line in self.lines)
        return f"{self.dataset}: mean over {replicas} replica{'s' if replicas > 1 else ''}"

    @property
    def title(self) -> str:
        """The name, with a note on intervals if the table has any."""
        intervals = any(not np.isnan(cell.low) for line in self.lines for cell in line.cells)
        return self.name + (", 95 % interval below" if intervals else "")


@dataclass(frozen=True)
class RunTable:
    """The costs and diagnostics of each method's runs on each dataset. Diagnostics are means over sound replicas.

    lines: (dataset, method, a value for each column); None if the method does not have that value.
    """

    columns: tuple[str, ...]
    lines: tuple[tuple[str, str, tuple[float | None, ...]], ...]


# Which columns --------------------------------------------------------------------------------------------------------


def summary(rows: Sequence[Result]) -> tuple[Column, ...]:
    """The columns for one dataset's results: those that the dataset declares, else those that suit its layout."""
    first, regions = rows[0], regions_of(rows)
    if (columns := declared(rows)) is not None:
        return columns
    known = scored_f(rows)
    if first.layout.points == "tasks":
        of = "f" if known else "y"
        return (
            *((f"pit_ks_{of}", region) for region in regions),
            *((f"coverage_{level}_{of}", region) for level in LEVELS for region in regions),
            *((f"crps_{of}", region) for region in regions),
            *(("nll_y", region) for region in regions),
            ("rhat", "all"),
        )
    if first.layout.points == "grid" and known and {"data", "gap"} <= set(regions):
        return SUMMARY
    names = (*(ROWS_F if known else ()), *ROWS_Y)
    return (*((name, region) for name in names for region in regions), ("rhat", "all"))


def declared(rows: Sequence[Result]) -> tuple[Column, ...] | None:
    """The columns that the dataset declares, if any; before them the distance to the posterior, where each replica has
    its reference."""
    columns = rows[0].summary
    if columns is None:
        return None
    regions = dict.fromkeys(region for _, region in columns)
    near = tuple((name, region) for name in NEAR for region in regions)
    known = any(all(len(row.valid(one)) == len(row.replicas) for one in near) for row in rows)
    return (*near, *columns) if known else columns


def everything(rows: Sequence[Result]) -> tuple[Column, ...]:
    """Every score in every region of one dataset."""
    regions = dict.fromkeys(("all", *regions_of(rows)))
    return tuple(
        (name, region)
        for region in regions
        for name, score in SCORES.items()
        if region == "all" or score.across is None  # a score across regions stands under "all"
    )


def compared(rows: Sequence[Result]) -> tuple[Column, ...]:
    """The columns in which methods are compared with baseline and oracle.

    NLL over all points is left out. The points in the extrapolation dominate it, and the number of draws decides the
    NLL there.
    """
    regions = regions_of(rows)
    crps = dict.fromkeys(("all", *regions))
    return (*(("nll_y", region) for region in regions), *(("crps_y", region) for region in crps))


def scored_f(rows: Sequence[Result]) -> bool:
    """True if some result has a score of f: the truth is known, and the method has an f."""
    return any(len(result.valid(("coverage_90_f", "all"))) > 0 for result in rows)


def regions_of(rows: Sequence[Result]) -> list[str]:
    """The regions in which some result has a test point; ["all"] if no region has any."""
    names = dict.fromkeys(name for result in rows for name in result.regions)
    return [name for name in names if any(result.inside(name).any() for result in rows)] or ["all"]


# Cells ----------------------------------------------------------------------------------------------------------------


def tabulate(
    results: Sequence[Result],
    columns: Callable[[Sequence[Result]], Sequence[Column]] = summary,
    intervals: bool = True,
) -> list[Table]:
    """One table for each dataset, without the columns in which nothing is defined (unless no column is).

    columns: the function that gives the columns of one dataset's results: `summary`, `everything` or `compared`.
    intervals: False if the intervals of values are not shown, which take most of the time.
    """
    return [_table(dataset, rows, columns(rows), intervals) for dataset, rows in _by_dataset(results).items()]


def _by_dataset(results: Sequence[Result]) -> dict[str, list[Result]]:
    names = dict.fromkeys(result.dataset for result in results)
    return {name: [result for result in results if result.dataset == name] for name in names}


def _table(dataset: str, rows: Sequence[Result], columns: Sequence[Column], intervals: bool) -> Table:
    watched = set(compared(rows))
    cells = {column: _cells(rows, column, column in watched, intervals) for column in columns}
    shown = [column for column in columns if any(not np.isnan(cell.value) for cell in cells[column])] or list(columns)
    lines = [
        Line(
            result.method,
            result.status,
            len(result.replicas),
            len(result.failures),
            tuple(cells[column][position] for column in shown),
        )
        for position, result in enumerate(rows)
    ]
    ranking = next((name for name in ("crps_y", "crps_f") if any(score == name for score, _ in shown)), None)

    def rank(line: Line) -> tuple[int, bool, float]:
        values = [cell.value for cell, (score, _) in zip(line.cells, shown, strict=True) if score == ranking]
        crps = [value for value in values if not np.isnan(value)]
        return ORDER.index(line.status), not crps, sum(crps)  # what has none stands last

    return Table(dataset, tuple(shown), tuple(sorted(lines, key=rank)))


def _cells(rows: Sequence[Result], column: Column, watched: bool, intervals: bool) -> list[Cell]:
    """The cells of one column, one for each result. watched: True if methods are compared with the controls.

    Splits of one table are no independent sample: their cells have no interval, and none is significantly better.
    """
    if not rows[0].layout.independent:
        known = [result.valid(column) for result in rows]
        return [Cell(estimate(r, column, v), np.nan, np.nan, len(v)) for r, v in zip(rows, known, strict=True)]
    bootstrap = Bootstrap(column)
    ranked = [result for result in rows if result.status == "ranked" and len(result.valid(column))]
    cells = []
    for result in rows:
        valid = result.valid(column)
        low, high = bootstrap.interval(result) if intervals else (np.nan, np.nan)
        others = [other for other in ranked if other is not result]
        method = watched and result.kind == "method"
        cells.append(
            Cell(
                estimate(result, column, valid),
                low,
                high,
                len(valid),
                bool(others) and result in ranked and all(bootstrap.better(result, other) for other in others),
                any(method and other.kind == "oracle" and bootstrap.better(result, other) for other in rows),
                any(method and other.kind == "baseline" and bootstrap.better(other, result) for other in rows),
            )
        )
    return cells


def run_table(results: Sequence[Result]) -> RunTable:
    """The table of seconds, CPU seconds, peak memory and every method's own diagnostics, without controls."""
    methods = [result for result in results if result.kind == "method"]
    columns: dict[str, None] = {}
    values = []
    for result in methods:
        values.append(_spent(result) | {name: _mean(result, value) for name, value in result.diagnostics.items()})
        columns |= dict.fromkeys(values[-1])
    return RunTable(
        tuple(columns),
        tuple(
            (result.dataset, result.method, tuple(own.get(name) for name in columns))
            for result, own in zip(methods, values, strict=True)
        ),
    )


def _spent(result: Result) -> dict[str, float]:
    """The costs of a result: the sum of seconds over blocks of replicas, and the memory of the largest block."""
    spent: dict[str, float] = {}
    for name, title, over, unit in SPENT:
        values = [float(run[name]) for run in result.provenance if run.get(name) is not None]
        if values:
            spent[title] = over(values) / unit
    return spent


def cpu_seconds(result: Result) -> float | None:
    """The CPU seconds of training and predicting one replica; None for controls, or if a block did not record them."""
    spent = [float(run["cpu seconds"]) for run in result.provenance if run.get("cpu seconds") is not None]
    known = result.kind == "method" and 0 < len(spent) == len(result.provenance)
    return sum(spent) / len(result.replicas) if known else None


def _mean(result: Result, values: Floats) -> float:
    return float(values[result.sound].mean()) if result.sound.any() else np.nan


# Words ----------------------------------------------------------------------------------------------------------------


def remarks(results: Sequence[Result]) -> list[str]:
    """The sentences on methods that beat the oracle (a bug), or that are worse than the baseline (a finding)."""
    found = []
    for table in tabulate(results, compared, intervals=False):
        for flag, sentence in (
            ("beats_oracle", "{method} beats the true p(y | x) on {where}: a bug, in the method or in the score"),
            ("loses_to_baseline", "{method} does worse than the untrained prior on {where}"),
        ):
            for line in table.lines:
                marked = zip(table.columns, line.cells, strict=True)
                where = ", ".join(f"{score} · {region}" for (score, region), cell in marked if getattr(cell, flag))
                if where:
                    found.append(f"{table.dataset}: {sentence.format(method=line.method, where=where)}")
    return found


def departures(results: Sequence[Result]) -> list[str]:
    """A sentence for each dataset of independent tasks: the methods whose PITs of f are too far from uniform.

    Too far: further than the PITs of exact Bayes are by chance, with probability 95 %.
    """
    found = []
    for dataset, rows in _by_dataset(results).items():
        if rows[0].layout.points != "tasks":
            continue
        within, beyond, bands = [], [], [0.0]
        for result in rows:
            valid = {region: result.valid(("pit_ks_f", region)) for region in result.regions}
            if not valid or not all(map(len, valid.values())):
                continue
            bands.append(pit_band(min(map(len, valid.values())), len(valid)))
            distances = {region: estimate(result, ("pit_ks_f", region), own) for region, own in valid.items()}
            far = [f"{region} {number(distance)}" for region, distance in distances.items() if distance > bands[-1]]
            beyond += [f"{result.method} ({', '.join(far)})"] if far else []
            within += [] if far else [result.method]
        if within or beyond:
            found.append(
                f"{dataset}: with probability 95 % the PITs of f under exact Bayes are within {number(max(bands))} of "
                f"uniform in all regions. Within: {', '.join(within) or 'none'}. "
                f"Beyond: {', '.join(beyond) or 'none'}."
            )
    return found


def provenance(results: Sequence[Result]) -> list[str]:
    """One sentence for each kind of machine and software that computed the results; a mixture is reported as such."""
    kinds: dict[str, dict[str, None]] = {}
    for result in results:
        for run in result.provenance:
            versions: Mapping[str, str] = run["versions"]
            where = f"{run['device']}, torch {versions['torch']}, gapbench {versions['gapbench']}"
            kinds.setdefault(where, {})[result.method] = None
    if len(kinds) == 1:
        return [f"Computed on: {next(iter(kinds))}"]
    return [f"Mixed machines or versions! {', '.join(names)} computed on: {where}" for where, names in kinds.items()]


def sentences(results: Sequence[Result]) -> list[str]:
    """All sentences below a table."""
    return [*departures(results), *remarks(results), *provenance(results)]


def number(value: float) -> str:
    """The number in text: three digits, whole numbers up to a million, "n/a" for nan."""
    if np.isnan(value):
        return "n/a"
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"
