"""Results for other tools: the tidy frame as CSV or Parquet, the summary as LaTeX. Derived, and made anew each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gapbench.evaluation.tables import Result, entry, header, label, summarise, tidy

SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("row", pa.string()),
        ("status", pa.string()),
        ("replica", pa.int64()),
        ("region", pa.string()),
        ("score", pa.string()),
        ("value", pa.float64()),
    ]
)
SUFFIX = {"csv": "csv", "parquet": "parquet", "latex": "tex"}


def export(results: Sequence[Result], form: str, out: Path) -> None:
    """Write `out`. form: "csv" or "parquet", a line for each replica, region and score; or "latex", the summary."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if form == "latex":
        out.write_text(latex(results))
    elif form == "csv":
        tidy(results).to_csv(out, index=False)
    else:
        pq.write_table(pa.Table.from_pandas(tidy(results), SCHEMA, preserve_index=False), out)


def latex(results: Sequence[Result]) -> str:
    """One tabular for each dataset; the best value, where significant, carries a star."""
    parts = []
    for dataset, frame in summarise(results).groupby("dataset", sort=False):
        frame = frame[frame.groupby(["score", "region"])["value"].transform("count") > 0]
        lines: dict[str, dict[str, str]] = {}
        for _, line in frame.iterrows():
            shown = " ".join(filter(None, entry(line)))
            lines.setdefault(label(line), {})[header((line["score"], line["region"]))] = shown
        table = pd.DataFrame(lines).T
        body = table.to_latex(escape=True, na_rep="n/a", column_format="l" + "r" * table.shape[1])
        parts.append(f"% {dataset}: mean over replicas [95 % interval]\n{_math(body)}")
    return "\n".join(parts)


def _math(text: str) -> str:
    """The arrows as LaTeX knows them."""
    symbols: dict[str, str | int | None] = {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\to$", "·": r"$\cdot$"}
    return text.translate(str.maketrans(symbols))
