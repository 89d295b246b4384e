"""Do the error bars of f grow where there are no data?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def gap_ratio(std_f: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean std of f in the gap over mean std of f in the data, of each replica; nan ("n/a") where that is 0/0.

    std_f: region -> (R,), each replica's mean over the region. A large ratio alone is not good: right is good.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return std_f["gap"] / std_f["data"]
