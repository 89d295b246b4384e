"""Exports of results for other tools: the tidy frame as CSV or Parquet, the summary as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gapbench.evaluation.render import latex
from gapbench.evaluation.results import Result, tidy
from gapbench.evaluation.tables import tabulate

SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("method", pa.string()),
        ("status", pa.string()),
        ("replica", pa.int64()),
        ("region", pa.string()),
        ("score", pa.string()),
        ("value", pa.float64()),
    ]
)
SUFFIX = {"csv": "csv", "parquet": "parquet", "latex": "tex"}


def export(results: Sequence[Result], form: str, out: Path) -> None:
    """Write results to the file `out`, text as UTF-8.

    form: "csv" or "parquet": a line for each replica, region and score. "latex": the summary.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if form == "latex":
        out.write_text(latex(tabulate(results)), encoding="utf-8", newline="\n")
    elif form == "csv":
        tidy(results).to_csv(out, index=False, encoding="utf-8", lineterminator="\n")
    else:
        pq.write_table(pa.Table.from_pandas(tidy(results), SCHEMA, preserve_index=False), out)
