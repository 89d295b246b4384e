"""Split conformal prediction around any method's mean (Papadopoulos et al. 2002; Lei et al. 2018,
https://arxiv.org/abs/1604.04173).

    train on one part; sᵢ = |yᵢ − μ(xᵢ)| on the other;   y ∈ μ(x) ± s₍ₖ₎ with probability ≥ p,   k = ⌈p(n + 1)⌉

Family: conformal.
Caveat: the coverage is an average over the law of the data. The interval has the same width everywhere, in a gap too,
where the promise says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.engine.conformal import LEVELS, Split, bounds, too_few
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import BandPrediction


@dataclass(frozen=True)
class SplitConformal(UncertaintyMethod):
    """Intervals of constant width around a method's mean. calibration: the share of the points that is held out."""

    method: UncertaintyMethod = field(default_factory=lambda: DeepEnsemble(members=1))
    calibration: float = 0.3

    def skip(self, model: Model, x: Tensor) -> str | None:
        n = x.shape[1]
        return too_few(self.calibration, n) or self.method.skip(model, x[:, round(self.calibration * n) :])

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        parts = Split.of(x, y, round(self.calibration * y.shape[1]), generator)
        inner = self.method.fit(model, parts.x, parts.y, generator)
        scores = (parts.y_held - inner(parts.x_held).y.mean.to(y)).abs()
        half = bounds(scores.unsqueeze(1).expand(-1, len(LEVELS) // 2, -1))
        return ConstantBand(inner, half, diagnostics=inner.diagnostics, failures=inner.failures)


@dataclass(frozen=True)
class ConstantBand(FittedMethod):
    """A method's mean, and the half-widths of the intervals, (R, C), increasing."""

    inner: FittedMethod
    half: Tensor

    def __call__(self, x: Tensor) -> BandPrediction:
        mean = self.inner(x).y.mean.to(x)
        offsets = torch.cat([-self.half.flip(1), self.half], 1)
        return BandPrediction(LEVELS, mean.unsqueeze(1) + offsets.unsqueeze(-1), mean)
