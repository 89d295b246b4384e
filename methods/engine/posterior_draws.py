"""Posterior draws: a fitted method that is a set of functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gapbench.methods.base import FittedMethod
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import MixturePrediction


@dataclass(frozen=True)
class PosteriorDraws(FittedMethod):
    """The network at S draws of θ. theta: (R, S, P), chain-major if there are chains."""

    model: Model
    theta: Tensor
    chains: int = 0

    def __call__(self, x: Tensor) -> MixturePrediction:
        return mixture((self.model.mean_and_noise(theta, x) for theta in self.theta.unbind(1)), self.chains)


def mixture(functions: Iterable[tuple[Tensor, Tensor]], chains: int = 0) -> MixturePrediction:
    """The prediction of S functions with equal weights, each f (R, M) and its noise std, which broadcasts to f.

    One function at a time: the memory of a prediction does not grow with S × the network's width.
    """
    means, noises = zip(*functions, strict=True)
    location = torch.stack(means, 1)
    noise = noises[0] if noises[0].ndim == 0 else torch.stack(noises, 1)
    return MixturePrediction(location, torch.zeros((), dtype=location.dtype, device=location.device), noise, chains)
