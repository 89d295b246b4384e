"""Locally weighted split conformal prediction (Lei et al. 2018, section 5.2, https://arxiv.org/abs/1604.04173), with
the method's own std in place of a second regression of the errors' size.

    train on one part; sᵢ = |yᵢ − μ(xᵢ)|/std(xᵢ) on the other;   y ∈ μ(x) ± s₍ₖ₎ std(x) with probability ≥ p,
    k = ⌈p(n + 1)⌉,   std: the method's own, of y

Family: conformal.
Caveat: the coverage is an average over the law of the data. In a gap the width is the method's own, times a number that
the data decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.engine.conformal import LEVELS, Split, bounds
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import BandPrediction
from gapbench.methods.split_conformal import SplitConformal


@dataclass(frozen=True)
class LocalConformal(SplitConformal):
    """A method's own error bars of y, widened or narrowed by one factor for each level."""

    method: UncertaintyMethod = field(default_factory=DeepEnsemble)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> ScaledBand:
        parts = Split.of(x, y, round(self.calibration * y.shape[1]), generator)
        inner = self.method.fit(model, parts.x, parts.y, generator)
        held = inner(parts.x_held).y
        scores = ((parts.y_held - held.mean) / held.std).abs().to(y)
        factor = bounds(scores.unsqueeze(1).expand(-1, len(LEVELS) // 2, -1))
        return ScaledBand(inner, factor, diagnostics=inner.diagnostics, failures=inner.failures)


@dataclass(frozen=True)
class ScaledBand(FittedMethod):
    """A method's mean, and the half-widths of the intervals in stds of y, (R, C), increasing."""

    inner: FittedMethod
    factor: Tensor

    def __call__(self, x: Tensor) -> BandPrediction:
        y = self.inner(x).y
        mean, std = y.mean.to(x).unsqueeze(1), y.std.to(x).unsqueeze(1)
        factors = torch.cat([-self.factor.flip(1), self.factor], 1).unsqueeze(-1)
        return BandPrediction(LEVELS, mean + factors * std, mean.squeeze(1))
