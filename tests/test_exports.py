"""Results for other tools: the same numbers as CSV, Parquet and LaTeX, in any locale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from gapbench.evaluation.results import Result, tidy
from gapbench.runners.export import SCHEMA, SUFFIX, export


def make(method: str, crps: float) -> Result:
    """Six replicas whose CRPS scatters about the given one; names that each format must escape."""
    values = crps + 0.01 * np.arange(6)
    pits = np.full((6, 2), np.nan)
    return Result(
        'sine, "noisy"',
        method,
        "method",
        np.arange(6),
        {"crps_y": {"all": values, "gap": values * 2}},
        {"pit_y": pits},
        {"gap": np.ones((6, 2), bool)},
        diagnostics={"epsilon": np.array([1, np.inf, np.nan, -1, 0, 1 / 3])},
    )


def results() -> list[Result]:
    return [make("SGLDσ_1", 0.5), make("b&c", 0.1)]


def test_exports_hold_the_same_numbers(tmp_path: Path) -> None:
    """CSV and Parquet are the tidy frame with every digit, Parquet with its explicit schema; LaTeX has a line for each
    method, in the table's order. The folder need not exist. Seen to catch: a column left out of the schema, replicas as
    floats, a digit lost, a name not escaped."""
    paths = {form: tmp_path / "new" / f"results.{suffix}" for form, suffix in SUFFIX.items()}
    for form, path in paths.items():
        export(results(), form, path)
    frame = tidy(results())
    pd.testing.assert_frame_equal(pd.read_csv(paths["csv"]), frame, check_dtype=False, check_exact=True)
    table = pq.read_table(paths["parquet"])
    assert table.schema.equals(SCHEMA)
    assert table.schema.names == list(frame.columns) and str(table.schema.field("replica").type) == "int64"
    np.testing.assert_array_equal(table.column("value").to_numpy(), frame["value"].to_numpy())
    lines = [line for line in paths["latex"].read_text(encoding="utf-8").split("\n") if line.endswith(r"\\")]
    assert [line.partition(" & ")[0] for line in lines] == ["", r"b\&c", r"SGLDσ\_1"]


LOCALE = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from test_exports import export, results
for form in ("csv", "latex", "parquet"):
    export(results(), form, pathlib.Path(sys.argv[2]) / form)
"""


@pytest.mark.parametrize("form", SUFFIX)
def test_any_locale_writes_the_same_bytes(form: str, tmp_path: Path) -> None:
    """The C locale without Python's UTF-8 mode too. Seen to catch: a text file in the locale's encoding
    (UnicodeEncodeError, and an empty file left)."""
    export(results(), form, tmp_path / "here")
    (tmp_path / "there").mkdir()
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", LOCALE, str(Path(__file__).parent), str(tmp_path / "there")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "there" / form).read_bytes() == (tmp_path / "here").read_bytes()
