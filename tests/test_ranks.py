"""Ranks over datasets: against the kept library's Wilcoxon–Holm, and for any subset of methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from click.testing import CliRunner

from gapbench.evaluation.compare import Incomparable
from gapbench.evaluation.ranks import critical_differences, ranking
from gapbench.evaluation.results import Result
from gapbench.runners.cli.main import main

PUBLISHED = Path(__file__).resolve().parent.parent / "results" / "published"
REGIONS = {"data": np.ones((2, 3), bool)}


def made(values: pd.DataFrame, score: str = "crps_y") -> list[Result]:
    """Results with these mean scores, datasets × methods; nan: no score."""
    return [
        Result(
            str(dataset),
            str(method),
            "method",
            np.arange(2),
            {score: {"data": value + np.array([-0.01, 0.01]) * value}},
            {"pit_y": np.zeros((2, 3))},
            REGIONS,
        )
        for dataset, row in values.iterrows()
        for method, value in row.items()
    ]


def table(datasets: int = 9, methods: int = 4) -> pd.DataFrame:
    random = np.random.default_rng(2)
    scale = 10.0 ** random.integers(-2, 3, (datasets, 1))  # each dataset has its own unit
    good = scale * np.exp(random.normal(0, 0.15, (datasets, methods)) + np.array([0, 0.1, 0.6, 1.2])[:methods])
    return pd.DataFrame(good, [f"d{i}" for i in range(datasets)], list("abcd")[:methods])


def test_ranks_and_tests_are_those_of_the_kept_library() -> None:
    """Seen to catch: Bonferroni for Holm, differences in the datasets' units, ranks among other methods."""
    values = table()
    found = ranking(made(values), ("crps_y", "data"))
    np.testing.assert_allclose(found.values[values.columns], values)
    expected = values.rank(axis=1).mean()
    assert found.ranks.to_dict() == pytest.approx(expected.to_dict()) and list(found.ranks) == sorted(found.ranks)
    blocks = np.log(values).melt(var_name="method", value_name="value")
    known = scikit_posthocs.posthoc_wilcoxon(blocks, "value", "method", p_adjust="holm")
    np.testing.assert_allclose(found.p.loc[known.index, known.columns], known, rtol=1e-6)
    assert "d" not in found.alike["a"]


def test_ranks_of_a_subset_are_among_it_alone() -> None:
    values = table()
    found = ranking(made(values), ("crps_y", "data"), ["a", "d"])
    assert found.ranks.to_dict() == pytest.approx(values[["a", "d"]].rank(axis=1).mean().to_dict())
    assert (
        found.p.loc["a", "d"] < ranking(made(values), ("crps_y", "data")).p.loc["a", "d"]
    )  # fewer pairs to correct for


def test_directions() -> None:
    """More is better for some scores, and 0 from both sides for others. Seen to catch: less is better always."""
    values = table()
    more = ranking(made(values, "ess_bulk"), ("ess_bulk", "data"))
    assert more.ranks.to_dict() == pytest.approx((-values).rank(axis=1).mean().to_dict())
    signed = np.log(values / values.mean(axis=None)) / 10
    near = ranking(made(signed, "reference_log_std"), ("reference_log_std", "data"))
    assert near.ranks.to_dict() == pytest.approx(signed.abs().rank(axis=1).mean().to_dict())
    with pytest.raises(Incomparable, match="coverage_90_y: expected a score of which less or more is better"):
        ranking(made(values, "coverage_90_y"), ("coverage_90_y", "data"))


def test_what_is_left_out_is_named() -> None:
    """Seen to catch: a rank of nan, a dataset dropped for one method."""
    values = table()
    values.loc["d3", "b"] = np.nan
    found = ranking(made(values), ("crps_y", "data"))
    assert found.left_out == {"b": ["d3"]} and list(found.ranks.index) == ["a", "c", "d"] and len(found.values) == 9
    with pytest.raises(Incomparable, match="2 datasets and 4 methods that all of them have"):
        ranking(made(table(2)), ("crps_y", "data"))


def test_means_are_over_the_replicas_that_all_have() -> None:
    """One method fails where the other scores badly, and is worse elsewhere. Seen to catch: rewarded failure."""
    results = []
    for dataset in ("d", "e", "f"):
        for method, values in (("good", [1, 1, 1, 9]), ("fails", [1.2, 1.2, 1.2, np.nan])):
            scores = {"crps_y": {"data": np.array(values)}}
            masks = {"data": np.ones((4, 3), bool)}
            results.append(Result(dataset, method, "method", np.arange(4), scores, {"pit_y": np.zeros((4, 3))}, masks))
    assert ranking(results, ("crps_y", "data")).ranks.to_dict() == {"good": 1, "fails": 2}


def test_the_diagram_and_the_command(tmp_path: Path) -> None:
    """Of published tables. Seen to catch: a figure without the methods' names."""
    figure = critical_differences(ranking(made(table()), ("crps_y", "data")))
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert all(name in words for name in "abcd")
    folder = PUBLISHED / "tasks"
    done = CliRunner().invoke(
        main, ["ranks", str(folder), "--score", "crps_y", "--region", "data", "--figure", str(tmp_path / "cd.svg")]
    )
    assert done.exit_code == 0 and "mclmc" in done.stdout and "average rank" in done.stdout
    assert (tmp_path / "cd.svg").stat().st_size > 1000
    wrong = CliRunner().invoke(main, ["ranks", str(folder), "--score", "crps"])
    assert wrong.exit_code == 2 and "did you mean crps_" in wrong.stderr
