"""What all figures share, on paper and on a page: colours and lines of methods, and what of a result is drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gapbench.evaluation.knobs import knob_of
from gapbench.evaluation.results import Result

# Okabe & Ito's colours and darker relatives, told apart by every common form of colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#5D3A9B", "#56B4E9", "#8C564B")
Line = str | tuple[int, tuple[int, ...]]
LINES: tuple[Line, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1, 1)),
    (0, (7, 2, 1, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (9, 3)),
    (0, (2, 4)),
    (0, (9, 2, 3, 2)),
)
CONTROLS = {"reference": "#000000", "baseline": "#A08C5B", "oracle": "#8B1A1A"}
Style = tuple[str, Line]
PANELS = 36  # methods beyond which panels are too many to look at


def styles(results: Sequence[Result]) -> dict[str, Style]:
    """The colour and line style of each method, by its position in the results: every colour with the first line
    style, then every colour with the next. Controls have the colour of their kind."""
    kinds = {result.method: result.kind for result in results}
    found = by_position([name for name, kind in kinds.items() if kind == "method"])
    for kind, colour in CONTROLS.items():
        found |= by_position([name for name, own in kinds.items() if own == kind], (colour,))
    return found


def by_position(names: Sequence[str], colours: Sequence[str] = COLOURS) -> dict[str, Style]:
    positions = ((name, *divmod(position, len(colours))) for position, name in enumerate(names))
    return {name: (colours[colour], LINES[line % len(LINES)]) for name, line, colour in positions}


def of_knobs(results: Sequence[Result]) -> bool:
    """True for results whose datasets differ by one knob at a time: they are drawn over its values alone."""
    return any(knob_of(result.dataset) for result in results)


def families(rows: Sequence[Result]) -> dict[str, list[str]]:
    """Methods that are one method at several budgets: NAME -> its NAME@BUDGET, where there are two of them at least.
    What stands after `@` is a number; one `@` in a plugin's name is no budget."""
    found: dict[str, list[str]] = {}
    for result in rows:
        name, _, budget = result.method.partition("@")
        if budget.isdecimal() and result.kind == "method":
            found.setdefault(name, []).append(result.method)
    return {name: own for name, own in found.items() if len(own) > 1}


SEARCHED = re.compile(r"(.+)@(tuned|gap_tuned)\d+")  # the names of searches, as runners/candidates.py makes them


def searches(rows: Sequence[Result]) -> dict[str, dict[str, Result]]:
    """Methods with searches of their settings: NAME -> kind -> result, where "as it is" is NAME itself."""
    by_name = {one.method: one for one in rows if one.kind == "method"}
    found: dict[str, dict[str, Result]] = {}
    for name, one in by_name.items():
        parts = SEARCHED.fullmatch(name)
        if parts and parts[1] in by_name:
            found.setdefault(parts[1], {"as it is": by_name[parts[1]]})[parts[2]] = one
    return found


def by_scores_alone(results: Sequence[Result]) -> bool:
    """True for results that figures show by their scores: knobs, one method at several budgets, searches of settings.
    Their bands are many, and a folder that is published does not have them."""
    return of_knobs(results) or bool(families(results)) or bool(searches(results))


def drawable(result: Result) -> bool:
    """True if a method has a panel: its record has quantiles of f or y, and a replica that did not fail."""
    return quantity_of(result) is not None and bool(result.sound.any())


def on_its_line(result: Result) -> Result:
    """The result with the test points of its layout's line alone, and one feature: the position on the line, 0 in its
    middle. Training points have that of their projection on the line. A result whose layout has no line is as it was.
    """
    line = result.layout.line
    if line is None:
        return result
    curves = {name: value if name in ("x", "y") else value[:, :line] for name, value in result.curves.items()}
    start, end = curves["x_test"][0, [0, -1]]  # (D,) each
    along = (end - start) / np.linalg.norm(end - start)
    curves |= {name: (curves[name] - (start + end) / 2) @ along[:, None] for name in ("x", "x_test")}
    pits = {name: value[:, :line] for name, value in result.pits.items()}
    regions = {name: mask[:, :line] for name, mask in result.regions.items()}
    return replace(result, curves=curves, pits=pits, regions=regions)


def quantity_of(result: Result) -> str | None:
    """Whose quantiles a method has: of f, else of y."""
    for of in ("f", "y"):
        if np.isfinite(result.curves.get(f"{of}_95", np.nan)).any():  # a band alone has no median
            return of
    return None


def runs(mask: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """start and stop of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return ((int(start), int(stop)) for index, (start, stop) in enumerate(pairwise(edges)) if index % 2 == 0)
