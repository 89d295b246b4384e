"""Controls: the entries that every method is compared with. Controls are not trained, and may use what a method never
sees, such as the true function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from gapbench.datasets.base import Problems
from gapbench.evaluation.entries import Entry, Kind, Run
from gapbench.evaluation.reference_file import Law, find, key_of, path_of
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.engine.predictions import MixturePrediction, QuantilePrediction


@dataclass(frozen=True)
class Control(Entry):
    """An entry that describes itself by its own fields."""

    @property
    def subject(self) -> Control:
        return self


@dataclass(frozen=True)
class PriorPredictive(Control):
    """Baseline: the model before it has seen any data. A method that scores worse than this gained nothing by training.

    An MLP is linear in its last layer, whose prior is integrated exactly. So each draw of the layers below gives a
    normal distribution of f. Draws of the whole θ are far apart: the density between them would be the noise's
    tails.
    """

    draws: int = 50
    kind: ClassVar[Kind] = "baseline"

    def run(self, model: Model, problems: Problems, generator: Generator) -> Run:
        x = problems.inputs[2].to(generator.device)
        theta = model.sample_prior(generator, (len(x), self.draws))
        if not isinstance(model, MLP):
            return Run(PosteriorDraws(model, theta)(x))
        std = torch.stack([_std_of_last_layer(model, one, x) for one in theta.unbind(1)], 1)  # (R, S, M)
        noise = model.noise(theta, x.unsqueeze(1))
        return Run(MixturePrediction(torch.zeros_like(std), std, noise))


def _std_of_last_layer(model: MLP, theta: Tensor, x: Tensor) -> Tensor:
    """Prior std of f given the layers below the last, (R, M). theta: (R, P), x: (R, M, D)."""
    hidden, (_, _, scale) = model.last_hidden(theta, x), model.layers[-1]
    return model.prior_std * (1 + scale**2 * hidden.square().sum(-1)).sqrt()


@dataclass(frozen=True)
class Truth(Control):
    """Oracle: the true p(y | x). A method that beats the oracle significantly in NLL or CRPS has a bug."""

    kind: ClassVar[Kind] = "oracle"

    def skip(self, model: Model, problems: Problems) -> str | None:
        if problems.f_test is None or problems.noise_test is None:
            return "the true function or noise is not known"
        if not (problems.noise_test > 0).all():
            return "the data are noise-free, so the true p(y | x) has no density"
        return None

    def run(self, model: Model, problems: Problems, generator: Generator) -> Run:
        assert problems.f_test is not None and problems.noise_test is not None, self.skip(model, problems)
        units = problems.standardisation
        f = units.y(problems.f_test).to(generator.device).unsqueeze(1)
        noise = (problems.noise_test / units.y_std.unsqueeze(1)).float().to(generator.device).unsqueeze(1)
        return Run(MixturePrediction(f, torch.zeros_like(f), noise))


@dataclass(frozen=True)
class ReferencePosterior(Control):
    """Reference: the posterior itself, from the shipped long chains, at `draws` equal shares of its mass."""

    draws: int = 200
    kind: ClassVar[Kind] = "reference"

    def skip(self, model: Model, problems: Problems) -> str | None:
        missing = [r for r in range(len(problems.x)) if not path_of(key_of(problems, r, model)).exists()]
        return f"no reference posterior for {len(missing)} of {len(problems.x)} replicas" if missing else None

    def run(self, model: Model, problems: Problems, generator: Generator) -> Run:
        found = [find(problems, r, model) for r in range(len(problems.x))]
        laws = [(reference.f, reference.y) for reference in found if reference is not None]
        assert len(laws) == len(found), self.skip(model, problems)

        def stacked(laws: list[Law]) -> Tensor:
            return torch.from_numpy(np.stack([law.draws(self.draws) for law in laws])).float().to(generator.device)

        f, y = stacked([f for f, _ in laws]), [y for _, y in laws if y is not None]
        if y:  # σ is learned, and not independent of f
            levels = tuple((i + 0.5) / self.draws for i in range(self.draws))
            return Run(QuantilePrediction(levels, stacked(y), f))
        # The prediction declares no chains: these draws are none.
        noise = model.noise(f.new_empty(model.size), f.new_empty(1, model.features))
        return Run(MixturePrediction(f, f.new_zeros(()), noise))
