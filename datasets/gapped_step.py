"""Data of a step whose jump lies in the gap, a truth that a network's prior cannot draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapbench.datasets.gapped import Gapped


@dataclass(frozen=True, kw_only=True)
class GappedStep(Gapped):
    """A step in the middle of the gap: −1 to the left, +1 from there on. The fields are those of Gapped.

    The data on each side are a constant with noise, and no point shows where the jump is. Draws of a network's prior
    are continuous, so the model is misspecified. A method should not be sure of any value in the gap.
    """

    n: int = 200
    noise_std: float = 0.1

    def truth(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(x < sum(self.gap) / 2, -1.0, 1.0)
