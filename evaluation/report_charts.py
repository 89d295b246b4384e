"""The charts of a report as numbers: which methods, which points, which ends of the axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapbench.datasets.streams import stream
from gapbench.evaluation.bootstrap import MIN_REPLICAS, RESAMPLES, Bootstrap, estimate
from gapbench.evaluation.calibration import pit_band
from gapbench.evaluation.compare import Estimate
from gapbench.evaluation.drawing import Style, drawable, on_its_line, quantity_of, runs
from gapbench.evaluation.headline import MARKS, NARROW, WIDE, percent
from gapbench.evaluation.results import Column, Floats, Result
from gapbench.evaluation.tables import regions_of, scored_f

POINTS = 121  # of an embedded curve, as published
SPARSE = 61  # points of a line that is drawn once
DOTS = 100  # training points that a panel shows
HOLDS = (0.85, 0.95)  # shares that a 90 % interval may hold and be called right


@dataclass(frozen=True)
class Measured:
    """A method in a chart, with a number for each of its regions."""

    method: str
    label: str
    style: Style
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True)
class Dots:
    """A chart with a row a method. series: the regions. right: the right value, in the range of what may be called
    right. word: a number in text."""

    title: str
    axis: str
    series: tuple[str, ...]
    rows: tuple[Measured, ...]
    right: float
    about: tuple[float, float]
    log: bool
    limits: tuple[float, float]
    word: Callable[[float], str]

    @property
    def intervals(self) -> bool:
        """True if some number has an interval: few replicas and splits of one table have none."""
        return any(np.isfinite([one.low, one.high]).all() for row in self.rows for one in row.estimates)


@dataclass(frozen=True)
class Curve:
    """A method's line in a chart. values: (n,), nan where there is none."""

    method: str
    label: str
    style: Style
    values: Floats


@dataclass(frozen=True)
class Curves:
    """A chart of lines over x. gaps: the spans without data. diagonal: True if lines should lie on it. band: around the
    diagonal or a line, (2, n); note: what it is. right: the y that is right. ticks: the words of x where x is no scale;
    lines then have marks."""

    title: str
    axis: str
    unit: str
    x: Floats
    lines: tuple[Curve, ...]
    log: bool
    limits: tuple[float, float]
    gaps: tuple[tuple[float, float], ...] = ()
    diagonal: bool = False
    band: Floats | None = None
    note: str = ""
    right: float | None = None
    ticks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spot:
    """A method in a scatter: its cost x and its score y."""

    method: str
    label: str
    style: Style
    x: float
    y: Estimate
    ranked: bool


@dataclass(frozen=True)
class Scatter:
    """A chart of scores against costs, both on logarithmic axes. front: the methods that no other one beats in both."""

    title: str
    axis: str
    unit: str
    spots: tuple[Spot, ...]
    front: tuple[str, ...]


@dataclass(frozen=True)
class Band:
    """A method's 5, 50 and 95 % of f, or of y where it has no f: (3, R, n), nan where there is none."""

    method: str
    label: str
    style: Style
    of: str
    quantiles: Floats


@dataclass(frozen=True)
class Bands:
    """The bands of a dataset. x: (n,). across, limits: the ends of both axes. truth: (R, n). reference: 5 and 95 % of
    f, (2, R, n). data: training points of each replica, x and y; None if unknown."""

    dataset: str
    x: Floats
    across: tuple[float, float]
    limits: tuple[float, float]
    gaps: tuple[tuple[float, float], ...]
    replicas: tuple[int, ...]
    truth: Floats | None
    reference: Floats | None
    data: tuple[tuple[Floats, Floats] | None, ...]
    methods: tuple[Band, ...]


def answer(rows: Sequence[Result], style: Mapping[str, Style]) -> Dots | None:
    """The std over the true posterior's, or where it is unknown the share that 90 % intervals hold; by region."""
    regions = regions_of(rows)
    shown = [name for name in ("data", "gap") if name in regions] or regions[-1:]
    methods = [one for one in rows if one.kind == "method" and one.status != "failed"]

    def known(score: str) -> bool:
        return any(len(one.valid((score, region))) for one in methods for region in shown)

    ratio = known("reference_log_std")
    tasks = rows[0].layout.points == "tasks" and scored_f(rows)
    score = (
        "reference_log_std" if ratio else "coverage_90_f" if tasks or not known("coverage_90_y") else "coverage_90_y"
    )
    made = {}
    for region in shown:
        bootstrap = Bootstrap((score, region))
        independent = rows[0].layout.independent
        for one in methods:
            value = estimate(one, (score, region), one.valid((score, region)))
            low, high = bootstrap.interval(one) if independent else (np.nan, np.nan)
            ends = (value, low, high)
            made[one.method, region] = Estimate(*(float(np.exp(min(end, 700.0))) for end in ends) if ratio else ends)
    points = [
        Measured(one.method, label(one), style[one.method], tuple(made[one.method, r] for r in shown))
        for one in methods
    ]
    points = [row for row in points if np.isfinite([one.value for one in row.estimates]).any()]
    if not points:
        return None
    points.sort(key=lambda row: (row.estimates[-1].value, row.method))
    what = "std of f ÷ the true posterior's" if ratio else f"share that 90 % intervals of {score[-1]} hold"
    values = [
        end for row in points for one in row.estimates for end in vars(one).values() if np.isfinite(end) and end > 0
    ]
    limits = (max(1e-3, min([0.5, *values]) * 0.8), min(1e3, max([2.0, *values]) * 1.25)) if ratio else (0.0, 1.0)
    return Dots(
        f"{rows[0].dataset}: {what}",
        what,
        tuple(shown),
        tuple(points),
        1.0 if ratio else 0.9,
        right_range(ratio),
        ratio,
        limits,
        ratio_words if ratio else percent,
    )


def right_range(ratio: bool) -> tuple[float, float]:
    """The range of right values: of stds over the true posterior's, or of shares that 90 % intervals hold."""
    return (NARROW, WIDE) if ratio else HOLDS


def judged(rows: Sequence[Result]) -> Column:
    """The score and region by which a dataset's methods are compared: how far they are from the true posterior in the
    gap where that is known, else the CRPS of what is known."""
    regions = regions_of(rows)
    region = "gap" if "gap" in regions else regions[-1]
    tasks = rows[0].layout.points == "tasks" and scored_f(rows)
    scores = ("reference_w1", *(("crps_f",) if tasks else ()), "crps_y", "crps_f")
    methods = [one for one in rows if one.kind == "method"]
    there = [score for score in scores if any(len(one.valid((score, region))) for one in methods)]
    return (there or ["crps_y"])[0], region


def label(result: Result) -> str:
    """The method's name, with the mark that the leaderboard gives it."""
    return result.method + (f" {MARKS[result.status]}" if result.status in MARKS else "")


def ratio_words(value: float) -> str:
    return f"{value:.2f}" if 0.095 <= value < 9.95 else f"{value:.2g}"


def _on_grid(rows: Sequence[Result]) -> list[Result]:
    """The results that curves are drawn of, with their points on the layout's line."""
    there = [one for one in rows if one.layout.drawn and "x_test" in one.curves and one.kind != "oracle"]
    return [on_its_line(one) for one in there if one.sound.any()]


def _across(result: Result) -> Floats:
    layout = result.layout
    return result.curves["x_test"][0, :, layout.feature if layout.line is None and layout.feature is not None else 0]


def _spans(result: Result) -> tuple[tuple[float, float], ...]:
    """The gaps, each from one test point before it to one after."""
    x = _across(result)
    order = np.argsort(x, kind="stable")
    x, inside = x[order], result.inside("gap")[0][order]
    return tuple((float(x[max(start - 1, 0)]), float(x[min(stop, len(x) - 1)])) for start, stop in runs(inside))


def _thinned(known: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
    """Evenly spaced positions among those that are known, `most` at most."""
    at = np.flatnonzero(known)
    chosen: NDArray[np.int64] = at[np.unique(np.linspace(0, len(at) - 1, min(most, len(at))).round().astype(int))]
    return chosen


def stds(rows: Sequence[Result], style: Mapping[str, Style]) -> Curves | None:
    """The std of f against x, mean over replicas."""
    found = [one for one in _on_grid(rows) if np.isfinite(one.curves.get("std_f", np.nan)).any()]
    if not found:
        return None
    known = np.any([np.isfinite(one.curves["std_f"]).any(0) for one in found], axis=0)
    at = _thinned(known, SPARSE)
    at = at[np.argsort(_across(found[0])[at], kind="stable")]
    lines, ends = [], []
    for one in found:
        std = one.curves["std_f"][one.sound][:, at]
        counts = np.isfinite(std).sum(0)
        mean = np.where(counts > 0, np.where(np.isfinite(std), std, 0).sum(0) / np.maximum(counts, 1), np.nan)
        values = np.where(mean > 0, mean, np.nan)
        if np.isfinite(values).any():
            lines.append(Curve(one.method, label(one), style[one.method], values))
            ends += [] if one.kind == "baseline" else [(float(np.nanmax(values)), float(np.nanmin(values)))]
    if not ends:
        return None
    peaks = sorted(peak for peak, _ in ends)
    middle = peaks[(len(peaks) - 1) // 2]  # no vague prior, and none that is certain, squeezes the others together
    limits = max(min(least for _, least in ends) * 0.8, middle * 1e-3), min(peaks[-1] * 1.25, middle * 30)
    title = f"{rows[0].dataset}: std of f against x, mean over replicas"
    return Curves(title, "x", "std of f", _across(found[0])[at], tuple(lines), True, limits, _spans(found[0]))


def calibration(rows: Sequence[Result], style: Mapping[str, Style]) -> list[Curves]:
    """The share of PITs below p against p, in the data and in the gap, with the band that chance leaves."""
    tasks = rows[0].layout.points == "tasks" and scored_f(rows)
    known = any(np.isfinite(one.pits["pit_y"]).any() for one in rows if one.kind == "method")
    of = "f" if tasks or not known else "y"
    level, charts = np.linspace(0, 1, 41), []
    regions = regions_of(rows)
    shown = [name for name in ("data", "gap") if name in regions] or regions[:2]
    for region in shown:
        lines = []
        for one in rows:
            if one.status == "failed" or (one.kind == "oracle" and of == "f"):
                continue
            pits = one.pits[f"pit_{of}"][one.inside(region)]
            if not np.isnan(pits).all():
                lines.append(Curve(one.method, label(one), style[one.method], _share(pits, level)))
        if lines:
            title = f"{rows[0].dataset}: calibration of {of}, {region}"
            unit = f"share of PITs of {of} ≤ p"
            if tasks:
                half, whose = pit_band(len(rows[0].replicas), len(shown)), "exact Bayes"
                band: Floats | None = np.clip([level - half, level + half], 0, 1)
            else:
                band, whose = chance(rows, of, region, level), "the true posterior"
            note = (
                "" if band is None else f"Grey: where the whole line of {whose} is in 95 % of as many other replicas."
            )
            charts.append(Curves(title, "p", unit, level, tuple(lines), False, (0.0, 1.0), (), True, band, note))
    return charts


def chance(rows: Sequence[Result], of: str, region: str, level: Floats) -> Floats | None:
    """The band around the true posterior's line that holds, at all p together, 95 % of the lines of as many other
    replicas, (2, n). By the bootstrap over replicas, since the PITs of one replica share its f. None if unknown."""
    true = next((one for one in rows if one.kind == "reference"), None)
    if true is None or not rows[0].layout.independent:
        return None
    pits = true.pits[f"pit_{of}"]
    inside = true.inside(region) & ~np.isnan(pits)
    known = np.flatnonzero(inside.any(1))
    if len(known) < MIN_REPLICAS:
        return None
    below = np.stack([np.searchsorted(np.sort(pits[r][inside[r]]), level, side="right") for r in known])
    count, even = inside[known].sum(1), np.full(len(known), 1 / len(known))
    drawn = stream("calibration", rows[0].dataset, region).multinomial(len(known), even, RESAMPLES)
    line = below.sum(0) / count.sum()
    half = float(np.quantile(np.abs((drawn @ below) / (drawn @ count)[:, None] - line).max(1), 0.95))
    return np.asarray(np.clip([line - half, line + half], 0, 1))


def _share(pits: Floats, level: Floats) -> Floats:
    u = np.sort(pits[~np.isnan(pits)])
    return np.searchsorted(u, level, side="right") / len(u)


def bands(rows: Sequence[Result], style: Mapping[str, Style]) -> Bands | None:
    """The bands of every replica of which some are known: published folders of many methods have one."""
    found = [one for one in _on_grid(rows) if drawable(one)]
    methods = [one for one in found if one.kind != "reference"]
    if not methods:
        return None
    first, x = methods[0], _across(methods[0])
    known = [np.isfinite(one.curves[f"{quantity_of(one)}_95"]) for one in methods]
    replicas = np.unique(np.concatenate([one.replicas[each.any(1)] for one, each in zip(methods, known, strict=True)]))
    at = _thinned(np.any([each.any(0) for each in known], axis=0), POINTS)
    at = at[np.argsort(x[at], kind="stable")]

    def spread(one: Result, name: str) -> Floats:
        """A curve on all of these replicas, (R, n); nan where the method has none."""
        full, own = np.full((len(replicas), len(at)), np.nan), np.isin(one.replicas, replicas)
        full[np.searchsorted(replicas, one.replicas[own])] = one.curves[name][own][:, at]
        return full

    made = []
    for one in methods:
        of = quantity_of(one) or "f"
        quantiles = np.stack([spread(one, f"{of}_{level}") for level in ("05", "50", "95")])
        made.append(Band(one.method, label(one), style[one.method], of, quantiles))
    true = [one for one in found if one.kind == "reference" and quantity_of(one) == "f"]
    reference = np.stack([spread(true[0], f"f_{level}") for level in ("05", "95")]) if true else None
    truth = _first_known([spread(one, "f_test") for one in found if "f_test" in one.curves])
    data = tuple(_data(found, int(replica)) for replica in replicas)
    core = [values for pair in data if pair for values in pair[1:]] + ([truth.ravel()] if truth is not None else [])
    core += [] if reference is None else [reference.ravel()]
    limits = _limits(core, [band.quantiles for band, one in zip(made, methods, strict=True) if one.kind == "method"])
    across = float(x[at].min()), float(x[at].max())
    whole = tuple(int(replica) for replica in replicas)
    gaps = _spans(first)
    return Bands(rows[0].dataset, x[at], across, limits, gaps, whole, truth, reference, data, tuple(made))


def _first_known(arrays: Sequence[Floats]) -> Floats | None:
    """The arrays as one: of each number the first that is known."""
    if not arrays:
        return None
    found = arrays[0]
    for other in arrays[1:]:
        found = np.where(np.isnan(found), other, found)
    return found


def _data(rows: Sequence[Result], replica: int) -> tuple[Floats, Floats] | None:
    """Training points of a replica, x and y; None if no result has them."""
    for one in rows:
        at = np.flatnonzero(one.replicas == replica)
        if len(at) and "x" in one.curves and np.isfinite(one.curves["y"][at[0]]).any():
            layout = one.layout
            feature = layout.feature if layout.line is None and layout.feature is not None else 0
            y = one.curves["y"][at[0]]
            chosen = _thinned(np.isfinite(y), DOTS)
            return one.curves["x"][at[0], chosen, feature], y[chosen]
    return None


def _limits(core: Sequence[Floats], wide: Sequence[Floats]) -> tuple[float, float]:
    """The ends of the y axis: data, truth and reference are inside, bands add at most the same height on each side."""
    inside = np.concatenate([values[np.isfinite(values)].ravel() for values in core or wide])
    around = np.concatenate([inside, *(values[np.isfinite(values)].ravel() for values in wide)])
    low, high = (float(inside.min()), float(inside.max())) if len(inside) else (0.0, 1.0)
    height = 0.5 * ((high - low) or abs(high) or 1.0)
    low, high = max(float(around.min()), low - height), min(float(around.max()), high + height)
    margin = 0.04 * ((high - low) or 1.0)
    return low - margin, high + margin
