"""Every score against a second implementation: quadrature, scipy, scoringrules, uncertainty-toolbox, or the formula by
hand. Where scoringrules is what the code itself calls, the second opinion is another one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import scoringrules
import torch
import uncertainty_toolbox
from numpy.random import Generator as Numbers
from numpy.typing import NDArray
from scipy import special, stats
from torch import Generator, Tensor

from gapbench.datasets.base import Problems
from gapbench.evaluation.calibration import pit
from gapbench.evaluation.scores import LEVELS, SCORES, Score, point_values, replica_scores, undefined
from gapbench.methods.engine.distributions import HasQuantiles, NormalMixture
from gapbench.methods.engine.predictions import MixturePrediction, QuantilePrediction, StudentTPrediction

Floats = NDArray[np.float64]
Problem = tuple[Floats, Floats, Floats]  # location (R, S, M), scale (R, S, M), target (R, M)

ALPHAS = tuple(1 - level / 100 for level in LEVELS)
PROBABILITIES = tuple(p for alpha in ALPHAS for p in (alpha / 2, 1 - alpha / 2))


# --- Second implementations, one point at a time: location (S,), scale (S,), a number t -------------------------------


def reference_cdf(location: Floats, scale: Floats, t: float) -> float:
    """F(t): each component by scipy, atoms as steps."""
    dense = scale > 0
    smooth = special.ndtr((t - location[dense]) / scale[dense]).sum()
    return float(smooth + (t >= location[~dense]).sum()) / len(location)


def reference_crps(location: Floats, scale: Floats, t: float) -> float:
    """∫(F(z) − 1{t ≤ z})² dz by Gauss-Legendre, between the atoms, t, and the components' multiples of 3 std."""
    dense = scale > 0
    grid = (location[dense, None] + scale[dense, None] * np.arange(-9, 10, 3)).ravel()
    knots = np.unique(np.concatenate([grid, location, [t]]))
    nodes, weights = np.polynomial.legendre.leggauss(16)
    low, high = knots[:-1, None], knots[1:, None]
    z = (low + high) / 2 + (high - low) / 2 * nodes
    # Beyond t, 1 − F as the sum of upper tails: the square of a small number must not be that of a difference.
    side = np.where(low < t, 1, -1)
    steps = (side[..., None] * (z[..., None] - location[~dense]) > 0).sum(-1)
    standard = side[..., None] * (z[..., None] - location[dense]) / scale[dense]
    values = (special.ndtr(standard).sum(-1) + steps) / len(location)
    return float(((high - low) / 2 * weights * values**2).sum())


def formula_crps(location: Floats, scale: Floats, t: Floats) -> Floats:
    """Grimit et al. 2006, every point at once, (M,): location, scale (S, M), scale > 0."""

    def a(mean: Floats, std: Floats) -> Floats:
        return mean * special.erf(mean / std / math.sqrt(2)) + 2 * std * np.exp(-((mean / std) ** 2) / 2) / math.sqrt(
            2 * math.pi
        )

    size = len(location)
    total = a(t - location, scale).sum(0) / size
    for i in range(size):
        total -= a(location[i] - location, np.sqrt(scale[i] ** 2 + scale**2)).sum(0) / (2 * size**2)
    return np.asarray(total)


def step_crps(draws: Floats, t: float) -> float:
    """∫(F(z) − 1{t ≤ z})² dz of S equal atoms: a step function, so the sum over its steps is exact."""
    knots = np.sort(np.append(draws, t))
    level = np.searchsorted(np.sort(draws), knots[:-1], side="right") / len(draws)
    return float((np.diff(knots) * (level - (knots[:-1] >= t)) ** 2).sum())


def reference_quantile(location: Floats, scale: Floats, p: float) -> float:
    """inf {t : F(t) ≥ p} by halving a bracket that is sure to hold it, until it is two neighbouring floats."""
    low = float((location - 40 * scale).min()) - 1.0
    high = float((location + 40 * scale).max()) + 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if reference_cdf(location, scale, middle) >= p else (middle, high)
    return high


def reference_nll(location: Floats, scale: Floats, t: float) -> float:
    return float(math.log(len(location)) - special.logsumexp(stats.norm.logpdf(t, location, scale)))


def reference_interval(low: float, high: float, t: float, alpha: float) -> float:
    """The interval score as what it is: 2/α times the pinball losses of its two ends."""

    def pinball(q: float, p: float) -> float:
        return p * (t - q) if t >= q else (1 - p) * (q - t)

    return 2 / alpha * (pinball(low, alpha / 2) + pinball(high, 1 - alpha / 2))


# --- Problems ---------------------------------------------------------------------------------------------------------


def calibrated(rng: Numbers, shape: tuple[int, int, int], factor: float = 1.0) -> Problem:
    """The observation is drawn from one of the components; then the prediction's stds are multiplied by factor."""
    location = rng.normal(0, 1, shape)
    scale = 0.3 * np.exp(0.5 * rng.standard_normal(shape))
    target = location[:, 0] + scale[:, 0] * rng.standard_normal((shape[0], shape[2]))
    return location, factor * scale, target


def tiny(rng: Numbers, shape: tuple[int, int, int]) -> Problem:
    """Everything within a few 1e-6 of a number near 1."""
    centre = rng.uniform(-3, 3, (shape[0], 1, shape[2]))
    location = centre + 1e-6 * rng.standard_normal(shape)
    return location, np.full(shape, 1e-6), centre[:, 0] + 1e-6 * rng.standard_normal((shape[0], shape[2]))


def heavy(rng: Numbers, shape: tuple[int, int, int]) -> Problem:
    """Student-t observations with 1.5 degrees of freedom, every third at z = ±1e3 or so."""
    location, scale, _ = calibrated(rng, shape)
    z = rng.standard_t(1.5, (shape[0], shape[2]))
    z[:, ::3] = 1e3 * np.sign(z[:, ::3])
    return location, scale, location[:, 0] + scale[:, 0] * z


def draws(rng: Numbers, shape: tuple[int, int, int]) -> Problem:
    location, scale, target = heavy(rng, shape)
    return location, 0 * scale, target


def some_draws(rng: Numbers, shape: tuple[int, int, int]) -> Problem:
    """The first component and every second one has a density, the others are atoms."""
    location, scale, target = calibrated(rng, shape)
    scale[:, 1::2] = 0
    return location, scale, target


PROBLEMS: dict[str, Callable[[Numbers, tuple[int, int, int]], Problem]] = {
    "calibrated": calibrated,
    "over-confident": lambda rng, shape: calibrated(rng, shape, 0.05),
    "under-confident": lambda rng, shape: calibrated(rng, shape, 20.0),
    "tiny std": tiny,
    "heavy tails": heavy,
    "draws": draws,
    "some draws": some_draws,
}
DENSE = tuple(name for name in PROBLEMS if "draws" not in name)
SHAPES = ((1, 1, 1), (2, 2, 7), (3, 30, 4), (1, 300, 2))

each_problem = pytest.mark.parametrize("name", PROBLEMS)
each_dense_problem = pytest.mark.parametrize("name", DENSE)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def build(name: str, shape: tuple[int, int, int]) -> tuple[Problem, NormalMixture, Tensor]:
    """The same numbers for numpy and for torch."""
    rng = np.random.default_rng(sum(shape) + 1000 * list(PROBLEMS).index(name))
    location, scale, target = problem = PROBLEMS[name](rng, shape)
    mixture = NormalMixture(torch.from_numpy(location), torch.from_numpy(scale))
    return problem, mixture, torch.from_numpy(target)


def pointwise(problem: Problem, score: Callable[[Floats, Floats, float], float]) -> Floats:
    """A score of one point at every point, (R, M)."""
    location, scale, target = problem
    replicas, _, points = location.shape
    return np.array(
        [
            [score(location[r, :, m], scale[r, :, m], float(target[r, m])) for m in range(points)]
            for r in range(replicas)
        ]
    )


def problems_of(target: Tensor, truth: Tensor | None = None, noise: float | None = 0.5, **changes: object) -> Problems:
    """Problems in which only the test half matters: a third of the points in each region."""
    replicas, points = target.shape
    third = torch.arange(points).expand(replicas, -1) % 3
    content: dict[str, object] = {
        "x": torch.zeros(replicas, 2, 1),
        "y": torch.zeros(replicas, 2),
        "x_test": torch.linspace(-1, 1, points).expand(replicas, -1).unsqueeze(-1),
        "y_test": target,
        "f_test": truth,
        "noise_test": None if noise is None else torch.full_like(target, noise),
        "regions": {"data": third == 0, "gap": third == 1, "extrapolation": third == 2},
    }
    return Problems(**(content | changes))  # type: ignore[arg-type]


def quantile(mixture: NormalMixture, p: float) -> Tensor:
    return mixture.quantiles([p])[:, 0]


def float64(values: object) -> Tensor:
    """Not by way of float32, as `torch.tensor(0.1).double()` would be."""
    return torch.tensor(values, dtype=torch.float64)


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


# --- The mixture's members --------------------------------------------------------------------------------------------


@each_shape
@each_problem
def test_mean_and_std(name: str, shape: tuple[int, int, int]) -> None:
    """By the law of total variance, in numpy. Seen to catch: the spread of the components' means left out, the mean of
    stds for the root of the mean variance, S − 1 for S, the median for the mean."""
    (location, scale, _), mixture, _ = build(name, shape)
    np.testing.assert_allclose(mixture.mean, location.sum(1) / shape[1], rtol=1e-12, atol=1e-14)
    centred = location - location.sum(1, keepdims=True) / shape[1]
    np.testing.assert_allclose(mixture.std, np.sqrt((centred**2 + scale**2).sum(1) / shape[1]), rtol=1e-9)


@each_shape
@each_problem
def test_cdf(name: str, shape: tuple[int, int, int]) -> None:
    """By scipy at the targets, and at the components' own locations, where atoms jump. Seen to catch: P(X < t) for
    P(X ≤ t) and the other way round, variance for std, the first component alone."""
    (location, scale, target), mixture, t = build(name, shape)
    expected = pointwise((location, scale, target), reference_cdf)
    np.testing.assert_allclose(mixture.cdf(t), expected, rtol=1e-9, atol=1e-15)

    at = location[:, -1]  # on top of the last component
    expected = pointwise((location, scale, at), reference_cdf)
    np.testing.assert_allclose(mixture.cdf(torch.from_numpy(at)), expected, rtol=1e-9)
    jumps = ((scale == 0) & (location == at[:, None])).mean(1)
    np.testing.assert_allclose(mixture.cdf_below(torch.from_numpy(at)), expected - jumps, rtol=1e-9, atol=1e-15)


@each_shape
@each_dense_problem
def test_log_density(name: str, shape: tuple[int, int, int]) -> None:
    """By scipy, and by scoringrules where its densities do not underflow. Finite at z = 1e3, where they do. Seen to
    catch: the mean of log densities, no 1/S, log of a sum of densities, ½ log 2π forgotten, variance for std."""
    problem, mixture, t = build(name, shape)
    expected = pointwise(problem, reference_nll)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(-mixture.log_density(t), expected, rtol=1e-9, atol=1e-12)

    location, scale, target = problem
    near = expected < 600  # exp(−745) is the smallest double
    opinion = scoringrules.logs_mixnorm(
        target[near], np.moveaxis(location, 1, -1)[near], np.moveaxis(scale, 1, -1)[near], backend="numpy"
    )
    np.testing.assert_allclose(-mixture.log_density(t).numpy()[near], opinion, rtol=1e-9, atol=1e-9)


def test_log_density_at_atoms() -> None:
    """A mixture of an atom and a normal has the normal's share of density beside the atom, and an infinite one on it;
    atoms alone have none. Seen to catch: an error, the atom's share left out, nan."""
    mixture = NormalMixture(float64([0.0, 1.0]).view(1, 2, 1), float64([0.0, 2.0]).view(1, 2, 1))
    found = NormalMixture(mixture.location.expand(1, 2, 2), mixture.scale).log_density(float64([[0.0, 3.0]]))
    assert found[0, 0] == math.inf and found[0, 1] == pytest.approx(stats.norm.logpdf(3, 1, 2) - math.log(2))
    draws = NormalMixture(mixture.location, torch.zeros((), dtype=torch.float64))
    assert draws.log_density(float64([[0.5]])).item() == -math.inf


@each_shape
@each_problem
def test_crps_is_the_integral(name: str, shape: tuple[int, int, int]) -> None:
    """By quadrature. Seen to catch: the fair estimator for draws (1/(S(S − 1))), the term of pairs without its ½, the
    std of a pair as s + s′, the Gaussian with the mixture's mean and std, points and components mixed up in the
    reshape, 0/0 where some scales are 0."""
    problem, mixture, t = build(name, shape)
    np.testing.assert_allclose(mixture.crps(t), pointwise(problem, reference_crps), rtol=1e-8)


@pytest.mark.parametrize("name", ["calibrated", "tiny std", "heavy tails"])
def test_crps_of_many_points(name: str) -> None:
    """2000 points are cut into chunks; the formula has none. Seen to catch: the last chunk lost, chunks that overlap,
    a chunk's targets taken from the first one's."""
    (location, scale, target), mixture, t = build(name, (1, 40, 2000))
    np.testing.assert_allclose(mixture.crps(t)[0], formula_crps(location[0], scale[0], target[0]), rtol=1e-8)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 47, 300])
def test_crps_of_draws(size: int) -> None:
    """Exactly, as an integral of steps, for up to 300 draws with ties and 500 points. Seen to catch: the fair
    estimator, ties counted once."""
    rng = np.random.default_rng(size)
    location = rng.standard_normal((1, size, 500)).round(1)
    target = rng.standard_normal((1, 500)).round(1)
    crps = NormalMixture(torch.from_numpy(location), torch.zeros(())).crps(torch.from_numpy(target))
    expected = [step_crps(location[0, :, m], float(target[0, m])) for m in range(500)]
    np.testing.assert_allclose(crps[0], expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("far", [1.0, 1e3, 1e12])
def test_crps_far_from_atoms_among_densities(far: float) -> None:
    """At a distance the CRPS is E|X − t| − ½ E|X − X′|, whatever the scales. Seen to catch: the scale that stands for 0
    so small that its square overflows."""
    mixture = NormalMixture(float64([[[0.0], [1.0], [3.0]]]), float64([[[0.0], [1e-160], [0.0]]]))
    expected = (far + abs(far - 1) + abs(far - 3)) / 3 - (1 + 3 + 2) / 9
    crps = mixture.crps(float64([[far]]))
    torch.testing.assert_close(crps, float64([[expected]]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_one_gaussian_is_what_others_say_of_it(factor: float) -> None:
    """2000 points, single component, against uncertainty-toolbox and scoringrules' own Gaussian. Seen to catch: a CRPS
    in units of the std, an NLL without log std."""
    rng = np.random.default_rng(0)
    mean, std = rng.normal(0, 2, 2000), np.exp(rng.standard_normal(2000))
    target = mean + std * rng.standard_normal(2000)
    std = factor * std
    mixture = NormalMixture(*(torch.from_numpy(value).reshape(1, 1, -1) for value in (mean, std)))
    t = torch.from_numpy(target).unsqueeze(0)

    crps = mixture.crps(t)[0].numpy()
    np.testing.assert_allclose(crps, scoringrules.crps_normal(target, mean, std, backend="numpy"), rtol=1e-8)
    np.testing.assert_allclose(crps.mean(), uncertainty_toolbox.crps_gaussian(mean, std, target), rtol=1e-9)
    nll = -mixture.log_density(t)[0].numpy()
    np.testing.assert_allclose(nll.mean(), uncertainty_toolbox.nll_gaussian(mean, std, target), rtol=1e-9)
    np.testing.assert_allclose(mixture.cdf(t)[0], stats.norm.cdf(target, mean, std), rtol=1e-9, atol=1e-15)
    for level, alpha in zip(LEVELS, ALPHAS, strict=True):
        bounds = uncertainty_toolbox.metrics_calibration.get_prediction_interval(mean, std, level / 100, None)
        for p, expected in ((alpha / 2, bounds.lower), (1 - alpha / 2, bounds.upper)):
            np.testing.assert_allclose(quantile(mixture, p)[0], expected, rtol=1e-9, atol=1e-9 * factor)


@each_shape
@each_problem
def test_quantile(name: str, shape: tuple[int, int, int]) -> None:
    """By halving a bracket of everything, with scipy's CDF. Seen to catch: 20 halvings, a bracket of mean ± 3 std, the
    quantile of the Gaussian with the mixture's moments, the mean of the components' quantiles."""
    (location, scale, _), mixture, _ = build(name, shape)
    width = float(mixture.std.max()) if shape[1] > 1 or scale.any() else 1.0
    for p in (1e-6, 0.025, 0.251, 0.49, 0.949, 0.999):  # at p·S an integer, F may be flat but for its rounding
        expected = pointwise((location, scale, location[:, 0]), lambda m, s, _, p=p: reference_quantile(m, s, p))
        np.testing.assert_allclose(quantile(mixture, p), expected, rtol=1e-12, atol=1e-9 * width)


@each_problem
def test_quantile_is_the_left_continuous_inverse(name: str) -> None:
    """F(q) ≥ p and F < p just below q. Exactly at q for draws. Seen to catch: p·S rounded down, the right-continuous
    inverse at p·S integer, interpolation between draws."""
    _, mixture, _ = build(name, (4, 20, 50))
    just, slack = (0.0, -1e-12) if name == "draws" else (1e-15 + 1e-9 * float(mixture.std.max()), 1e-9)
    for p in (*PROBABILITIES, 0.5, 0.05, 0.1, 0.45):  # p·S is an integer in four of them
        q = quantile(mixture, p)
        assert (mixture.cdf(q + just) >= p - abs(slack)).all()
        assert (mixture.cdf_below(q - just) < p + slack).all()


def test_quantile_of_draws_by_rank() -> None:
    """The ⌈p·S⌉-th smallest draw in exact rational arithmetic, for every S up to 300 and every level of the scores,
    whose probabilities are not exact in binary (1 − 0.9 is not 0.1). Seen to catch: rounding to the nearest rank, p·S
    of 19.000000000000004 taken to the twentieth draw, ⌊p·S⌋."""
    rng = np.random.default_rng(0)
    for size in range(1, 301):
        sample = rng.standard_normal(size)
        mixture = NormalMixture(torch.from_numpy(sample).reshape(1, -1, 1), torch.zeros(()))
        for level, alpha in zip(LEVELS, ALPHAS, strict=True):
            exact = Fraction(100 - level, 200)
            for p, rational in ((alpha / 2, exact), (1 - alpha / 2, 1 - exact)):
                rank = math.ceil(rational * size)
                assert quantile(mixture, p).item() == np.sort(sample)[rank - 1]


@pytest.mark.parametrize("p", [1e-300, 1e-12, 1 - 1e-12])
def test_extreme_quantiles_of_draws(p: float) -> None:
    """The smallest or the largest draw. Seen to catch: rank 0, which is read as the last."""
    sample = float64([3.0, 1.0, 2.0]).reshape(1, 3, 1)
    assert quantile(NormalMixture(sample, torch.zeros(())), p).item() == (1.0 if p < 0.5 else 3.0)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 95.0, math.nan])
def test_impossible_levels_are_refused(p: float) -> None:
    """Seen to catch: no check, a check that lets the ends through."""
    with pytest.raises(ValueError, match="0 < p < 1"):
        quantile(NormalMixture(torch.zeros(1, 2, 1), torch.ones(())), p)


# --- Scores at points -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 21, 5), (1, 299, 2)], ids=str)
@each_dense_problem
def test_scores_of_y(name: str, shape: tuple[int, int, int]) -> None:
    """Every score of y from its definition: nothing is shared with the code but LEVELS. Seen to catch: the scores of f
    (no noise), squared error of each component for the mixture's, coverage of the wrong level, an interval's penalty
    without 2/α or with the whole α on each side, 1 − F for F."""
    problem, mixture, t = build(name, shape)
    location, scale, target = problem
    noise = 0.6 * scale  # p(y) is the problem's mixture: its variance is cut in two parts
    prediction = MixturePrediction(
        mixture.location, torch.from_numpy(np.sqrt(scale**2 - noise**2)), torch.from_numpy(noise)
    )
    values = point_values(prediction, problems_of(t), generator())

    mean = location.sum(1) / shape[1]
    np.testing.assert_allclose(values["rmse_y"], abs(mean - target), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(values["nll_y"], pointwise(problem, reference_nll), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(values["crps_y"], pointwise(problem, reference_crps), rtol=1e-8)
    cdf = pointwise(problem, reference_cdf)
    np.testing.assert_allclose(values["pit_y"], cdf, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(values["mean_f"], mean, rtol=1e-12, atol=1e-14)
    variance_f = ((location - mean[:, None]) ** 2 + scale**2 - noise**2).sum(1) / shape[1]
    np.testing.assert_allclose(values["std_f"], np.sqrt(variance_f), rtol=1e-9)
    np.testing.assert_allclose(values["std_aleatoric"], np.sqrt((noise**2).sum(1) / shape[1]), rtol=1e-9)
    np.testing.assert_allclose(values["std_y"] ** 2, variance_f + (noise**2).sum(1) / shape[1], rtol=1e-9)
    for level, alpha in zip((50, 90, 95), (0.5, 0.1, 0.05), strict=True):
        low, high = (
            pointwise(problem, lambda m, s, t, p=p: reference_quantile(m, s, p)) for p in (alpha / 2, 1 - alpha / 2)
        )
        np.testing.assert_array_equal(values[f"coverage_{level}_y"], (low <= target) & (target <= high))
        expected = np.vectorize(reference_interval)(low, high, target, alpha)
        np.testing.assert_allclose(values[f"interval_{level}_y"], expected, rtol=1e-7)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 40, 5), (1, 300, 2)], ids=str)
def test_scores_of_f_from_draws(shape: tuple[int, int, int]) -> None:
    """The same for f, whose prediction is draws, at the true function. Seen to catch: the scores at y_test, those of y,
    np.quantile's interpolation, coverage by mean ± 1.96 std."""
    problem, mixture, truth = build("draws", shape)
    location, _, target = problem
    prediction = MixturePrediction(mixture.location, torch.zeros(()), torch.tensor(0.7))
    values = point_values(prediction, problems_of(truth + 5, truth), generator())
    np.testing.assert_allclose(values["rmse_f"], abs(location.mean(1) - target), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(values["crps_f"], pointwise(problem, lambda m, _, t: step_crps(m, t)), rtol=1e-9)
    for level, alpha in zip((50, 90, 95), (Fraction(1, 2), Fraction(1, 10), Fraction(1, 20)), strict=True):
        ranked = np.sort(location, 1)
        low, high = (ranked[:, math.ceil(p * shape[1]) - 1] for p in (alpha / 2, 1 - alpha / 2))
        np.testing.assert_array_equal(values[f"coverage_{level}_f"], (low <= target) & (target <= high))
        expected = np.vectorize(reference_interval)(low, high, target, float(alpha))
        np.testing.assert_allclose(values[f"interval_{level}_f"], expected, rtol=1e-9)
    below, upto = (location < target[:, None]).mean(1), (location <= target[:, None]).mean(1)
    assert ((values["pit_f"] >= below) & (values["pit_f"] <= upto)).all()
    np.testing.assert_allclose(values["std_f"], location.std(1), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(values["std_aleatoric"], 0.7, rtol=1e-7)


def test_the_pit_is_spread_over_an_atom() -> None:
    """Where the truth is one of the draws, u is F(t⁻) + v·jump with the v that is given. Seen to catch: F(t), the
    middle of the jump, v taken from a generator of its own."""
    location = float64([0.0, 1.0, 1.0, 2.0]).reshape(1, 4, 1).expand(1, 4, 300)
    f = NormalMixture(location, torch.zeros(()))
    v = torch.rand(1, 300, generator=generator(3), dtype=torch.float64)
    at = torch.ones(1, 300).double()
    torch.testing.assert_close(pit(f, at, v), 0.25 + 0.5 * v)
    prediction = MixturePrediction(location, torch.zeros(()), torch.tensor(1.0))
    values = point_values(prediction, problems_of(at, at), generator(3))
    np.testing.assert_allclose(values["pit_f"], 0.25 + 0.5 * v)
    assert not np.array_equal(values["pit_f"], point_values(prediction, problems_of(at, at), generator(4))["pit_f"])


def test_a_mixture_is_not_its_average_gaussian() -> None:
    """Two sharp components at ±2, both kinds of Gaussian summary refuted by every score at once, and the right values
    by hand. Seen to catch: the averaged parameters N(mean of means, mean of stds²) and the moments' N(mean, std²) in
    each of cdf, quantile, log_density, crps and (the first) std."""
    location = float64([-2.0, 2.0]).reshape(1, 2, 1)
    prediction = MixturePrediction(location, torch.zeros(()), float64(0.1))
    at = float64([[1.9]])
    values = {
        name: float(value[0, 0]) for name, value in point_values(prediction, problems_of(at), generator()).items()
    }
    by_hand = {
        "nll_y": math.log(2) + 0.5 + math.log(0.1 * math.sqrt(2 * math.pi)),
        "pit_y": 0.5 + 0.5 * stats.norm.cdf(-1),
        "std_y": math.sqrt(4 + 0.01),
        "std_f": 2.0,
        "coverage_50_y": 1.0,
        "interval_50_y": 2 * 2.0,  # the 25 and 75 % points are the components' own centres, at which t lies inside
        "interval_90_y": 2 * (2 + 0.1 * stats.norm.ppf(0.9)),
    }
    for name, expected in by_hand.items():
        assert values[name] == pytest.approx(expected, rel=1e-7), name
    assert values["crps_y"] == pytest.approx(reference_crps(np.array([-2.0, 2]), np.array([0.1, 0.1]), 1.9), rel=1e-8)
    for std in (0.1, math.sqrt(4.01)):
        gaussian = MixturePrediction(torch.zeros(1, 1, 1).double(), torch.zeros(()), float64(std))
        other = point_values(gaussian, problems_of(at), generator())
        for name in ("nll_y", "crps_y", "pit_y", "interval_50_y", "interval_90_y"):
            assert abs(values[name] - float(other[name][0, 0])) > 0.03, (name, std)


@pytest.mark.parametrize("kind", ["gaussian", "two humps", "draws"])
@pytest.mark.parametrize(
    ("shift", "stretch"), [(0.3, 1.0), (-0.3, 1.0), (0.0, 1.6), (0.0, 0.6), (0.2, 1.3)], ids=lambda value: f"{value:g}"
)
def test_the_true_distribution_scores_best(kind: str, shift: float, stretch: float) -> None:
    """Propriety: 20,000 observations of the predicted distribution itself; shifted or stretched about its mean, it
    loses in mean CRPS, NLL and every interval score by 5 standard errors of the paired difference. Draws (S = 25) have
    no NLL, and their other scores are those of f. Seen to catch: a CRPS without its term of pairs or with all
    of it, an NLL without log std, an interval score without width, a penalty of 1/α."""
    rng = np.random.default_rng(1)
    points = 20000 if kind != "draws" else 4000
    mean, std = {
        "gaussian": (np.zeros(1), np.ones(1)),
        "two humps": (np.array([-1.0, 1.0]), np.array([0.5, 0.9])),
        "draws": (stats.norm.ppf((np.arange(25) + 0.5) / 25), np.zeros(25)),
    }[kind]
    component = rng.integers(len(mean), size=points)
    target = torch.from_numpy((mean[component] + std[component] * rng.standard_normal(points))[None])
    centre = mean.mean()

    def scores(shift: float, stretch: float) -> dict[str, Floats]:
        location = torch.from_numpy(centre + shift + stretch * (mean - centre)).reshape(1, -1, 1).expand(1, -1, points)
        scale = torch.from_numpy(stretch * std).reshape(1, -1, 1)
        noise = scale if kind != "draws" else torch.tensor(1.0)
        return point_values(
            MixturePrediction(location, torch.zeros(()), noise), problems_of(target, target), generator()
        )

    truth, other = scores(0.0, 1.0), scores(shift, stretch)
    quantity = "f" if kind == "draws" else "y"
    names = ["crps", *(f"interval_{level}" for level in LEVELS), *(["nll"] if quantity == "y" else [])]
    for name in names:
        loss = (other[f"{name}_{quantity}"] - truth[f"{name}_{quantity}"]).ravel()
        assert loss.mean() > 5 * loss.std() / math.sqrt(points), name


def test_f_and_y_are_never_confused() -> None:
    """var y = var f + aleatoric², for every shape that std and noise may have; the scores of y are those of an f whose
    draws already hold the noise, and those of f do not move with the noise. Seen to catch: y without noise, f with it,
    noise added twice, noise added as std, the aleatoric std as a mean of stds."""
    rng = np.random.default_rng(0)
    mean = torch.from_numpy(rng.standard_normal((3, 8, 5)))
    target, truth = (torch.from_numpy(rng.standard_normal((3, 5))) for _ in range(2))
    for std_shape, noise_shape in (((), ()), ((3, 8, 5), ()), ((), (3, 8, 1)), ((3, 1, 5), (3, 8, 5))):
        std = torch.from_numpy(rng.uniform(0.1, 1, std_shape))
        noise = torch.from_numpy(rng.uniform(0.1, 1, noise_shape))
        values = point_values(MixturePrediction(mean, std, noise), problems_of(target, truth), generator())
        np.testing.assert_allclose(
            values["std_y"] ** 2, values["std_f"] ** 2 + values["std_aleatoric"] ** 2, rtol=1e-12
        )
        assert values["std_aleatoric"].shape == (3, 5)
        expected = noise.expand(3, 8, 5).numpy()
        np.testing.assert_allclose(values["std_aleatoric"] ** 2, (expected**2).mean(1), rtol=1e-12)

        whole = (std.expand(3, 8, 5) ** 2 + noise.expand(3, 8, 5) ** 2).sqrt()
        as_f = point_values(MixturePrediction(mean, whole, torch.tensor(1.0)), problems_of(target, target), generator())
        louder = point_values(MixturePrediction(mean, std, 3 * noise), problems_of(target + 1, truth), generator())
        for name in values:
            if name.endswith("_y") and name != "nll_y":
                np.testing.assert_allclose(values[name], as_f[name[:-1] + "f"], rtol=1e-9, atol=1e-12)
                if not name.startswith(("coverage", "rmse")):
                    assert not np.allclose(values[name], values[name[:-1] + "f"])
            if name.endswith("_f"):
                np.testing.assert_array_equal(values[name], louder[name])


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_scores_are_computed_in_double(precision: torch.dtype) -> None:
    """A prediction in float32 is scored as exactly the same numbers in float64 are. Seen to catch: `double()` left out
    for the mean, for the noise."""
    rng = np.random.default_rng(0)
    mean = torch.from_numpy(rng.normal(3, 1e-3, (2, 9, 4))).float()
    noise, target = torch.tensor(1e-4), torch.from_numpy(rng.normal(3, 1e-3, (2, 4))).float()
    single = point_values(MixturePrediction(mean, torch.zeros(()), noise), problems_of(target, target), generator())
    cast = MixturePrediction(mean.to(precision), torch.zeros((), dtype=precision), noise.to(precision))
    double = point_values(cast, problems_of(target.to(precision), target.to(precision)), generator())
    for name, values in single.items():
        assert values.dtype == np.float64, name
        np.testing.assert_array_equal(values, double[name])
    problem = (mean.double().numpy(), np.full((2, 9, 4), float(noise)), target.double().numpy())
    np.testing.assert_allclose(single["nll_y"], pointwise(problem, reference_nll), rtol=1e-12)


def test_units() -> None:
    """A prediction that is brought to other units scores as if it had been in them from the start: scores in units of y
    are multiplied, NLL moves by the log, numbers without a unit stay. Seen to catch: the shift forgotten, the noise or
    the components' stds left as they were, one replica's scale for all."""
    _, mixture, t = build("calibrated", (3, 12, 9))
    scale, shift = float64([10.0, 1.0, 0.02]), float64([5.0, -1.0, 100.0])
    stretch, move = scale.unsqueeze(1), shift.unsqueeze(1)
    truth = t + 0.1
    plain = MixturePrediction(mixture.location, mixture.scale / 2, mixture.scale)
    before = point_values(plain, problems_of(t, truth), generator())
    problems = problems_of(move + stretch * t, move + stretch * truth)
    after = point_values(plain.rescaled(shift, scale), problems, generator())
    factors = scale.numpy()
    scores, old = (replica_scores(v, problems.regions) for v in (after, before))
    for name in (
        "rmse_y",
        "rmse_f",
        "crps_y",
        "crps_f",
        "interval_90_f",
        "width_90_y",
        "std_f",
        "std_y",
        "std_aleatoric",
    ):
        assert SCORES[name].unit == "y"
        for region in ("all", "gap"):
            np.testing.assert_allclose(scores[name][region], old[name][region] * factors, rtol=1e-9)
    np.testing.assert_allclose(scores["nll_y"]["all"], old["nll_y"]["all"] + np.log(factors), rtol=1e-9)
    for name in ("coverage_50_y", "coverage_90_f", "gap_ratio", "gap_wider"):
        np.testing.assert_allclose(scores[name]["all"], old[name]["all"], rtol=1e-9)
    for name in ("pit_y", "pit_f"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-9)
    for name in ("mean_f", "f_05", "f_95"):
        np.testing.assert_allclose(after[name], move + stretch * torch.from_numpy(before[name]), rtol=1e-9)


# --- What is not defined ----------------------------------------------------------------------------------------------


def test_calibration_of_y_needs_noise() -> None:
    """Points without noise have no calibration of y, the others keep theirs, and nothing else is lost. Seen to catch:
    all points masked when one is noise-free, none masked, f masked too, NLL masked too."""
    _, mixture, t = build("calibrated", (2, 4, 6))
    prediction = MixturePrediction(mixture.location, torch.zeros(()), mixture.scale)
    noise = torch.full_like(t, 0.3)
    noise[0], noise[1, 2] = 0, 0
    values = point_values(prediction, problems_of(t, t, noise_test=noise), generator())
    certain = (noise == 0).numpy()
    for name, value in values.items():
        if name.startswith(("reference", "rhat", "ess")):
            continue  # there is none here
        lost = name == "pit_y" or (name.startswith("coverage") and name.endswith("_y"))
        np.testing.assert_array_equal(np.isnan(value), certain if lost else np.zeros_like(certain), err_msg=name)
    scores = replica_scores(values, problems_of(t).regions)
    assert np.isnan(scores["coverage_90_y"]["all"]).all()
    assert np.isnan(scores["coverage_90_y"]["data"]).tolist() == [True, False]  # point 2 is in the edge
    unknown = point_values(prediction, problems_of(t, t, noise=None), generator())
    assert not any(
        np.isnan(value).any() for name, value in unknown.items() if not name.startswith(("reference", "rhat", "ess"))
    )


def test_scores_of_f_need_the_truth() -> None:
    """Without f_test every score of f against it is nan; what describes f alone and the scores of y are not. Seen to
    catch: the zeros that stand for the missing truth left unmasked, std_f masked."""
    _, mixture, t = build("calibrated", (2, 4, 6))
    prediction = MixturePrediction(mixture.location, torch.zeros(()), mixture.scale)
    values = point_values(prediction, problems_of(t), generator())
    known = point_values(prediction, problems_of(t, t), generator())
    for name, value in values.items():
        if name.endswith("_f") and name not in ("mean_f", "std_f", "width_90_f"):
            assert np.isnan(value).all(), name
        else:
            np.testing.assert_array_equal(value, known[name], err_msg=name)


# --- From points to replicas ------------------------------------------------------------------------------------------


def test_regions_by_hand() -> None:
    """Two replicas, five points, regions that differ between them, one of them empty. Seen to catch: the mean of
    roots for the root of the mean, replica 0's mask for all, an empty region as 0, the largest R-hat as a mean, the
    smallest ESS as the largest, a point without an R-hat (one in five has one) taken for one that did not converge."""
    points = {
        "rmse_y": np.array([[1.0, 3, 2, 4, 0], [2, 2, 3, 5, 1]]),
        "crps_y": np.array([[1.0, 2, 3, 4, 5], [6, 7, 8, 9, 10]]),
        "std_f": np.array([[1.0, 1, 6, 2, 2], [2, 2, 1, 1, 3]]),
        "rhat": np.array([[1.0, 1.2, 1.1, 1, np.nan], [1, 1, 1, np.inf, 1]]),
        "ess_bulk": np.array([[50.0, 20, 30, 9, 8], [5, 4, 3, 2, 1]]),
        "pit_y": np.full((2, 5), 0.5),
    }
    regions = {
        "data": np.array([[1, 1, 0, 0, 0], [1, 0, 0, 1, 0]], bool),
        "gap": np.array([[0, 0, 1, 1, 0], [0, 1, 1, 0, 1]], bool),
        "extrapolation": np.array([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], bool),
    }
    nan = math.nan
    expected = {
        ("rmse_y", "all"): [math.sqrt(6), math.sqrt(43 / 5)],
        ("rmse_y", "data"): [math.sqrt(5), math.sqrt(14.5)],
        ("rmse_y", "gap"): [math.sqrt(10), math.sqrt(14 / 3)],
        ("rmse_y", "extrapolation"): [0.0, nan],
        ("crps_y", "all"): [3.0, 8.0],
        ("crps_y", "data"): [1.5, 7.5],
        ("crps_y", "gap"): [3.5, 25 / 3],
        ("crps_y", "extrapolation"): [5.0, nan],
        ("std_f", "data"): [1.0, 1.5],
        ("std_f", "gap"): [4.0, 2.0],
        ("rhat", "all"): [1.2, math.inf],
        ("rhat", "gap"): [1.1, 1.0],
        ("rhat", "extrapolation"): [nan, nan],
        ("ess_bulk", "data"): [20.0, 2.0],
        ("ess_bulk", "all"): [8.0, 1.0],
        ("gap_ratio", "all"): [4.0, 4 / 3],
        ("gap_wider", "all"): [1.0, 1.0],
    }
    scores = replica_scores(points, regions)
    for (name, region), values in expected.items():
        np.testing.assert_allclose(scores[name][region], values, rtol=1e-14, err_msg=f"{name} {region}")
    assert "pit_y" not in scores
    assert "crps_f" not in scores


def test_a_std_that_does_not_depend_on_x_is_not_wider_in_the_gap() -> None:
    """Means of equal numbers differ by rounding. Seen to catch: ratio > 1."""
    regions = {"data": np.array([[1, 1, 1, 0]], bool), "gap": np.array([[0, 0, 0, 1]], bool)}
    scores = replica_scores({"std_f": np.array([[0.7, 0.7, 0.7, 0.7 * (1 + 1e-9)]])}, regions)
    assert scores["gap_wider"]["all"].tolist() == [0.0]


@pytest.mark.parametrize("names", [("data",), ("gap",), (), ("north", "south")])
def test_without_a_gap_there_is_no_gap_ratio(names: tuple[str, ...]) -> None:
    """Regions have any names, and none is assumed. Seen to catch: std_f["gap"] without a look."""
    scores = replica_scores({"std_f": np.ones((2, 3))}, {name: np.ones((2, 3), bool) for name in names})
    assert "gap_ratio" not in scores and set(scores["std_f"]) == {"all", *names}


def test_gap_ratio_where_a_region_says_nothing() -> None:
    """No gap, or no error bars at all: nan, and not "not wider". A certain prediction in the data alone: infinite, and
    wider. A narrower gap: 0. Seen to catch: nan > 1 counted as False, data over gap."""
    regions = {
        "data": np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]], bool),
        "extrapolation": np.zeros((5, 4), bool),
    }
    regions["gap"] = ~regions["data"]
    std = np.array([[1.0, 3, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 3, 5], [1, 1, 1, 1]])
    scores = replica_scores({"std_f": std}, regions)
    np.testing.assert_array_equal(scores["gap_ratio"]["all"], [0.5, math.nan, math.inf, 4, math.nan])
    np.testing.assert_array_equal(scores["gap_wider"]["all"], [0, math.nan, 1, 1, math.nan])


# --- What a column means ----------------------------------------------------------------------------------------------

LOWER = (
    "nll",
    "rmse",
    "crps",
    "interval_50",
    "interval_90",
    "interval_95",
    "calibration_error",
    "miscalibration_area",
    "pit_ks",
)


def test_every_score_is_made_and_says_what_is_good() -> None:
    """SCORES names exactly what point_values and replica_scores make, and what is pooled from PITs that they make; each
    with its direction. Seen to catch: a score without a way to compute it, coverage to be as high as possible, R-hat as
    low, RMSE in nats."""
    _, mixture, t = build("calibrated", (2, 16, 6))
    prediction = MixturePrediction(mixture.location, torch.zeros(()), mixture.scale, chains=2)
    values = point_values(prediction, problems_of(t, t), generator())
    scores = replica_scores(values, problems_of(t).regions)
    pooled = {name for name, score in SCORES.items() if score.pooled is not None}
    assert set(scores) | pooled == set(SCORES) and not set(scores) & pooled
    assert all(SCORES[name].of == name[-1] for name in pooled)
    beside = {"pit_y", "pit_f", "mean_f", "f_05", "f_25", "f_50", "f_75", "f_95"}
    assert set(values) - set(scores) == beside and set(undefined((2, 6))) == set(values)
    assert all(np.isnan(value).all() and value.shape == (2, 6) for value in undefined((2, 6)).values())

    for name, score in SCORES.items():
        stem, _, quantity = name.rpartition("_")
        if stem in LOWER and quantity in "yf":
            assert score.better == "lower" and score.direction == "↓", name
        elif stem.startswith("coverage"):
            assert score.better == int(stem[-2:]) / 100 and score.direction == f"→ 0.{stem[-2:].rstrip('0')}", name
        elif name.startswith("ess"):
            assert score.better == "higher" and score.direction == "↑", name
        elif name in ("rhat", "rhat_components"):
            assert score.better == 1.0 and score.direction == "→ 1"
        elif name in ("reference_w1", "reference_error"):
            assert score.better == "lower" and score.direction == "↓"
        elif name in ("reference_log_std", "reference_cramer"):
            assert score.better == 0.0 and score.direction == "→ 0"
        elif name.endswith("_mc_error"):
            assert score.better is None and name.removesuffix("_mc_error") in SCORES
        else:
            described = ("std_f", "std_y", "std_aleatoric", "width_90_f", "width_90_y", "gap_ratio", "gap_wider")
            assert name in (*described, "rhat_limit"), name
            assert score.better is None and score.direction == ""
        in_units = stem.startswith(("rmse", "crps", "interval", "width")) or name.startswith("std")
        assert score.unit == ("nats" if stem == "nll" else "y" if in_units else ""), name


def test_chains_are_judged_only_where_there_are_chains() -> None:
    """Seen to catch: R-hat of an ensemble's members."""
    _, mixture, t = build("calibrated", (2, 16, 6))
    of_chains = ("rhat", "rhat_limit", "ess_bulk", "ess_tail")
    for chains in (0, 2):
        prediction = MixturePrediction(mixture.location, torch.zeros(()), mixture.scale, chains)
        values = point_values(prediction, problems_of(t), generator())
        assert all(np.isnan(values[name]).all() == (chains == 0) for name in of_chains)


def test_chains_of_components_are_judged_by_more_than_their_means() -> None:
    """R-hat of f is of one draw of each component; chains whose stds differ are seen in the components' numbers alone.

    Seen to catch: R-hat of the means for that of f, the stds of components not judged, σ not judged.
    """
    random = np.random.default_rng(0)
    mean = torch.from_numpy(random.standard_normal((2, 4 * 100, 6)))
    std = 4 * (0.05 * torch.from_numpy(random.standard_normal((2, 4 * 100, 6)))).exp()
    t = torch.zeros(2, 6, dtype=torch.float64)

    def judged(mean: Tensor, std: Tensor, noise: Tensor) -> tuple[float, float]:
        values = point_values(MixturePrediction(mean, std, noise, 4), problems_of(t), generator())
        return float(values["rhat"].max()), float(values["rhat_components"].max())

    known = torch.ones(())
    whole, parts = judged(mean, std, known)
    assert whole < 1.05 and parts < 1.05
    wide = std.clone()
    wide[:, :100] *= 1.1
    assert judged(mean, wide, known)[0] < 1.05 < 1.3 < judged(mean, wide, known)[1]
    moved = mean.clone()
    moved[:, :100] += 1.0  # a quarter of a std of f, a whole one of the means
    assert judged(moved, std, known)[0] < 1.06 < 1.1 < judged(moved, std, known)[1]
    noise = 1 + 0.01 * torch.from_numpy(random.standard_normal((2, 400, 1)))
    assert judged(mean, std, noise)[1] < 1.05
    noise[:, :100] += 0.1
    assert judged(mean, std, noise)[1] > 1.3


def test_a_score_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width of the central 80 % interval of y, as docs/add_a_score.md adds it: its values, by region.

    Seen to catch: a list of names elsewhere that a new score is not in."""
    width = Score(
        "width_80_y",
        "width of the central 80 % interval of y",
        None,
        "y",
        of="y",
        needs=HasQuantiles,
        at_point=lambda q: q.quantile(0.9) - q.quantile(0.1),
        targeted=False,
    )
    monkeypatch.setitem(SCORES, width.name, width)  # type: ignore[arg-type]
    _, mixture, t = build("calibrated", (2, 16, 6))
    prediction = MixturePrediction(mixture.location, torch.zeros(()), mixture.scale)
    problems = problems_of(t)
    scores = replica_scores(point_values(prediction, problems, generator()), problems.regions)
    expected = (quantile(prediction.y, 0.9) - quantile(prediction.y, 0.1)).numpy()
    for r in range(2):
        inside = expected[r][problems.regions["gap"][r].numpy()]
        np.testing.assert_allclose(scores["width_80_y"]["gap"][r], inside.mean())


def test_quantiles_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All levels of all scores and curves in one call a distribution, since a call sorts or tabulates. Seen to catch: a
    call for each score."""
    asked: list[int] = []
    own = NormalMixture.quantiles

    def counted(self: NormalMixture, levels: Sequence[float]) -> Tensor:
        asked.append(len(levels))
        return own(self, levels)

    monkeypatch.setattr(NormalMixture, "quantiles", counted)
    _, mixture, t = build("calibrated", (2, 16, 6))
    point_values(MixturePrediction(mixture.location, torch.zeros(()), mixture.scale), problems_of(t, t), generator())
    assert asked == [7, 7]  # of y and of f: the ends of 50, 90 and 95 %, and the median


@pytest.mark.parametrize("points", [1, 2])
def test_interval_scores_are_scoringrules(points: int) -> None:
    """Also with one test point a replica, whose axis scoringrules squeezes away. Seen to catch: scoringrules called on
    all replicas at once, a penalty of 1/α."""
    (_, _, target), mixture, t = build("heavy tails", (3, 30, points))
    values = point_values(
        MixturePrediction(mixture.location, torch.zeros(()), mixture.scale), problems_of(t), generator()
    )
    for level, alpha in zip(LEVELS, ALPHAS, strict=True):
        low, high = (quantile(mixture, p).numpy() for p in (alpha / 2, 1 - alpha / 2))
        for at in np.ndindex(3, points):
            expected = scoringrules.interval_score(target[at], low[at], high[at], alpha, backend="numpy")
            assert values[f"interval_{level}_y"][at] == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("size", [1e-200, 1e-160, 1.0, 1e160, 1e300])
def test_numbers_of_any_size(size: float) -> None:
    """By arithmetic of 60 digits, from points to a region's number: one Gaussian of that std, and targets as far away.
    Seen to catch: the squares of RMSE that overflow or vanish."""
    z = np.array([[0.5, -1.5, 3.0, 0.0]])
    prediction = MixturePrediction(torch.zeros(1, 1, 4).double(), torch.zeros(()).double(), float64(size))
    problems = problems_of(torch.from_numpy(size * z), noise=None)
    scores = replica_scores(point_values(prediction, problems, generator()), problems.regions)
    with mpmath.workdps(60):
        std, targets = mpmath.mpf(size), [mpmath.mpf(float(value)) for value in (size * z).ravel()]
        exact = {
            "rmse_y": mpmath.sqrt(sum(t**2 for t in targets) / 4),
            "crps_y": sum(
                t * (2 * mpmath.ncdf(t / std) - 1) + 2 * std * mpmath.npdf(t / std) - std / mpmath.sqrt(mpmath.pi)
                for t in targets
            )
            / 4,
            "nll_y": sum((t / std) ** 2 / 2 + mpmath.log(std * mpmath.sqrt(2 * mpmath.pi)) for t in targets) / 4,
            "std_y": std,
            "width_90_y": 2 * std * mpmath.sqrt(2) * mpmath.erfinv(mpmath.mpf("0.9")),
        }
    for name, value in exact.items():
        assert scores[name]["all"][0] == pytest.approx(float(value), rel=1e-9), name


def test_the_largest_numbers_have_a_mean() -> None:
    """Seen to catch: a sum of them, a ratio that warns."""
    huge = np.full((1, 6), 1.7e308)
    regions = {"data": np.array([[1, 1, 1, 0, 0, 0]], bool), "gap": np.array([[0, 0, 0, 1, 1, 1]], bool)}
    scores = replica_scores({"crps_y": huge, "rmse_y": huge, "std_f": np.array([[1e-5] * 3 + [1.7e308] * 3])}, regions)
    assert [scores[name]["all"][0] for name in ("crps_y", "rmse_y")] == pytest.approx([1.7e308] * 2)
    assert scores["gap_ratio"]["all"][0] == math.inf and scores["gap_wider"]["all"][0] == 1
    none = replica_scores({"crps_y": np.array([[1.0, math.inf]]), "rmse_y": np.array([[1.0, math.nan]])}, {})
    assert none["crps_y"]["all"][0] == math.inf and math.isnan(none["rmse_y"]["all"][0])


def test_three_features_without_gap_or_truth() -> None:
    """Held-out rows in regions of any name: y is scored, f described, and no score of the truth or of a gap exists.
    Seen to catch: a region or a truth taken for granted."""
    _, mixture, t = build("calibrated", (2, 16, 6))
    north = torch.arange(6).expand(2, -1) < 2
    problems = Problems(torch.zeros(2, 5, 3), torch.zeros(2, 5), torch.zeros(2, 6, 3), t, regions={"north": north})
    prediction = MixturePrediction(mixture.location, torch.zeros(()), mixture.scale)
    scores = replica_scores(point_values(prediction, problems, generator()), problems.regions)
    assert not {"gap_ratio", "gap_wider"} & set(scores)
    for name in ("rmse", "crps", "coverage_90", "interval_90"):
        assert set(scores[f"{name}_y"]) == {"all", "north"}
        assert all(np.isfinite(value).all() for value in scores[f"{name}_y"].values())
        assert all(np.isnan(value).all() for value in scores[f"{name}_f"].values())
    assert np.isfinite(scores["std_f"]["north"]).all() and np.isfinite(scores["nll_y"]["all"]).all()


def test_what_a_prediction_lacks_is_not_scored() -> None:
    """Quantiles alone: no f, no density. A Student-t with f: everything but chains. Seen to catch: an f taken for
    granted, a density asked of quantiles, y's quantiles not among the curves."""
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.standard_normal((2, 6)))
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    q = torch.from_numpy(stats.norm.ppf(levels)).view(1, -1, 1).expand(2, -1, 6).clone()
    values = point_values(QuantilePrediction(levels, q), problems_of(target, target), generator())
    for name, value in values.items():
        of_f = (
            name.endswith("_f") or name in ("std_aleatoric", "nll_y") or name.startswith(("rhat", "ess", "reference"))
        )
        assert np.isnan(value).all() == of_f, name
    np.testing.assert_allclose(values["y_05"], stats.norm.ppf(0.05))
    np.testing.assert_allclose(values["width_90_y"], 2 * stats.norm.ppf(0.95))
    one = torch.ones(2, 6, dtype=torch.float64)
    values = point_values(StudentTPrediction(5 * one, 0 * one, 2 * one, one), problems_of(target, target), generator())
    np.testing.assert_allclose(values["nll_y"], -stats.t.logpdf(target, 5, 0, 2), rtol=1e-9)
    np.testing.assert_allclose(values["pit_f"], stats.t.cdf(target, 5), rtol=1e-9)
    np.testing.assert_allclose(values["std_f"], math.sqrt(5 / 3))
