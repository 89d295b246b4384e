"""Do the error bars of f grow where there are no data?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-6  # a ratio this near to 1 is that of a std which does not depend on x


def gap_ratio(std_f: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """Mean std of f in the gap over mean std of f in the data, of each replica; nan ("n/a") where that is 0/0.

    std_f: region -> (R,), each replica's mean over the region. None if there is no gap, or no data, among the regions.
    A large ratio alone is not good: right is good.
    """
    if "gap" not in std_f or "data" not in std_f:
        return None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(std_f["gap"] / std_f["data"])


def gap_wider(std_f: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """1 where that ratio is above 1, 0 where it is not; a ratio that is 1 up to rounding is not above 1."""
    ratio = gap_ratio(std_f)
    return None if ratio is None else np.where(np.isnan(ratio), np.nan, ratio > 1 + ROUNDING)
