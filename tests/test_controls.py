"""The baseline and the oracle: the prior in closed form, and a truth that nothing beats."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from gapbench.datasets.base import Problems
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.standardise import Standardisation
from gapbench.evaluation.controls import PriorPredictive, Truth
from gapbench.evaluation.scores import point_values
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.predictions import MixturePrediction, Prediction

Floats = NDArray[np.float64]

NOISY = GappedSine(n=2, noise_std=0.3, test_points=121)
MODEL = MLP(hidden=(3,))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problems_at(x_test: Tensor) -> Problems:
    """Test inputs (R, M, D), and nothing else that matters."""
    replicas, points, features = x_test.shape
    zeros, mask = torch.zeros(replicas, points), torch.ones(replicas, points, dtype=torch.bool)
    return Problems(torch.zeros(replicas, 2, features), torch.zeros(replicas, 2), x_test, zeros, regions={"data": mask})


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("scaled", [True, False])
def test_the_prior_of_a_line(scaled: bool, features: int) -> None:
    """f = w·x/√D + b with w, b ~ N(0, s²) is N(0, s²(‖x‖²/D + 1)), to the last bits. Seen to catch: training's
    initialisation for the prior, prior_std² for prior_std, no prior on the intercept, the network's own weights for θ
    (√D)."""
    model = MLP(features=features, hidden=(), prior_std=1.7, noise_std=0.8, scale_by_fan_in=scaled)
    if not scaled:
        model = replace(model, default_init=True)  # training starts elsewhere, but the prior stays what it is
    x = torch.randn(7, features, generator=generator(1)) * 2
    found = PriorPredictive().run(model, problems_at(x.expand(3, -1, -1)), generator()).prediction
    variance = 1.7**2 * (x.square().sum(1) / (features if scaled else 1) + 1)
    torch.testing.assert_close(found.f.std.square(), variance.double().expand(3, -1), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.y.std.square(), found.f.std.square() + 0.8**2, rtol=1e-5, atol=0)
    assert not found.f.mean.any() and found.chains == 0


@pytest.mark.parametrize("scaled", [True, False])
def test_the_prior_of_a_network(scaled: bool) -> None:
    """p(f ≤ t) is that of 100,000 draws of all of θ, within 5 standard errors; replicas have their own draws. Seen to
    catch: inputs of another layer than the last, a std for a variance, the fan-in forgotten, one draw for all."""
    model = MLP(hidden=(6, 3), prior_std=1.3, scale_by_fan_in=scaled)
    x = torch.tensor([-2.0, 0.5, 4.0]).reshape(1, 3, 1)
    found = PriorPredictive(draws=1000).run(model, problems_at(x.expand(20, -1, -1)), generator()).prediction
    f = model.mean(model.sample_prior(generator(1), (100_000,)), x[0])  # (draws, 3)
    assert not torch.equal(found.scale[0], found.scale[1])
    for t in (-3.0, -0.5, 1.0, 4.0):
        ours, theirs = found.f.cdf(torch.full((20, 3), t, dtype=torch.float64)), (f <= t).double()
        error = torch.hypot(ours.std(0) / math.sqrt(20), theirs.std(0) / math.sqrt(len(f)))
        assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * error).all() and (error < 0.01).all()


def test_the_prior_never_skips() -> None:
    """Also without a known truth, and on noise-free data. Seen to catch: the oracle's conditions made everyone's."""
    for problems in (GappedSine(n=2, test_points=3).problems(range(2)), problems_at(torch.zeros(1, 2, 1))):
        assert PriorPredictive().skip(MODEL, problems) is None


def scored(prediction: Prediction, problems: Problems) -> dict[str, Floats]:
    return point_values(prediction, problems, generator())


def test_the_truth_is_the_gaussian_of_the_data() -> None:
    """NLL and CRPS at every point are those of N(f, noise²) in closed form, its PITs are uniform, and on average the
    scores are the entropy ½ log 2πe·noise² and noise/√π, within 5 standard errors. Seen to catch: the noise as a
    variance, the noise as an uncertainty of f, f at the training inputs, one test point's truth for all."""
    problems = NOISY.problems(range(20))
    truth = Truth().run(MODEL, problems, generator()).prediction
    values = scored(truth, problems)
    assert problems.f_test is not None
    sigma = float(torch.tensor(0.3))  # what float32 makes of it
    z = (problems.y_test.double() - problems.f_test.double()).numpy() / sigma
    np.testing.assert_allclose(values["nll_y"], 0.5 * z**2 + math.log(sigma * math.sqrt(2 * math.pi)), rtol=1e-9)
    crps = sigma * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi))
    np.testing.assert_allclose(values["crps_y"], crps, rtol=1e-9)
    for name, expected in (
        ("nll_y", 0.5 * math.log(2 * math.pi * math.e * 0.09)),
        ("crps_y", 0.3 / math.sqrt(math.pi)),
        ("coverage_90_y", 0.9),
    ):
        assert abs(values[name].mean() - expected) < 5 * values[name].std() / math.sqrt(values[name].size), name
    assert stats.kstest(values["pit_y"].ravel(), "uniform").pvalue > 0.001
    assert not values["std_f"].any()
    np.testing.assert_allclose(values["std_aleatoric"], 0.3, rtol=1e-6)
    np.testing.assert_array_equal(values["rmse_f"], 0)


def test_the_truth_knows_uneven_noise() -> None:
    """Each point has its own noise. Seen to catch: the noise averaged over points, or over replicas."""
    problems = NOISY.problems(range(2))
    noise = torch.linspace(0.1, 2, 2 * 121).reshape(2, 121)
    truth = Truth().run(MODEL, replace(problems, noise_test=noise), generator()).prediction
    np.testing.assert_allclose(truth.y.std, noise, rtol=1e-6)
    np.testing.assert_allclose(truth.y.mean, problems.f_test, rtol=1e-6)


@pytest.mark.parametrize(
    ("shift", "stretch"), [(0.1, 1.0), (-0.1, 1.0), (0.0, 1.3), (0.0, 0.75), (0.05, 1.2)], ids=lambda v: f"{v:g}"
)
def test_the_truth_is_not_beaten(shift: float, stretch: float) -> None:
    """In expectation: over 80 replicas of 121 points the shifted or stretched Gaussian loses in NLL and CRPS by 5
    standard errors of the paired difference. Seen to catch: an oracle 1.2 times too wide, or too narrow, or at the
    noisy observations of another replica."""
    problems = NOISY.problems(range(80))
    truth = Truth().run(MODEL, problems, generator()).prediction
    other = MixturePrediction(truth.location + shift, truth.scale, truth.noise_std * stretch)
    best, worse = scored(truth, problems), scored(other, problems)
    for name in ("nll_y", "crps_y"):
        loss = worse[name] - best[name]
        assert loss.mean() > 5 * loss.std() / math.sqrt(loss.size), name


def test_the_truth_says_why_it_is_missing() -> None:
    """Noise-free data (anywhere), an unknown function, unknown noise: a sentence; else None. Seen to catch: `any` for
    `all`, a skip on noisy data, an assertion where a reason is due."""
    truth, noisy = Truth(), NOISY.problems(range(2))
    assert noisy.noise_test is not None
    assert truth.skip(MODEL, noisy) is None
    free = "noise-free"
    assert free in str(truth.skip(MODEL, GappedSine(n=2, test_points=3).problems(range(2))))
    partly = noisy.noise_test.clone()
    partly[1, 5] = 0
    assert free in str(truth.skip(MODEL, replace(noisy, noise_test=partly)))
    for unknown in (replace(noisy, f_test=None), replace(noisy, noise_test=None)):
        assert "not known" in str(truth.skip(MODEL, unknown))


def test_controls_speak_the_units_that_methods_see() -> None:
    """On standardised data the truth that comes back to the data's units is the truth. Seen to catch: f not
    standardised, the noise shifted too, the noise in the data's units."""
    plain = NOISY.problems(range(2))
    units = Standardisation.of(plain.x, 100 + 50 * plain.y)
    assert plain.f_test is not None and plain.noise_test is not None
    scaled = replace(
        plain,
        y=100 + 50 * plain.y,
        y_test=100 + 50 * plain.y_test,
        f_test=100 + 50 * plain.f_test,
        noise_test=50 * plain.noise_test,
        standardisation=units,
    )
    back = Truth().run(MODEL, scaled, generator()).prediction.rescaled(units.y_mean, units.y_std)
    assert scaled.f_test is not None
    torch.testing.assert_close(back.y.mean, scaled.f_test.double(), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(back.y.std, torch.full((2, 121), 15.0, dtype=torch.float64), rtol=1e-5, atol=0)
