"""Entries: the methods and controls that a table compares. A method is trained, a control is not. Both give predictions
by the same call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Generator, Tensor

from gapbench.datasets.base import Problems
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import Prediction

Kind = Literal["method", "reference", "baseline", "oracle"]
KINDS: tuple[Kind, ...] = ("method", "reference", "baseline", "oracle")


@dataclass(frozen=True)
class Run:
    """The output of an entry, in the units that methods see. diagnostics and failures: as in FittedMethod."""

    prediction: Prediction
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)


class Entry(ABC):
    """A line of a table. kind: decides how the entry is shown, and whether it is ranked."""

    kind: ClassVar[Kind]

    @property
    @abstractmethod
    def subject(self) -> object:
        """The object whose class and fields decide the numbers."""

    @abstractmethod
    def run(self, model: Model, problems: Problems, generator: Generator) -> Run:
        """Predictions at the test points, on the generator's device."""

    def skip(self, model: Model, problems: Problems) -> str | None:
        """The reason why this entry gives no predictions for these data; None if it gives them."""
        return None


@dataclass(frozen=True)
class Trained(Entry):
    """A method, which sees the training data alone."""

    method: UncertaintyMethod
    kind: ClassVar[Kind] = "method"

    @property
    def subject(self) -> UncertaintyMethod:
        return self.method

    def skip(self, model: Model, problems: Problems) -> str | None:
        return self.method.skip(model, problems.inputs[0])

    def run(self, model: Model, problems: Problems, generator: Generator) -> Run:
        x, y, x_test = (part.to(generator.device) for part in problems.inputs)
        fitted = self.method.fit(model, x, y, generator)
        return Run(fitted(x_test), fitted.diagnostics, fitted.failures)
