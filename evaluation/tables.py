"""From scored replicas to a table: means, intervals over replicas, and what is significantly best.

Everything is derived from one tidy frame (`summarise`); text and markdown are only ways to print it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from gapbench.datasets.streams import stream
from gapbench.evaluation.calibration import calibration_error, miscalibration_area, pit_band, pit_distance
from gapbench.evaluation.diagnostics import CONVERGED
from gapbench.evaluation.scores import LEVELS, SCORES, Floats, replica_scores

RESAMPLES = 2000
ENOUGH = 5  # replicas below which a bootstrap over replicas is no basis for calling a difference significant
REGIONS = ("all", "data", "gap", "edge")
SUMMARY = (
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
    ("reference_w1_floor", "gap"),
    ("reference_log_std", "data"),
    ("reference_log_std", "gap"),
    ("rhat", "all"),
)
TASKS = (  # the summary where each replica is a task with one test point a region
    *(("pit_distance_f", region) for region in REGIONS[1:]),
    *((f"coverage_{level}_f", region) for level in LEVELS for region in REGIONS[1:]),
    ("crps_f", "data"),
    ("crps_f", "gap"),
    ("nll_y", "gap"),
    ("rhat", "all"),
)
# With floor and ceiling. NLL over all points would be that of the edge, where it is decided by the number of draws.
COMPARED = (
    *(("nll_y", region) for region in REGIONS[1:]),
    *(("crps_y", region) for region in REGIONS),
)
EVERYTHING = tuple(
    (name, region) for region in REGIONS for name in SCORES if name not in ("gap_ratio", "gap_wider") or region == "all"
)
POOLED = {
    "calibration_error": calibration_error,
    "miscalibration_area": miscalibration_area,
    "pit_distance": pit_distance,
}

Column = tuple[str, str]  # (score, region)


@dataclass(frozen=True)
class Result:
    """The scored replicas of one row of one dataset.

    replicas: (R,) their numbers. points: score -> (R, M). regions: (R, M) each. failures: replica number -> reason.
    diagnostics: (R,) each. kind: what the row is, which decides whether it is ranked. grid: x_test, f_test, x and y,
    for figures. provenance: of each block.
    """

    dataset: str
    row: str
    kind: Literal["method", "reference", "floor", "ceiling"]
    replicas: NDArray[np.int64]
    points: Mapping[str, Floats]
    regions: Mapping[str, NDArray[np.bool_]]
    grid: Mapping[str, Floats]
    diagnostics: Mapping[str, Floats] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)
    provenance: Sequence[Mapping[str, object]] = ()

    @cached_property
    def scores(self) -> dict[str, dict[str, Floats]]:
        return replica_scores(self.points, self.regions)

    @cached_property
    def sound(self) -> NDArray[np.bool_]:
        """(R,): the replicas that did not fail."""
        return ~np.isin(self.replicas, list(self.failures))

    @cached_property
    def independent(self) -> bool:
        """Whether the PITs of a region are: each replica is a task of its own, with one point in it at most."""
        return all((mask.sum(1) <= 1).all() for mask in self.regions.values())

    @cached_property
    def status(self) -> str:
        if self.kind != "method":
            return self.kind
        if not self.sound.any():
            return "failed"
        rhat = self.scores.get("rhat", {}).get("all")
        if rhat is None:
            return "ranked"
        # A failed replica says nothing about the others; an R-hat that is nan or inf is not a converged one. Of many
        # replicas one in twenty may be above by the chance of its draws.
        limit = self.scores.get("rhat_limit", {"all": CONVERGED})["all"]  # older scores have none
        return "ranked" if (rhat <= limit)[self.sound].mean() >= 0.95 else "not converged"

    def estimates(self, column: Column, replicas: NDArray[np.int64], counts: Floats) -> Floats:
        """The score if replica k counted counts[..., k] times, (...). replicas: the (K,) numbers to use."""
        name, region = column
        chosen = np.searchsorted(self.replicas, replicas)
        pooled = SCORES[name].pooled
        if pooled is None:
            values = self.scores[name][region][chosen]
            with np.errstate(invalid="ignore"):  # 0 · inf: a replica that is not counted has no say, whatever its value
                return np.asarray(np.where(counts > 0, counts * values, 0).sum(-1) / counts.sum(-1))
        mask = np.ones_like(self.regions["gap"]) if region == "all" else self.regions[region]
        pits, inside = self.points[pooled][chosen], mask[chosen]
        owner = np.nonzero(inside)[0]
        return POOLED[name.rpartition("_")[0]](pits[inside], counts[..., owner])

    def resampled(self, column: Column, replicas: NDArray[np.int64]) -> Floats:
        """(RESAMPLES,): the score on bootstrap resamples of these replicas, the same for every row of a dataset."""
        key = (column, tuple(replicas.tolist()))
        if key not in self._resampled:
            number = len(replicas)
            rng = stream("bootstrap", self.dataset, replicas.tolist())
            counts = rng.multinomial(number, np.full(number, 1 / number), RESAMPLES).astype(np.float64)
            values = self.estimates(column, replicas, counts)
            if SCORES[column[0]].pooled:  # PITs drawn twice are further from uniform than those they were drawn from
                bias = values.mean() - self.estimates(column, replicas, np.ones(number))
                values = np.maximum(values - bias, 0)
            self._resampled[key] = values
        return self._resampled[key]

    @cached_property
    def _resampled(self) -> dict[tuple[Column, tuple[int, ...]], Floats]:
        return {}

    def valid(self, column: Column) -> NDArray[np.int64]:
        """The replicas for which the column is defined."""
        name, region = column
        pooled = SCORES[name].pooled
        if self.kind == "ceiling" and not name.endswith("_y"):
            return self.replicas[:0]  # it knows f: there is nothing to score
        if self.kind == "reference" and name.startswith("reference_"):
            return self.replicas[:0]  # how far it is from itself is no score
        if pooled is not None:
            mask = np.ones_like(self.regions["gap"]) if region == "all" else self.regions[region]
            defined = mask.any(1) & ~(np.isnan(self.points[pooled]) & mask).any(1)
            return self.replicas[defined]
        if region not in self.scores.get(name, {}):
            return self.replicas[:0]
        return self.replicas[~np.isnan(self.scores[name][region])]


def merge(parts: Sequence[Result]) -> Result:
    """The blocks of one row as one result, in the order of the replicas' numbers."""
    order = np.argsort(np.concatenate([part.replicas for part in parts]))

    def joined(name: str) -> dict[str, NDArray[np.float64]]:
        maps = [getattr(part, name) for part in parts]
        shared = [key for key in maps[0] if all(key in other for other in maps)]
        return {key: np.concatenate([other[key] for other in maps])[order] for key in shared}

    first = parts[0]
    return Result(
        first.dataset,
        first.row,
        first.kind,
        np.concatenate([part.replicas for part in parts])[order],
        joined("points"),
        joined("regions"),  # type: ignore[arg-type]
        joined("grid"),
        joined("diagnostics"),
        {replica: reason for part in parts for replica, reason in part.failures.items()},
        [run for part in parts for run in part.provenance],
    )


def tidy(results: Sequence[Result]) -> pd.DataFrame:
    """A line for each replica, region and score: dataset, row, status, replica, region, score, value.

    Scores pooled over replicas are not here, having no value for one replica. Diagnostics of the methods (epsilon,
    clipped fraction, …) are, with region "run".
    """
    lines: list[dict[str, object]] = []
    for result in results:
        named = {**result.scores, **{name: {"run": values} for name, values in result.diagnostics.items()}}
        for score, regions in named.items():
            for region, values in regions.items():
                for replica, value in zip(result.replicas.tolist(), values.tolist(), strict=True):
                    lines.append(
                        {
                            "dataset": result.dataset,
                            "row": result.row,
                            "status": "failed" if replica in result.failures else result.status,
                            "replica": replica,
                            "region": region,
                            "score": score,
                            "value": value,
                        }
                    )
    return pd.DataFrame(lines)


def summarise(results: Sequence[Result], columns: Sequence[Column] | None = None) -> pd.DataFrame:
    """One line for each dataset, row and column: value, its 95 % interval (low, high), `best`, and remarks.

    columns: None for the summary, SUMMARY or TASKS as the dataset asks for.

    The value is the mean over replicas (for pooled scores, the score of all replicas' PITs together); the interval is a
    percentile bootstrap over replicas, the same resamples for every row, so that differences between rows are paired.
    best: ranked, and better than every other ranked row with a paired 95 % interval that leaves out 0. beats_ceiling,
    loses_to_floor: the same against the controls, for NLL and CRPS of y.
    """
    lines = []
    for dataset in dict.fromkeys(result.dataset for result in results):
        rows = [result for result in results if result.dataset == dataset]
        summary = TASKS if rows[0].independent else SUMMARY
        for column in summary if columns is None else columns:
            lines += _column(dataset, rows, column)
    return pd.DataFrame(lines)


def _column(dataset: str, rows: Sequence[Result], column: Column) -> list[dict[str, object]]:
    ranked = [result for result in rows if result.status == "ranked" and len(result.valid(column))]
    name, region = column
    controls = {result.kind: result for result in rows} if column in COMPARED else {}
    lines = []
    for result in rows:
        replicas = result.valid(column)
        value, low, high = np.nan, np.nan, np.nan
        if len(replicas):
            value = float(result.estimates(column, replicas, np.ones(len(replicas))))
        if len(replicas) > 1 and SCORES[name].interval:
            with np.errstate(invalid="ignore"):  # between two infinite resamples lies nan
                low, high = np.nanpercentile(result.resampled(column, replicas), [2.5, 97.5])
        others = [other for other in ranked if other is not result]
        lines.append(
            {
                "dataset": dataset,
                "row": result.row,
                "status": result.status,
                "replicas": len(result.replicas),
                "failed": len(result.failures),
                "known": len(replicas),
                "score": name,
                "region": region,
                "value": value,
                "low": low,
                "high": high,
                "best": bool(others) and result in ranked and all(_better(result, other, column) for other in others),
                "beats_ceiling": result.kind == "method"
                and "ceiling" in controls
                and _better(result, controls["ceiling"], column),
                "loses_to_floor": result.kind == "method"
                and "floor" in controls
                and _better(controls["floor"], result, column),
            }
        )
    return lines


def _better(this: Result, other: Result, column: Column) -> bool:
    """Whether `this` is significantly better than `other` on the replicas that both have."""
    better = SCORES[column[0]].better
    replicas = np.intersect1d(this.valid(column), other.valid(column))
    if better is None or not SCORES[column[0]].interval or len(replicas) < ENOUGH:
        return False

    def loss(result: Result) -> Floats:
        values = result.resampled(column, replicas)
        if isinstance(better, float):
            return np.asarray(np.abs(values - better))
        return values if better == "lower" else -values

    with np.errstate(invalid="ignore"):  # inf − inf decides nothing
        return bool(np.percentile(loss(this) - loss(other), 97.5) < 0)


def header(column: Column) -> str:
    """crps_y · gap ↓ (unit)"""
    name, region = column
    score = SCORES[name]
    where = "" if name in ("gap_ratio", "gap_wider", "rhat") and region == "all" else f" · {region}"
    unit = f" ({score.unit})" if score.unit else ""
    return f"{name}{where} {score.direction}{unit}".replace("  ", " ").strip()


def entry(line: pd.Series) -> tuple[str, str]:
    """What is printed of a line: the value; below it its interval, and how many replicas have one if not all do."""
    if np.isnan(line["value"]):
        return "n/a", ""
    below = [] if np.isnan(line["low"]) else [f"[{number(line['low'])}, {number(line['high'])}]"]
    sound = line["replicas"] - line["failed"]
    below += [f"{line['known']} of {sound}"] if line["known"] < sound else []
    return number(line["value"]) + ("*" if line["best"] else ""), " ".join(below)


def number(value: float) -> str:
    if np.isnan(value):
        return "n/a"
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"


def _grid(frame: pd.DataFrame) -> tuple[list[Column], list[tuple[str, list[pd.Series]]]]:
    """Columns in which something is defined, and for each row name its lines: ranked by CRPS, then not converged, then
    failed, then controls."""
    columns = list(dict.fromkeys(zip(frame["score"], frame["region"], strict=True)))
    cells = {(line["row"], line["score"], line["region"]): line for _, line in frame.iterrows()}
    rows = list(dict.fromkeys(frame["row"]))
    order = ("ranked", "not converged", "failed", "reference", "floor", "ceiling")

    def rank(row: str) -> tuple[int, float]:
        lines = [cells[row, *column] for column in columns]
        named = [name for name in ("crps_y", "crps_f") if any(line["score"] == name for line in lines)][:1]
        crps = [line["value"] for line in lines if line["score"] in named and not np.isnan(line["value"])]
        return order.index(lines[0]["status"]), sum(crps)

    defined = [column for column in columns if any(not np.isnan(cells[row, *column]["value"]) for row in rows)]
    columns = defined or columns
    return columns, [(row, [cells[row, *column] for column in columns]) for row in sorted(rows, key=rank)]


def label(line: pd.Series) -> str:
    """A row's name with what a reader must know of it."""
    remarks = [] if line["status"] in ("ranked", line["row"]) else [str(line["status"])]
    if line["failed"]:
        remarks.append(f"{line['failed']} of {line['replicas']} replicas failed")
    return str(line["row"]) + (f" ({', '.join(remarks)})" if remarks else "")


def text(frame: pd.DataFrame) -> list[Table]:
    """One rich table for each dataset."""
    tables = []
    for dataset, part in frame.groupby("dataset", sort=False):
        columns, rows = _grid(part)
        table = Table(title=escape(_title(str(dataset), part)), title_justify="left", pad_edge=False)
        table.add_column("")
        for column in columns:
            table.add_column(header(column).replace(" · ", "\n"), justify="right")
        status = ""
        for _, lines in rows:
            if status and (status == "ranked") != (lines[0]["status"] == "ranked"):
                table.add_section()
            status = lines[0]["status"]
            shown = [entry(line) for line in lines]
            table.add_row(
                escape(label(lines[0])),
                *(f"[bold]{value}[/]" if value.endswith("*") else value for value, _ in shown),
            )
            table.add_row("", *(f"[dim]{escape(below)}[/]" if below else "" for _, below in shown))
        tables.append(table)
    return tables


def markdown(frame: pd.DataFrame) -> str:
    """One GitHub table for each dataset."""
    parts = []
    for dataset, part in frame.groupby("dataset", sort=False):
        columns, rows = _grid(part)
        lines = [f"**{_title(str(dataset), part)}**", ""]
        lines.append("| | " + " | ".join(header(column) for column in columns) + " |")
        lines.append("| --- |" + " ---: |" * len(columns))
        for _, cells in rows:
            shown = [
                (f"**{value.rstrip('*')}**" if value.endswith("*") else value)
                + (f"<br><sub>{below}</sub>" if below else "")
                for value, below in map(entry, cells)
            ]
            lines.append(f"| {label(cells[0])} | " + " | ".join(shown) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def run_table(results: Sequence[Result], markdown: bool = False) -> Any:
    """What the runs say of themselves: seconds and each method's diagnostics, means over replicas. A rich table, or
    markdown text."""
    methods = [result for result in results if result.kind == "method"]
    names = list(dict.fromkeys(name for result in methods for name in result.diagnostics))
    header = ["dataset", "row", "seconds", *names]
    lines = []
    for result in methods:
        seconds = sum(float(str(run["seconds"])) for run in result.provenance)
        means = [_mean(result, name) if name in result.diagnostics else "" for name in names]
        lines.append([result.dataset, result.row, f"{seconds:.0f}", *means])
    if markdown:
        return "\n".join(
            "| " + " | ".join(line) + " |" for line in [header, ["---", "---", *["---:"] * (len(header) - 2)], *lines]
        )
    table = Table(title="Runs: seconds, and each method's diagnostics", title_justify="left", pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index < 2 else "right")
    for line in lines:
        table.add_row(*map(escape, line))
    return table


def _mean(result: Result, diagnostic: str) -> str:
    values = result.diagnostics[diagnostic][result.sound]
    return number(float(values.mean())) if len(values) else "n/a"


def provenance(results: Sequence[Result]) -> list[str]:
    """One sentence for each kind of machine and software that the rows were computed on; a mixture says so."""
    kinds: dict[str, dict[str, None]] = {}
    for result in results:
        for run in result.provenance:
            versions = run["versions"]
            assert isinstance(versions, Mapping)
            where = f"{run['device']}, torch {versions['torch']}, gapbench {versions['gapbench']}"
            kinds.setdefault(where, {})[result.row] = None
    if len(kinds) == 1:
        return [f"Computed on: {next(iter(kinds))}"]
    return [f"Mixed machines or versions! {', '.join(rows)} computed on: {where}" for where, rows in kinds.items()]


def _title(dataset: str, part: pd.DataFrame) -> str:
    replicas = part["replicas"].max()
    return f"{dataset}: mean over {replicas} replica{'s' if replicas > 1 else ''}, 95 % interval below"


def remarks(frame: pd.DataFrame) -> list[str]:
    """What the columns COMPARED say in words: bugs (a ceiling beaten) and findings (a floor not reached)."""
    found = []
    for kind, sentence in (
        ("beats_ceiling", "{row} beats the true p(y | x) on {where}: a bug, in the method or in the score"),
        ("loses_to_floor", "{row} does worse than the untrained prior on {where}"),
    ):
        for (dataset, row), part in frame[frame[kind]].groupby(["dataset", "row"], sort=False):
            where = ", ".join(f"{line.score} · {line.region}" for line in part.itertuples())
            found.append(f"{dataset}: " + sentence.format(row=row, where=where))
    return found


def departures(results: Sequence[Result]) -> list[str]:
    """Where PITs are independent: which rows depart from uniform further than exact Bayes would by chance."""
    found = []
    for dataset in dict.fromkeys(result.dataset for result in results if result.independent):
        within, outside, bands = [], [], {0.0}
        for result in results:
            columns = [("pit_distance_f", region) for region in result.regions]
            replicas = [result.valid(column) for column in columns]
            if result.dataset != dataset or not all(map(len, replicas)):
                continue
            band = pit_band(min(map(len, replicas)), len(columns))
            bands.add(band)
            beyond = [
                f"{region} {number(distance)}"
                for (name, region), chosen in zip(columns, replicas, strict=True)
                if (distance := float(result.estimates((name, region), chosen, np.ones(len(chosen))))) > band
            ]
            outside += [f"{result.row} ({', '.join(beyond)})"] if beyond else []
            within += [] if beyond else [result.row]
        if within or outside:
            found.append(
                f"{dataset}: with probability 95 % the PITs of f under exact Bayes are within {number(max(bands))} of "
                f"uniform in all regions. Within: {', '.join(within) or 'none'}. "
                f"Beyond: {', '.join(outside) or 'none'}."
            )
    return found
