"""Data y = sin x + noise·ξ without observations in the gap, as in the notebook series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapbench.datasets.gapped import Gapped


@dataclass(frozen=True, kw_only=True)
class GappedSine(Gapped):
    """A sine over both sides of the gap. The fields are those of Gapped.

    The test set of the notebook series is GappedSine(extrapolation=0, test_points=100).
    """

    def truth(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sin(x)
