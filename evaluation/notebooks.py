"""The notebook series: what the figures of five notebooks show, beside what was measured over seeds.

All five learn sin x with no data in [−1, 1], on 100 test points in [−4, 4]. The numbers were read off the figures, to
about 10 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gapbench.evaluation.bootstrap import Bootstrap, estimate
from gapbench.evaluation.headline import Headline, headlines
from gapbench.evaluation.results import Column, Result
from gapbench.evaluation.tables import number

NINETY = 3.2897  # the width of a normal law's 90 % interval, in stds


@dataclass(frozen=True)
class Notebook:
    """What one notebook's figure shows. at_0, gap, data: its std there, in words. beside: the method of the suite's
    common setting. of_y: its std is that of y, the noise included."""

    at_0: str
    gap: str
    data: str
    beside: str
    of_y: bool = False


NOTEBOOKS: Mapping[str, Notebook] = {
    "ensemble_notebook": Notebook("0.077", "", "0.005 to 0.055", "deep_ensemble"),
    "svi_notebook": Notebook("0.09 to 0.11", "", "0.06 to 0.13", "flipout"),
    "dropout_notebook": Notebook("", "up to 0.22", "0.10 to 0.17", "mc_dropout"),
    "sgld_notebook": Notebook("0.35", "", "0.20 to 0.75", "sgld"),
    "deep_gp_notebook": Notebook("0.456", "0.456", "0.450", "deep_gp", of_y=True),
}
HEADINGS = ("std at 0", "std · gap", "std · data", "std gap ÷ data", "wider in gap", "seeds")


def all_headlines(results: Sequence[Result]) -> list[Headline]:
    """The headline of each dataset and, where results of the notebooks are among them, what these showed."""
    shown = as_shown(results)
    return [*headlines(results), *([shown] if shown else [])]


def pairs(results: Sequence[Result]) -> list[tuple[Result, Result | None]]:
    """The result of each notebook as it was, and that of the same method in the suite's common setting."""
    common = {one.method: one for one in results if one.dataset.startswith("common_")}
    return [
        (one, common.get(NOTEBOOKS[one.method].beside))
        for one in results
        if one.method in NOTEBOOKS and one.dataset == one.method and one.sound.any()
    ]


def as_shown(results: Sequence[Result]) -> Headline | None:
    """The table of both; None without a notebook's results."""
    lines: list[tuple[str, bool, tuple[str, ...]]] = []
    notes = [
        "shown: read off the notebook's figure, of one seed, to about 10 %. Below: the mean over seeds, with the 95 % "
        "interval.",
        "wider in gap: the share of seeds in which the std is larger in the gap than among the data.",
    ]
    for result, common in pairs(results):
        notebook = NOTEBOOKS[result.method]
        lines.append((f"{result.method}, shown", True, (notebook.at_0, notebook.gap, notebook.data, "", "", "1")))
        lines.append((f"{result.method}, measured", True, _measured(result, notebook.of_y)))
        if common is not None:
            lines.append((f"{common.method}, common setting", True, _measured(common, notebook.of_y)))
        if notebook.of_y:
            notes.append(f"{result.method}: std of y, the noise included.")
        privacy = [(name, result.diagnostics[name]) for name in PRIVACY if name in result.diagnostics]
        if privacy:
            words = ", ".join(f"{name} {number(float(value[result.sound].mean()))}" for name, value in privacy)
            notes.append(f"{result.method}: {words}.")
    title = "What the notebooks' figures show, and what was measured"
    return Headline(title, HEADINGS, tuple(lines), tuple(notes)) if lines else None


PRIVACY = ("noise multiplier", "clipping norm", "epsilon", "clipped fraction")


def _measured(result: Result, of_y: bool) -> tuple[str, ...]:
    """The cells of one line."""
    score, scale = ("width_90_y", 1 / NINETY) if of_y else ("std_f", 1.0)
    return (
        number(at_zero(result)) if not of_y else "",
        _cell(result, (score, "gap"), lambda value: number(scale * value)),
        _cell(result, (score, "data"), lambda value: number(scale * value)),
        number(scale_free(result, score)) if of_y else _cell(result, ("gap_ratio", "all"), number),
        "" if of_y else _cell(result, ("gap_wider", "all"), lambda share: f"{100 * share:.0f} %"),
        str(int(result.sound.sum())),
    )


def scale_free(result: Result, score: str) -> float:
    """The score in the gap over the score among the data."""
    gap, data = (estimate(result, (score, region), result.valid((score, region))) for region in ("gap", "data"))
    return gap / data


def at_zero(result: Result) -> float:
    """The mean std of f over seeds at the test points next to x = 0."""
    x = np.abs(result.curves["x_test"][0, :, 0])
    nearest = np.isclose(x, np.nanmin(x))
    return float(np.nanmean(result.curves["std_f"][result.sound][:, nearest]))


def _cell(result: Result, column: Column, words: Callable[[float], str]) -> str:
    """The value and its interval."""
    low, high = Bootstrap(column).interval(result)
    value = words(estimate(result, column, result.valid(column)))
    return value if np.isnan(low) else f"{value} [{words(low)}, {words(high)}]"
