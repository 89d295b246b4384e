"""The scikit-learn estimator: scikit-learn's own checks, its numbers against `fit`, and what people wrap it in."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from mapie.regression import SplitConformalRegressor
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from gapbench.methods.anchored_ensemble import AnchoredEnsemble
from gapbench.methods.cqr import CQR
from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import LearnedNoise
from gapbench.methods.evidential import Evidential
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.mclmc import MCLMC
from gapbench.methods.nngp import NNGP
from gapbench.methods.quantile_regression import QuantileRegression
from gapbench.methods.sgld import SGLD
from gapbench.runners.api import FitWarning, fit
from gapbench.runners.regressor import GapbenchRegressor, crps_score

SHORT = MCLMC(burn_in=10, draws=4, thin=1, chains=2)
pytestmark = pytest.mark.filterwarnings("ignore::gapbench.runners.api.FitWarning")


def table(n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Two features; y in the hundreds with noise of std 5."""
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, (n, 2))
    return x, 300 + 50 * np.sin(x[:, 0]) + 20 * x[:, 1] + 5 * random.standard_normal(n)


@parametrize_with_checks([GapbenchRegressor("nngp"), GapbenchRegressor(SHORT)])
def test_scikit_learns_own_checks(estimator: GapbenchRegressor, check: Any) -> None:
    """All of them, for a method with a closed form and for the default, made short. Seen to catch: features not
    counted, a column y taken without a warning."""
    check(estimator)


def test_it_is_fit() -> None:
    """To the bit, with the same seed; the quantiles are ascending and hold the mean of a normal law in the middle. Seen
    to catch: std_f for std_y, the interval's level halved, quantiles transposed."""
    x, y = table()
    estimator = GapbenchRegressor("nngp", random_state=3, hidden=(20,)).fit(x, y)
    seed = int(np.random.RandomState(3).randint(2**31 - 1))
    model = MLP(features=2, hidden=(20,), noise_std=LearnedNoise())
    predicted = fit(x, y, NNGP(), model=model, seed=seed).predict(x)
    mean, std = estimator.predict(x, return_std=True)
    assert_array_equal(mean, estimator.predict(x))
    assert_array_equal(mean, predicted.mean_y)
    assert_array_equal(std, predicted.std_y)
    mean_f, std_f = estimator.predict_f(x)
    assert predicted.std_f is not None and predicted.mean_f is not None
    assert_array_equal(mean_f, predicted.mean_f)
    assert_array_equal(std_f, predicted.std_f)
    assert (std_f < std).all() and 3 < np.sqrt(std**2 - std_f**2).mean() < 8
    interval = estimator.predict_interval(x, 0.8)
    assert_allclose(interval, estimator.predict_quantiles(x, [0.1, 0.9]))
    assert_allclose(interval[:, 1] - interval[:, 0], 2 * stats.norm.isf(0.1) * std, rtol=0.03)
    assert estimator.score(x, y) > 0.9
    assert_allclose(crps_score(estimator, x, y), -predicted.crps(y).mean())


def test_the_crps_is_that_of_a_normal_law() -> None:
    """NNGP's y is a mixture of nearly equal normal laws here, for which there is a closed form, to 2 %. Seen to catch:
    the CRPS in standardised units, a sign."""
    x, y = table()
    estimator = GapbenchRegressor("nngp", noise=5.0).fit(x, y)
    mean, std = estimator.predict(x, return_std=True)
    z = (y - mean) / std
    exact = std * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert -crps_score(estimator, x, y) == pytest.approx(exact.mean(), rel=0.02)


def test_draws_of_y() -> None:
    """Their mean and std are the law's, and points are independent. Seen to catch: one draw for all points, draws of f,
    columns that are sorted."""
    x, y = table()
    estimator = GapbenchRegressor("nngp").fit(x, y)
    mean, std = estimator.predict(x, return_std=True)
    drawn = estimator.sample_y(x, 4000, random_state=1)
    assert drawn.shape == (80, 4000)
    assert np.abs((drawn.mean(1) - mean) / std).max() < 5 / np.sqrt(4000)
    assert np.abs(drawn.std(1) / std - 1).max() < 0.1
    correlation = np.corrcoef(drawn[:10])
    assert np.abs(correlation[~np.eye(10, dtype=bool)]).max() < 5 / np.sqrt(4000)
    assert np.abs([np.corrcoef(one[1:], one[:-1])[0, 1] for one in drawn[:10]]).max() < 5 / np.sqrt(4000)
    # Few draws are as good: of one draw at each of 80 points, the mean in stds is N(0, 1/80).
    for number in (1, 2):
        seeds = [estimator.sample_y(x, number, random_state=seed)[:, 0] for seed in range(100)]
        means = np.mean([(one - mean) / std for one in seeds], 1) * np.sqrt(80)
        assert abs(means.std() - 1) < 4 / np.sqrt(2 * 100) and abs(means.mean()) < 4 / np.sqrt(100)


def test_a_known_noise_is_in_the_units_of_y() -> None:
    """Seen to catch: a noise in stds of y."""
    x, y = table()
    estimator = GapbenchRegressor("nngp", noise=5.0).fit(x, y)
    (_, std), (_, std_f) = estimator.predict(x, return_std=True), estimator.predict_f(x)
    assert_allclose(np.sqrt(std**2 - std_f**2), 5.0, rtol=1e-3)


@pytest.mark.parametrize(
    "method",
    [
        SHORT,
        AnchoredEnsemble(members=2, steps=20),
        CQR(QuantileRegression(steps=20)),
        Evidential(steps=20),
        MCDropout(steps=20, draws=3),
        QuantileRegression(steps=20),
        SGLD(burn_in=5, draws=4, thin=1, chains=2),
    ],
    ids=lambda method: type(method).__name__,
)
def test_methods_of_every_kind_are_pickled_and_cloned(method: Any) -> None:
    """With the same predictions afterwards. Seen to catch: a fitted method that holds a function of its fit."""
    x, y = table()
    estimator = GapbenchRegressor(method).fit(x, y)
    again = pickle.loads(pickle.dumps(estimator))
    assert_array_equal(again.predict_interval(x), estimator.predict_interval(x))
    assert_array_equal(clone(estimator).fit(x, y).predict(x), estimator.predict(x))


def test_inside_scikit_learn() -> None:
    """A pipeline, a grid that prefers a process to an untrained network, and cross-validation by the CRPS."""
    x, y = table()
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), GapbenchRegressor("nngp")),
        {"gapbenchregressor__method": [DeepEnsemble(members=1, steps=0), "nngp"]},
        scoring=crps_score_of_pipeline,
        cv=3,
    ).fit(x, y)
    assert grid.best_params_["gapbenchregressor__method"] == "nngp"
    scores = cross_val_score(GapbenchRegressor("nngp"), x, y, scoring=crps_score, cv=4)
    assert scores.shape == (4,) and (scores < -1).all() and (scores > -10).all()


def crps_score_of_pipeline(pipeline: Any, X: Any, y: Any) -> float:
    return crps_score(pipeline[-1], pipeline[:-1].transform(X), y)


def test_mapie_wraps_it() -> None:
    x, y = table(200)
    wrapped = SplitConformalRegressor(GapbenchRegressor("nngp"), confidence_level=0.8, prefit=False)
    wrapped.fit(x[:100], y[:100]).conformalize(x[100:], y[100:])
    _, interval = wrapped.predict_interval(x[100:])
    assert 0.75 < ((interval[:, 0, 0] <= y[100:]) & (y[100:] <= interval[:, 1, 0])).mean() < 0.9


def test_skpro_wraps_it() -> None:
    """Where skpro is installed. It does not allow the pandas that the tests are pinned to."""
    adapters = pytest.importorskip("skpro.regression.adapters.sklearn")
    pandas = pytest.importorskip("pandas")
    x, y = table()
    frame, target = pandas.DataFrame(x, columns=["a", "b"]), pandas.DataFrame({"y": y})
    law = adapters.SklearnProbaReg(GapbenchRegressor("nngp")).fit(frame, target).predict_proba(frame)
    mean, std = GapbenchRegressor("nngp").fit(x, y).predict(x, return_std=True)
    assert_allclose(law.mean().to_numpy()[:, 0], mean)
    assert_allclose(np.sqrt(law.var().to_numpy()[:, 0]), std)


def test_what_is_refused() -> None:
    x, y = table(20)
    with pytest.raises(ValueError, match="2 columns, expected one"):
        GapbenchRegressor("nngp").fit(x, np.stack([y, y], 1))
    with pytest.raises(ValueError, match="noise = 'loud': expected 'learned', 'heteroscedastic', or a std"):
        GapbenchRegressor("nngp", noise="loud").fit(x, y)
    with pytest.raises(ValueError, match="unknown method 'nnpg': did you mean nngp"):
        GapbenchRegressor("nnpg").fit(x, y)
    with pytest.warns(FitWarning, match="feature 1 of x is constant"):
        fitted = GapbenchRegressor("nngp").fit(np.stack([x[:, 0], np.ones(20)], 1), y)
    with pytest.raises(ValueError, match="level = 90: expected a probability"):
        fitted.predict_interval(x, 90)
    with pytest.raises(ValueError, match="predicts y alone, and has no f"):
        GapbenchRegressor(QuantileRegression(steps=2)).fit(x, y).predict_f(x)
    with pytest.raises(ValueError, match="quantiles of y alone, which have no CRPS"):
        crps_score(GapbenchRegressor(CQR(QuantileRegression(steps=2))).fit(*table()), x, y)
