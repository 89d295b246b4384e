"""The figures, drawn from scored results; nothing here is computed that is not in the records."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gapbench.evaluation.calibration import pit_band
from gapbench.evaluation.tables import Result, summarise

matplotlib.use("Agg")

# Okabe & Ito's colours, told apart by every common form of colour blindness. A row keeps its colour everywhere.
COLOURS = {
    "sgld": "#0072B2",
    "sgld_private": "#D55E00",
    "sgld_sigma1": "#E69F00",
    "sgld_lr0.0002": "#5D3A9B",
    "sgld_lr0.0006": "#0072B2",
    "sgld_lr0.0008": "#1A7F7F",
    "hmc": "#8C564B",
    "mc_dropout": "#009E73",
    "svi": "#CC79A7",
    "notebook": "#D55E00",
    "corrected_rates": "#E69F00",
    "corrected": "#0072B2",
    "reference": "#8B1A1A",
    "prior": "#777777",
    "truth": "#000000",
}
SPARE = ("#E69F00", "#56B4E9", "#8C564B", "#5D3A9B", "#1A7F7F", "#A6761D")
LINES = ("-", "--", "-.", ":")


def style(row: str) -> tuple[str, str]:
    """(colour, line style) of a row: given for the shipped ones, derived from the name for any other."""
    if row in COLOURS:
        return COLOURS[row], "-"
    number = int.from_bytes(hashlib.sha256(row.encode()).digest()[:4], "big")
    return SPARE[number % len(SPARE)], LINES[number // len(SPARE) % len(LINES)]


def plot(results: Sequence[Result], folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Every figure of every dataset, as files in `folder`: "png", "svg". The same results give the same bytes. Returns
    their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for dataset in dict.fromkeys(result.dataset for result in results):
        rows = [result for result in results if result.dataset == dataset and result.status != "failed"]
        if not rows:
            continue
        if any("@" in result.row for result in rows):
            figures = {"cost": cost(rows)}
        elif rows[0].independent:  # every replica has test points of its own: no grid to draw lines over
            figures = {"calibration": calibration(rows)}
        else:
            figures = {"bands": bands(rows), "std": stds(rows), "calibration": calibration(rows)}
        for name, figure in figures.items():
            if figure is not None:
                for form in formats:
                    paths.append(folder / f"{dataset}_{name}.{form}")
                    unstamped = {"Software": None} if form == "png" else {"Date": None}
                    with matplotlib.rc_context({"svg.hashsalt": paths[-1].stem}):
                        figure.savefig(paths[-1], dpi=130, metadata=unstamped)
    return paths


def bands(rows: Sequence[Result]) -> Figure | None:
    """A panel a method: one replica's data, the truth, the mean, and ±1 and ±2 std of f."""
    rows = [result for result in rows if result.kind != "ceiling"]
    if not rows:
        return None
    across = 2 if len(rows) == 4 else min(3, len(rows))
    down = -(-len(rows) // across)
    figure = Figure(figsize=(4.2 * across, 3.0 * down + 0.5), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    replica = int(rows[0].replicas[_first_sound(rows[0])])
    for ax, result in zip(axes, rows, strict=False):
        r = _first_sound(result)
        other = "" if result.replicas[r] == replica else f", replica {result.replicas[r]}"
        x, mean, std = result.grid["x_test"][r, :, 0], result.points["mean_f"][r], result.points["std_f"][r]
        colour, _ = style(result.row)
        ax.plot(result.grid["x"][r, :, 0], result.grid["y"][r], ".", color="#999999", ms=3, alpha=0.5, zorder=1)
        ax.fill_between(x, mean - 2 * std, mean + 2 * std, color=colour, alpha=0.18, lw=0)
        ax.fill_between(x, mean - std, mean + std, color=colour, alpha=0.35, lw=0)
        ax.plot(x, mean, color=colour, lw=1.6)
        if "f_test" in result.grid:
            ax.plot(x, result.grid["f_test"][r], color="black", lw=1, ls="--")
        ax.set_title(_name(result) + other, fontsize=11)
        ax.set_ylim(-3, 3)
        _shade_gap(ax, result)
    for index in range(len(rows), len(axes)):
        axes[index].set_visible(False)
        axes[index - across].tick_params(labelbottom=True)  # the last of its column now
    figure.supxlabel("x")
    figure.supylabel("f(x)")
    figure.suptitle(
        f"{rows[0].dataset}, replica {replica}: mean, ±1 and ±2 std of f; dashed the truth, grey the data and the gap",
        fontsize=11,
    )
    return figure


def stds(rows: Sequence[Result]) -> Figure | None:
    """The std of f against x, mean over replicas, of every row that has one."""
    rows = [result for result in rows if result.kind != "ceiling"]
    if not rows:
        return None
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    ax = figure.subplots()
    scale, top = "linear", 0.0
    for result in rows:
        colour, line = style(result.row)
        std = np.nanmean(result.points["std_f"], 0)
        scale = "log" if (std > 0).any() else scale  # a logarithm needs one row that is not certain of everything
        top = max(top, std.max()) if result.kind == "method" else top
        ax.plot(result.grid["x_test"][0, :, 0], std, color=colour, ls=line, lw=1.8, label=_name(result))
    _shade_gap(ax, rows[0])
    ax.set_yscale(scale)
    if top > 0:
        ax.set_ylim(top=min(ax.get_ylim()[1], 20 * top))  # a vague prior must not squeeze the methods together
    ax.set_xlabel("x")
    ax.set_ylabel("std of f")
    title = f"{rows[0].dataset}: epistemic std, mean over {len(rows[0].replicas)} replicas; grey the gap"
    figure.suptitle(title, fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def calibration(rows: Sequence[Result]) -> Figure | None:
    """P(u ≤ p) against p for pooled PITs by region: of y where the data are noisy, else of f. Of f also where its PITs
    are independent, with the band that those of exact Bayes lie in."""
    band = rows[0].independent
    pits = "pit_f" if band or np.isnan(rows[0].points["pit_y"]).all() else "pit_y"
    rows = [result for result in rows if pits == "pit_y" or result.kind != "ceiling"]
    if np.isnan(rows[0].points[pits]).all():
        return None
    names = [name for name, mask in rows[0].regions.items() if mask.any()]
    height = 4.0 + 0.25 * -(-len(rows) // 3)  # the legend has three names in a line
    figure = Figure(figsize=(3.3 * len(names), height), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for ax, region in zip(axes, names, strict=True):
        ax.plot([0, 1], [0, 1], color="#bbbbbb", lw=1)
        if band:
            width = pit_band(len(rows[0].replicas), len(names))
            level = np.linspace(0, 1, 201)
            low, high = np.clip(level - width, 0, 1), np.clip(level + width, 0, 1)
            ax.fill_between(level, low, high, color="#cccccc", alpha=0.6, lw=0, zorder=0)
        for result in rows:
            colour, line = style(result.row)
            u = np.sort(result.points[pits][result.regions[region]])
            u = u[~np.isnan(u)]
            level = np.arange(1, len(u) + 1) / len(u)
            ax.plot(
                np.concatenate([[0], u, [1]]),
                np.concatenate([[0], level, [1]]),
                color=colour,
                ls=line,
                lw=1.6,
                drawstyle="steps-post",
                label=_name(result) if ax is axes[0] else None,
            )
        ax.set_title(region, fontsize=11)
        ax.set_aspect("equal")
        ax.set_xlabel("p")
    axes[0].set_ylabel(f"share of PITs of {pits[-1]} ≤ p")
    what = f"{len(rows[0].replicas)} tasks; grey where exact Bayes lies with 95 %" if band else "pooled over replicas"
    figure.suptitle(f"{rows[0].dataset}: calibration of {pits[-1]}, {what}", fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def cost(rows: Sequence[Result]) -> Figure | None:
    """Distance to the reference posterior against gradient evaluations, in the data and in the gap: rows `name@budget`
    are a line `name`, with the intervals of the table."""
    regions = ("data", "gap")
    frame = summarise(rows, [(f"reference_w1{part}", region) for part in ("", "_floor") for region in regions])
    costs = {
        result.row: float(result.diagnostics["gradient evaluations"][result.sound].mean())
        for result in rows
        if "gradient evaluations" in result.diagnostics and len(result.valid(("reference_w1", "gap")))
    }
    if not costs:
        return None
    frame["cost"], frame["name"] = frame["row"].map(costs), frame["row"].str.partition("@")[0]
    drawn = frame[frame["cost"].notna()].sort_values("cost")
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, region in zip(axes, regions, strict=True):
        here = drawn[drawn["region"] == region]
        for name, found in here[here["score"] == "reference_w1"].groupby("name"):
            colour, line = style(str(name))
            ax.plot(found["cost"], found["value"], marker="o", ls=line, color=colour, lw=1.8, ms=5, label=name)
            ax.fill_between(found["cost"], found["low"], found["high"], color=colour, alpha=0.15, lw=0)
            fewer = found[found["known"] < found["replicas"]]
            if len(fewer):
                ax.plot(fewer["cost"], fewer["value"], marker="o", ls="", color=colour, mfc="white", ms=5)
        floor = here["value"][here["score"] == "reference_w1_floor"].mean()
        ax.axhline(floor, color="#555555", lw=1, ls=":")
        ax.text(0.02, floor, "the reference's own error", transform=ax.get_yaxis_transform(), fontsize=8, va="bottom")
        ax.set(xscale="log", yscale="log", title=region, xlabel="gradients of one point, for a replica")
    axes[0].set_ylabel("distance to the posterior (W1, in its stds)")
    hollow = "; hollow: over fewer" if (drawn["known"] < drawn["replicas"]).any() else ""
    title = f"{rows[0].dataset}: what compute buys, mean over {len(rows[0].replicas)} replicas{hollow}"
    figure.suptitle(title, fontsize=11)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def _first_sound(result: Result) -> int:
    return next(r for r, replica in enumerate(result.replicas) if int(replica) not in result.failures)


def _name(result: Result) -> str:
    return result.row + ("" if result.status in ("ranked", result.row) else f" ({result.status})")


def _shade_gap(ax: Axes, result: Result) -> None:
    inside = result.grid["x_test"][0, :, 0][result.regions["gap"][0]]
    if len(inside):
        step = (inside[-1] - inside[0]) / max(len(inside) - 1, 1)  # the grid points next to the gap bound it
        ax.axvspan(inside[0] - step, inside[-1] + step, color="black", alpha=0.07, lw=0, zorder=0)
