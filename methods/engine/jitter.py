"""Jitter: a recipe of published notebooks, which add a constant variance to the variance of their draws."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.predictions import MixturePrediction


@dataclass(frozen=True)
class Jittered(UncertaintyMethod):
    """The method, with N(0, f_std²) added to every draw of f. f_std: units of y as the method sees y, > 0."""

    method: UncertaintyMethod
    f_std: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.f_std > 0:
            raise ValueError(f"Jittered: f_std = {self.f_std}: expected a positive std")

    def skip(self, model: Model, x: Tensor) -> str | None:
        return self.method.skip(model, x)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> JitteredFit:
        fitted = self.method.fit(model, x, y, generator)
        return JitteredFit(fitted, self.f_std, diagnostics=fitted.diagnostics, failures=fitted.failures)


@dataclass(frozen=True)
class JitteredFit(FittedMethod):
    """The fitted method, with the std f_std to add."""

    fitted: FittedMethod
    f_std: float

    def __call__(self, x: Tensor) -> MixturePrediction:
        prediction = self.fitted(x)
        if not isinstance(prediction, MixturePrediction):
            raise TypeError(f"Jittered: {type(prediction).__name__}: expected a MixturePrediction, whose draws are f")
        return replace(prediction, scale=torch.hypot(prediction.scale, torch.full_like(prediction.scale, self.f_std)))
