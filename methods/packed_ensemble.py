"""Packed ensemble (Laurent et al. 2023, https://arxiv.org/abs/2210.09184).

    hₗ = ⌈alpha wₗ / members⌉ units in hidden layer l of each member, where the model has wₗ
    θₘ = argmin −Σₙ log p(yₙ | xₙ, θ) − log p(θ),  from its own random start,  m = 1 … members
    p(y | x, data) = 1/members Σₘ p(y | x, θₘ)

A deep ensemble of narrow networks, which fit into one network that is alpha times as wide: its hidden layers are
grouped, so that no member sees another. With alpha = members it is the deep ensemble.
Between two hidden layers all members together have alpha² / members times the weights of the model. In its first and
last layer they have alpha times as many. So up to alpha = members a step costs at most about that of alpha networks.
Family: ensemble.
Caveat: a narrow network is another model, and has its own prior over functions. Members differ only by their starts and
their minibatches. In the paper the members share the minibatches, and a member's layers may be grouped again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod
from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.engine.model import MLP, Model


@dataclass(frozen=True)
class PackedEnsemble(DeepEnsemble):
    """Narrow networks that are trained alike from different starts. The other settings are those of DeepEnsemble.

    alpha: how many times as wide as the model all members are together.
    """

    members: int = 4
    alpha: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.alpha < math.inf:
            raise ValueError(f"PackedEnsemble: alpha = {self.alpha}: expected a finite number of at least 1")

    @property
    def exactness(self) -> None:
        """No claim: linear regression has no hidden layer that could be narrower."""
        return None

    def skip(self, model: Model, x: Tensor) -> str | None:
        if not isinstance(model, MLP):
            return f"{type(model).__name__}: expected an MLP, whose hidden layers can be made narrower"
        if not model.hidden:
            return "hidden = (): expected at least one hidden layer, which the members share"
        return super().skip(model, x)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        assert isinstance(model, MLP)  # `skip` refuses all else
        return super().fit(self.member(model), x, y, generator)

    def member(self, model: MLP) -> MLP:
        """The narrower model that each member is."""
        # The decimal number that alpha is written as: 1.1 · 50 / 5 is 11, and not the next float above.
        share = Fraction(str(self.alpha)) / self.members
        return replace(model, hidden=tuple(math.ceil(share * width) for width in model.hidden))
