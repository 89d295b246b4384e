"""Conformalised quantile regression (Romano, Patterson & Candès 2019, https://arxiv.org/abs/1905.03222).

    train quantiles on one part; sᵢ = max(q_low(xᵢ) − yᵢ, yᵢ − q_high(xᵢ)) on the other;
    y ∈ [q_low(x) − s₍ₖ₎, q_high(x) + s₍ₖ₎] with probability ≥ p,   k = ⌈p(n + 1)⌉

Family: conformal.
Caveat: the coverage is an average over the law of the data. In a gap the width is whatever the quantiles extrapolate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.conformal import LEVELS, Split, bounds, too_few
from gapbench.methods.engine.distributions import HasQuantiles
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import BandPrediction
from gapbench.methods.quantile_regression import QuantileRegression


@dataclass(frozen=True)
class CQR(UncertaintyMethod):
    """A method's own intervals of y, each widened or narrowed by one number. calibration: the share held out."""

    method: UncertaintyMethod = field(default_factory=QuantileRegression)
    calibration: float = 0.3

    def skip(self, model: Model, x: Tensor) -> str | None:
        n = x.shape[1]
        return too_few(self.calibration, n) or self.method.skip(model, x[:, round(self.calibration * n) :])

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> ShiftedBand:
        parts = Split.of(x, y, round(self.calibration * y.shape[1]), generator)
        inner = self.method.fit(model, parts.x, parts.y, generator)
        low, high = ends(inner, parts.x_held)
        held = parts.y_held.unsqueeze(1)
        wider = bounds(torch.maximum(low - held, held - high))
        return ShiftedBand(inner, wider, diagnostics=inner.diagnostics, failures=inner.failures)


def ends(fit: FittedMethod, x: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper ends of a method's own intervals, (R, C, M) each."""
    y = fit(x).y
    if not isinstance(y, HasQuantiles):
        raise ValueError(
            f"CQR: {type(y).__name__} has no quantiles: expected a method that predicts a distribution of y"
        )
    low, high = y.quantiles(LEVELS).to(x).chunk(2, 1)
    return low.flip(1), high


@dataclass(frozen=True)
class ShiftedBand(FittedMethod):
    """A method's intervals, and by how much each end is moved outwards, (R, C)."""

    inner: FittedMethod
    wider: Tensor

    def __call__(self, x: Tensor) -> BandPrediction:
        low, high = ends(self.inner, x)
        wider = self.wider.unsqueeze(-1)
        values = torch.cat([(low - wider).flip(1), high + wider], 1)
        return BandPrediction(LEVELS, values.sort(1).values, self.inner(x).y.mean.to(x))
