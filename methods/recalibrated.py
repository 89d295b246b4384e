"""Recalibration of any method's law of y (Kuleshov, Fenner & Ermon 2018, https://arxiv.org/abs/1807.00263).

    train on one part; pᵢ = P(y ≤ yᵢ | xᵢ) on the other;   R(p₍ₖ₎) = k/(n + 1), R(0) = 0, R(1) = 1, linear between
    P̂(y ≤ t | x) = R(P(y ≤ t | x)),   so the quantile of level τ is the method's own of level R⁻¹(τ)

R is increasing as it is, so that the isotonic regression of the paper leaves it alone.
Family: conformal.
Caveat: the levels are right on average over the data, with nothing said of how nearly. In a gap the quantiles are the
method's own, at levels that the data decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.engine.conformal import Split
from gapbench.methods.engine.distributions import HasCdf
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import Prediction, QuantilePrediction
from gapbench.methods.quantile_regression import LEVELS
from gapbench.methods.split_conformal import SplitConformal


@dataclass(frozen=True)
class Recalibrated(SplitConformal):
    """A method's law of y, with its quantiles taken at other levels."""

    method: UncertaintyMethod = field(default_factory=DeepEnsemble)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Releveled:
        parts = Split.of(x, y, round(self.calibration * y.shape[1]), generator)
        inner = self.method.fit(model, parts.x, parts.y, generator)
        law = law_of_y(inner(parts.x_held))
        levels = own_levels(law.cdf(parts.y_held.to(law.mean)))
        return Releveled(inner, levels, diagnostics=inner.diagnostics, failures=inner.failures)


def law_of_y(prediction: Prediction) -> HasCdf:
    """The law of y, where it has a distribution function; ValueError where it has none."""
    y = prediction.y
    if not isinstance(y, HasCdf):
        raise ValueError(f"Recalibrated: {type(y).__name__} has no distribution function: expected a law of y")
    return y


def own_levels(pits: Tensor) -> Tensor:
    """The levels R⁻¹(τ) for each τ of LEVELS, (R, L). pits: P(y ≤ yᵢ | xᵢ) of held-out points, (R, n)."""
    ends = torch.zeros_like(pits[:, :1])
    ordered = torch.cat([ends, pits.sort(1).values, ends + 1], 1)
    ranks = torch.tensor(LEVELS, dtype=pits.dtype, device=pits.device) * (pits.shape[1] + 1)
    below = ranks.floor().long()
    return ordered[:, below].lerp(ordered[:, below + 1], ranks - below)


@dataclass(frozen=True)
class Releveled(FittedMethod):
    """A method's quantiles of y at levels of its own, (R, L)."""

    inner: FittedMethod
    levels: Tensor

    def __call__(self, x: Tensor) -> QuantilePrediction:
        whole = self.inner(x)
        replicas = torch.eye(len(x), dtype=torch.bool, device=x.device)
        # Where few points are held out, outer levels are near 0 and 1, whose own quantiles are infinite.
        each = [
            law_of_y(whole.select(own)).quantiles(levels.clamp(1e-6, 1 - 1e-6).tolist())
            for own, levels in zip(replicas, self.levels, strict=True)
        ]
        return QuantilePrediction(LEVELS, torch.cat(each).to(x))
