"""One's own arrays: a method fitted to them in one call, and what it predicts, in their units.

fit(x, y, "svi").predict(x_new)  ->  Predicted
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapbench.datasets.standardise import Standardisation, constant
from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.diagnostics import convergence, stands_still
from gapbench.evaluation.door import admit
from gapbench.evaluation.entries import Run
from gapbench.evaluation.scores import chained
from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.distributions import HasCdf, HasQuantiles
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.noise import LearnedNoise
from gapbench.methods.engine.predictions import MixturePrediction, Prediction
from gapbench.methods.registry import methods
from gapbench.runners.devices import device_named
from gapbench.runners.guard import standard
from gapbench.runners.suites import one_of, suites

# Points that are predicted at a time: a prediction takes several times the memory of its draws while it is made. A
# multiple of 64, as the blocks of GapbenchRegressor are: a point is then predicted alike in every piece.
PIECE = 1_984
JUDGED = 200  # points at which chains are compared: more say the same
Floats = NDArray[np.float64]


class DataError(ValueError):
    """Arrays that cannot be used; the message names the array, the value and what was expected."""


class FitError(RuntimeError):
    """A training whose result must not be used; the message says why."""


class FitWarning(UserWarning):
    """Something about the data or the training that makes predictions worth less than they look."""


@dataclass(frozen=True)
class Predicted:
    """A prediction at M points, in the units of y. f is y without its noise.

    mean_y, std_y: (M,). mean_f, std_f: (M,), None if the method has no f. draws_f: (S, M), each row a function that
    the data allow; None if the method gives no draws. remarks: reasons to trust these values less, a sentence each;
    each was also a warning. pieces: the same prediction as gapbench's own objects, PIECE points each, one replica.
    """

    mean_y: Floats
    std_y: Floats
    mean_f: Floats | None
    std_f: Floats | None
    draws_f: Floats | None
    remarks: tuple[str, ...]
    pieces: tuple[Prediction, ...] = field(repr=False)

    def quantiles(self, levels: Sequence[float], of: Literal["y", "f"] = "y") -> Floats:
        """(len(levels), M): the values below which y, or f, lies with these probabilities.

        Raises ValueError for a level outside (0, 1), and if the method has no f or no quantiles of it.
        """
        if not isinstance(levels, Sequence | np.ndarray) or not len(levels) or not all(0 < p < 1 for p in levels):
            raise ValueError(f"levels = {levels!r}: expected probabilities between 0 and 1, such as [0.05, 0.95]")
        if of not in ("y", "f"):
            raise ValueError(f"of = {of!r}: expected 'y' or 'f'")
        found = []
        for piece in self.pieces:
            quantity = piece.y if of == "y" else piece.f
            if not isinstance(quantity, HasQuantiles):
                raise ValueError(f"of = {of!r}: this method has no {'f' if quantity is None else f'quantiles of {of}'}")
            found.append(quantity.quantiles([float(p) for p in levels])[0])
        return _array(torch.cat(found, 1))

    def crps(self, y: Any) -> Floats:
        """The CRPS of the law of y at each point, (M,), in the units of y; less is better. y: (M,), what was observed.

        Raises ValueError if the method predicts quantiles alone, DataError if y does not fit.
        """
        observed = _numbers("y", y)
        if observed.shape != self.mean_y.shape:
            raise DataError(f"y: shape {tuple(observed.shape)}, expected {self.mean_y.shape}: one value for each point")
        found = []
        for piece, part in zip(self.pieces, observed.split(PIECE), strict=True):
            if not isinstance(piece.y, HasCdf):
                raise ValueError("this method predicts quantiles of y alone, which have no CRPS")
            found.append(piece.y.crps(part[None].to(piece.y.mean))[0])
        return _array(torch.cat(found))


@dataclass(frozen=True)
class Fit:
    """A method fitted to one's own data.

    diagnostics: what the method says of its run. remarks: what makes its predictions worth less than they look, a
    sentence each; they were warned of. standardisation: between the data's units and those of the model.
    """

    method: UncertaintyMethod
    model: Model
    standardisation: Standardisation
    diagnostics: dict[str, float]
    remarks: tuple[str, ...]
    fitted: FittedMethod = field(repr=False)
    device: str = "cpu"

    def predict(self, x: Any) -> Predicted:
        """The prediction at new points. x: (M, D), or (M,) for one feature, in the units of the data.

        Warns FitWarning. Raises DataError if x cannot be used, FitError if a prediction is not finite.
        """
        points, features = _features("x", x), self.model.features
        if points.shape[1] != features:
            hint = "; x[None] is one point" if np.shape(x) == (features,) else ""
            raise DataError(f"x: {points.shape[1]} features, expected {features} as in training{hint}")
        inputs = self.standardisation.x(points[None])
        if not inputs.isfinite().all():
            raise DataError("x: too far from the training data for float32; choose points nearer to them")
        units = self.standardisation.y_mean, self.standardisation.y_std
        with alone():
            runs = [_admitted(self.fitted, piece.to(self.device)) for piece in inputs.split(PIECE, 1)]
        pieces = tuple(run.prediction.rescaled(*units) for run in runs)
        y, f = [piece.y for piece in pieces], [piece.f for piece in pieces if piece.f is not None]
        draws = [piece.location[0] for piece in pieces if isinstance(piece, MixturePrediction) and piece.draws]
        return Predicted(
            mean_y=_array(torch.cat([one.mean[0] for one in y])),
            std_y=_array(torch.cat([one.std[0] for one in y])),
            mean_f=_array(torch.cat([one.mean[0] for one in f])) if f else None,
            std_f=_array(torch.cat([one.std[0] for one in f])) if f else None,
            draws_f=_array(torch.cat(draws, 1)) if draws else None,
            remarks=warned(_disagreement(runs)),
            pieces=pieces,
        )


def fit(
    x: Any,
    y: Any,
    method: str | UncertaintyMethod,
    *,
    model: Model | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Fit:
    """Fit a method to one's own data.

    x: (N, D), or (N,) for one feature; y: (N,): numpy, torch, pandas or lists of numbers, in any units: the model sees
    them standardised. method: a name of `gapbench list`, or an instance. model: of standardised data; default: an MLP
    of two hidden layers of 50, which learns the noise; a known noise_std is in stds of y. seed: the same seed gives the
    same bits.

    Warns FitWarning. Raises DataError if the data cannot be used, Unknown if no method has this name, ValueError if the
    method cannot do these data, NoDevice if the device is not there, FitError if the training failed.
    """
    xs, ys = _features("x", x), _numbers("y", y)
    if ys.ndim != 1:
        raise DataError(f"y: shape {tuple(ys.shape)}, expected (N,): one value for each row of x")
    if len(xs) != len(ys):
        raise DataError(f"x has {len(xs)} rows and y has {len(ys)}: expected as many")
    if len(ys) < 2:
        raise DataError(f"y: {len(ys)} rows, expected two at least")
    chosen = _named(method) if isinstance(method, str) else method
    if not isinstance(chosen, UncertaintyMethod):
        raise TypeError(f"method = {method!r}: expected a name of `gapbench list`, or an instance such as SVI()")
    features, device = xs.shape[1], device_named(str(device))
    model = model or MLP(features=features, noise_std=LearnedNoise())
    if model.features != features:
        raise DataError(f"x: {features} features, and the model has {model.features}: expected as many")
    units = Standardisation.of(xs[None], ys[None])
    for name, std in (("x", units.x_std), ("y", units.y_std)):
        if not std.isfinite().all():
            raise DataError(f"{name}: numbers so large that they have no std; choose other units")
    inputs, targets = units.x(xs[None]).to(device), units.y(ys[None]).to(device)
    reason = chosen.skip(model, inputs)
    if reason is not None:
        raise ValueError(f"{type(chosen).__name__} cannot do these data: {reason}")
    with alone():
        fitted = chosen.fit(model, inputs, targets, torch_stream(device, "fit", seed))
        run = _admitted(fitted, inputs)
    still = [f"feature {at} of x" for at in constant(xs[None])[0].nonzero().flatten().tolist()]
    still += ["y"] if constant(ys[None])[0] else []
    remarks = [f"{name} is constant: it is centred and keeps its units" for name in still]
    if run.prediction.f is None:
        remarks.append("the method predicts y alone: it does not tell what it does not know from noise, so f is None")
    diagnostics = {name: float(value[0]) for name, value in run.diagnostics.items()}
    said = warned([*remarks, *_falling(run), *_disagreement([run])])
    return Fit(chosen, model, units, diagnostics, said, fitted, device)


def _named(name: str) -> UncertaintyMethod:
    """The method of a name: with the settings of the default suite if it is in there. Raises Unknown."""
    default = suites()["default"]
    known: dict[str, UncertaintyMethod | type[UncertaintyMethod]] = {
        **methods(),
        **default.methods,
        **default.on_request,
    }
    found = one_of("method", name, known)
    return found() if isinstance(found, type) else found


@contextmanager
def alone() -> Iterator[None]:
    """Torch's own settings, put back afterwards, and one thread: matrices this small are slower on several, and the
    bits depend on their number."""
    with standard():
        torch.set_num_threads(1)
        yield


def _admitted(fitted: FittedMethod, x: Tensor) -> Run:
    """A fitted method's prediction at x, checked. Raises FitError."""
    run = admit(Run(fitted(x), fitted.diagnostics, fitted.failures), 1, x.shape[1])
    if run.failures:
        raise FitError(f"the result must not be used: {run.failures[0]}")
    return run


def _falling(run: Run) -> list[str]:
    """A sentence if the method minimises a loss which still falls."""
    named = [run.diagnostics.get(name) for name in ("loss fall", "loss fall error")]
    fall, error = (np.array([0.0]) if value is None else value.numpy() for value in named)
    if stands_still(fall, error).all():
        return []
    words = f"by {fall[0]:.2g} ± {error[0]:.2g} nats for each observation on a tenth of the way"
    return [f"not converged: the loss still falls, {words}; give it more steps"]


def _disagreement(runs: Sequence[Run]) -> list[str]:
    """A sentence if the method has chains and they disagree on f. runs: of one fit, at one point or more each."""
    f = [chained(run.prediction, torch_stream("cpu", "chains")) for run in runs]  # the same draws at all points
    parts = [part for part in f if part is not None]
    if not parts:
        return []
    every = math.ceil(sum(part.shape[-1] for part in parts) / JUDGED)  # one's own points are in any order
    found = convergence(torch.cat([part[..., ::every] for part in parts], -1), every=1)
    rhat, limit = (float(np.nanmax(found[name])) for name in ("rhat", "rhat_limit"))
    words = f"not converged: R-hat of f is {rhat:.3g}, and {limit:.3g} is the limit; let the chains run longer"
    return [words] if rhat > limit else []


def warned(remarks: Iterable[str]) -> tuple[str, ...]:
    """The same remarks, after whoever called `fit` or `predict` was warned of them."""
    found = tuple(remarks)
    for remark in found:
        warnings.warn(remark, FitWarning, stacklevel=3)
    return found


# --- Arrays -----------------------------------------------------------------------------------------------------------


def _features(name: str, values: Any) -> Tensor:
    """(N, D), float64."""
    found = _numbers(name, values)
    found = found.unsqueeze(-1) if found.ndim == 1 else found
    if found.ndim != 2 or not found.shape[1] or not len(found):
        raise DataError(f"{name}: shape {tuple(found.shape)}, expected (N, D) or (N,), and not empty")
    return found


def _numbers(name: str, values: Any) -> Tensor:
    """The values as finite numbers, float64, on the CPU."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # which numpy does not have
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise DataError(f"{name}: {error}: expected an array of numbers") from error
    if array.dtype == object and not any(isinstance(one, str) for one in array.flat):
        # Columns of several kinds, as pandas gives them; what is missing there is nan here.
        with suppress(TypeError, ValueError):
            array = np.where(pd.isna(array), np.nan, array).astype(np.float64)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name}: dtype {array.dtype}, expected real numbers")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        at, more = bad[0].tolist(), f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DataError(f"{name}{at} = {array[tuple(at)]}{more}: expected finite numbers; drop or fill these rows")
    return torch.from_numpy(np.array(array, dtype=np.float64))


def _array(values: Tensor) -> Floats:
    return values.double().cpu().numpy()
