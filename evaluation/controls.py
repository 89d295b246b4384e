"""The two rows every method is read against: the prior (floor) and the true distribution of y (ceiling)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Generator

from gapbench.datasets.base import Splits
from gapbench.methods.base import Mixture, PosteriorDraws
from gapbench.methods.model import Model


@dataclass(frozen=True)
class Control(ABC):
    """A prediction that needs no training, and may look at what a method never sees."""

    @abstractmethod
    def predict(self, model: Model, splits: Splits, generator: Generator) -> Mixture: ...

    def skip(self, model: Model, splits: Splits) -> str | None:
        """Why there is none for these data; None if there is."""
        return None


@dataclass(frozen=True)
class PriorPredictive(Control):
    """Floor: the model before it has seen any data. A method that loses to it was better not trained."""

    draws: int = 200

    def predict(self, model: Model, splits: Splits, generator: Generator) -> Mixture:
        theta = model.sample_prior(generator, (len(splits.x), self.draws))
        return PosteriorDraws(model, theta)(splits.x_test)


@dataclass(frozen=True)
class Truth(Control):
    """Ceiling: the true p(y | x). A method that significantly beats it in NLL or CRPS has a bug."""

    def skip(self, model: Model, splits: Splits) -> str | None:
        if splits.f_test is None or splits.noise_test is None:
            return "the true function or noise is not known"
        if not (splits.noise_test > 0).all():
            return "the data are noise-free, so the true p(y | x) has no density"
        return None

    def predict(self, model: Model, splits: Splits, generator: Generator) -> Mixture:
        assert splits.f_test is not None and splits.noise_test is not None, self.skip(model, splits)
        zero = splits.f_test.new_zeros(())
        return Mixture(splits.f_test.unsqueeze(1), zero, splits.noise_test.unsqueeze(1))
