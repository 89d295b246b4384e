"""Numbers that papers report on the UCI tables, beside those of the suites that repeat their protocols.

Scores are RMSE and NLL of y in the data's units, means over the 20 standard splits with their standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gapbench.evaluation.results import Result

SCORES = {"rmse_y": "RMSE", "nll_y": "NLL"}
SPLITS = 20
BEYOND = 2.0  # standard errors of the difference, beyond which two numbers count as different

Numbers = Mapping[str, tuple[float, float]]  # table -> (value, standard error)


def _of_splits(stds: Numbers) -> Numbers:
    """The same values with standard errors, from stds over splits."""
    return {table: (value, std / math.sqrt(SPLITS)) for table, (value, std) in stds.items()}


@dataclass(frozen=True)
class Protocol:
    """A published result. suite: ours, which repeats it. source: where the numbers stand. digits: to which they are
    rounded there. numbers: score -> table -> (value, standard error)."""

    suite: str
    name: str
    source: str
    numbers: Mapping[str, Numbers]
    digits: int = 2


# Table 1 of the paper; its ± are standard deviations over splits.
ENSEMBLES = Protocol(
    "uci_deep_ensemble",
    "deep ensembles, 2017",
    "[Lakshminarayanan, Pritzel & Blundell 2017](https://arxiv.org/abs/1612.01474), table 1",
    {
        "rmse_y": _of_splits(
            {
                "boston": (3.28, 1.00),
                "concrete": (6.03, 0.58),
                "energy": (2.09, 0.29),
                "kin8nm": (0.09, 0.00),
                "naval": (0.00, 0.00),
                "power": (4.11, 0.17),
                "wine": (0.64, 0.04),
                "yacht": (1.58, 0.48),
            }
        ),
        "nll_y": _of_splits(
            {
                "boston": (2.41, 0.25),
                "concrete": (3.06, 0.18),
                "energy": (1.38, 0.22),
                "kin8nm": (-1.20, 0.02),
                "naval": (-5.63, 0.05),
                "power": (2.79, 0.04),
                "wine": (0.94, 0.12),
                "yacht": (1.18, 0.21),
            }
        ),
    },
)
# The column "Grid Search (new)" of the code's page; its ± are standard errors.
DROPOUT = Protocol(
    "uci_mc_dropout",
    "MC dropout, 2018",
    "[the code of Gal & Ghahramani 2016](https://github.com/yaringal/DropoutUncertaintyExps), its results of 2018",
    {
        "rmse_y": {
            "boston": (2.90, 0.18),
            "concrete": (4.82, 0.16),
            "energy": (0.54, 0.06),
            "kin8nm": (0.08, 0.00),
            "naval": (0.00, 0.00),
            "power": (4.01, 0.04),
            "wine": (0.62, 0.01),
            "yacht": (0.67, 0.05),
        },
        "nll_y": {
            "boston": (2.40, 0.04),
            "concrete": (2.93, 0.02),
            "energy": (1.21, 0.01),
            "kin8nm": (-1.14, 0.01),
            "naval": (-4.45, 0.00),
            "power": (2.80, 0.01),
            "wine": (0.93, 0.01),
            "yacht": (1.25, 0.01),
        },
    },
)
PROTOCOLS = {one.suite: one for one in (ENSEMBLES, DROPOUT)}


def ours(result: Result, score: str) -> tuple[float, float]:
    """The mean over splits and its standard error, nan for n/a."""
    values = result.scores.get(score, {}).get("data", np.full(1, np.nan))
    known = values[~np.isnan(values)]
    error = float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else math.nan
    return (float(known.mean()) if len(known) else math.nan), error


def differs(one: tuple[float, float], other: tuple[float, float], digits: int) -> bool:
    """True if two numbers are further apart than BEYOND standard errors and the rounding of the published one."""
    error = math.hypot(one[1], other[1])
    return bool(abs(one[0] - other[0]) > BEYOND * error + 0.5 * 10.0**-digits)


def compared(protocol: Protocol, results: Sequence[Result]) -> str:
    """The published numbers and ours, as a Markdown table; ≠ where they differ."""
    methods = list(dict.fromkeys(one.method for one in results if one.kind == "method"))
    by_place = {(one.dataset, one.method): one for one in results}
    lines = [f"| | | {protocol.name} | {' | '.join(methods)} |", f"|---|---|---:|{'---:|' * len(methods)}"]
    for score, words in SCORES.items():
        for table, published in protocol.numbers[score].items():
            cells = []
            for method in methods:
                result = by_place.get((table, method))
                if result is None:
                    cells.append("")
                    continue
                found = ours(result, score)
                mark = " ≠" if differs(found, published, protocol.digits) else ""
                cells.append("n/a" if math.isnan(found[0]) else f"{_told(found, protocol.digits)}{mark}")
            lines.append(f"| {table} | {words} | {_told(published, protocol.digits)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(number: tuple[float, float], digits: int) -> str:
    return f"{number[0]:.{digits}f} ± {number[1]:.{digits}f}"
