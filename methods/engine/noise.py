"""Learned noise: the std of y given f, as a part of the model.

Both kinds have  log σ = log center + spread · z.  They differ in what z is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """A noise that is learned with the network. Its two kinds are below.

    center: units of y, > 0. spread: > 0. Raises ValueError otherwise.
    coordinates: the number of entries at the end of θ that belong to the noise.
    outputs: the number of outputs of the network that belong to the noise.
    """

    center: float = 0.3
    spread: float = 1.0
    coordinates: ClassVar[int] = 0
    outputs: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not (0 < self.center < math.inf and 0 < self.spread < math.inf):
            raise ValueError(
                f"{type(self).__name__}: center = {self.center}, spread = {self.spread}: expected both to be positive"
            )

    def std(self, z: Tensor) -> Tensor:
        """The std σ of the noise, for z of any shape."""
        return self.center * (self.spread * z).exp()


@dataclass(frozen=True)
class LearnedNoise(Noise):
    """One unknown σ for all points, with the prior log σ ~ N(log center, spread²).

    z is the last entry of θ divided by prior_std. So the prior of θ stays N(0, prior_std² I), and every method that
    knows this prior learns the noise without extra code.
    """

    coordinates: ClassVar[int] = 1


@dataclass(frozen=True)
class HeteroscedasticNoise(Noise):
    """A noise that depends on x: z is the second output of the network, with the network's prior.

    With spread 0.5 and an output of std 2, σ is between a seventh and seven times the center in 95 of 100 draws.
    """

    spread: float = 0.5
    outputs: ClassVar[int] = 1
