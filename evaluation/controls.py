"""The two rows every method is read against: the prior (floor) and the true distribution of y (ceiling)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gapbench.datasets.base import Splits
from gapbench.methods.base import Mixture, PosteriorDraws
from gapbench.methods.model import MLP, Model


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
    """Floor: the model before it has seen any data. A method that loses to it was better not trained.

    An MLP is linear in its last layer, whose prior is summed over exactly: each draw, of the layers below, is a normal
    distribution of f. Draws of all of θ are so far apart that the density between them would be the noise's tails.
    """

    draws: int = 50

    def predict(self, model: Model, splits: Splits, generator: Generator) -> Mixture:
        theta = model.sample_prior(generator, (len(splits.x), self.draws))
        if not isinstance(model, MLP):
            return PosteriorDraws(model, theta)(splits.x_test)
        std = torch.stack([_std_of_last_layer(model, one, splits.x_test) for one in theta.unbind(1)], 1)  # (R, S, M)
        std = torch.hypot(std, std.new_tensor(model.f_std))
        return Mixture(torch.zeros_like(std), std, model.noise(theta, splits.x_test.unsqueeze(1)))


def _std_of_last_layer(model: MLP, theta: Tensor, x: Tensor) -> Tensor:
    """Prior std of f given the layers below the last, (R, M). theta: (R, P), x: (R, M, D)."""
    inputs = x

    def keep(hidden: Tensor, index: int) -> Tensor:
        nonlocal inputs
        inputs = hidden
        return hidden

    model.mean(theta, x, keep)
    scale = 1 / inputs.shape[-1] if model.scale_by_fan_in else 1.0
    return model.prior_std * (1 + scale * inputs.square().sum(-1)).sqrt()


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
