"""Predictions of every kind, and data of other shapes than the sines', from `fit` through store, scores, table and
figures; a second look through other scores needs no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from gapbench.datasets.base import Dataset, Problems
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.standardise import Standardisation
from gapbench.datasets.streams import stream
from gapbench.evaluation import render
from gapbench.evaluation.drawing import styles
from gapbench.evaluation.entries import Trained
from gapbench.evaluation.plots import bands, calibration, plot
from gapbench.evaluation.tables import everything, summary, tabulate
from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.noise import LearnedNoise
from gapbench.methods.engine.predictions import QuantilePrediction, StudentTPrediction
from gapbench.methods.mc_dropout import MCDropout
from gapbench.runners import cell as cells
from gapbench.runners.cell import Cell
from gapbench.runners.complete import complete
from gapbench.runners.load import results
from gapbench.runners.store import Store


def features(x: Tensor) -> Tensor:
    """[x, 1], float64."""
    return torch.cat([x.double(), torch.ones_like(x[..., :1]).double()], -1)


@dataclass(frozen=True)
class Conjugate(UncertaintyMethod):
    """Linear regression with unknown noise: w | σ² ~ N(0, κσ² I), σ² ~ IG(a, b). Everything is Student's t."""

    kappa: float = 4.0
    a: float = 2.0
    b: float = 0.5

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> ConjugateFit:
        phi, y = features(x), y.double()
        precision = phi.mT @ phi + torch.eye(phi.shape[-1]) / self.kappa
        mean = torch.linalg.solve(precision, phi.mT @ y.unsqueeze(-1))
        a = self.a + y.shape[1] / 2
        b = self.b + 0.5 * (y.square().sum(1) - (mean.mT @ precision @ mean).flatten())
        return ConjugateFit(mean, precision, a, b)


@dataclass(frozen=True)
class ConjugateFit(FittedMethod):
    mean: Tensor
    precision: Tensor
    a: float
    b: Tensor

    def __call__(self, x: Tensor) -> StudentTPrediction:
        phi = features(x)
        spread = (phi * torch.linalg.solve(self.precision, phi.mT).mT).sum(-1)
        unit = (self.b / self.a).unsqueeze(1)
        location = (phi @ self.mean).squeeze(-1)
        df = torch.full_like(location, 2 * self.a)
        return StudentTPrediction(df, location, (unit * (1 + spread)).sqrt(), (unit * spread).sqrt())


@dataclass(frozen=True)
class Empirical(UncertaintyMethod):
    """The quantiles of the training targets, wherever x is."""

    levels: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> EmpiricalFit:
        return EmpiricalFit(torch.quantile(y, torch.tensor(self.levels), dim=1).mT, self.levels)


@dataclass(frozen=True)
class EmpiricalFit(FittedMethod):
    values: Tensor  # (R, L)
    levels: tuple[float, ...]

    def __call__(self, x: Tensor) -> QuantilePrediction:
        return QuantilePrediction(self.levels, self.values.unsqueeze(-1).expand(-1, -1, x.shape[1]))


@dataclass(frozen=True, kw_only=True)
class House(Dataset):
    """Prices of houses: three features, y of order 10⁵, held-out rows, regions of their own, no known truth."""

    regions: bool = True

    def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
        rows = torch.from_numpy(np.stack([stream("House", seed, r).standard_normal((60, 4)) for r in replicas]))
        x = 100 + 30 * rows[..., :3]
        y = 1e5 + 2e4 * rows[..., :3].sum(-1) + 5e3 * rows[..., 3]
        train, test = slice(0, 40), slice(40, 60)
        units = Standardisation.of(x[:, train], y[:, train])
        masks = {"north": x[:, test, 0] > 100, "south": x[:, test, 0] <= 100} if self.regions else {}
        return Problems(x[:, train], y[:, train], x[:, test], y[:, test], regions=masks, standardisation=units)


SINE = GappedSine(n=40, noise_std=0.1, test_points=31)
MODEL = MLP(hidden=(8,), noise_std=LearnedNoise())
QUICK = MCDropout(steps=300, lr=0.02, draws=20)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    found = Store(tmp_path / "out")
    found.prepare()
    return found


def made(store: Store, dataset: Dataset, method: UncertaintyMethod, name: str, replicas: int = 6) -> str:
    model = MODEL.with_features(dataset.problems([0]).x.shape[2])
    outcome = complete(Cell("data", dataset, model, name, Trained(method), 0, replicas, 0), store, "cpu")
    assert not outcome.failed, outcome.reason
    return outcome.status


def test_a_student_t_is_scored_as_what_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By scipy, at every point, of y and of f; from the file as from memory. Seen to catch: moments of a normal in its
    place, scale_f for scale_y, degrees of freedom lost in the store, training for a new score."""
    made(store, SINE, Conjugate(), "conjugate")
    problems = SINE.problems(range(6))
    x, y, x_test = problems.inputs
    prediction = Conjugate().fit(MODEL, x, y, torch.Generator())(x_test)
    scale, t = prediction.scale_y.numpy(), problems.y_test.double().numpy()
    law = stats.t(prediction.df.numpy(), prediction.location.numpy(), scale)
    (found,) = results(store.root)
    np.testing.assert_allclose(found.scores["nll_y"]["all"], -law.logpdf(t).mean(1), rtol=1e-6)
    low, high = law.ppf(0.05), law.ppf(0.95)
    np.testing.assert_allclose(found.scores["coverage_90_y"]["all"], ((low <= t) & (t <= high)).mean(1))
    np.testing.assert_allclose(found.pits["pit_y"], law.cdf(t), atol=1e-6)
    assert found.scores["gap_ratio"]["all"].min() > 0 and np.isfinite(found.scores["crps_f"]["gap"]).all()
    # The closed form itself: of the Student-t's variance, the part that is no noise shrinks to nothing with the data.
    assert (prediction.scale_f < prediction.scale_y).all()

    monkeypatch.setattr(Conjugate, "fit", None)
    monkeypatch.setattr(cells, "METRICS_VERSION", 99)
    assert made(store, SINE, Conjugate(), "conjugate") == "rescored"
    (again,) = results(store.root)
    np.testing.assert_array_equal(again.scores["nll_y"]["all"], found.scores["nll_y"]["all"])


def test_quantiles_have_no_f_and_no_density(store: Store, tmp_path: Path) -> None:
    """All columns of f are n/a, and nothing fails: not the table, by region or not, and not the figures. Seen to catch:
    an f or a density taken for granted in scores, tables, figures."""
    made(store, SINE, Empirical(), "empirical")
    made(store, SINE, QUICK, "dropout")
    found = {result.method: result for result in results(store.root)}
    alone = found["empirical"]
    for name in ("rmse_f", "crps_f", "std_f", "nll_y", "rhat", "std_aleatoric"):
        assert np.isnan(alone.scores[name]["all"]).all(), name
    for name in ("rmse_y", "crps_y", "coverage_90_y", "interval_90_y", "width_90_y"):
        assert np.isfinite(alone.scores[name]["all"]).all(), name
    assert (
        not len(alone.valid(("calibration_error_f", "all"))) and len(alone.valid(("calibration_error_y", "all"))) == 6
    )
    for columns in (summary, everything):
        text = render.markdown(tabulate(list(found.values()), columns))
        assert "| empirical | " in text and "n/a" in text
    rows = list(found.values())
    drawn = plot(rows, tmp_path / "figures")
    assert len(drawn.paths) == 3
    assert "empirical, of y" in [ax.get_title() for ax in bands(rows, styles(rows)).axes]
    assert "PITs of y" in calibration(rows, styles(rows)).get_supylabel()


@pytest.mark.parametrize("regions", [True, False])
def test_data_of_another_kind(store: Store, tmp_path: Path, regions: bool) -> None:
    """Three features, a target of order 10⁵, regions of any name or none, no truth: run, scored in the data's units,
    tabled by RMSE and coverage of y, and not drawn, in words. Seen to catch: a KeyError of "gap", predictions left
    standardised, figures of garbage."""
    data = House(regions=regions)
    for name, method in (("dropout", QUICK), ("conjugate", Conjugate(kappa=100.0)), ("empirical", Empirical())):
        made(store, data, method, name)
    found = {result.method: result for result in results(store.root)}
    y = data.problems(range(6)).y_test
    for name, result in found.items():
        rmse = result.scores["rmse_y"]["all"]
        assert (rmse > 2e3).all() and (rmse < float(y.std()) * 1.5).all(), name
        assert set(result.scores["rmse_y"]) == ({"all", "north", "south"} if regions else {"all"})
        assert 0.5 < result.scores["coverage_90_y"]["all"].mean() <= 1
    assert found["conjugate"].scores["rmse_y"]["all"].mean() < 1e4 < found["empirical"].scores["rmse_y"]["all"].mean()
    columns = summary(list(found.values()))
    assert {"rmse_y", "coverage_90_y"} <= {name for name, _ in columns} and not any("gap" in c for c in columns)
    assert "| conjugate | " in render.markdown(tabulate(list(found.values())))
    drawn = plot(list(found.values()), tmp_path / "figures")
    assert [path.stem for path in drawn.paths] == ["data_calibration"]
    assert any("data: no figure of bands: " in line for line in drawn.skipped)


def test_one_test_point_and_no_gap(store: Store) -> None:
    """As in leave-one-out. Seen to catch: an axis of length 1 squeezed away."""

    @dataclass(frozen=True, kw_only=True)
    class One(Dataset):
        def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
            made = SINE.problems(replicas, seed)
            return Problems(made.x, made.y, made.x_test[:, 4:5], made.y_test[:, 4:5], made.f_test[:, 4:5])  # type: ignore[index]

    made(store, One(), QUICK, "dropout", 3)
    (found,) = results(store.root)
    assert found.scores["interval_90_y"]["all"].shape == (3,) and np.isfinite(found.scores["crps_f"]["all"]).all()
