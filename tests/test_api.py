"""One's own arrays: the same numbers as by hand, whatever they come in, and words for what cannot be used."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator, Tensor

from gapbench.datasets.standardise import Standardisation
from gapbench.datasets.streams import torch_stream
from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.noise import LearnedNoise
from gapbench.methods.engine.predictions import MixturePrediction, QuantilePrediction
from gapbench.methods.mala import MALA
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.sgld import SGLD
from gapbench.methods.svi import SVI
from gapbench.runners.api import PIECE, DataError, Fit, FitError, FitWarning, Predicted, _named, fit
from gapbench.runners.devices import NoDevice, device_named
from gapbench.runners.suites import Unknown, suites

RNG = np.random.default_rng(0)
X, X_NEW = RNG.uniform(-2, 2, (60, 2)), RNG.uniform(-2, 2, (7, 2))
Y = 1e5 + 2e4 * np.sin(X).sum(1) + 5e3 * RNG.standard_normal(60)
QUICK = MCDropout(steps=50, draws=20)
pytestmark = pytest.mark.filterwarnings("ignore:not converged. the loss still falls")  # QUICK's


@dataclass(frozen=True)
class Line(FittedMethod):
    """Believes that f is the first feature with a std of 1, and that the noise is 1, in standardised units."""

    fault: str = ""

    def __call__(self, x: Tensor) -> MixturePrediction:
        location = x[:, None, :, 0] + (float("nan") if self.fault == "nan" and x.shape[1] == 7 else 0.0)
        return MixturePrediction(location, torch.ones(()), torch.ones(()))


@dataclass(frozen=True, kw_only=True)
class Chains(FittedMethod):
    """Four chains of 250 independent draws."""

    draws: Tensor
    fault: str = "chains"

    def __call__(self, x: Tensor) -> MixturePrediction:
        far = self.fault == "far" and x[:, None, :, 0] > 10
        location = self.draws * (0.1 if self.fault == "stds" else 1) + x[:, None, :, 0] + far * self.chain
        scale = {"stds": (0.1 + self.chain).expand_as(location), "components": torch.ones(())}
        return MixturePrediction(location, scale.get(self.fault, torch.zeros(())), torch.ones(()), chains=4)

    @property
    def chain(self) -> Tensor:
        """The number of each draw's chain, (1, 1000, 1)."""
        return torch.arange(4.0).repeat_interleave(250)[None, :, None]


@dataclass(frozen=True)
class First(UncertaintyMethod):
    """Learns nothing."""

    fault: str = ""

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        assert torch.get_num_threads() == 1
        if self.fault in ("chains", "components", "stds", "far"):
            return Chains(draws=torch.randn(1, 1000, 1, generator=generator), fault=self.fault)
        return Line(fault=self.fault, failures={0: "it went astray"} if self.fault == "failed" else {})

    def skip(self, model: Model, x: Tensor) -> str | None:
        return "it does not want to" if self.fault == "skip" else None


@dataclass(frozen=True)
class YAlone(FittedMethod):
    def __call__(self, x: Tensor) -> QuantilePrediction:
        return QuantilePrediction((0.1, 0.5, 0.9), torch.stack([x[..., 0] - 1, x[..., 0], x[..., 0] + 1], 1))


@dataclass(frozen=True)
class OfY(UncertaintyMethod):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return YAlone()


def every(predicted: Predicted) -> list[Any]:
    return [predicted.mean_y, predicted.std_y, predicted.mean_f, predicted.std_f, predicted.draws_f]


def test_the_numbers_are_in_the_units_of_the_data() -> None:
    """Of a method whose belief is known. Seen to catch: the shift forgotten, the scale of std_f forgotten, x_new not
    standardised, std_f and std_y exchanged, quantiles of f for those of y, threads left at one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    predicted = fit(X, Y, First()).predict(X_NEW)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(threads)
    z = (X_NEW[:, 0] - X[:, 0].mean()) / X[:, 0].std()
    mean, scale = Y.mean() + Y.std() * z, Y.std()
    for found in (predicted.mean_y, predicted.mean_f):
        np.testing.assert_allclose(found, mean, rtol=1e-6)
    np.testing.assert_allclose(predicted.std_f, scale, rtol=1e-6)
    np.testing.assert_allclose(predicted.std_y, np.sqrt(2) * scale, rtol=1e-6)
    for of, std in (("y", np.sqrt(2) * scale), ("f", scale)):
        np.testing.assert_allclose(predicted.quantiles([0.025, 0.5], of), [mean - 1.959964 * std, mean], rtol=1e-6)  # type: ignore[arg-type]
    assert predicted.draws_f is None  # a closed form
    assert predicted.mean_y.dtype == np.float64 and predicted.mean_y.shape == (7,)


def test_many_points_are_predicted_in_pieces() -> None:
    """Which give what one piece gives. Seen to catch: the last piece lost, draws joined along the wrong axis."""
    fitted, x = fit(X, Y, QUICK), np.tile(X_NEW, (700, 1))
    one, many = fitted.predict(X_NEW), fitted.predict(x)
    assert len(many.pieces) == 3
    np.testing.assert_allclose(many.mean_y, np.tile(one.mean_y, 700), rtol=1e-5)
    np.testing.assert_allclose(many.draws_f, np.tile(one.draws_f, 700), rtol=1e-5)  # type: ignore[arg-type]
    np.testing.assert_allclose(many.quantiles([0.1, 0.9]), np.tile(one.quantiles([0.1, 0.9]), 700), rtol=1e-5)


def test_it_is_the_method_on_standardised_data() -> None:
    """To the bit, by name and by instance. Seen to catch: another network, a noise that is not learned, no seed."""
    units = Standardisation.of(torch.from_numpy(X)[None], torch.from_numpy(Y)[None])
    x, y, x_new = units.x(torch.from_numpy(X)[None]), units.y(torch.from_numpy(Y)[None]), torch.from_numpy(X_NEW)[None]
    model = MLP(features=2, noise_std=LearnedNoise())
    fitted = QUICK.fit(model, x, y, torch_stream("cpu", "fit", 0))
    wanted = fitted(units.x(x_new)).rescaled(units.y_mean, units.y_std)
    found = fit(X, Y, QUICK).predict(X_NEW)
    np.testing.assert_array_equal(found.mean_y, wanted.y.mean[0])
    np.testing.assert_array_equal(found.draws_f, wanted.location[0].double())
    np.testing.assert_allclose(found.draws_f.mean(0), found.mean_f)  # type: ignore[union-attr]
    other = fit(X, Y, QUICK, seed=1).predict(X_NEW)
    assert not np.array_equal(other.mean_y, found.mean_y)


def test_a_name_has_the_settings_of_the_default_suite() -> None:
    """A method of the suite that is no class of its own, and a class that the suite does not have. Seen to catch: only
    classes known, and their defaults in place of the suite's settings."""
    settings = suites()["default"].methods
    assert {name: _named(name) for name in settings} == dict(settings)
    assert _named("mala") == MALA() and _named("hmc") == suites()["default"].on_request["hmc"]
    assert fit(X, Y, First(), device="auto").device == device_named("auto")


def test_the_noise_is_learned_and_the_function_found() -> None:
    """Noise 5000 on 400 points, by name. Seen to catch: y not standardised, which predicts 0 everywhere."""
    x = RNG.uniform(-2, 2, 400)
    y = 1e5 + 2e4 * np.sin(x) + 5e3 * RNG.standard_normal(400)
    predicted = fit(x, y, "nngp").predict(np.linspace(-1.5, 1.5, 31))
    assert np.sqrt(np.mean((predicted.mean_f - 1e5 - 2e4 * np.sin(np.linspace(-1.5, 1.5, 31))) ** 2)) < 3e3
    assert predicted.std_f is not None
    noise = np.sqrt(predicted.std_y**2 - predicted.std_f**2)
    assert np.all((noise > 4e3) & (noise < 6.5e3))


@pytest.mark.parametrize(
    "form",
    [
        torch.from_numpy,
        pd.DataFrame,
        lambda values: values.tolist(),
        lambda values: torch.from_numpy(values).requires_grad_(),
        np.asfortranarray,
    ],
    ids=["torch", "pandas", "lists", "gradients", "Fortran"],
)
def test_whatever_the_arrays_come_in(form: Callable[[Any], Any]) -> None:
    """The same bits as of numpy's float64. Seen to catch: float32 in between, a tensor with gradients refused."""
    wanted = every(fit(X, Y, QUICK).predict(X_NEW))
    ys = pd.Series(Y) if form is pd.DataFrame else form(Y)
    for found, expected in zip(every(fit(form(X), ys, QUICK).predict(form(X_NEW))), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("unit", [1e-40, 1e-12, 1e40, 1e140])
def test_any_unit_gives_the_same_prediction(unit: float) -> None:
    """Of y and of x. Seen to catch: predictions in float32, which has no such numbers; spread taken for a constant."""
    wanted, found = fit(X, Y, QUICK).predict(X_NEW), fit(X * unit, Y * unit, QUICK).predict(X_NEW * unit)
    np.testing.assert_allclose(found.mean_y, wanted.mean_y * unit, rtol=1e-4)
    np.testing.assert_allclose(found.quantiles([0.05, 0.95]), wanted.quantiles([0.05, 0.95]) * unit, rtol=1e-4)


def test_one_feature_and_small_dtypes() -> None:
    """(N,) is (N, 1); float32, integers and bfloat16 are numbers. Seen to catch: (N,) taken for one row."""
    x = np.arange(60) % 7
    wanted = fit(x.astype(np.float64)[:, None], Y, QUICK).predict(np.arange(3.0)[:, None])
    for found in (
        fit(x, Y, QUICK).predict([0, 1, 2]),
        fit(torch.from_numpy(x).bfloat16(), Y, QUICK).predict(torch.arange(3)),
        fit(x.astype(np.float32), Y, QUICK).predict(np.arange(3, dtype=np.int8)),
        fit(pd.DataFrame({"x": x}).convert_dtypes(), pd.Series(Y, dtype=object), QUICK).predict([0, 1, 2]),
    ):
        np.testing.assert_array_equal(found.mean_y, wanted.mean_y)


def with_(values: Any, at: Any, value: float) -> Any:
    changed = values.copy()
    changed[at] = value
    return changed


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X, with_(Y, 3, np.nan), r"y\[3\] = nan: expected finite numbers; drop or fill these rows"),
        (with_(X, (2, 1), np.inf), Y, r"x\[2, 1\] = inf"),
        (with_(X, [1, 2], np.nan), Y, r"x\[1, 0\] = nan, and 3 more"),
        (X, Y[:, None], r"y: shape \(60, 1\), expected \(N,\)"),
        (X, Y[:-1], "x has 60 rows and y has 59: expected as many"),
        (X[None], Y, r"x: shape \(1, 60, 2\), expected \(N, D\) or \(N,\)"),
        (X[:0], Y[:0], r"x: shape \(0, 2\).* not empty"),
        (X[:1], Y[:1], "y: 1 rows, expected two at least"),
        (X.astype(complex), Y, "x: dtype complex128, expected real numbers"),
        (X, [*map(str, Y)], "y: dtype <U.*, expected real numbers"),
        ([[1, 2], [3]], [1.0, 2.0], "x: .*expected an array of numbers"),
        (pd.DataFrame({"a": ["x"] * 60}), Y, "x: dtype object"),
        (pd.DataFrame({"a": pd.array([1.5, None] * 30, "Float64"), "b": [True] * 60}), Y, r"x\[1, 0\] = nan"),
    ],
)
def test_data_that_cannot_be_used_are_named(x: Any, y: Any, words: str) -> None:
    """Before training. Seen to catch: predictions that are all nan, an error of torch's."""
    with pytest.raises(DataError, match=words):
        fit(x, y, First())


def test_what_cannot_be_done_is_said() -> None:
    """Seen to catch: a failure or a reason that the method states ignored, a KeyError for a typo."""
    with pytest.raises(Unknown, match="unknown method 'mc_droput': did you mean mc_dropout"):
        fit(X, Y, "mc_droput")
    with pytest.raises(TypeError, match="expected a name of `gapbench list`, or an instance"):
        fit(X, Y, SVI)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="First cannot do these data: it does not want to"):
        fit(X, Y, First("skip"))
    with pytest.raises(FitError, match="must not be used: it went astray"):
        fit(X, Y, First("failed"))
    with pytest.raises(FitError, match="must not be used: predictions are not finite"):
        fit(X, Y, First("nan")).predict(X_NEW)
    for x, y in ((X * 1e200, Y), (X, Y * 1e200)):
        with pytest.raises(DataError, match="so large that they have no std"):
            fit(x, y, QUICK)
    with pytest.raises(DataError, match="x: 1 features, expected 2 as in training"):
        fit(X, Y, First()).predict(X_NEW[:, 0])
    with pytest.raises(DataError, match=r"x: 1 features, expected 2 as in training; x\[None\] is one point"):
        fit(X, Y, First()).predict(X_NEW[0])
    with pytest.raises(NoDevice, match="device 'gpu': expected auto, cpu, mps, cuda or cuda:N"):
        fit(X, Y, First(), device="gpu")
    with pytest.raises(NoDevice, match="device cuda:99: torch "):
        fit(X, Y, First(), device=torch.device("cuda:99"))
    with pytest.raises(DataError, match="x: 2 features, and the model has 1"):
        fit(X, Y, First(), model=MLP())
    predicted = fit(X, Y, First()).predict(X_NEW)
    with pytest.raises(ValueError, match="expected probabilities between 0 and 1"):
        predicted.quantiles([5, 95])
    for levels in (0.5, []):
        with pytest.raises(ValueError, match="expected probabilities between 0 and 1"):
            predicted.quantiles(levels)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="too far from the training data"):
        fit(X, Y, First()).predict(X_NEW * 1e300)


def quietly(function: Callable[..., Any], *arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


def remarks(fitted: Callable[[], Fit | Predicted]) -> tuple[str, ...]:
    """The remarks, after it was seen that the same were warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fitted().remarks
    assert [str(one.message) for one in caught if one.category is FitWarning] == list(found)
    assert all(one.filename == __file__ for one in caught if one.category is FitWarning)
    return found


def test_what_makes_predictions_worth_less_is_said() -> None:
    """A loss that still falls; chains that disagree, in `fit` and in `predict`; no f; constant columns; nothing where
    all is well.

    Seen to catch: a warning always, one that points into the package, none in `predict`, a constant divided by the
    rounding of its mean; the means of components judged alone, the first piece judged alone.
    """
    [words] = remarks(lambda: fit(X, Y, QUICK))
    assert words.startswith("not converged: the loss still falls, by ") and words.endswith("; give it more steps")
    chains = SGLD(burn_in=0, draws=10, thin=1, chains=4, batch=10, temperature=1.0)
    for made in (lambda: fit(X, Y, chains), lambda: quietly(fit, X, Y, chains).predict(X_NEW)):
        [words] = remarks(made)
        assert words.startswith("not converged: R-hat of f is ")
    for fault in ("chains", "components"):
        assert remarks(lambda fault=fault: fit(X, Y, First(fault))) == ()  # type: ignore[misc]
    [words] = remarks(lambda: fit(X, Y, First("stds")))  # the chains' means agree
    assert words.startswith("not converged: R-hat of f is ")
    far = quietly(fit, X, Y, First("far"))
    rows = np.concatenate([np.zeros((PIECE, 2)), np.full((500, 2), 1e3)])  # of which the last 500 are in another piece
    assert len(remarks(lambda: far.predict(rows))) == len(remarks(lambda: far.predict(rows[::-1]))) == 1
    [words] = remarks(lambda: fit(X, Y, OfY()))
    assert "so f is None" in words
    predicted = fit(X[:, :1], Y, First()).predict(X_NEW[:, :1])
    assert remarks(lambda: fit(X, Y, First())) == () and predicted.std_f is not None
    found = remarks(lambda: fit(np.ones((60, 2)) * [0, 5], Y, First()))
    assert found == tuple(f"feature {at} of x is constant: it is centred and keeps its units" for at in (0, 1))
    x, y = np.full(137, 123456789.1), np.full(137, 1e8 / 3)  # whose stds are of rounding alone
    assert len(remarks(lambda: fit(x, y, First()))) == 2
    with pytest.warns(FitWarning):
        assert fit(x, y, First()).predict([123456790.1]).std_f == 1.0
        y = np.arange(137.0)
        np.testing.assert_allclose(fit(x, y, First()).predict([123456790.1]).mean_y, y.mean() + y.std(), rtol=1e-6)
    with pytest.warns(FitWarning):
        of_y = fit(X, Y, OfY()).predict(X_NEW)
    assert of_y.std_f is None and of_y.draws_f is None and (of_y.std_y > 0).all()
    with pytest.raises(ValueError, match="this method has no f"):
        of_y.quantiles([0.5], of="f")
