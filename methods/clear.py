"""CLEAR: error bars of two kinds, weighed against each other and calibrated together (Azizi, Bodik, Heiss & Yu 2025,
https://arxiv.org/abs/2507.08150).

    on one part: train quantiles q of y, and an ensemble; f_p: the quantiles of its f
    below(x) = q_½ − q_low + λ (f_½ − f_low),   above(x) = q_high − q_½ + λ (f_high − f_½)
    on the other: sᵢ = max((f_½ − yᵢ)/below(xᵢ), (yᵢ − f_½)/above(xᵢ)),   γ = s₍ₖ₎,   k = ⌈p(n + 1)⌉
    y ∈ [f_½ − γ below, f_½ + γ above];   λ: the one with the least pinball loss of both ends on the other part

Family: conformal.
Caveat: λ is chosen on the points that γ is calibrated on, so coverage is near p, without a guarantee. In a gap the
width is a weighted sum of the two, with weights that data elsewhere decide. The authors' code can also train the
quantiles on the errors of the ensemble, and tries some thousand λ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.engine.conformal import COVERAGES, LEVELS, Split, bounds, too_few
from gapbench.methods.engine.distributions import Band, Distribution, HasQuantiles
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import BandPrediction
from gapbench.methods.quantile_regression import QuantileRegression

LAMBDAS = (0.0, *(10 ** (tenth / 10) for tenth in range(-20, 21)))  # none, and from 0.01 to 100
THIN = 1e-8  # the least width of an error bar, so that no score divides by 0


@dataclass(frozen=True)
class CLEAR(UncertaintyMethod):
    """Intervals of y from quantiles of y (aleatoric) and quantiles of f (epistemic). calibration: the share of the
    points that is held out."""

    aleatoric: UncertaintyMethod = field(default_factory=QuantileRegression)
    epistemic: UncertaintyMethod = field(default_factory=DeepEnsemble)
    calibration: float = 0.3

    def skip(self, model: Model, x: Tensor) -> str | None:
        n = x.shape[1]
        rest = x[:, round(self.calibration * n) :]
        return too_few(self.calibration, n) or self.aleatoric.skip(model, rest) or self.epistemic.skip(model, rest)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> WeighedBand:
        parts = Split.of(x, y, round(self.calibration * y.shape[1]), generator)
        aleatoric, epistemic = (one.fit(model, parts.x, parts.y, generator) for one in (self.aleatoric, self.epistemic))
        bars, held = Bars.of(aleatoric, epistemic, parts.x_held), parts.y_held.unsqueeze(1)
        weights = torch.tensor(LAMBDAS, dtype=y.dtype, device=y.device)
        factors = torch.stack([bars.factor(weight, held) for weight in weights])  # (Λ, R, C)
        losses = torch.stack([bars.pinball(*pair, held) for pair in zip(factors, weights, strict=True)])
        best = losses.argmin(0)
        return WeighedBand(
            aleatoric,
            epistemic,
            factors.gather(0, best.unsqueeze(0)).squeeze(0),
            weights[best],
            diagnostics=of_both(aleatoric.diagnostics, epistemic.diagnostics),
            failures={**aleatoric.failures, **epistemic.failures},
        )


@dataclass(frozen=True)
class Bars:
    """Both kinds of error bars at M points. middle: f_½, (R, 1, M). aleatoric, epistemic: the distances from the median
    to the lower and to the upper end, (2, R, C, M), C coverages."""

    middle: Tensor
    aleatoric: Tensor
    epistemic: Tensor

    @classmethod
    def of(cls, aleatoric: FittedMethod, epistemic: FittedMethod, x: Tensor) -> Bars:
        noise, law = aleatoric(x).y, epistemic(x).f
        return cls(_quantiles(law, (0.5,)).to(x), _bars(noise).to(x), _bars(law).to(x))

    def both(self, weight: Tensor) -> Tensor:
        """Both bars as one. weight: λ, one for all or (R, C)."""
        weight = weight.unsqueeze(-1) if weight.ndim else weight
        return (self.aleatoric + weight * self.epistemic).clamp(min=THIN)

    def factor(self, weight: Tensor, y: Tensor) -> Tensor:
        """γ of each coverage, (R, C). y: (R, 1, M)."""
        below, above = self.both(weight)
        return bounds(torch.maximum((self.middle - y) / below, (y - self.middle) / above))

    def ends(self, factor: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The lower and the upper end of each interval, (R, C, M) each. factor: γ, (R, C)."""
        below, above = factor.unsqueeze(-1) * self.both(weight)
        return self.middle - below, self.middle + above

    def pinball(self, factor: Tensor, weight: Tensor, y: Tensor) -> Tensor:
        """The pinball loss of both ends, mean over the points, (R, C)."""
        low, high = self.ends(factor, weight)
        tail = (1 - torch.tensor(COVERAGES, dtype=y.dtype, device=y.device).unsqueeze(-1)) / 2
        return (_pinball(y - low, tail) + _pinball(y - high, 1 - tail)).mean(-1)


def _pinball(error: Tensor, level: Tensor) -> Tensor:
    return torch.maximum(level * error, (level - 1) * error)


def _bars(law: Distribution | None) -> Tensor:
    """The distances of the ends of a law's intervals from its median, (2, R, C, M)."""
    low, high = _quantiles(law, LEVELS).chunk(2, 1)
    middle = _quantiles(law, (0.5,))
    return torch.stack([middle - low.flip(1), high - middle])


def _quantiles(law: Distribution | None, levels: tuple[float, ...]) -> Tensor:
    if isinstance(law, Band) or not isinstance(law, HasQuantiles):  # a band has no median
        raise ValueError(
            f"CLEAR: {type(law).__name__} has no median: expected an aleatoric method that predicts a distribution "
            "of y, and an epistemic one that predicts a distribution of f"
        )
    return law.quantiles(levels)


def of_both(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The diagnostics of two trainings as those of one, whose loss is the sum of both."""
    found = {**one, **other}
    for name in one.keys() & other.keys() & {"loss", "loss fall", "gradient evaluations"}:
        found[name] = one[name] + other[name]
    if "loss fall error" in one and "loss fall error" in other:
        found["loss fall error"] = torch.hypot(one["loss fall error"], other["loss fall error"])
    return found


@dataclass(frozen=True)
class WeighedBand(FittedMethod):
    """The two fits, and of each replica and coverage γ and λ, (R, C) each."""

    aleatoric: FittedMethod
    epistemic: FittedMethod
    factor: Tensor
    weight: Tensor

    def __call__(self, x: Tensor) -> BandPrediction:
        bars = Bars.of(self.aleatoric, self.epistemic, x)
        low, high = bars.ends(self.factor, self.weight)
        values = torch.cat([low.flip(1), high], 1).sort(1).values
        return BandPrediction(LEVELS, values, bars.middle.squeeze(1))
