"""One factor at a time, for a report: the std over the true posterior's against each knob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gapbench.evaluation.bootstrap import estimate
from gapbench.evaluation.drawing import Style, of_knobs
from gapbench.evaluation.knobs import AT_CENTER, KNOBS, WORDS, places
from gapbench.evaluation.report_charts import Curve, Curves
from gapbench.evaluation.results import Result

SCORE = "reference_log_std"


def turned(results: Sequence[Result], style: Mapping[str, Style], region: str) -> list[Curves]:
    """A chart a knob; the dataset that all knobs start at is in each. Empty if the folder turns no knob."""
    if not of_knobs(results):
        return []
    column = (SCORE, region)
    found = [
        (one, at) for one in results if one.kind == "method" and len(one.valid(column)) for at in places(one.dataset)
    ]
    charts = []
    for knob in KNOBS:
        here = [(at[1], one) for one, at in found if at[0] == knob]
        ticks = sorted({value for value, _ in here})
        if not set(ticks) - {AT_CENTER[knob]}:
            continue
        lines = []
        for method in dict.fromkeys(one.method for _, one in here):
            own = {
                value: float(np.exp(min(estimate(one, column, one.valid(column)), 700.0)))
                for value, one in here
                if one.method == method
            }
            values = np.array([own.get(tick, np.nan) for tick in ticks])
            lines.append(Curve(method, method, style[method], np.where(values > 0, values, np.nan)))
        known = np.concatenate([line.values for line in lines])
        known = known[np.isfinite(known)]
        if len(known):
            limits = (max(1e-3, min(0.5, known.min()) * 0.8), min(1e3, max(2.0, known.max()) * 1.25))
            words = tuple(f"{tick:g}" for tick in ticks)
            title = f"{WORDS[knob]}, in the {region}"
            at = np.arange(float(len(ticks)))
            charts.append(
                Curves(
                    title,
                    WORDS[knob],
                    "std of f ÷ the true posterior's",
                    at,
                    tuple(lines),
                    True,
                    limits,
                    right=1.0,
                    ticks=words,
                )
            )
    return charts
