"""Calibration from pooled PITs: exact integrals against brute force and by hand, and PITs that are uniform when they
should be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import uncertainty_toolbox
from numpy.typing import NDArray
from scipy import stats

from gapbench.evaluation.calibration import calibration_error, miscalibration_area, pit, pit_band, pit_ks
from gapbench.methods.engine.distributions import NormalMixture

Floats = NDArray[np.float64]


def on_a_grid(pits: Floats, weights: Floats | None = None, size: int = 200_000) -> float:
    """∫₀¹ |P(u ≤ p) − p| dp by the midpoint rule: wrong by 1/size at most for each jump's height."""
    p = (np.arange(size) + 0.5) / size
    weights = np.ones(len(pits)) if weights is None else weights
    order = np.argsort(pits)
    shares = np.concatenate([[0], np.cumsum(weights[order]) / weights.sum()])
    return float(np.abs(shares[np.searchsorted(pits[order], p, side="right")] - p).mean())


@pytest.mark.parametrize("size", [1, 2, 7, 100, 2000])
@pytest.mark.parametrize("kind", ["uniform", "beta", "ties", "ends"])
def test_both_are_the_integral(kind: str, size: int) -> None:
    """By brute force on 200,000 levels, with ties and with PITs of exactly 0 and 1. Seen to catch: an average over the
    PITs instead of over levels, |∫| for ∫|·|, the pieces before the first PIT or after the last left out, (K − 1) or
    (K + 1) steps, |u − ½| without its 2, u for the centred |2u − 1|, PITs left unsorted."""
    rng = np.random.default_rng(size)
    pits = {
        "uniform": rng.random(size),
        "beta": rng.beta(0.3, 0.6, size),
        "ties": rng.random(size).round(1),
        "ends": rng.integers(0, 2, size).astype(float),
    }[kind]
    assert calibration_error(pits) == pytest.approx(on_a_grid(pits), abs=1e-5)
    assert miscalibration_area(pits) == pytest.approx(on_a_grid(np.abs(2 * pits - 1)), abs=1e-5)


@pytest.mark.parametrize(
    ("pits", "error", "area"),
    [
        ([0.5], 1 / 4, 1 / 2),  # everything in the middle: two triangles; and intervals that always hold it
        ([0.5] * 9, 1 / 4, 1 / 2),
        ([0.0] * 5, 1 / 2, 1 / 2),
        ([1.0] * 5, 1 / 2, 1 / 2),
        ([0.0, 1.0], 1 / 4, 1 / 2),  # outside of every interval
        ([0.25], (1 / 16 + 9 / 16) / 2, 1 / 4),
        ([0.25, 0.75], 1 / 8, 1 / 4),  # four triangles of base and height ¼; and all PITs at |2u − 1| = ½
        ([0.1, 0.1, 0.7], (0.01 + (2 / 3 - 0.1) ** 2 + (0.7 - 2 / 3) ** 2 + 0.09) / 2, None),
    ],
)
def test_by_hand(pits: list[float], error: float, area: float | None) -> None:
    """Exact areas of triangles. Seen to catch: an integral by the trapezoidal rule on a grid of levels."""
    assert calibration_error(np.array(pits)) == pytest.approx(error, abs=1e-15)
    if area is not None:
        assert miscalibration_area(np.array(pits)) == pytest.approx(area, abs=1e-15)


@pytest.mark.parametrize("size", [1, 2, 10, 999])
def test_the_best_that_a_sample_can_do(size: int) -> None:
    """K PITs in the middles of K equal cells leave 2K triangles of base and height 1/(2K): 1/(4K) in all. Seen to
    catch: |∫·| for ∫|·|, PITs left unsorted."""
    pits = (np.arange(size) + 0.5) / size
    assert calibration_error(pits) == pytest.approx(1 / (4 * size), rel=1e-9)
    assert calibration_error(pits[::-1]) == pytest.approx(1 / (4 * size), rel=1e-9)


def test_weights_are_repetitions() -> None:
    """An integer weight is that many copies of the PIT (0: none), only ratios count, and leading dimensions are
    distributions of their own. Seen to catch: weights left in the PITs' old order, a level over K instead of over the
    total weight, one total for all leading dimensions."""
    rng = np.random.default_rng(0)
    pits = rng.random(40).round(2)
    weights = rng.integers(0, 4, (3, 5, 40)).astype(float)
    for score in (calibration_error, miscalibration_area, pit_ks):
        together = score(pits, weights)
        assert together.shape == (3, 5)
        for i in np.ndindex(3, 5):
            assert together[i] == pytest.approx(score(np.repeat(pits, weights[i].astype(int))), abs=1e-14)
        np.testing.assert_allclose(score(pits, 0.1 * weights), together, rtol=1e-12)
        assert score(pits, np.full(40, 7.0)) == pytest.approx(score(pits), abs=1e-15)
    fractions = rng.random(40)
    assert calibration_error(pits, fractions) == pytest.approx(on_a_grid(pits, fractions), abs=1e-5)


def test_without_pits() -> None:
    """nan, in the shape of what was asked for. Seen to catch: 0, an error for a maximum over nothing."""
    nothing = np.array([])
    assert all(np.isnan(score(nothing)) for score in (calibration_error, miscalibration_area, pit_ks))
    assert np.isnan(calibration_error(nothing, np.ones((3, 0)))).tolist() == [True] * 3


@pytest.mark.parametrize("size", [1, 2, 30, 500])
def test_the_distance_is_kolmogorovs(size: int) -> None:
    """scipy's, in uniform and in other PITs, unsorted and with ties. Seen to catch: only the upper or only the lower
    side of each step."""
    rng = np.random.default_rng(size)
    for pits in (rng.random(size), rng.beta(0.4, 2, size), 1 - rng.beta(0.4, 2, size), rng.random(size).round(1)):
        assert pit_ks(pits) == pytest.approx(stats.ks_1samp(pits, stats.uniform.cdf).statistic, abs=1e-12)


def test_the_band_holds_as_often_as_it_says() -> None:
    """In three regions at once, 95 of 100 times, over 20,000 experiments. Seen to catch: the band of one region for all
    three (86), the asymptotic law at K = 20 (96.4)."""
    rng = np.random.default_rng(0)

    def distances(size: int) -> Floats:
        """Of 20,000 samples; pit_ks, one by one, takes ten times as long."""
        pits = rng.random((20_000, size))
        upper = np.arange(1, size + 1) / size - np.sort(pits)  # above the diagonal, at the upper end of each step
        found = np.maximum(upper, 1 / size - upper).max(1)
        assert found[:20] == pytest.approx([float(pit_ks(own)) for own in pits[:20]], abs=1e-12)
        return np.asarray(found)

    for size in (20, 200):
        inside = (np.max([distances(size) for _ in range(3)], axis=0) < pit_band(size, 3)).mean()
        assert 0.946 < inside < 0.956
        assert pit_band(size, 3) == pytest.approx(stats.kstwo.isf(0.05 / 3, size), rel=1e-5)


@pytest.mark.parametrize("factor", [0.2, 0.7, 1.0, 1.5, 5.0])
def test_miscalibration_area_is_uncertainty_toolbox_s(factor: float) -> None:
    """For Gaussians: theirs is a trapezoidal rule on 100 levels of centred intervals, so they agree to half a level's
    width. Without the centring they would be up to ¼ apart. Seen to catch: u for |2u − 1|, |u − ½| for it."""
    rng = np.random.default_rng(3)
    mean, std = rng.standard_normal(4000), np.exp(rng.standard_normal(4000))
    target = mean + std * rng.standard_normal(4000)
    std = factor * std
    ours = miscalibration_area(stats.norm.cdf(target, mean, std))
    assert ours == pytest.approx(uncertainty_toolbox.miscalibration_area(mean, std, target), abs=0.005)


def test_miscalibration_area_is_blind_to_bias_and_calibration_error_is_not() -> None:
    """Right by half a std: PITs crowd on one side, but the width is nearly right. Too wide: the other way round, since
    what is lost below the median is won above. Seen to catch: u for |2u − 1|."""
    z = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    biased, wide = stats.norm.cdf(z + 0.5), stats.norm.cdf(z / 3)
    assert calibration_error(biased) > 3 * miscalibration_area(biased)
    assert miscalibration_area(wide) > 1.5 * calibration_error(wide)


def test_pooling_before_averaging() -> None:
    """Prior-drawn tasks in the gap, 4000 replicas whose five points are one observation (the correlation is 0.99), and
    error bars inflated 1, 2 and 4 times. Pooled PITs see it: 0, then ever worse. The mean of each replica's own error
    falls instead, as if inflation were calibration: 1/3 for a uniform single PIT, down to 1/4 for one in the middle.
    Seen to catch: |∫·| for ∫|·|, which inflation leaves at 0."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4000, 1)) + 0.1 * rng.standard_normal((4000, 5))
    z /= np.sqrt(1.01)
    pooled, separate = [], []
    for factor in (1, 2, 4):
        pits = stats.norm.cdf(z / factor)
        pooled.append(float(calibration_error(pits.ravel())))
        separate.append(float(np.mean([calibration_error(own) for own in pits])))
    # The exact value for z/k, z normal: ∫|Φ(k Φ⁻¹(p)) − p| dp.
    p = (np.arange(100_000) + 0.5) / 100_000
    exact = [float(np.abs(stats.norm.cdf(k * stats.norm.ppf(p)) - p).mean()) for k in (1, 2, 4)]
    np.testing.assert_allclose(pooled, exact, atol=0.015)
    assert pooled[0] < 0.015 < pooled[1] < pooled[2]
    assert separate[0] > separate[1] > separate[2] > 0.2


def draw(mixture: NormalMixture, rng: np.random.Generator) -> Floats:
    """One value of the mixture itself at each replica and point, (R, M)."""
    replicas, size, points = mixture.location.shape
    at = np.ix_(np.arange(replicas), np.arange(points))
    which = rng.integers(size, size=(replicas, points))
    location = mixture.location.numpy()[at[0], which, at[1]]
    scale = mixture.scale.expand(mixture.location.shape).numpy()[at[0], which, at[1]]
    return np.asarray(location + scale * rng.standard_normal((replicas, points)))


@pytest.mark.parametrize("kind", ["one Gaussian", "densities", "atoms", "tied atoms", "both"])
def test_pits_of_draws_from_the_mixture_are_uniform(kind: str) -> None:
    """20,000 PITs by Kolmogorov-Smirnov, at p > 0.001 with a fixed seed; F itself, not randomised, fails where there
    are atoms, and is the same thing where there are none. Seen to catch: F(t) for the randomised PIT, F(t⁻), the middle
    of the jump, 1 − v in the wrong place ((1 − v)·F(t⁻) + v), the Gaussian with the mixture's moments."""
    rng = np.random.default_rng(5)
    shape = (100, 1 if kind == "one Gaussian" else 6, 200)
    location = rng.standard_normal(shape)
    if kind == "tied atoms":
        location = np.round(location)
    scale = {
        "one Gaussian": 0.5 * np.ones(shape),
        "densities": np.exp(rng.standard_normal(shape)) / 3,
        "atoms": np.zeros(shape),
        "tied atoms": np.zeros(shape),
        "both": np.where(np.arange(6).reshape(1, 6, 1) < 3, 0.0, 0.4) + np.zeros(shape),
    }[kind]
    mixture = NormalMixture(torch.from_numpy(location), torch.from_numpy(scale))
    t = torch.from_numpy(draw(mixture, rng))
    v = torch.from_numpy(rng.random((100, 200)))
    u = pit(mixture, t, v).numpy()
    assert ((u >= 0) & (u <= 1)).all()
    assert stats.kstest(u.ravel(), "uniform").pvalue > 0.001
    assert calibration_error(u.ravel()) < 0.01
    plain = mixture.cdf(t).numpy()
    if kind in ("one Gaussian", "densities"):
        np.testing.assert_array_equal(u, plain)
    else:
        assert stats.kstest(plain.ravel(), "uniform").pvalue < 1e-6
    assert math.isclose(u.mean(), 0.5, abs_tol=0.01)


@pytest.mark.parametrize(("factor", "shift"), [(0.5, 0.0), (2.0, 0.0), (1.0, 0.3)])
def test_pits_of_draws_from_another_distribution_are_not(factor: float, shift: float) -> None:
    """The other half of the test above. Seen to catch: a PIT that does not look at t, ranks of PITs for PITs."""
    rng = np.random.default_rng(6)
    location = torch.from_numpy(rng.standard_normal((100, 3, 200)))
    truth = NormalMixture(location, torch.tensor(0.7, dtype=torch.float64))
    said = NormalMixture(location + shift, torch.tensor(0.7 * factor, dtype=torch.float64))
    u = pit(said, torch.from_numpy(draw(truth, rng)), torch.from_numpy(rng.random((100, 200))))
    assert stats.kstest(u.numpy().ravel(), "uniform").pvalue < 1e-6
