"""Figures of many methods: a row a method, and a colour for each value, since so many lines cannot be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gapbench.evaluation.results import Floats

MANY = 16  # methods beyond which lines cannot be told apart


@dataclass(frozen=True)
class Panel:
    """A panel of a figure. x: the positions of the columns, increasing. values: a row a method; nan: unknown, grey.
    marks: where a line is drawn across all rows."""

    x: Floats
    values: Floats
    x_label: str
    marks: Sequence[float] = ()


@dataclass(frozen=True)
class Scale:
    """What colours say. Values of 0 are white, those of ± span have the strongest colours. colours: "RdBu", where low
    values are red, or "RdBu_r", where high ones are. ticks: value -> word; if empty, matplotlib chooses."""

    words: str
    span: float
    colours: str
    ticks: Mapping[float, str]


def heat_map(labels: Sequence[str], panels: Mapping[str, Panel], scale: Scale) -> Figure:
    """A figure with these panels, title -> panel, which share their rows."""
    figure = Figure(figsize=(max(6.5, 2.6 + 2.5 * len(panels)), 1.3 + 0.155 * len(labels)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    colours = matplotlib.colormaps[scale.colours].with_extremes(bad="#cccccc")
    limits = {"vmin": -scale.span, "vmax": scale.span}
    for ax, (title, panel) in zip(axes, panels.items(), strict=True):
        known, rows = np.ma.masked_invalid(panel.values), range(len(labels))
        drawn = ax.pcolormesh(panel.x, rows, known, cmap=colours, shading="nearest", rasterized=True, **limits)
        for mark in panel.marks:
            ax.axvline(mark, color="black", lw=0.8, ls="--")
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(panel.x_label)
    axes[0].set_yticks(range(len(labels)), labels, fontsize=7)
    axes[0].invert_yaxis()
    bar = figure.colorbar(drawn, ax=list(axes), label=scale.words, extend="both", aspect=40, pad=0.01)
    if scale.ticks:
        bar.set_ticks(list(scale.ticks), labels=list(scale.ticks.values()))
    return figure
