"""Published numbers beside ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gapbench.datasets.uci import TABLES
from gapbench.evaluation.literature import DROPOUT, ENSEMBLES, PROTOCOLS, compared, differs, ours
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
    for suite, protocol in PROTOCOLS.items():
        assert suite in suites() and protocol.suite == suite
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
    lines = compared(ENSEMBLES, [made("boston", values), made("yacht", np.full(5, 3.0) + np.arange(5) / 100)]).split(
        "\n"
    )
    assert "| boston | NLL | 2.41 ± 0.06 | 2.45 ± 0.06 |" in lines
    assert "| yacht | NLL | 1.18 ± 0.05 | 3.02 ± 0.01 ≠ |" in lines
    assert "| wine | NLL | 0.94 ± 0.03 |  |" in lines and "| boston | RMSE | 3.28 ± 0.22 | n/a |" in lines


def test_the_page_has_the_published_results() -> None:
    """Seen to catch: results that were published anew, and a page that was not."""
    page = ROOT / "docs" / "uci.md"
    assert with_literature(page, ROOT / "results" / "published") == page.read_text(encoding="utf-8")
