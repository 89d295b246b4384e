"""The figures, drawn from results; nothing here is computed that is not in the records."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray
from PIL import Image

from gapbench.evaluation.bootstrap import Bootstrap, estimate
from gapbench.evaluation.calibration import pit_band
from gapbench.evaluation.drawing import (
    COLOURS,
    PANELS,
    Style,
    by_position,
    drawable,
    families,
    of_knobs,
    on_its_line,
    quantity_of,
    runs,
    searches,
    styles,
)
from gapbench.evaluation.heat_map import MANY, Panel, Scale, heat_map
from gapbench.evaluation.knobs import AT_CENTER, KNOBS, WORDS, places
from gapbench.evaluation.notebooks import pairs
from gapbench.evaluation.results import Floats, Result
from gapbench.evaluation.tables import cpu_seconds

matplotlib.use("Agg")

OVER = "#FCEDE3"  # of the over-confident side of a calibration figure
BANDS = ("05", "25", "50", "75", "95")  # quantiles in per cent
TICKS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of the colours of a std over the posterior's
EXTREME = 10.0  # the most powers of ten of such a ratio; a std of 0 has no logarithm


@dataclass(frozen=True)
class Drawn:
    """paths: the files written. skipped: a sentence for each figure that cannot be drawn."""

    paths: list[Path]
    skipped: list[str]


class Undrawable(Exception):
    """The reason why a figure cannot be drawn, in words that go on after the figure's name."""


def plot(results: Sequence[Result], folder: Path, formats: Sequence[str] = ("png",), limit: int | None = None) -> Drawn:
    """Every figure of every dataset, as files in `folder`: "png", "svg". The same results give the same bytes.

    limit: the most bytes that a PNG may have; colours and resolution give way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn, style = Drawn([], []), styles(results)

    def write(figure: Figure, stem: str) -> None:
        for form in formats:
            drawn.paths.append(folder / f"{stem}.{form}")
            drawn.paths[-1].write_bytes(_bytes(figure, form, stem, limit))

    if of_knobs(results):  # each dataset's own figures would be many, and say less
        for name, score in (("std", "reference_log_std"), ("distance", "reference_w1")):
            try:
                write(turned(results, style, score), f"knobs_{name}")
            except Undrawable as reason:
                drawn.skipped.append(f"no figure of the knobs' {name}: {reason}")
        return drawn
    if pairs(results):  # their own figures say less too
        write(of_notebooks(results), "notebooks")
        return drawn
    if all(result.layout.points == "rows" for result in results):
        with suppress(Undrawable):
            write(of_tables(results), "tables")
            if len({result.dataset for result in results}) > FEW:  # their own figures would be many
                return drawn
    for dataset in dict.fromkeys(result.dataset for result in results):
        rows = [result for result in results if result.dataset == dataset and result.status != "failed"]
        figures = FIGURES if rows else {}
        for name, make in figures.items():
            if name in OCCASIONAL and not OCCASIONAL[name](rows):
                continue
            try:
                figure = make(rows, style)
            except Undrawable as reason:
                drawn.skipped.append(f"{dataset}: no figure of {name}: {reason}")
                continue
            write(figure, f"{dataset}_{name}")
    return drawn


def bands(rows: Sequence[Result], style: Mapping[str, Style]) -> Figure:
    """A panel a method: one replica's data, the truth, the median of f, and the intervals that hold 50 and 90 % of it.
    Of y where a method has no f."""
    rows = [result for result in rows if result.kind != "oracle"]
    feature = _feature(rows)
    rows = [on_its_line(result) for result in rows]
    if len(rows) > PANELS:
        raise Undrawable(f"{len(rows)} methods, and {PANELS} panels are the most; choose some with --methods")
    drawable = [(result, of) for result in rows if (of := quantity_of(result))]
    if not drawable:
        raise Undrawable("no method's record has quantiles of f or y")
    columns = 2 if len(drawable) == 4 else 3 if len(drawable) <= 12 else 4 if len(drawable) <= 24 else 5
    across = min(columns, len(drawable))
    down = -(-len(drawable) // across)
    figure = Figure(figsize=(4.2 * min(across, 3), (2.8 if across < 4 else 2.2) * down + 0.6), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    first = drawable[0][0]
    replica = int(first.replicas[_first_sound(first)])
    for ax, (result, of) in zip(axes, drawable, strict=False):
        r = _first_sound(result)
        remarks = [] if result.replicas[r] == replica else [f"replica {result.replicas[r]}"]
        remarks += [] if of == "f" else ["of y"]
        _band(ax, result, of, r, feature, style[result.method][0])
        ax.set_title(_verbatim(", ".join([result.label, *remarks])), fontsize=10)
    axes[0].set_ylim(_limits(drawable))
    for index in range(len(drawable), len(axes)):
        axes[index].set_visible(False)
        axes[index - across].tick_params(labelbottom=True)  # the last of its column now
    figure.supxlabel(_x_label(first, feature), fontsize=10)
    shown = {of for _, of in drawable}
    figure.supylabel("f(x)" if shown == {"f"} else "y", fontsize=10)
    what = "f" if shown == {"f"} else "y" if shown == {"y"} else "f (of y where it says so)"
    truth = "; dashed the truth" if "f_test" in first.curves else ""
    heading = f"{first.dataset}, replica {replica}: median, 50 and 90 % of {what}{truth}; grey the data"
    figure.suptitle(
        _wrapped(heading + (" and the gap" if first.inside("gap").any() else ""), 52 * min(across, 3)), fontsize=11
    )
    return figure


def _band(ax: Axes, result: Result, of: str, r: int, feature: int, colour: str) -> None:
    """One panel of `bands`. of: "f" or "y". r: the position of the replica."""
    x = result.curves["x_test"][r, :, feature]
    low, lower, middle, upper, high = (result.curves[f"{of}_{level}"][r] for level in BANDS)
    ax.plot(result.curves["x"][r, :, feature], result.curves["y"][r], ".", color="#999999", ms=3, alpha=0.5, zorder=1)
    for bottom, top, alpha in ((low, high, 0.18), (lower, upper, 0.35)):
        at, bottom, top = _known(x, bottom, top)
        ax.fill_between(at, bottom, top, color=colour, alpha=alpha, lw=0)
    ax.plot(*_known(x, middle), color=colour, lw=1.6)
    if "f_test" in result.curves:
        ax.plot(*_known(x, result.curves["f_test"][r]), color="black", lw=1, ls="--")
    _shade_gap(ax, result, feature)


def panel(result: Result, rows: Sequence[Result]) -> Figure | None:
    """A method's panel of `bands` alone, with the limits that all rows of its dataset share; None without quantiles."""
    of = quantity_of(result)
    if of is None or not drawable(result):
        return None
    figure = Figure(figsize=(3.6, 2.4), layout="constrained")
    ax = figure.subplots()
    _band(ax, result, of, _first_sound(result), _feature([result]), COLOURS[0])
    ax.set_ylim(_limits([(one, quantity) for one in rows if drawable(one) and (quantity := quantity_of(one))]))
    ax.set(xlabel="x", ylabel=of)
    return figure


def picture(figure: Figure, name: str, limit: int) -> bytes:
    """A figure as a PNG of at most `limit` bytes, if colours and resolution can give way so far."""
    return _bytes(figure, "png", name, limit)


def stds(rows: Sequence[Result], style: Mapping[str, Style]) -> Figure:
    """The std of f against x, mean over replicas, of every method that has one. Of many methods, if the posterior is
    known: the std over the posterior's, in colours."""
    rows = [result for result in rows if result.kind != "oracle"]
    feature = _feature(rows)
    rows = [on_its_line(result) for result in rows if np.isfinite(result.curves.get("std_f", np.nan)).any()]
    if not rows:
        raise Undrawable("no method has a std of f")
    if len(rows) > MANY and any(result.kind == "reference" for result in rows):
        return _stds_by_rows(rows, feature)
    labels = [result.label for result in rows]
    figure = Figure(figsize=(8, 4.2 + 0.22 * _lines(labels, 8)), layout="constrained")  # it grows with its legend
    ax = figure.subplots()
    lows, peaks = {}, []
    for result in rows:
        std = result.curves["std_f"]
        here = np.isfinite(std).any(0)
        x, mean = result.curves["x_test"][0, here, feature], np.nanmean(std[:, here], 0)
        peaks += [float(mean.max())] if result.kind != "baseline" or len(rows) == 1 else []
        colour, line = style[result.method]
        [drawn] = ax.plot(*_known(x, mean), color=colour, ls=line, lw=1.8, label=_verbatim(result.label))
        lows[drawn] = float(mean.min())
    _shade_gap(ax, rows[0], feature)
    peaks = sorted(peak for peak in peaks if 0 < peak < np.inf)
    if peaks:  # a logarithm needs one method that is not certain of everything
        ax.set_yscale("log")
        # No vague prior, no method that blew up, and none that is certain somewhere squeezes the others together.
        middle = peaks[(len(peaks) - 1) // 2]
        highest = max(peak for peak in peaks if peak <= 1000 * middle)
        low, high = ax.get_ylim()
        above = [drawn for drawn, least in lows.items() if least > 20 * highest]
        ax.set_ylim(max(low, middle * 1e-4), min(high, (2 if above else 20) * highest))
        for drawn in above:
            drawn.set_label(f"{drawn.get_label()}, above: {lows[drawn]:.2g} or more")
    ax.set_xlabel(_x_label(rows[0], feature))
    ax.set_ylabel("std of f, units of y")
    title = f"{rows[0].dataset}: epistemic std, mean over {len(rows[0].replicas)} replicas"
    figure.suptitle(title + ("; grey the gap" if rows[0].inside("gap").any() else ""), fontsize=11)
    _legend(figure, ax)
    return figure


def _stds_by_rows(rows: Sequence[Result], feature: int) -> Figure:
    """The mean std of f over the posterior's, a row a method, in the order of how far they are off in the gap."""
    [posterior] = (at for at, result in enumerate(rows) if result.kind == "reference")
    means = np.full((len(rows), rows[0].curves["x_test"].shape[1]), np.nan)
    for mean, result in zip(means, rows, strict=True):
        std = result.curves["std_f"]
        known = ~np.isnan(std).all(0)
        mean[known] = np.nanmean(std[:, known], 0)
    x = rows[0].curves["x_test"][0, :, feature]
    order = np.argsort(x, kind="stable")
    order = order[np.isfinite(means[posterior, order])]
    with np.errstate(divide="ignore"):
        ratios = np.log10(means[:, order] / means[posterior, order]).clip(-EXTREME, EXTREME)
    inside = rows[0].inside("gap")[0][order]
    best = _nearest(ratios[:, inside] if inside.any() else ratios)
    edges = [edge for gap in _gaps(rows[0], feature) for edge in gap]
    figure = heat_map(
        [_verbatim(rows[at].label) for at in best],
        {"": Panel(x[order], ratios[best], _x_label(rows[0], feature), edges)},
        Scale("std ÷ posterior's (red: too narrow)", 1.0, "RdBu", {np.log10(one): f"{one:g}" for one in TICKS}),
    )
    title = f"{rows[0].dataset}: epistemic std ÷ the posterior's, mean over {len(rows[0].replicas)} replicas"
    figure.suptitle(_wrapped(title + ("; dashed: the ends of the gap" if edges else ""), 70), fontsize=11)
    return figure


def _nearest(off: Floats) -> NDArray[np.int64]:
    """The order of rows by how far they are off on average; those of which nothing is known come last."""
    far = [np.abs(row[~np.isnan(row)]).mean() if (~np.isnan(row)).any() else np.inf for row in off]
    return np.argsort(far, kind="stable")


def calibration(rows: Sequence[Result], style: Mapping[str, Style]) -> Figure:
    """P(u ≤ p) against p for pooled PITs by region: of y where the data are noisy, else of f. Of f also where every
    replica is a task of its own, with the band that the PITs of exact Bayes lie in. Of many methods, how many PITs too
    many lie beyond p, in colours."""
    tasks = rows[0].layout.points == "tasks" and any(_pits(result, "f") for result in rows)
    of = "f" if tasks or not any(_pits(result, "y") for result in rows) else "y"
    rows = [result for result in rows if _pits(result, of) and (of == "y" or result.kind != "oracle")]
    if not rows:
        raise Undrawable("neither y nor f has PITs")
    names = [name for name in rows[0].regions if rows[0].inside(name).any()] or ["all"]
    if len(rows) > MANY and not tasks:  # the band of exact Bayes needs lines
        return _calibration_by_rows(rows, of, names)
    across = min(len(names), 4)
    down = -(-len(names) // across)
    width = 3.3 * across if across > 1 else 4.4
    height = 3.3 * down + 0.6 + 0.2 * _lines([result.label for result in rows], width)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, region in zip(axes, names, strict=False):
        ax.plot([0, 1], [0, 1], color="#bbbbbb", lw=1)
        if tasks:
            distance = pit_band(len(rows[0].replicas), len(names))
            level = np.linspace(0, 1, 201)
            low, high = np.clip(level - distance, 0, 1), np.clip(level + distance, 0, 1)
            ax.fill_between(level, low, high, color="#cccccc", alpha=0.6, lw=0, zorder=0)
        for result in rows:
            colour, line = style[result.method]
            u = np.sort(result.pits[f"pit_{of}"][result.inside(region)])
            u = u[~np.isnan(u)]
            level = np.arange(1, len(u) + 1) / max(len(u), 1)
            ends = ([1.0] if len(u) else []), ([1.0] if len(u) else [])
            at, share = np.concatenate([[0], u, ends[0]]), np.concatenate([[0], level, ends[1]])
            label = _verbatim(result.label) if ax is axes[0] else None
            ax.plot(at, share, color=colour, ls=line, lw=1.6, drawstyle="steps-post", label=label)
        # Over-confident: too many of the values that were seen are below a low quantile, or above a high one.
        for corners in ([(0, 0), (0.5, 0.5), (0.5, 1), (0, 1)], [(1, 1), (0.5, 0.5), (0.5, 0), (1, 0)]):
            ax.add_patch(Polygon(corners, color=OVER, lw=0, zorder=-1))
        ax.set_title(_verbatim(region), fontsize=10)
        ax.set_aspect("equal")
        ax.set(xlim=(0, 1), ylim=(0, 1))
    for index in range(len(names), len(axes)):
        axes[index].set_visible(False)
        axes[index - across].tick_params(labelbottom=True)
    for index in range(max(len(names) - across, 0), len(names)):  # the lowest of each column
        axes[index].set_xlabel("p")
    figure.supylabel(f"share of PITs of {of} ≤ p", fontsize=10)
    what = f"{len(rows[0].replicas)} tasks; grey where exact Bayes lies with 95 %" if tasks else "pooled over replicas"
    heading = f"{rows[0].dataset}: calibration of {of}, {what}; tinted the over-confident side"
    figure.suptitle(_wrapped(heading, 13 * width), fontsize=11)
    _legend(figure, axes[0])
    return figure


def _calibration_by_rows(rows: Sequence[Result], of: str, regions: Sequence[str]) -> Figure:
    """The share of PITs that lie further out than p, less what it should be: a row a method, in the order of how far
    they are off in the gap."""
    level = np.linspace(0.02, 0.98, 49)
    side = np.where(level < 0.5, 1, np.where(level > 0.5, -1, 0))
    off = {region: np.full((len(rows), len(level)), np.nan) for region in regions}
    for region, values in off.items():
        for value, result in zip(values, rows, strict=True):
            u = result.pits[f"pit_{of}"][result.inside(region)]
            u = np.sort(u[~np.isnan(u)])
            if len(u):
                value[:] = side * (np.searchsorted(u, level, "right") / len(u) - level)
    best = _nearest(off["gap" if "gap" in off else regions[0]])
    panels = {_verbatim(region): Panel(level, values[best], "p") for region, values in off.items()}
    words = f"PITs of {of} further out than p: too many (red), too few (blue)"
    figure = heat_map([_verbatim(rows[at].label) for at in best], panels, Scale(words, 0.3, "RdBu_r", {}))
    figure.suptitle(f"{rows[0].dataset}: calibration of {of}, pooled over replicas", fontsize=11)
    return figure


def cost(rows: Sequence[Result], style: Mapping[str, Style]) -> Figure:
    """Distance to the reference posterior against gradient evaluations and, where it is known, CPU time, by region: a
    line a family of methods, with the intervals of the table. Lines have styles of their own, by position."""
    gradients = {
        result.method: float(result.diagnostics["gradient evaluations"][result.sound].mean())
        for result in rows
        if result.kind == "method" and "gradient evaluations" in result.diagnostics
    }
    regions = [name for name in rows[0].regions if any(len(one.valid(("reference_w1", name))) for one in rows)]
    regions = [name for name in ("data", "gap") if name in regions] or regions[:3]
    drawn = sorted((one for one in rows if gradients.get(one.method, 0) > 0), key=lambda one: gradients[one.method])
    if not regions or not drawn:
        raise Undrawable("no method has gradient evaluations and a distance to a reference posterior")
    lines = {name: [one for one in drawn if one.method in own] for name, own in families(rows).items()}
    lines |= {one.method: [one] for one in drawn if not any(one in own for own in lines.values())}
    style = by_position(list(lines))
    costs = {"gradients of one point, for a replica": gradients}
    seconds = {one.method: spent for one in drawn if (spent := cpu_seconds(one))}
    if len(seconds) == len(drawn):
        costs["CPU seconds, for a replica"] = seconds
    width = 4.6 * len(regions)
    height = 3.4 * len(costs) + 0.8 + 0.22 * _lines(list(lines), width)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(len(costs), len(regions), sharey=True, squeeze=False)
    fewer = False
    for row, (words, cost_of) in zip(axes, costs.items(), strict=True):
        for ax, region in zip(row, regions, strict=True):
            fewer |= _cost_panel(ax, lines, style, cost_of, region)
            ax.set(xscale="log", yscale="log", xlabel=words)
        row[0].set_ylabel("distance to the posterior (W1, in its stds)")
    for ax, region in zip(axes[0], regions, strict=True):
        ax.set_title(_verbatim(region), fontsize=10)
    hollow = "; hollow: over fewer" if fewer else ""
    title = f"{rows[0].dataset}: what compute buys, mean over {len(rows[0].replicas)} replicas{hollow}"
    figure.suptitle(f"{title}\n{DOTTED}", fontsize=11)
    _legend(figure, *axes.flat)
    return figure


def _cost_panel(
    ax: Axes,
    lines: Mapping[str, Sequence[Result]],
    style: Mapping[str, Style],
    costs: Mapping[str, float],
    region: str,
) -> bool:
    """Draw the lines of one region over the costs of their methods. True if a point is of fewer replicas."""
    column = ("reference_w1", region)
    bootstrap = Bootstrap(column)
    fewer = False
    for name, members in lines.items():
        own = sorted((one for one in members if len(one.valid(column))), key=lambda one: costs[one.method])
        if not own:
            continue
        colour, line = style[name]
        at = np.array([costs[result.method] for result in own])
        value = np.array([estimate(result, column, result.valid(column)) for result in own])
        low, high = np.array([bootstrap.interval(result) for result in own]).T
        ax.plot(at, value, marker="o", ls=line, color=colour, lw=1.8, ms=5, label=_verbatim(name))
        at_known, low, high = _known(at, low, high)
        ax.fill_between(at_known, low, high, color=colour, alpha=0.15, lw=0)
        some = np.array([len(result.valid(column)) < len(result.replicas) for result in own])
        if some.any():
            fewer = True
            ax.plot(at[some], value[some], marker="o", ls="", color=colour, mfc="white", ms=5)
    for level in floors([result for members in lines.values() for result in members], region):
        ax.axhline(level, color="#555555", lw=1, ls=":")
    return fewer


DOTTED = "dotted: what as many draws, or components, of the posterior itself have"


def floors(results: Iterable[Result], region: str) -> list[float]:
    """The mean distances to the reference that draws, or components, of the reference itself have, from the lowest.

    It depends on their kind and number, so results that share these have one floor: those within 15 % of each other.
    """
    column = ("reference_w1_mc_error", region)
    each = (estimate(one, column, one.valid(column)) for one in results if one.kind == "method")
    found = sorted(level for level in each if np.isfinite(level))
    groups: list[list[float]] = []
    for level in found:
        if groups and level < 1.15 * groups[-1][0]:
            groups[-1].append(level)
        else:
            groups.append([level])
    return [float(np.mean(group)) for group in groups]


def turned(results: Sequence[Result], style: Mapping[str, Style], score: str) -> Figure:
    """A score against each knob, in the data and in the gap: a panel a knob, a line a method. A point is hollow if the
    method did not converge there, or if some of its replicas failed.

    The dataset that all knobs start at is in every panel. score: "reference_log_std" or "reference_w1".
    """
    regions = ("data", "gap")
    turns = [
        (result, at)
        for result in results
        if result.kind == "method" and any(len(result.valid((score, region))) for region in regions)
        for at in places(result.dataset)
    ]
    knobs = [knob for knob in KNOBS if any(at[0] == knob and at[1] != AT_CENTER[knob] for _, at in turns)]
    if not knobs:
        raise Undrawable("no method has a distance to a reference posterior off the centre")
    figure = Figure(figsize=(2.7 * len(knobs) + 0.6, 5.8), layout="constrained")
    axes = figure.subplots(len(regions), len(knobs), sharey="row", sharex="col", squeeze=False)
    for row, region in zip(axes, regions, strict=True):
        column = (score, region)
        for ax, knob in zip(row, knobs, strict=True):
            here = sorted(((at[1], result) for result, at in turns if at[0] == knob), key=lambda one: one[0])
            here = [(value, result) for value, result in here if len(result.valid(column))]
            ticks = sorted({value for value, _ in here})
            for method in dict.fromkeys(result.method for _, result in here):
                own = [(value, result) for value, result in here if result.method == method]
                at = [ticks.index(value) for value, _ in own]
                values = [estimate(result, column, result.valid(column)) for _, result in own]
                colour, line = style[method]
                ax.plot(at, values, marker="o", ls=line, color=colour, lw=1.6, ms=4.5, label=_verbatim(method))
                whole = [len(result.valid(column)) == len(result.replicas) for _, result in own]
                hollow = [i for i, (_, result) in enumerate(own) if result.status != "ranked" or not whole[i]]
                ax.plot([at[i] for i in hollow], [values[i] for i in hollow], "o", color=colour, mfc="white", ms=4.5)
            ax.margins(x=0.12)
            ax.set_xticks(range(len(ticks)), [f"{value:g}" for value in ticks])
            if score == "reference_log_std":
                ax.axhline(0, color="#000000", lw=1)
            else:
                ax.set_yscale("log")
                for place, value in enumerate(ticks):
                    for level in floors([result for at, result in here if at == value], region):
                        ax.plot([place - 0.3, place + 0.3], [level, level], color="#555555", lw=1, ls=":")
        row[0].set_ylabel(f"in the {region}")
    for ax, knob in zip(axes[-1], knobs, strict=True):
        ax.set_xlabel(WORDS[knob], fontsize=9)
    title = [f"{TURNED[score]}: one factor at a time; hollow: not converged, or some replicas failed"]
    title += [DOTTED] if score == "reference_w1" else []
    figure.suptitle("\n".join(_wrapped(line, 13 * figure.get_figwidth()) for line in title), fontsize=11)
    _legend(figure, *axes.flat)
    return figure


TURNED = {
    "reference_log_std": "Log of the std of f over the posterior's (0 is right)",
    "reference_w1": "Distance to the posterior (W1, in its stds)",
}


def of_notebooks(results: Sequence[Result]) -> Figure:
    """A column a notebook, with the pair of plots that it has: median ± std of f with the data of one seed, and the
    mean std over seeds against x, beside the same method in the suite's common setting."""
    drawn = pairs(results)
    figure = Figure(figsize=(2.9 * len(drawn) + 0.4, 5.6), layout="constrained")
    axes = figure.subplots(2, len(drawn), sharex=True, sharey="row", squeeze=False)
    for (above, below), (result, common) in zip(axes.T, drawn, strict=True):
        r, feature = _first_sound(result), _feature([result])
        curves = result.curves
        x = curves["x_test"][r, :, feature]
        above.plot(curves["x"][r, :, feature], curves["y"][r], ".", color="#999999", ms=2, alpha=0.4)
        at, middle, std = _known(x, curves["f_50"][r], curves["std_f"][r])
        above.fill_between(at, middle - std, middle + std, color=COLOURS[0], alpha=0.3, lw=0)
        above.plot(at, middle, color=COLOURS[0], lw=1.5)
        above.plot(*_known(x, curves["f_test"][r]), color="black", lw=1, ls="--")
        above.set_title(_verbatim(result.method.removesuffix("_notebook").replace("_", " ")), fontsize=10)
        labels = ("as it was", "common setting")
        for label, one, (colour, line) in zip(labels, (result, common), by_position(labels).values(), strict=True):
            if one is not None:
                at, mean = one.curves["x_test"][0, :, feature], np.nanmean(one.curves["std_f"][one.sound], 0)
                below.plot(*_known(at, mean), color=colour, ls=line, lw=1.6, label=label)
        below.set_yscale("log")
        for ax in (above, below):
            _shade_gap(ax, result, feature)
    axes[0, 0].set_ylabel("f(x)")
    axes[1, 0].set_ylabel("std of f")
    seeds = max(int(result.sound.sum()) for result, _ in drawn)
    figure.suptitle(
        f"The five notebooks: median ± std with the data of one seed, dashed the truth; mean std over {seeds} seeds",
        fontsize=11,
    )
    _legend(figure, *axes[1])
    return figure


TABLES, FEW = 8, 2  # columns of a figure; tables that also have figures of their own


TABLE_SCORES = {
    "nll_y": "NLL of y",
    "coverage_90_y": "90 % has y",
    "reference_log_std": "log of std ÷ posterior's",
    "reference_w1": "distance to the posterior",
}


def of_tables(results: Sequence[Result]) -> Figure:
    """A column a table of held-out rows, or a line if tables are few: the NLL of y, how often its 90 % interval holds
    y, and where the posterior is known how near f is to it. In a panel a line a method: filled among the data, hollow
    in the gap; an arrow where the value is beyond the panel."""
    methods = [one for one in results if one.kind == "method" and one.sound.any()]
    tables, names = (list(dict.fromkeys(getattr(one, part) for one in methods)) for part in ("dataset", "method"))
    points = {
        (one.dataset, one.method, score, region): estimate(one, (score, region), one.valid((score, region)))
        for one in methods
        for score in TABLE_SCORES
        for region in ("data", "gap")
        if len(one.valid((score, region)))
    }
    if not points:
        raise Undrawable("no method has a score of y among the data or in a gap")
    across = len(tables)
    if across > TABLES:
        raise Undrawable(f"{across} tables, and {TABLES} are the most; choose some with --datasets")
    scores = [score for score in TABLE_SCORES if {at[0] for at in points if at[2] == score} == set(tables)]
    beside = across < len(scores)  # the panels of a table stand side by side if tables are few
    shape = (across, len(scores)) if beside else (len(scores), across)
    figure = Figure(figsize=(1.6 + 1.55 * shape[1], shape[0] * (0.19 * len(names) + 0.9)), layout="constrained")
    axes = figure.subplots(*shape, sharey=True, squeeze=False)
    places = {name: -at for at, name in enumerate(names)}
    common = "_gap" if all(table.endswith("_gap") for table in tables) else ""
    for panels, table in zip(axes if beside else axes.T, tables, strict=True):
        for ax, score in zip(panels, scores, strict=True):
            found = {at: value for at, value in points.items() if at[0] == table and at[2] == score}
            left, right = _span(score, [value for value in found.values() if np.isfinite(value)])
            if score in RIGHT:
                ax.axvline(RIGHT[score], color="#000000", lw=1)
            for (_, name, _, region), value in found.items():
                beyond = not left <= value <= right
                margin = 0.02 * (right - left)
                marker = ("<" if value < left else ">") if beyond else "o"
                at = (left + margin if value < left else right - margin) if beyond else value
                filled = COLOURS[0] if region == "data" else "white"
                ax.plot(
                    at, places[name], marker, color=COLOURS[0 if region == "data" else 1], mfc=filled, ms=5, mew=1.4
                )
            ax.set_xlim(left, right)
            ax.grid(axis="y", color="#dddddd", lw=0.6)
            ax.tick_params(labelsize=8)
            ax.locator_params(axis="x", nbins=3)
            ax.set_xlabel(TABLE_SCORES[score], fontsize=8)
        panels[0].set_title(_verbatim(table.removesuffix(common)), fontsize=10)
    for ax in axes[:, 0]:
        ax.set_yticks(list(places.values()), [_verbatim(name) for name in names], fontsize=8)
    there = {at[3] for at in points}
    kinds = {"data": "filled: held-out rows", "gap": "hollow: in the gap"}
    where = "; ".join(words for region, words in kinds.items() if region in there)
    figure.suptitle(_wrapped(f"{where}; an arrow: beyond the panel", 13 * figure.get_figwidth()), fontsize=10)
    return figure


RIGHT = {"coverage_90_y": 0.9, "reference_log_std": 0.0}  # the right value of a score


def _span(score: str, finite: Sequence[float]) -> tuple[float, float]:
    """The values of a score that a panel shows."""
    if score == "coverage_90_y":
        return 0.0, 1.03
    if score == "reference_log_std":
        return -2.0, 2.0
    low, middle = (min(finite), float(np.median(finite))) if finite else (0.0, 1.0)
    if score == "reference_w1":
        return 0.0, 3 * middle
    return low - 0.15 * max(middle - low, 0.3), middle + 2.5 * max(middle - low, 0.3)


TUNED = {"tuned": "best on random points", "gap_tuned": "best on points at the edges of the gap"}
GAP_SCORES = {
    "reference_log_std": "log of std ÷ posterior's",
    "reference_w1": "distance to the posterior",
    "crps_y": "CRPS of y",
}


def tuned(rows: Sequence[Result], style: Mapping[str, Style]) -> Figure:
    """A line a method, a panel a score in the gap: the method as it is, and as searches of its settings chose it."""
    found = searches(rows)
    region = "gap" if "gap" in rows[0].regions else "all"
    scores = {name: words for name, words in GAP_SCORES.items() if any(len(one.valid((name, region))) for one in rows)}
    if not scores:
        raise Undrawable("no method that was tuned has a score")
    figure = Figure(figsize=(2.4 + 3 * len(scores), 0.45 * len(found) + 1.5), layout="constrained")
    axes = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    kinds = {"as it is": ("o", "white", "as it is")} | {
        kind: (marker, colour, TUNED[kind])
        for kind, marker, colour in zip(TUNED, ("o", "s"), (COLOURS[0], COLOURS[1]), strict=True)
    }
    for ax, (score, words) in zip(axes, scores.items(), strict=True):
        bootstrap, column = Bootstrap((score, region)), (score, region)
        for place, own in enumerate(found.values()):
            for offset, (kind, (marker, colour, label)) in zip((-0.2, 0, 0.2), kinds.items(), strict=True):
                if kind not in own or not len(own[kind].valid(column)):
                    continue
                value, at = estimate(own[kind], column, own[kind].valid(column)), place + offset
                edge = "black" if colour == "white" else colour
                ax.plot(bootstrap.interval(own[kind]), (at, at), color=edge, lw=1, alpha=0.6)
                ax.plot(value, at, marker, color=edge, mfc=colour, ms=5.5, ls="", label=label)
        ax.grid(axis="y", color="#dddddd", lw=0.6)
        ax.set_xlabel(words, fontsize=9)
        if score == "reference_log_std":
            ax.axvline(0, color="#000000", lw=1)
        else:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_yticks(range(len(found)), [_verbatim(name) for name in found])
    axes[0].invert_yaxis()
    where = " in the gap" if region == "gap" else ""
    figure.suptitle(
        f"{rows[0].dataset}: what tuning buys{where}, mean over {len(rows[0].replicas)} replicas", fontsize=11
    )
    _legend(figure, *axes)
    return figure


FIGURES: dict[str, Callable[[Sequence[Result], Mapping[str, Style]], Figure]] = {
    "bands": bands,
    "std": stds,
    "calibration": calibration,
    "cost": cost,
    "tuned": tuned,
}


# Figures that belong to some suites alone, with what such a suite has.
OCCASIONAL: dict[str, Callable[[Sequence[Result]], object]] = {"cost": families, "tuned": searches}


def _feature(rows: Sequence[Result]) -> int:
    """The feature that a grid is drawn over; 0 if over a line, see `on_its_line`."""
    if not rows:
        raise Undrawable("there is nothing but the oracle")
    layout = rows[0].layout
    if layout.points == "tasks":
        raise Undrawable("every replica is a task with test points of its own, and there is no line to draw over them")
    if layout.points == "rows":
        raise Undrawable("the test points are held-out rows, and there is no line to draw over them")
    if not layout.drawn:
        raise Undrawable("the dataset names no feature to draw its grid over (Layout.feature)")
    if "x_test" not in rows[0].curves:
        raise Undrawable("the records hold no test points")
    return layout.feature if layout.line is None and layout.feature is not None else 0


def _limits(drawable: Sequence[tuple[Result, str]]) -> tuple[float, float]:
    """The limits of the y axis. All data and the truth are inside; bands and medians add at most the same height above
    and below. A vague prior or a method that blew up is cut."""
    core, wide = [], []
    for result, of in drawable:
        r = _first_sound(result)
        core += [result.curves[name][r].ravel() for name in ("y", "f_test") if name in result.curves]
        if result.kind != "baseline":
            wide += [result.curves[f"{of}_{level}"][r] for level in ("05", "95")]
    low, high = _range(core if np.isfinite(np.concatenate(core)).any() else [*core, *wide])
    height = (high - low) or abs(high) or 1.0
    least, most = _range([*core, *wide])
    least, most = max(least, low - height), min(most, high + height)
    margin = 0.04 * ((most - least) or height)
    return least - margin, most + margin


def _range(arrays: Sequence[Floats]) -> tuple[float, float]:
    values = np.concatenate(arrays)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)


def _known(x: Floats, *values: Floats) -> list[Floats]:
    """x and curves over it in the order of x, where all are known: published curves have fewer points than scores."""
    order = np.argsort(x, kind="stable")
    order = order[np.isfinite([each[order] for each in (x, *values)]).all(0)]
    return [each[order] for each in (x, *values)]


def _pits(result: Result, of: str) -> bool:
    return not np.isnan(result.pits.get(f"pit_{of}", np.nan)).all()


def _first_sound(result: Result) -> int:
    return int(result.sound.argmax())


def _x_label(result: Result, feature: int) -> str:
    if result.layout.line is not None:
        return "position on the line"
    return "x" if result.curves["x_test"].shape[-1] == 1 else f"feature {feature} of x"


def _verbatim(name: str) -> str:
    """A name, for matplotlib, which reads mathematics between dollars and leaves out of a legend what begins with _."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _wrapped(words: str, width: float) -> str:
    lines = [""]
    for word in words.split(" "):
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word + " "
    return "\n".join(line.strip() for line in lines)


def _columns(labels: Sequence[str], width: float) -> int:
    """The number of legend labels side by side. width: the figure's width, in inches."""
    widest = 0.6 + 0.065 * max(map(len, labels), default=0)  # its line, and its letters
    return max(1, min(int(width / widest), len(labels)))


def _lines(labels: Sequence[str], width: float) -> int:
    """The number of lines of a legend with these labels."""
    return -(-len(labels) // _columns(labels, width))


def _legend(figure: Figure, *axes: Axes) -> None:
    """One legend below the figure, with each line of the axes once."""
    lines = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in axes]
    labelled = {label: handle for pairs in lines for handle, label in pairs}
    columns = _columns(list(labelled), figure.get_figwidth())
    look = {"fontsize": 8, "frameon": False, "handlelength": 3.2}
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=columns, **look)


def _shade_gap(ax: Axes, result: Result, feature: int) -> None:
    """Grey over the gap."""
    for start, stop in _gaps(result, feature):
        ax.axvspan(start, stop, color="black", alpha=0.07, lw=0, zorder=0)


def _gaps(result: Result, feature: int) -> list[tuple[float, float]]:
    """The gap, or each of several: from one grid point before it to one after."""
    x = result.curves["x_test"][0, :, feature]
    order = np.argsort(x, kind="stable")
    x, inside = x[order], result.inside("gap")[0][order]
    return [(float(x[max(start - 1, 0)]), float(x[min(stop, len(x) - 1)])) for start, stop in runs(inside)]


def _bytes(figure: Figure, form: str, name: str, limit: int | None) -> bytes:
    """The file of a figure, without date and version of the software."""
    buffer = io.BytesIO()
    if form != "png":
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(buffer, format=form, metadata={"Date": None})
        return buffer.getvalue()
    for dpi, colours in ((130, 0), (130, 256), (110, 256), (95, 192), (80, 192), (70, 128), (60, 128), (50, 64)):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        if colours:
            with Image.open(buffer) as picture:
                few = picture.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
            buffer = io.BytesIO()
            few.save(buffer, format="png", optimize=True)
        if limit is None or buffer.tell() <= limit:
            break
    return buffer.getvalue()
