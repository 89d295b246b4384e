"""The report's charts and tables beyond the leaderboard: the right numbers, each against a second way to get them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_reports import Checked, make, page_of, rows_of
from scipy import stats
from statsmodels.stats.multitest import multipletests

from gapbench.datasets.base import Layout
from gapbench.evaluation import report as module
from gapbench.evaluation import report_svg
from gapbench.evaluation.compare import compare
from gapbench.evaluation.drawing import styles
from gapbench.evaluation.ranks import ranking
from gapbench.evaluation.report import report
from gapbench.evaluation.report_board import About
from gapbench.evaluation.report_charts import bands, chance, judged
from gapbench.evaluation.report_cost import cost, front
from gapbench.evaluation.report_knobs import turned
from gapbench.evaluation.report_pairs import pairs
from gapbench.evaluation.report_ranks import bars, ranks
from gapbench.evaluation.results import Result
from gapbench.runners.load import results as read

PUBLISHED = Path(__file__).parents[1] / "results" / "published"


def varied(results: Sequence[Result], spread: float = 0.2) -> list[Result]:
    """The results with scores that differ between replicas, each in its own way."""
    varied = []
    for k, one in enumerate(results):
        noise = np.random.default_rng(k)
        scores = {
            name: {at: values * np.exp(spread * noise.standard_normal(len(values))) for at, values in by.items()}
            for name, by in one.scores.items()
        }
        varied.append(replace(one, scores=scores))
    return varied


def test_methods_are_judged_by_the_nearest_thing_to_the_truth() -> None:
    """Seen to catch: the CRPS where a distance is known, the data in place of the gap."""
    assert judged([make("a")]) == ("reference_w1", "gap")
    assert judged([make("a", ratio=None)]) == ("crps_y", "gap")
    assert judged([make("a", ratio=None, gap=False)]) == ("crps_y", "data")
    assert judged(read(PUBLISHED / "prior"))[0] in ("reference_w1", "crps_f")


def test_the_front_is_what_no_other_one_beats_in_both() -> None:
    """Against the definition, over many clouds with ties. Seen to catch: methods that are as good but dearer, the worst
    in place of the best, only one of two that are the same."""
    random = np.random.default_rng(0)
    for _ in range(300):
        points = [(f"m{k}", *map(float, random.integers(1, 5, 2))) for k in range(random.integers(1, 7))]
        beaten = {
            name
            for name, spent, loss in points
            if any(a <= spent and b <= loss and (a, b) != (spent, loss) for _, a, b in points)
        }
        assert set(front(points)) == {name for name, _, _ in points} - beaten, points


def test_cost_has_the_ranked_methods_on_its_front_alone() -> None:
    """Seen to catch: a method on the front that did not converge, a method that has no score in the chart, a
    full mark for what is not ranked."""
    rows = [make("good"), make("stuck", rhat=2.0), make("none", ratio=None), make("reference", kind="reference")]
    rows[1].scores["reference_w1"]["gap"][:] = 1e-6
    chart = cost(rows, styles(rows))
    assert chart is not None and {spot.method for spot in chart.spots} == {"good", "stuck"} and chart.front == ("good",)
    assert all(spot.x == 1.0 for spot in chart.spots)  # six CPU seconds for six replicas
    drawn = str(report_svg.scatter(chart))
    assert drawn.count("<circle") == 2 and drawn.count('r="3.2" fill="none"') == 1  # hollow: not ranked
    table = rows_of(page_of(rows))
    assert ["good", "1", "0.3", "0.298 to 0.302", "yes"] in table and any(row[-1:] == ["not ranked"] for row in table)


def test_pairs_are_those_of_compare_in_both_directions() -> None:
    """Seen to catch: a matrix turned over its diagonal, P where 1 − P belongs, marks of another pair."""
    rows = varied([make("a"), make("b", ratio=0.4), make("c", ratio=0.55)], 0.4)
    rows[1].scores["reference_w1"]["gap"][:] /= 20
    better, detectable, needed = pairs(rows)
    for i, one in enumerate(rows):
        for k, other in enumerate(rows):
            if one is other:
                assert better.cells[i][k] == ("", False)
                continue
            own = compare(one, other, ("reference_w1", "gap"))
            assert own.next_better and own.detectable and own.needed
            assert better.cells[i][k] == (f"{np.floor(100 * own.next_better.value + 0.5):.0f} %", own.significant)
            assert float(detectable.cells[i][k][0]) == pytest.approx(own.detectable.value, rel=0.01)
            assert needed.cells[i][k][0] in (f"{own.needed.value:.0f}", "never")
    assert better.cells[1][0] == ("100 %", True) and better.cells[0][1] == ("0 %", True)
    splits = [replace(one, layout=Layout("rows", sample=False)) for one in rows]
    (wins,) = pairs(splits)
    assert wins.cells[1][0][0] == "6 of 6" and wins.cells[0][1][0] == "0 of 6"
    assert pairs([make("alone")]) == ()


def four_datasets() -> list[Result]:
    return varied(
        [make(name, dataset=f"d{k}", ratio=0.3 + at / 10) for k in range(6) for at, name in enumerate("abcd")]
    )


def test_ranks_are_those_of_the_ranking_and_holm() -> None:
    """p by scipy and statsmodels, ranks by scipy. Seen to catch: raw p taken for corrected, ranks of the values' order,
    goodness in another order than the rows."""
    results = four_datasets()
    found, style = ranking(results, ("reference_w1", "gap")), styles(results)
    made = ranks(results, style)
    assert made is not None and [row.method for row in made.rows] == list(found.ranks.index)
    places = stats.rankdata(made.goodness, axis=1).mean(0)
    np.testing.assert_allclose([row.rank for row in made.rows], places)
    upper = np.triu_indices(4, 1)
    corrected = multipletests(made.p[upper], method="holm")[1]
    np.testing.assert_allclose(found.p.loc[found.ranks.index, found.ranks.index].to_numpy()[upper], corrected)
    again = [stats.wilcoxon(made.goodness[:, i], made.goodness[:, k]).pvalue for i, k in zip(*upper, strict=True)]
    np.testing.assert_allclose(made.p[upper], again)
    embedded = json.loads(Checked(page_of(results)).inside["script"][1])
    assert embedded["methods"] == [row.method for row in made.rows] and embedded["goodness"] == made.goodness.tolist()
    assert ranks(results[:8], style) is None  # two datasets
    assert made.few.startswith("6 datasets are too few to tell two of 4")  # 6 pairs, and no p below 1 / 32
    assert ranks([one for one in results if one.method in "ab"], style).few == ""  # type: ignore[union-attr]


def test_bars_join_the_longest_runs() -> None:
    """Seen to catch: a run inside a longer one, a run over a pair that is told apart."""
    alike = np.eye(5, dtype=bool)
    for i, k in [(0, 1), (1, 2), (0, 2), (2, 3)]:
        alike[i, k] = alike[k, i] = True
    assert bars(alike) == ((0, 2), (2, 3)) and bars(np.ones((3, 3), bool)) == ((0, 2),) and bars(np.eye(3)) == ()


def test_the_band_of_chance_holds_95_in_a_hundred_lines() -> None:
    """On PITs whose replicas share a shift: other draws of as many replicas are inside as a whole in about 95 %.

    Seen to catch: points resampled in place of replicas, a band that is pointwise.
    """
    random, count, level = np.random.default_rng(0), 60, np.linspace(0, 1, 41)

    def line() -> Result:
        shift = random.standard_normal((count, 1))
        pits = stats.norm.cdf(0.8 * shift + 0.6 * random.standard_normal((count, 13)))
        return replace(make("reference", kind="reference", count=count), pits={"pit_y": pits, "pit_f": pits})

    whole = line()
    band = chance([whole], "y", "data", level)
    assert band is not None
    inside = []
    centre = level  # the law of the PITs is uniform
    half = (band[1] - band[0])[20] / 2
    for _ in range(400):
        one = line()
        u = np.sort(one.pits["pit_y"][one.inside("data")])
        inside.append(np.abs(np.searchsorted(u, level, side="right") / len(u) - centre).max() <= half)
    assert 0.90 < np.mean(inside) < 0.99
    assert chance([make("a")], "y", "data", level) is None


def test_knobs_are_drawn_over_their_values() -> None:
    """Seen to catch: values in the order of names (n@1000 before n@20), logs drawn for stds, the centre left out."""
    names = {"n@20": 0.5, "n@1000": 2.0, "gapped_sine_noisy": 1.0}
    results = [make("a", dataset=name, ratio=ratio) for name, ratio in names.items()]
    (chart,) = turned(results, styles(results), "data")
    assert chart.ticks == ("20", "200", "1000") and chart.right == 1.0
    np.testing.assert_allclose(chart.lines[0].values, [0.5, 1.0, 2.0], rtol=0.02)
    drawn = str(report_svg.curves(chart))
    assert drawn.count("<circle") == 3 and all(f">{tick}</text>" in drawn for tick in chart.ticks)
    assert turned([make("a")], styles([make("a")]), "data") == []
    assert "One factor at a time" in page_of(results)


def test_the_overview_has_a_verdict_for_each_dataset() -> None:
    """Seen to catch: the sign of another verdict, a method's cells shifted where it has no answer.

    And a verdict on what did not converge.
    """
    results = [make("a", dataset="one", ratio=2.0), make("a", dataset="two"), make("b", dataset="two", ratio=8.0)]
    results.append(make("stuck", dataset="two", ratio=2.0, rhat=2.0))
    made = report(results, "trial").overview
    assert made is not None and [name for _, name in made.places] == ["one", "two"]
    assert [(method, [word for word, _ in cells]) for method, cells in made.rows] == [
        ("a", ["1.00 ✓", "0.25 −"]),
        ("b", ["", "4.00 +"]),
        ("stuck", ["", "1.00 †"]),
    ]
    assert report(results[:1], "trial").overview is None
    mixed = [results[0], make("a", dataset="two", ratio=None)]
    assert report(mixed, "trial").overview is None  # a std ratio and a coverage are not one table


def test_what_is_known_to_fail_is_marked() -> None:
    """Seen to catch: every narrow value marked, a mark among the data, a mark on a value that is right."""
    results = [make("svi"), make("other"), make("wide", ratio=8.0), make("reference", kind="reference")]
    known = {("sine", name): About("variational", "too narrow in a gap", [("it is", "x")]) for name in ("svi", "wide")}
    made = report(results, "trial", known).sections[0].board
    marked = {row.method: [at for at, word in enumerate(row.words) if "ᵉ" in word] for row in made.rows}
    assert marked == {"svi": [1], "other": [], "wide": [], "reference": []}
    assert made.headings[1] == "std ÷ posterior's · gap" and any(note.startswith("ᵉ expected") for note in made.notes)
    assert made.beside[made.headings.index("CRPS of y · gap")] == "reference 0.2"
    assert "ᵉ" not in page_of(results)
    assert "<option>variational</option>" in page_of(results, known=known)


def test_privacy_has_a_price() -> None:
    """Seen to catch: columns shifted by a diagnostic that is not there, methods that promise nothing."""
    private = replace(make("private"), diagnostics={"epsilon": np.full(6, 3.0), "clipped fraction": np.full(6, 0.5)})
    ((head, line),) = [report([private, make("open")], "trial").sections[0].privacy]
    assert dict(zip(head, line, strict=True)) == {
        "method": "private",
        "ε of one point": "3",
        "noise multiplier": "n/a",
        "clipping norm": "n/a",
        "clipped fraction": "0.5",
        "distance to it · gap": "0.3",
    }


def test_only_replicas_with_bands_are_offered() -> None:
    """A published folder of many methods has quantiles of one replica. Seen to catch: pages of empty charts, curves of
    another replica."""
    made, three = make("a", count=3), np.arange(3)[:, None]
    levels = {name: curve + three for name, curve in made.curves.items() if name[2:].isdigit()}
    found = replace(made, curves={**made.curves, **levels})
    left = {
        name: np.where(three == 1, curve, np.nan) if name[2:].isdigit() else curve
        for name, curve in found.curves.items()
    }
    shown = bands([replace(found, curves=left)], {"a": ("#000000", "-")})
    assert shown is not None and shown.replicas == (1,)
    whole = bands([found], {"a": ("#000000", "-")})
    assert whole is not None and whole.replicas == (0, 1, 2)
    np.testing.assert_array_equal(shown.methods[0].quantiles[:, 0], whole.methods[0].quantiles[:, 1])


def test_many_methods_on_many_datasets_are_still_a_small_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """25 methods on 8 datasets with 20 replicas and 121 points are at most 3 MB, and no drawing has more than 2,000
    points. The pairs of one dataset stand for all, to save time. Seen to catch: all replicas' bands embedded."""
    random = np.random.default_rng(0)
    results = []
    for dataset in range(8):
        for method in range(25):
            one = make(f"method_{method:02}", dataset=f"d{dataset}", count=20, ratio=0.5 + method / 20, points=121)
            noisy = {name: values + 0.1 * random.standard_normal(values.shape) for name, values in one.curves.items()}
            pits = {name: random.random((20, 121)) for name in one.pits}
            results.append(replace(one, curves={**noisy, "x_test": one.curves["x_test"]}, pits=pits))
    first = pairs(results[:25])
    monkeypatch.setattr(module, "pairs", lambda rows: first)
    text = page_of(results)
    assert len(text.encode()) <= 3_000_000
    for drawing in text.split('role="img"')[1:]:
        paths = "".join(re.findall(r' d="([^"]*)"', drawing.partition("</figure>")[0]))
        assert paths.count("L") + paths.count("M") <= 2_000
