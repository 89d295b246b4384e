"""Predictions of a fitted method: distributions of f, the function without noise, and of y, a noisy observation.

A new kind of prediction is one class. Scores ask its distributions for the abilities that they need.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapbench.methods.engine.distributions import Band, Distribution, Interpolated, NormalMixture, StudentT

DIVERGED = "predictions are not finite: the training diverged; a smaller lr may help"


class PredictionError(ValueError):
    """A prediction that cannot be read; the message names the field, the value and what was expected."""


@dataclass(frozen=True)
class Prediction(ABC):
    """A prediction at M test points of R replicas.

    Its fields are tensors of any floating dtype, with first dimension R or broadcasting, and plain numbers or tuples of
    numbers. Its distributions are float64.
    """

    @property
    @abstractmethod
    def y(self) -> Distribution:
        """The distribution p(y | x, data): epistemic and aleatoric uncertainty."""

    @property
    def f(self) -> Distribution | None:
        """The distribution p(f(x) | x, data): epistemic uncertainty only; None if the method has no f."""
        return None

    @property
    def aleatoric_std(self) -> Tensor | None:
        """The root of the expected noise variance, (R, M); None if the method does not separate noise from the rest."""
        return None

    @property
    def draws(self) -> int | None:
        """The number S of draws that f is made of; None if f is a closed form."""
        return None

    @property
    def chained_f(self) -> Tensor | None:
        """The values of f along Markov chains, (R, chains, draws, M), for R-hat; None without chains.

        Of chains of components, whose draws are normal laws of f: the means of these.
        """
        return None

    @property
    def chained_std(self) -> Tensor | None:
        """The stds of f given each draw of a chain of components, (R, chains, draws, M); None for other chains."""
        return None

    @property
    def chained_noise(self) -> Tensor | None:
        """The stds of the noise along chains, (R, chains, draws, M); None without chains, or if all are one number."""
        return None

    @abstractmethod
    def faults(self, replicas: int, points: int) -> dict[int, str]:
        """The faulty replicas: replica -> what is wrong with its numbers.

        replicas, points: R and M, as they should be. Raises PredictionError if the fields have wrong shapes or types.
        """

    @abstractmethod
    def rescaled(self, shift: Tensor, scale: Tensor) -> Self:
        """The same prediction in other units: of shift + scale · f and shift + scale · y. shift, scale: (R,)."""

    def select(self, keep: Tensor) -> Self:
        """The prediction of some of the replicas. keep: (R,) bool."""
        return self._mapped(lambda part: part[keep] if part.ndim and len(part) == len(keep) else part)

    def cpu(self) -> Self:
        """The same prediction on the CPU, in float32 or float64."""
        return self._mapped(lambda part: part.detach().cpu().to(part.dtype if part.dtype in WIDE else torch.float32))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: change(part) for name, part in parts.items() if isinstance(part, Tensor)})

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The fields as arrays, for a file. A field that is None is left out."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: part.numpy() if isinstance(part, Tensor) else np.array(part)
            for name, part in parts.items()
            if part is not None
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The prediction that `to_arrays` wrote. Raises PredictionError if the arrays are of another kind."""
        known = {one.name: "Tensor" in str(one.type) for one in fields(cls)}
        if not known.keys() >= arrays.keys():
            raise PredictionError(f"{cls.__name__}: cannot be made of {', '.join(arrays)}: expected {', '.join(known)}")
        parts = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items() if known[name]}
        plain = {name: _plain(array) for name, array in arrays.items() if not known[name]}
        return cls(**parts, **plain)


WIDE = (torch.float32, torch.float64)


def _plain(array: NDArray[Any]) -> Any:
    value = array.tolist()
    return tuple(value) if isinstance(value, list) else value


def kinds() -> dict[str, type[Prediction]]:
    """All loaded kinds of prediction, class name -> class."""
    found: dict[str, type[Prediction]] = {}
    waiting: list[type[Prediction]] = list(Prediction.__subclasses__())
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        # No other class may replace a kind of this file: results are stored in these kinds.
        if not inspect.isabstract(cls) and (cls.__module__ == __name__ or cls.__name__ not in SHIPPED):
            found[cls.__name__] = cls
    return found


@dataclass(frozen=True)
class MixturePrediction(Prediction):
    """The mixtures p(f | x, data) = 1/S Σ N(location, scale²), p(y | x, data) = 1/S Σ N(location, scale² + noise_std²).

    location: (R, S, M). scale: broadcasts to location; 0 everywhere for draws, > 0 for closed forms. noise_std: the
    likelihood's std, broadcasts to location. chains: S = chains × draws, chain-major; 0 if the draws are no chains.
    """

    location: Tensor
    scale: Tensor
    noise_std: Tensor
    chains: int = 0

    @cached_property
    def f(self) -> NormalMixture:
        return NormalMixture(self.location.double(), self.scale.double())

    @cached_property
    def y(self) -> NormalMixture:
        return NormalMixture(self.location.double(), torch.hypot(self.scale.double(), self.noise_std.double()))

    @property
    def aleatoric_std(self) -> Tensor:
        noise = self.noise_std.double().expand_as(self.location)
        unit = noise.amax(1).clamp(min=1.0)  # no square overflows
        return (noise / unit.unsqueeze(1)).square().mean(1).sqrt() * unit

    @property
    def draws(self) -> int | None:
        return None if self.scale.any() else self.location.shape[1]

    @property
    def chained_f(self) -> Tensor | None:
        return self._chained(self.location) if self.chains else None

    @property
    def chained_std(self) -> Tensor | None:
        return self._chained(self.scale) if self.chains and self.scale.any() else None

    @property
    def chained_noise(self) -> Tensor | None:
        return self._chained(self.noise_std) if self.chains and self.noise_std.numel() > 1 else None

    def _chained(self, part: Tensor) -> Tensor:
        chained: Tensor = part.expand(self.location.shape).unflatten(1, (self.chains, -1))
        return chained

    def faults(self, replicas: int, points: int) -> dict[int, str]:
        floating(self, "location", "scale", "noise_std")
        shape = tuple(self.location.shape)
        if len(shape) != 3 or (shape[0], shape[2]) != (replicas, points) or not shape[1]:
            raise PredictionError(f"location: shape {shape}, expected (R, S, M) = ({replicas}, S, {points})")
        for name in ("scale", "noise_std"):
            _broadcasts(name, getattr(self, name), shape)
        if not isinstance(self.chains, int) or self.chains < 0 or (self.chains and shape[1] % self.chains):
            raise PredictionError(f"chains = {self.chains!r}: expected 0, or a number that divides S = {shape[1]}")
        scale, noise = (part.expand(shape) for part in (self.scale, self.noise_std))
        return first_faults(
            replicas,
            {
                DIVERGED: ~(self.location.isfinite() & scale.isfinite() & noise.isfinite()),
                "a scale is negative: expected the std of each component, at least 0": scale < 0,
                "a noise_std is negative: expected a std": noise < 0,
                "the std of y is 0 at a test point: expected noise_std > 0": (scale == 0) & (noise == 0),
            },
        )

    def select(self, keep: Tensor) -> Self:
        """The prediction of some of the replicas. Parts that broadcast over replicas are unchanged. keep: (R,) bool."""

        def chosen(part: Tensor) -> Tensor:
            return part[keep] if part.ndim == 3 and len(part) == len(self.location) else part

        return self._mapped(chosen)

    def rescaled(self, shift: Tensor, scale: Tensor) -> Self:
        to, by = precision(self.location, shift, scale), scale.double().view(-1, 1, 1)
        location = shift.double().view(-1, 1, 1) + by * self.location.double()
        parts = (location, by * self.scale.double(), by * self.noise_std.double())
        location, std, noise_std = (part.to(to) for part in parts)
        return replace(self, location=location, scale=std, noise_std=noise_std)


@dataclass(frozen=True)
class StudentTPrediction(Prediction):
    """The distributions y ~ location + scale_y · t_df and f ~ location + scale_f · t_df. scale_f None: no f.

    df, location, scale_y, scale_f: (R, M) each; df > 0, 0 < scale_f ≤ scale_y.
    """

    df: Tensor
    location: Tensor
    scale_y: Tensor
    scale_f: Tensor | None = None

    @cached_property
    def y(self) -> StudentT:
        return StudentT(self.df.double(), self.location.double(), self.scale_y.double())

    @cached_property
    def f(self) -> StudentT | None:
        if self.scale_f is None:
            return None
        return StudentT(self.df.double(), self.location.double(), self.scale_f.double())

    @property
    def aleatoric_std(self) -> Tensor | None:
        """The root of Var y − Var f, which is the expected noise variance; inf for df ≤ 2."""
        if self.scale_f is None:
            return None
        df, y, f = self.df.double(), self.scale_y.double(), self.scale_f.double()
        noise = (y - f).clamp(min=0).sqrt() * (y + f).sqrt()
        return torch.where(df > 2, noise / (1 - 2 / df).sqrt(), torch.inf)

    def faults(self, replicas: int, points: int) -> dict[int, str]:
        names = ["df", "location", "scale_y", *(["scale_f"] if self.scale_f is not None else [])]
        floating(self, *names)
        parts = {name: getattr(self, name) for name in names}
        for name, part in parts.items():
            if tuple(part.shape) != (replicas, points):
                raise PredictionError(f"{name}: shape {tuple(part.shape)}, expected (R, M) = ({replicas}, {points})")
        return first_faults(
            replicas,
            {
                DIVERGED: torch.stack([~part.isfinite() for part in parts.values()]).any(0),
                "df is not above 0": self.df <= 0,
                "a scale is not above 0": torch.stack([parts[name] <= 0 for name in names[2:]]).any(0),
                "scale_f is above scale_y: expected f to be no less certain than y": parts[names[-1]] > self.scale_y,
            },
        )

    def rescaled(self, shift: Tensor, scale: Tensor) -> Self:
        to, by = precision(self.location, shift, scale), scale.double().view(-1, 1)
        location = (shift.double().view(-1, 1) + by * self.location.double()).to(to)
        scale_f = None if self.scale_f is None else (by * self.scale_f.double()).to(to)
        return replace(self, location=location, scale_y=(by * self.scale_y.double()).to(to), scale_f=scale_f)


@dataclass(frozen=True)
class QuantilePrediction(Prediction):
    """The quantiles of y, and perhaps of f, at some levels. `Interpolated` defines the distributions between and beyond
    the levels.

    levels: increasing, between 0 and 1, at least two. values: of y, (R, L, M), not decreasing over L. f_values: of f,
    the same shape; None: no f.
    """

    levels: tuple[float, ...]
    values: Tensor
    f_values: Tensor | None = None

    @cached_property
    def y(self) -> Interpolated:
        return self._interpolated(self.values)

    @cached_property
    def f(self) -> Interpolated | None:
        return None if self.f_values is None else self._interpolated(self.f_values)

    def _interpolated(self, values: Tensor) -> Interpolated:
        values = values.double()
        return Interpolated(torch.tensor(self.levels, dtype=torch.float64, device=values.device), values)

    def faults(self, replicas: int, points: int) -> dict[int, str]:
        parts = {"values": self.values} | ({} if self.f_values is None else {"f_values": self.f_values})
        floating(self, *parts)
        return quantile_faults(self.levels, parts, replicas, points)

    def rescaled(self, shift: Tensor, scale: Tensor) -> Self:
        def moved(values: Tensor) -> Tensor:
            whole = shift.double().view(-1, 1, 1) + scale.double().view(-1, 1, 1) * values.double()
            return whole.to(precision(values, shift, scale))

        return replace(
            self, values=moved(self.values), f_values=None if self.f_values is None else moved(self.f_values)
        )


@dataclass(frozen=True)
class BandPrediction(Prediction):
    """The ends of intervals of y at some levels, around a point prediction: no distribution function, and no f.

    levels: of quantiles, increasing. values: (R, L, M), not decreasing over L. location: (R, M).
    """

    levels: tuple[float, ...]
    values: Tensor
    location: Tensor

    @cached_property
    def y(self) -> Band:
        levels = torch.tensor(self.levels, dtype=torch.float64, device=self.values.device)
        return Band(self.location.double(), levels, self.values.double())

    def faults(self, replicas: int, points: int) -> dict[int, str]:
        floating(self, "values", "location")
        if tuple(self.location.shape) != (replicas, points):
            raise PredictionError(
                f"location: shape {tuple(self.location.shape)}, expected (R, M) = ({replicas}, {points})"
            )
        faults = quantile_faults(self.levels, {"values": self.values}, replicas, points)
        return first_faults(replicas, {DIVERGED: ~self.location.isfinite()}) | faults

    def rescaled(self, shift: Tensor, scale: Tensor) -> Self:
        def moved(part: Tensor) -> Tensor:
            ones = (-1, *(1,) * (part.ndim - 1))
            whole = shift.double().view(ones) + scale.double().view(ones) * part.double()
            return whole.to(precision(part, shift, scale))

        return replace(self, values=moved(self.values), location=moved(self.location))


SHIPPED = ("MixturePrediction", "StudentTPrediction", "QuantilePrediction", "BandPrediction")


def precision(part: Tensor, shift: Tensor, scale: Tensor) -> torch.dtype:
    """The dtype of a prediction in the units of the data: its own dtype, or float64 if float32 would be too coarse.

    Float32 is too coarse if the shift of some replica is above 100 scales, or its scale is near the limits of float32.
    Rounding to float32 costs 6e-8 of the shift: at a shift of 100 scales, 6e-6 of a scale.
    """
    fits = (shift.abs() <= 100 * scale) & (scale > 1e-25) & (scale < 1e25)
    return part.dtype if bool(fits.all()) else torch.float64


def floating(prediction: Prediction, *names: str) -> None:
    """Check that these fields are tensors of floating-point numbers. Raises PredictionError."""
    for name in names:
        value = getattr(prediction, name)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            what = str(value.dtype) if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise PredictionError(f"{name}: {what}, expected a tensor of floating-point numbers")


def quantile_faults(levels: object, parts: Mapping[str, Tensor], replicas: int, points: int) -> dict[int, str]:
    """The faulty replicas of quantiles: replica -> what is wrong. parts: name -> (R, L, M). Raises PredictionError."""
    if not isinstance(levels, tuple) or not all(isinstance(p, float) for p in levels):
        raise PredictionError(f"levels = {levels!r}: expected a tuple of floats")
    if len(levels) < 2 or not all(low < high for low, high in pairwise((0.0, *levels, 1.0))):
        raise PredictionError(f"levels = {levels}: expected two or more, increasing, between 0 and 1")
    for name, values in parts.items():
        shape, expected = tuple(values.shape), (replicas, len(levels), points)
        if shape != expected:
            raise PredictionError(f"{name}: shape {shape}, expected (R, L, M) = {expected}")
    all_values = torch.stack(list(parts.values()), 1)
    return first_faults(
        replicas,
        {
            DIVERGED: ~all_values.isfinite(),
            "quantiles cross: expected them sorted by level": all_values.diff(dim=2) < 0,
        },
    )


def _broadcasts(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    try:
        value.expand(shape)
    except RuntimeError as error:
        raise PredictionError(f"{name}: shape {tuple(value.shape)}, expected one that broadcasts to {shape}") from error


def first_faults(replicas: int, faults: Mapping[str, Tensor]) -> dict[int, str]:
    """The first fault of each faulty replica, replica -> fault. faults: what is wrong -> its mask, (R, ...) bool."""
    found: dict[int, str] = {}
    for what, where in faults.items():
        for r in where.reshape(replicas, -1).any(1).nonzero().flatten().tolist():
            found.setdefault(r, what)
    return found
