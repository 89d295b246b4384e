"""Data y = sin x + noise(x)·ξ whose noise grows from left to right, without observations in the gap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapbench.datasets.gapped import Gapped


@dataclass(frozen=True, kw_only=True)
class GappedHeteroscedastic(Gapped):
    """A sine over both sides of the gap, with noise whose log std is linear in x, beyond the span too.

    noise_std, noise_std_right: the std of the noise at the left and at the right end of the span, units of y. The other
    fields are those of Gapped. The model must learn the noise: one with a single std is misspecified here.
    """

    n: int = 400
    noise_std: float = 0.05
    noise_std_right: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.noise_std > 0 and 0 < self.noise_std_right < np.inf):
            raise ValueError(
                f"{type(self).__name__}: noise_std = {self.noise_std}, noise_std_right = {self.noise_std_right}: "
                "expected stds above 0, since the log of the noise is linear in x"
            )

    def truth(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sin(x)

    def noise(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = self.span
        return self.noise_std * (self.noise_std_right / self.noise_std) ** ((x - low) / (high - low))
