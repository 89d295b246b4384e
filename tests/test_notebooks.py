"""What the notebooks showed beside what was measured: the right rows, numbers and notes; and the figure of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gapbench.datasets.base import Layout
from gapbench.evaluation.notebooks import NINETY, NOTEBOOKS, all_headlines, as_shown, pairs
from gapbench.evaluation.plots import BANDS, of_notebooks, plot
from gapbench.evaluation.results import Result
from gapbench.methods.registry import methods
from gapbench.runners.suites import suites

X = np.linspace(-4, 4, 9)
SEEDS = 6


def make(dataset: str, method: str, data: float, gap: float, **diagnostics: float) -> Result:
    """A result whose std of f is `data` among the data and `gap` in the gap, and three times the latter at 0; seed 5
    is the other way round. The std of y is 0.1 larger."""
    inside = np.tile(np.abs(X) < 1.5, (SEEDS, 1))
    std = np.where(inside, gap, data)
    std[5] = np.where(inside[5], data, gap)
    std[:, 4] *= 3
    curves = {f"f_{level}": np.sin(X) + z * std for level, z in zip(BANDS, (-1.6, -0.7, 0, 0.7, 1.6), strict=True)}
    curves |= {"std_f": std, "x_test": np.tile(X[:, None], (SEEDS, 1, 1)), "f_test": np.tile(np.sin(X), (SEEDS, 1))}
    curves |= {"x": np.full((SEEDS, 4, 1), 2.0), "y": np.ones((SEEDS, 4))}
    ratio = np.array([gap / data] * 5 + [data / gap])
    by = {region: np.full(SEEDS, value) for region, value in (("data", data), ("gap", gap))}
    scores = {"std_f": by, "gap_ratio": {"all": ratio}, "gap_wider": {"all": (ratio > 1).astype(float)}}
    scores["width_90_y"] = {region: NINETY * (value + 0.1) for region, value in by.items()}
    pits = {name: np.full((SEEDS, len(X)), np.nan) for name in ("pit_y", "pit_f")}
    extra = {name.replace("_", " "): np.full(SEEDS, value) for name, value in diagnostics.items()}
    regions = {"data": ~inside, "gap": inside}
    return Result(
        dataset, method, "method", np.arange(SEEDS), scores, pits, regions, curves, Layout("grid", 0), None, extra, {}
    )


RESULTS = [
    make("sgld_notebook", "sgld_notebook", 0.2, 0.1, noise_multiplier=1, clipping_norm=7.16, epsilon=8.18),
    make("deep_gp_notebook", "deep_gp_notebook", 0.5, 0.6),
    make("common_1000", "sgld", 0.01, 0.04),
    make("common_200", "deep_gp", 0.02, 0.06),
    make("common_200", "svi", 0.02, 0.06),
]


def test_each_notebook_stands_beside_its_figure_and_the_common_setting() -> None:
    """Seen to catch: stds of f for the deep GP, whose notebook shows those of y; the interval of another column; the
    share of seeds in place of its complement; x = 0 taken at the end of the grid."""
    table = as_shown(RESULTS)
    assert table is not None
    lines = {name: dict(zip(table.headings, words, strict=True)) for name, _, words in table.lines}
    assert list(lines) == [
        *(f"sgld_notebook, {what}" for what in ("shown", "measured")),
        "sgld, common setting",
        *(f"deep_gp_notebook, {what}" for what in ("shown", "measured")),
        "deep_gp, common setting",
    ]
    assert lines["sgld_notebook, shown"]["std at 0"] == NOTEBOOKS["sgld_notebook"].at_0
    measured = lines["sgld_notebook, measured"]
    assert measured["std at 0"] == "0.35"  # five seeds at 0.3, one at 0.6
    assert measured["std · gap"] == "0.1 [0.1, 0.1]" and measured["seeds"] == "6"
    assert measured["wider in gap"].startswith("17 % [0 %, ")
    assert lines["sgld, common setting"]["wider in gap"].startswith("83 % [")
    gp = lines["deep_gp_notebook, measured"]
    assert gp["std · gap"] == "0.7 [0.7, 0.7]" and gp["std gap ÷ data"] == "1.17"
    assert gp["std at 0"] == gp["wider in gap"] == ""
    assert any("noise multiplier 1, clipping norm 7.16, epsilon 8.18" in note for note in table.notes)
    assert any(note.startswith("deep_gp_notebook: std of y") for note in table.notes)


def test_other_results_have_no_such_table() -> None:
    """Seen to catch: a table without lines below every suite."""
    assert as_shown(RESULTS[2:]) is None and pairs(RESULTS[2:]) == []
    assert len(all_headlines(RESULTS)) == len(all_headlines(RESULTS[2:])) + 3


def test_the_figure_has_the_notebooks_own_pair_of_plots(tmp_path: Path) -> None:
    """Above median ± std with the data, below the std over seeds. Seen to catch: a quantile in place of the std."""
    figure = of_notebooks(RESULTS)
    above, below = figure.axes[0], figure.axes[2]
    assert len(figure.axes) == 4 and above.get_title() == "sgld"
    band = above.collections[0].get_paths()[0].vertices
    assert np.isclose(np.asarray(band)[:, 1].max(), np.max(np.sin(X) + RESULTS[0].curves["std_f"][0]))
    drawn = [np.asarray(line.get_ydata()) for line in below.lines]
    for line, result in zip(drawn, (RESULTS[0], RESULTS[2]), strict=True):
        np.testing.assert_allclose(line, result.curves["std_f"].mean(0))
    assert tmp_path / "notebooks.png" in plot(RESULTS, tmp_path).paths


def test_the_suite_pairs_every_notebook_with_a_method() -> None:
    """Each of the five is a task with its own method, and its partner is in the common setting. Seen to catch: a
    method of one notebook trained on the data of another, a partner that is not run."""
    suite = suites()["notebooks"]
    common = {name for task, one in suite.tasks.items() if task.startswith("common_") for name in one.methods}
    for name, notebook in NOTEBOOKS.items():
        assert suite.tasks[name].methods == (name,) and name in suite.methods
        assert notebook.beside in common & methods().keys()
