"""Predictions of every kind: their structure is refused in words, their faults are found by replica, and they come back
from arrays and into other units as they were."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pytest
import torch
from torch import Tensor

from gapbench.methods.engine.distributions import Distribution, HasCdf, NormalMixture
from gapbench.methods.engine.predictions import (
    SHIPPED,
    MixturePrediction,
    Prediction,
    PredictionError,
    QuantilePrediction,
    StudentTPrediction,
    kinds,
)

R, S, M = 3, 4, 3  # M = R: a part that broadcasts over replicas must not be taken for one of each


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draws() -> MixturePrediction:
    return MixturePrediction(numbers(R, S, M), torch.zeros(()), torch.tensor([0.1, 0.2, 0.3]), chains=2)


def closed() -> MixturePrediction:
    return MixturePrediction(numbers(R, 1, M), numbers(R, 1, M, seed=1).exp(), numbers(1, 1, M, seed=2).exp())


def student(with_f: bool = True) -> StudentTPrediction:
    df, scale = 3 + numbers(R, M).exp(), numbers(R, M, seed=1).exp()
    return StudentTPrediction(df, numbers(R, M, seed=2), scale, 0.6 * scale if with_f else None)


def quantiles() -> QuantilePrediction:
    return QuantilePrediction((0.1, 0.5, 0.9), numbers(R, 3, M).sort(1).values)


KINDS = {"draws": draws(), "closed": closed(), "student": student(), "no f": student(False), "quantiles": quantiles()}
each_kind = pytest.mark.parametrize("prediction", KINDS.values(), ids=KINDS)


def said(prediction: Prediction) -> dict[str, Tensor]:
    """Everything that is said, by name; each has R first and M last."""
    found: dict[str, Tensor | None] = {"aleatoric": prediction.aleatoric_std, "chained": prediction.chained_f}
    for name, of in (("y", prediction.y), ("f", prediction.f)):
        if of is not None:
            assert isinstance(of, HasCdf)
            t = torch.zeros(of.mean.shape, dtype=torch.float64)
            found |= {f"{name} mean": of.mean, f"{name} std": of.std, f"{name} crps": of.crps(t)}
            found |= {f"{name} quantiles": of.quantiles([0.03, 0.5, 0.9]), f"{name} cdf": of.cdf(t)}
    return {name: value.double() for name, value in found.items() if value is not None}


@each_kind
def test_arrays_bring_a_prediction_back(prediction: Prediction) -> None:
    """The same bits, also of what is absent. Seen to catch: levels that come back as
    a list."""
    again = kinds()[type(prediction).__name__].from_arrays(prediction.to_arrays())
    assert type(again) is type(prediction) and again.draws == prediction.draws
    assert all(array.dtype != object for array in prediction.to_arrays().values())
    first, second = said(prediction), said(again)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert getattr(again, "levels", None) == getattr(prediction, "levels", None)


@each_kind
def test_select_takes_replicas(prediction: Prediction) -> None:
    """What is said of the chosen ones is unchanged, also where a part broadcasts over replicas and has as many points
    as there are replicas. Seen to catch: noise of one number a point cut by replica."""
    keep = torch.tensor([True, False, True])
    whole, some = said(prediction), said(prediction.select(keep))
    assert whole.keys() == some.keys()
    for name, value in some.items():
        torch.testing.assert_close(value, whole[name][keep], rtol=1e-12, atol=1e-14, msg=name)


@each_kind
def test_rescaled_is_the_same_belief_in_other_units(prediction: Prediction) -> None:
    """Means, stds, quantiles and CRPS move as they must, by replica; the identity moves no bit. Seen to catch: one
    replica's units for all, df shifted, the noise left as it was, quantiles shifted only."""
    shift, scale = torch.tensor([0.0, -3.0, 100.0]).double(), torch.tensor([1.0, 0.01, 50.0]).double()
    moved = said(prediction.rescaled(shift, scale))
    for name, value in said(prediction).items():
        a, b = (part.view(-1, *[1] * (value.ndim - 1)) for part in (shift, scale))
        if name.endswith(("mean", "quantiles")) or name == "chained":
            expected = a + b * value
        elif name.endswith(("std", "aleatoric")):
            expected = b * value
        else:
            continue
        torch.testing.assert_close(moved[name], expected, rtol=1e-5, atol=1e-5, msg=name)
    same = prediction.rescaled(torch.zeros(R).double(), torch.ones(R).double())
    before = {name: array for name, array in prediction.to_arrays().items() if array.ndim >= 2}
    for name, array in before.items():
        found = same.to_arrays()[name]
        assert found.dtype == array.dtype and np.array_equal(found, np.broadcast_to(array, found.shape)), name


def test_a_year_keeps_its_days() -> None:
    """y = 20 000 000 ± 1 has no digits left in float32: it is kept in float64; a prediction at home in float32 stays
    there. Seen to catch: float32 throughout, float64 throughout."""
    one = torch.ones(R).double()
    far = draws().rescaled(2e7 * one, one)
    expected = draws().location.double() + 2e7
    assert torch.equal(far.location, expected) and float(far.y.std.min()) > 0.1
    assert draws().rescaled(50 * one, one).location.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@each_kind
def test_any_floating_dtype_is_accepted(prediction: Prediction, dtype: torch.dtype) -> None:
    """Low precision is stored in float32, float64 stays. Seen to catch: bfloat16, of which numpy knows nothing."""
    cast = prediction._mapped(lambda part: part.to(dtype)).cpu()
    assert cast.faults(R, M) == {}
    kept = np.dtype(np.float64 if dtype == torch.float64 else np.float32)
    assert {array.dtype for name, array in cast.to_arrays().items() if name not in ("levels", "chains")} == {kept}
    assert all(value.isfinite().all() for value in said(cast).values())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (replace(draws(), location=numbers(S, R, M)), "location: shape (4, 3, 3), expected (R, S, M) = (3, "),
        (replace(draws(), location=numbers(R, M)), "location: shape (3, 3), expected (R, S, M)"),
        (replace(draws(), location=numbers(R, 0, M)), "location: shape (3, 0, 3)"),
        (replace(draws(), location=numbers(R, S, M).long()), "location: torch.int64, expected"),
        (replace(draws(), location=np.zeros((R, S, M))), "location: a ndarray, expected"),
        (replace(draws(), scale=0.0), "scale: a float, expected"),
        (replace(draws(), noise_std=None), "noise_std: a NoneType, expected"),
        (replace(draws(), scale=torch.zeros(R, M)), "scale: shape (3, 3), expected one that broadcasts to (3, 4, 3)"),
        (replace(draws(), scale=torch.zeros(R, 2, M)), "scale: shape (3, 2, 3), expected one that broadcasts"),
        (replace(draws(), noise_std=torch.zeros(1, R, S, M)), "noise_std: shape (1, 3, 4, 3)"),
        (replace(draws(), chains=3), "chains = 3: expected 0, or a number that divides S = 4"),
        (replace(draws(), chains=-2), "chains = -2"),
        (replace(draws(), chains=2.0), "chains = 2.0"),
        (replace(student(), scale_y=torch.ones(R, 1)), "scale_y: shape (3, 1), expected (R, M) = (3, 3)"),
        (replace(student(), scale_f=torch.ones(R)), "scale_f: shape (3,)"),
        (replace(student(), df=torch.tensor(3.0)), "df: shape ()"),
        (replace(quantiles(), values=numbers(R, 2, M)), "values: shape (3, 2, 3), expected (R, L, M) = (3, 3, 3)"),
        (replace(quantiles(), levels=(0.5, 0.1, 0.9)), "levels = (0.5, 0.1, 0.9): expected two or more, increasing"),
        (replace(quantiles(), levels=(0.1, 0.1, 0.9)), "levels = (0.1, 0.1, 0.9)"),
        (replace(quantiles(), levels=(0.1, 0.5, 1.0)), "levels = (0.1, 0.5, 1.0)"),
        (replace(quantiles(), levels=(0.1, float("nan"), 0.9)), "levels = (0.1, nan, 0.9)"),
        (replace(quantiles(), levels=[0.1, 0.5, 0.9]), "levels = [0.1, 0.5, 0.9]: expected a tuple of floats"),
        (replace(quantiles(), levels=torch.tensor([0.1, 0.5, 0.9])), "levels = tensor"),
        (QuantilePrediction((0.5,), numbers(R, 1, M)), "levels = (0.5,): expected two or more"),
    ],
)  # fmt: skip
def test_structure_is_refused_in_words(wrong: Prediction, words: str) -> None:
    """By the field's name, what it is and what was expected. Seen to catch: a check left out, each of them."""
    with pytest.raises(PredictionError) as refused:
        wrong.faults(R, M)
    assert str(refused.value).startswith(words) and "\n" not in str(refused.value)


def changed(part: Tensor, value: float) -> Tensor:
    """A copy that has the value at one point of replica 1."""
    part = part.clone()
    part.view(R, -1)[1, -1] = value
    return part


wide = replace(draws(), noise_std=torch.full((R, S, M), 0.2), scale=torch.full((R, S, M), 0.0))


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (replace(wide, location=changed(wide.location, torch.nan)), "not finite: the training diverged"),
        (replace(wide, scale=changed(wide.scale, torch.inf)), "not finite"),
        (replace(wide, noise_std=changed(wide.noise_std, torch.nan)), "not finite"),
        (replace(wide, scale=changed(wide.scale, -0.3)), "scale is negative"),
        (replace(wide, noise_std=changed(wide.noise_std, -0.3)), "noise_std is negative"),
        (replace(wide, noise_std=changed(wide.noise_std, 0.0)), "std of y is 0"),
        (replace(student(), df=changed(student().df, 0.0)), "df is not above 0"),
        (replace(student(), scale_y=changed(student().scale_y, 0.0)), "a scale is not above 0"),
        (replace(student(), scale_f=changed(student().scale_y, 99.0)), "scale_f is above scale_y"),
        (replace(student(), location=changed(student().location, torch.inf)), "not finite"),
        (replace(quantiles(), values=changed(quantiles().values, -99.0)), "quantiles cross"),
        (replace(quantiles(), values=changed(quantiles().values, torch.nan)), "not finite"),
    ],
)
def test_a_fault_at_one_point_is_its_replicas(faulty: Prediction, words: str) -> None:
    """Not its neighbours', and not an error. Seen to catch: every replica failed, the first one failed, no check, each
    of them."""
    faults = faulty.faults(R, M)
    assert list(faults) == [1] and words in faults[1]


@each_kind
def test_sound_predictions_have_no_faults(prediction: Prediction) -> None:
    """Seen to catch: draws refused for their stds of 0, coinciding quantiles for crossing ones."""
    assert prediction.faults(R, M) == {}
    level = replace(quantiles(), values=torch.zeros(R, 3, M))
    assert level.faults(R, M) == {}


def test_what_a_mixture_says() -> None:
    """Draws are told from closed forms, chains from draws, and the noise's std is a root mean square. Seen to catch:
    the mean of noise stds, the draws of a closed form, chains interleaved."""
    one = MixturePrediction(numbers(R, S, M), torch.zeros(()), torch.tensor([3.0, 4.0, 3.0, 4.0]).view(1, S, 1), 2)
    assert one.draws == S and closed().draws is None
    assert torch.allclose(one.aleatoric_std, torch.full((R, M), 12.5).sqrt().double())
    assert one.chained_f is not None and torch.equal(one.chained_f[:, 1], one.location[:, 2:])
    assert isinstance(one.y, NormalMixture) and torch.allclose(one.y.std**2, one.f.std**2 + 12.5)
    huge = replace(one, noise_std=torch.tensor(1e200, dtype=torch.float64))
    assert torch.allclose(huge.aleatoric_std, torch.full((R, M), 1e200, dtype=torch.float64))


def test_what_student_says() -> None:
    """The variance of y is that of f and the expected noise variance. Without f there is no telling. Seen to catch:
    scales for stds."""
    one = student()
    assert one.f is not None and one.aleatoric_std is not None
    torch.testing.assert_close(one.y.std**2, one.f.std**2 + one.aleatoric_std**2)
    assert student(False).f is None and student(False).aleatoric_std is None and quantiles().f is None
    assert replace(one, df=torch.full((R, M), 2.0)).aleatoric_std.isinf().all()  # type: ignore[union-attr]


def test_kinds_are_found_by_name() -> None:
    """The shipped ones, and those of whoever derives one; none takes a shipped one's name. Seen to catch: abstract
    classes among them, a class of one's own read as the shipped one of its name."""

    @dataclass(frozen=True)
    class Point(Prediction):
        at: Tensor

        @property
        def y(self) -> Distribution:
            return NormalMixture(self.at.double().unsqueeze(1), torch.ones(()).double())

        def faults(self, replicas: int, points: int) -> dict[int, str]:
            return {}

        def rescaled(self, shift: Tensor, scale: Tensor) -> Self:
            return replace(self, at=shift.view(-1, 1) + scale.view(-1, 1) * self.at)

    impostor = dataclass(frozen=True)(type("MixturePrediction", (MixturePrediction,), {"__module__": "elsewhere"}))
    found = kinds()
    assert found["Point"].__qualname__ == Point.__qualname__ and set(SHIPPED) < set(found)
    assert found["MixturePrediction"] is MixturePrediction is not impostor
    assert not any(inspect.isabstract(kind) for kind in found.values())
    point = Point(numbers(R, M))
    assert torch.equal(Point.from_arrays(point.to_arrays()).at, point.at)
    with pytest.raises(PredictionError, match="Point: cannot be made of location"):
        Point.from_arrays(draws().to_arrays())
