"""Gap scores: do the error bars of f grow in the gap, where no data are?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-6  # a ratio this near to 1 comes from a std that does not depend on x


def gap_ratio(std_f: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """Mean std of f in the gap over mean std of f in the data, of each replica; nan ("n/a") if the ratio is 0/0.

    std_f: region -> (R,), each replica's mean over the region. None if the regions lack "gap" or "data".
    A large ratio alone is not good; the right ratio is.
    """
    if "gap" not in std_f or "data" not in std_f:
        return None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(std_f["gap"] / std_f["data"])


def gap_wider(std_f: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """1 for a replica whose gap ratio is above 1, else 0; nan stays nan. A ratio of 1 up to rounding is not above 1."""
    ratio = gap_ratio(std_f)
    return None if ratio is None else np.where(np.isnan(ratio), np.nan, ratio > 1 + ROUNDING)
