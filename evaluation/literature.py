"""Numbers that papers report on the UCI tables, beside those of the suites that repeat their protocols.

Scores are RMSE and NLL of y in the data's units: means over the 20 standard splits with their standard errors, or over
the gap splits with the stds over these, which are no sample.
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

Numbers = Mapping[str, tuple[float, float]]  # table -> (value, what stands behind ±)


def _of_splits(stds: Numbers) -> Numbers:
    """The same values with standard errors, from stds over splits."""
    return {table: (value, std / math.sqrt(SPLITS)) for table, (value, std) in stds.items()}


@dataclass(frozen=True)
class Protocol:
    """A published result. suite: ours, which repeats it. source: where the numbers stand. digits: to which they are
    told here. numbers: score -> table -> (value, standard error). methods: those of ours that stand beside it; all if
    none is named. gap: the numbers are of gaps, with the std over splits; ours, of other networks, are not marked."""

    suite: str
    name: str
    source: str
    numbers: Mapping[str, Numbers]
    digits: int = 2
    methods: tuple[str, ...] = ()
    gap: bool = False


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
# The output of cell 44 of the notebook of plots, which prints the table of the paper's appendix: log likelihoods of a
# normal law with the mixture's moments, and stds over all gap splits, those with a gap of one value too.
DUN = "[the code of Antorán, Allingham & Hernández-Lobato 2020](https://github.com/cambridge-mlg/DUN), its notebook"


def _of_gaps(name: str, method: str, likelihood: Numbers, rmse: Numbers) -> Protocol:
    """A baseline of DUN's table. likelihood: log likelihoods."""
    nll = {table: (-value, std) for table, (value, std) in likelihood.items()}
    return Protocol(
        "uci_gap_all_rows", f"{name}, 2020", DUN, {"rmse_y": rmse, "nll_y": nll}, methods=(method,), gap=True
    )


GAPS = (
    _of_gaps(
        "dropout",
        "mc_dropout",
        {
            "boston": (-4.001, 1.814),
            "concrete": (-5.170, 1.376),
            "energy": (-8.102, 13.796),
            "kin8nm": (1.215, 0.049),
            "naval": (-523.856, 570.116),
            "power": (-3.178, 0.224),
            "wine": (-1.267, 0.677),
            "yacht": (-2.344, 0.995),
        },
        {
            "boston": (3.597, 0.684),
            "concrete": (7.064, 0.921),
            "energy": (2.874, 2.254),
            "kin8nm": (0.071, 0.003),
            "naval": (0.034, 0.018),
            "power": (4.688, 0.335),
            "wine": (0.660, 0.040),
            "yacht": (2.290, 2.108),
        },
    ),
    _of_gaps(
        "ensemble",
        "deep_ensemble",
        {
            "boston": (-3.106, 1.481),
            "concrete": (-3.631, 0.523),
            "energy": (-5.423, 7.290),
            "kin8nm": (0.315, 2.397),
            "naval": (-4.573, 7.496),
            "power": (-2.904, 0.110),
            "wine": (-1.126, 0.137),
            "yacht": (-2.568, 1.250),
        },
        {
            "boston": (3.512, 0.573),
            "concrete": (6.853, 0.796),
            "energy": (3.364, 3.696),
            "kin8nm": (1.632, 4.418),
            "naval": (0.018, 0.009),
            "power": (4.369, 0.383),
            "wine": (0.673, 0.039),
            "yacht": (1.841, 0.836),
        },
    ),
    _of_gaps(
        "mean field",
        "svi",
        {
            "boston": (-2.703, 0.072),
            "concrete": (-3.460, 0.177),
            "energy": (-9.093, 10.573),
            "kin8nm": (0.942, 0.240),
            "naval": (-15.208, 43.758),
            "power": (-2.980, 0.184),
            "wine": (-0.965, 0.033),
            "yacht": (-2.114, 0.399),
        },
        {
            "boston": (3.756, 0.418),
            "concrete": (7.548, 0.865),
            "energy": (8.614, 9.390),
            "kin8nm": (0.095, 0.025),
            "naval": (0.033, 0.041),
            "power": (4.680, 0.703),
            "wine": (0.632, 0.029),
            "yacht": (1.836, 0.712),
        },
    ),
    _of_gaps(
        "SGD",
        "map",
        {
            "boston": (-4.217, 1.876),
            "concrete": (-4.839, 1.585),
            "energy": (-15.295, 26.058),
            "kin8nm": (0.991, 0.131),
            "naval": (-60.470, 53.213),
            "power": (-3.022, 0.141),
            "wine": (-2.026, 1.130),
            "yacht": (-2.442, 0.520),
        },
        {
            "boston": (4.593, 2.927),
            "concrete": (7.367, 0.866),
            "energy": (3.061, 2.880),
            "kin8nm": (0.085, 0.007),
            "naval": (0.020, 0.009),
            "power": (4.621, 0.339),
            "wine": (0.731, 0.070),
            "yacht": (2.214, 0.793),
        },
    ),
)
PROTOCOLS: Mapping[str, tuple[Protocol, ...]] = {
    "uci_deep_ensemble": (ENSEMBLES,),
    "uci_mc_dropout": (DROPOUT,),
    "uci_gap_all_rows": GAPS,
}


def ours(result: Result, score: str, gap: bool = False) -> tuple[float, float]:
    """The mean over splits and its standard error, or in gaps the std over splits; nan for n/a."""
    values = result.scores.get(score, {}).get("gap" if gap else "data", np.full(1, np.nan))
    known = values[~np.isnan(values)]
    std = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return (float(known.mean()) if len(known) else math.nan), std if gap else std / math.sqrt(max(1, len(known)))


def differs(one: tuple[float, float], other: tuple[float, float], digits: int) -> bool:
    """True if two numbers are further apart than BEYOND standard errors and the rounding of the published one."""
    error = math.hypot(one[1], other[1])
    return bool(abs(one[0] - other[0]) > BEYOND * error + 0.5 * 10.0**-digits)


def compared(protocols: Sequence[Protocol], results: Sequence[Result]) -> str:
    """The numbers of one suite's protocols and ours, as a Markdown table; ≠ where they differ."""
    methods = list(dict.fromkeys(one.method for one in results if one.kind == "method"))
    by_place = {(one.dataset, one.method): one for one in results}
    columns = [(one, list(one.methods) or methods) for one in protocols]
    head = " | ".join(" | ".join((one.name, *beside)) for one, beside in columns)
    lines = [f"| | | {head} |", f"|---|---|{'---:|' * sum(1 + len(beside) for _, beside in columns)}"]
    for score, words in SCORES.items():
        for table in protocols[0].numbers[score]:
            cells = [cell for one, beside in columns for cell in _cells(one, score, table, beside, by_place)]
            lines.append(f"| {table} | {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(
    protocol: Protocol, score: str, table: str, methods: Sequence[str], by_place: Mapping[tuple[str, str], Result]
) -> list[str]:
    """A published number and ours beside it."""
    published = protocol.numbers[score][table]
    cells = [_told(published, protocol.digits)]
    for method in methods:
        result = by_place.get((f"{table}_gap" if protocol.gap else table, method))
        found = ours(result, score, protocol.gap) if result is not None else None
        if found is None or math.isnan(found[0]):
            cells.append("" if found is None else "n/a")
        else:
            apart = not protocol.gap and differs(found, published, protocol.digits)
            cells.append(f"{_told(found, protocol.digits)}{' ≠' if apart else ''}")
    return cells


def _told(number: tuple[float, float], digits: int) -> str:
    return f"{number[0]:.{digits}f} ± {number[1]:.{digits}f}"
