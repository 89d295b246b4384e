"""The contract of a method: its inputs and its output.

    fit(model, x, y, generator) -> FittedMethod,    FittedMethod(x_test) -> Prediction

Letters: R replicas, N training points, M test points, D features, P parameters, S posterior draws.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from torch import Generator, Tensor

from gapbench.methods.engine.exactness import Gaussian, LinearRegression
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import Prediction


@dataclass(frozen=True, kw_only=True)
class FittedMethod(ABC):
    """A method after training. A call is pure, and pointwise in x, so a caller may cut x into chunks.

    diagnostics: numbers about the method's own run (gradient evaluations, acceptance, …), (R,) each.
    failures: replica -> the reason why its result must not be used. Non-finite predictions need not be listed.
    """

    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)

    @abstractmethod
    def __call__(self, x: Tensor) -> Prediction:
        """The prediction at x, (R, M, D)."""


@dataclass(frozen=True)
class Claim:
    """A statement that can be tested: `method` has this law of θ on Bayesian linear regression."""

    method: UncertaintyMethod
    law: Callable[[LinearRegression], Gaussian]


@dataclass(frozen=True)
class UncertaintyMethod(ABC):
    """A way to learn p(y | x). Its fields are its hyperparameters, and describe it completely.

    Fields with the same meaning have the same name in all methods: steps, lr, batch, burn_in, draws, thin, chains,
    members, rate. Raises ValueError if one of these has an invalid value.
    """

    def __post_init__(self) -> None:
        for one in fields(self):
            value, name = getattr(self, one.name), f"{type(self).__name__}: {one.name}"
            if one.name in LEAST and value < LEAST[one.name]:
                raise ValueError(f"{name} = {value}: expected at least {LEAST[one.name]}")
            if one.name == "lr" and not value > 0:
                raise ValueError(f"{name} = {value}: expected a positive step size")
            if one.name == "rate" and not 0 <= value < 1:
                raise ValueError(f"{name} = {value}: expected a probability in [0, 1)")

    @abstractmethod
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        """All replicas, trained at once. x: (R, N, D), y: (R, N), both on the generator's device.

        Every random number comes from `generator`. Replicas must not see each other.
        """

    @property
    def exactness(self) -> Claim | None:
        """The law that this class claims on `exactness.example()`; None without a claim.

        The example has 20 points and a posterior of std about 0.5. The claim's method has settings that reach the law
        in seconds, and the settings of this instance otherwise.
        """
        return None

    def skip(self, model: Model, x: Tensor) -> str | None:
        """The reason why this method cannot solve this problem, in one sentence; None if it can. x: (R, N, D)."""
        return None


# The smallest values that the shared hyperparameters may have.
LEAST: Mapping[str, int] = {
    "steps": 0,
    "burn_in": 0,
    "batch": 1,
    "draws": 1,
    "thin": 1,
    "chains": 1,
    "members": 1,
    "particles": 1,
    "max_steps": 1,
}
