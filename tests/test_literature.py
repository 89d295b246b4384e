"""Published numbers beside ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gapbench.datasets.uci import TABLES
from gapbench.evaluation.literature import DROPOUT, ENSEMBLES, GAPS, PROTOCOLS, compared, differs, ours
from gapbench.evaluation.results import Result
from gapbench.runners.readme import with_literature
from gapbench.runners.suites import suites

ROOT = Path(__file__).resolve().parent.parent


def made(dataset: str, values: np.ndarray) -> Result:
    return Result(
        dataset, "m", "method", np.arange(len(values)), {"nll_y": {"data": values}},
        {"pit_y": np.zeros((len(values), 1))},
        {"data": np.ones((len(values), 1), bool)},
    )  # fmt: skip


def test_the_numbers_are_of_all_tables() -> None:
    """Standard deviations over splits became standard errors. Seen to catch: stds as they stand in the paper, log
    likelihoods for negative ones."""
    for suite, protocols in PROTOCOLS.items():
        for protocol in protocols:
            assert protocol.suite == suite and set(protocol.methods) <= suites()[suite].methods.keys()
            for numbers in protocol.numbers.values():
                assert numbers.keys() == TABLES.keys()
    assert ENSEMBLES.numbers["nll_y"]["boston"] == (2.41, pytest.approx(0.25 / np.sqrt(20)))
    assert DROPOUT.numbers["nll_y"]["kin8nm"][0] < 0 < DROPOUT.numbers["nll_y"]["boston"][0]


def test_a_table_of_both() -> None:
    """Ours with its standard error; a mark beyond two of the difference's. Seen to catch: the std for the error, a
    difference that is rounding."""
    values = np.array([2.3, 2.5, np.nan, 2.4, 2.6])
    mean, error = ours(made("boston", values), "nll_y")
    assert (mean, error) == (pytest.approx(2.45), pytest.approx(np.nanstd(values, ddof=1) / 2))
    assert not differs((2.45, 0.05), (2.41, 0.02), 2) and differs((2.60, 0.05), (2.41, 0.02), 2)
    assert not differs((0.094, 0.0001), (0.09, 0.0), 2) and differs((0.106, 0.0001), (0.09, 0.0), 2)
    lines = compared([ENSEMBLES], [made("boston", values), made("yacht", np.full(5, 3.0) + np.arange(5) / 100)]).split(
        "\n"
    )
    assert "| boston | NLL | 2.41 ± 0.06 | 2.45 ± 0.06 |" in lines
    assert "| yacht | NLL | 1.18 ± 0.05 | 3.02 ± 0.01 ≠ |" in lines
    assert "| wine | NLL | 0.94 ± 0.03 |  |" in lines and "| boston | RMSE | 3.28 ± 0.22 | n/a |" in lines


def test_a_table_of_gaps() -> None:
    """Each baseline with our method beside it, the std over splits, no mark. Seen to catch: rows that are held out
    beside the gap, a mark, the standard error, a log likelihood with the wrong sign, another method's column."""
    values = np.array([2.0, 4.0])
    result = replace(made("boston_gap", values), method="svi", scores={"nll_y": {"gap": values, "data": values + 9}})
    apart = replace(result, dataset="wine_gap", scores={"nll_y": {"gap": np.array([9.0, 9.1])}})
    lines = compared(GAPS, [result, apart, replace(made("boston", values), method="map")]).split("\n")
    assert lines[0].startswith(
        "| | | dropout, 2020 | mc_dropout | ensemble, 2020 | deep_ensemble | mean field, 2020 | svi"
    )
    assert len(lines) == 18 and {line.count("|") for line in lines} == {11}
    assert "| boston | NLL | 4.00 ± 1.81 |  | 3.11 ± 1.48 |  | 2.70 ± 0.07 | 3.00 ± 1.41 | 4.22 ± 1.88 |  |" in lines
    assert "| wine | NLL | 1.27 ± 0.68 |  | 1.13 ± 0.14 |  | 0.96 ± 0.03 | 9.05 ± 0.07 | 2.03 ± 1.13 |  |" in lines


def test_the_page_has_the_published_results() -> None:
    """Seen to catch: results that were published anew, and a page that was not."""
    page = ROOT / "docs" / "uci.md"
    assert with_literature(page, ROOT / "results" / "published") == page.read_text(encoding="utf-8")
