"""Quantile regression by a network (Koenker & Bassett 1978; Taylor 2000).

    minimise  Σₙ Σ_p max(p (yₙ − q_p(xₙ)), (p − 1)(yₙ − q_p(xₙ))) / s − log p(θ),   q increasing in p

The outputs of the network are the median and the logs of the steps between neighbouring levels, so quantiles cannot
cross. s is the noise that the model knows or expects, which makes the pinball loss a negative log likelihood.
https://doi.org/10.2307/1913643
Family: learned noise.
Caveat: the quantiles are of y, and learned where the data are. There is no f, and nothing widens them in a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from gapbench.methods.base import FittedMethod
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.optimise import negative_log_posterior
from gapbench.methods.engine.predictions import QuantilePrediction

LEVELS = (0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.995)


@dataclass(frozen=True)
class QuantileRegression(AdamTrained):
    """One network whose outputs are quantiles of y. levels: increasing, an odd number, the middle one is the center."""

    levels: tuple[float, ...] = LEVELS
    steps: int = 12_000
    lr: float = 6e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.levels) % 2 == 0 or not are_levels(self.levels):
            raise ValueError(
                f"QuantileRegression: levels = {self.levels}: expected an odd number of them, increasing, in (0, 1)"
            )

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Quantiles:
        scale = model.expected_noise
        outputs = replace(model, noise_std=scale).with_outputs(len(self.levels))
        p = torch.tensor(self.levels, device=x.device)

        def loss(theta: Tensor, index: Tensor) -> Tensor:
            above = gather_points(y, index).unsqueeze(-1) - quantiles(outputs, theta, gather_points(x, index), scale)
            pinball = torch.maximum(p * above, (p - 1) * above).sum(-1) / scale
            return negative_log_posterior(-pinball, outputs.log_prior(theta), y.shape[1])

        start = outputs.init(generator, (len(y),))
        theta, diagnostics = self.train(loss, start, y.shape[1], generator)
        return Quantiles(outputs, theta, self.levels, scale, diagnostics=diagnostics)


def are_levels(levels: Sequence[float]) -> bool:
    """True for levels that increase, between 0 and 1."""
    return all(low < high for low, high in pairwise((0.0, *levels, 1.0)))


def quantiles(model: Model, theta: Tensor, x: Tensor, scale: float) -> Tensor:
    """The quantiles of y at x, (..., N, L), increasing."""
    outputs = model.network(theta, x)
    center, widths = outputs[..., :1], scale * softplus(outputs[..., 1:])
    middle = widths.shape[-1] // 2
    low = center - widths[..., :middle].flip(-1).cumsum(-1).flip(-1)
    return torch.cat([low, center, center + widths[..., middle:].cumsum(-1)], -1)


@dataclass(frozen=True)
class Quantiles(FittedMethod):
    """The network of the quantiles. theta: (R, P)."""

    model: Model
    theta: Tensor
    levels: tuple[float, ...]
    scale: float

    def __call__(self, x: Tensor) -> QuantilePrediction:
        return QuantilePrediction(self.levels, quantiles(self.model, self.theta, x, self.scale).movedim(-1, 1))
