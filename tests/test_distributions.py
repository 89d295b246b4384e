"""Distributions against other implementations: the one by bisection and over all pairs that stood before, scipy,
quadrature, and arithmetic of 60 digits where the numbers are extreme. What scores are made of them: test_metrics.py."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats
from torch import Tensor

from gapbench.methods.engine.distributions import Interpolated, NormalMixture, StudentT

Floats = NDArray[np.float64]
LEVELS = (1e-6, 0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975, 1 - 1e-6)


def float64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def mixture(location: object, scale: object) -> NormalMixture:
    """A mixture at one point: location (S,), scale (S,) or a number."""
    return NormalMixture(float64(location).view(1, -1, 1), float64(scale).view(1, -1, 1))


# Mixtures -------------------------------------------------------------------------------------------------------------


def bisected(of: NormalMixture, p: float) -> Tensor:
    """The quantile that stood before: 50 halvings of a bracket of the components' quantiles."""
    each = of.location + torch.special.ndtri(float64(p)) * of.scale.expand_as(of.location)
    low, high = each.amin(1), each.amax(1)
    low = low - 1e-9 * (1 + low.abs())
    for _ in range(50):
        middle = (low + high) / 2
        above = of.cdf(middle) >= p
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high


def over_pairs(of: NormalMixture, t: Tensor) -> Floats:
    """The CRPS that stood before: over all pairs of components."""
    location, scale = (part.expand_as(of.location).movedim(1, -1).numpy() for part in (of.location, of.scale))
    return np.asarray(scoringrules.crps_mixnorm(t.numpy(), location, np.maximum(scale, 1e-100), backend="numpy"))


def one_scale(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[Floats, Floats]:
    return rng.standard_normal(shape), np.full((1, 1, 1), 0.1)


def own_scales(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[Floats, Floats]:
    return rng.standard_normal(shape), 0.1 * np.exp(rng.standard_normal(shape))


def very_different_scales(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[Floats, Floats]:
    return rng.standard_normal(shape), 10.0 ** rng.uniform(-5, 2, shape)


def heavy_tails(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[Floats, Floats]:
    return rng.standard_t(1.5, shape), np.full((1, 1, 1), 0.1)


def some_atoms(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[Floats, Floats]:
    """At every second point the first component and every third are atoms, at every fifth point all are."""
    scale = np.full(shape, 0.3)
    scale[:, ::3, ::2] = 0
    scale[..., ::5] = 0
    return rng.standard_normal(shape), scale


MIXTURES: tuple[Callable[[np.random.Generator, tuple[int, int, int]], tuple[Floats, Floats]], ...] = (
    one_scale,
    own_scales,
    very_different_scales,
    heavy_tails,
    some_atoms,
)


@pytest.mark.parametrize("shape", [(3, 1, 7), (2, 2, 9), (2, 21, 30), (1, 203, 41)], ids=str)
@pytest.mark.parametrize("kind", MIXTURES, ids=lambda kind: kind.__name__)
def test_fast_mixtures_say_what_the_slow_ones_said(
    kind: Callable[[np.random.Generator, tuple[int, int, int]], tuple[Floats, Floats]], shape: tuple[int, int, int]
) -> None:
    """CRPS and quantiles to 1e-9 of the prediction's std, in every way that they are computed: by trapezoids, by pairs,
    by sorted draws; by Newton's method, by halving, by rank. Seen to catch: the pair half a turn apart counted twice,
    the points of a piece in another order than their values, half of the nodes, no weight of a component with itself,
    the lower tail's level in the upper one, the quantile of the wrong row, Newton's steps up a stair of many scales."""
    location, scale = kind(np.random.default_rng(sum(shape)), shape)
    of = NormalMixture(torch.from_numpy(location), torch.from_numpy(scale))
    t = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (shape[0], shape[2])))
    width = of.std.numpy() + 1e-9
    assert (np.abs(of.crps(t).numpy() - over_pairs(of, t)) / width).max() < 1e-9
    found = of.quantiles(LEVELS)
    assert found.shape == (shape[0], len(LEVELS), shape[2])
    for at, p in enumerate(LEVELS):
        error = (found[:, at] - bisected(of, p)).abs().numpy() / width
        # Where F is flat but for its rounding, another t is as good.
        as_good = (of.cdf(found[:, at] - 1e-9) - p).abs().numpy() < 1e-14
        assert error[~as_good].max(initial=0) < 1e-9


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(-6, 3)), min_size=1, max_size=6),
    st.floats(1e-9, 1 - 1e-9),
)
def test_a_quantile_inverts_the_cdf(components: list[tuple[float, float]], p: float) -> None:
    """Also far from everything and between components that are far apart. Seen to catch: an end after
    5 steps."""
    location, exponent = np.array(components).T
    of = mixture(location, 10**exponent)
    (q,) = of.quantiles([p])[0].tolist()[0:1]
    step = 1e-12 * (1 + np.abs(location).max() + 10 ** exponent.max())
    below, above = (of.cdf(float64([[float(q[0]) + side]])).item() for side in (-step, step))
    assert below <= p * (1 + 1e-9) + 1e-15 and above >= p * (1 - 1e-9) - 1e-15


def counted(function: Callable[[Tensor], Tensor], evaluated: list[int]) -> Callable[[Tensor], Tensor]:
    """The function, which notes how many numbers it was asked for."""

    def count(z: Tensor) -> Tensor:
        evaluated.append(z.numel())
        return function(z)

    return count


def test_quantiles_cost_a_few_cdfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than 12 evaluations of F a level, where 50 halvings stood. Seen to catch: Newton's steps refused, so that
    halving does all the work."""
    of = NormalMixture(*(torch.from_numpy(part) for part in own_scales(np.random.default_rng(0), (2, 100, 50))))
    evaluated: list[int] = []
    monkeypatch.setattr(torch.special, "ndtr", counted(torch.special.ndtr, evaluated))
    of.quantiles((0.025, 0.05, 0.25, 0.75, 0.95, 0.975))
    assert sum(evaluated) < 12 * 6 * of.location.numel()


def test_crps_does_not_cost_the_square_of_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """4000 draws of y: some hundred nodes, not 8 million pairs; and right, for some points. Seen to catch: pairs
    preferred to nodes."""
    draws = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 4000, 3)))
    of, t = NormalMixture(draws, float64(0.1)), float64([[0.0, 1.0, -7.0]])
    evaluated: list[int] = []
    monkeypatch.setattr(Tensor, "erf_", counted(Tensor.erf_, evaluated))
    found = of.crps(t)
    assert 0 < sum(evaluated) < 300 * draws.numel()
    grid = torch.linspace(-12, 12, 24000, dtype=torch.float64)
    for at, target in enumerate(t[0].tolist()):
        single = NormalMixture(draws[..., at : at + 1].expand(1, 4000, 3), float64(0.1))
        F = torch.cat([single.cdf(part.view(1, -1)) for part in grid.split(3)], 1)[0]
        error = (F - (grid >= target).double()).square()
        assert found[0, at].item() == pytest.approx(torch.trapezoid(error, grid).item(), abs=1e-3)


EXTREME: dict[str, tuple[list[float], list[float], float]] = {
    "one std blown up": ([0.0, 1.0, 0.5], [0.1, 1e9, 0.1], 0.2),
    "one location blown up": ([0.0, 1e17, 0.5, 0.2], [0.1, 0.1, 0.1, 0.2], 0.2),
    "stds beyond 1e154": ([0.0, 0.0, 1.0], [1e160, 1e160, 2e160], 0.0),
    "one std beyond 1e154": ([0.0, 0.0, 1.0], [1e160, 1.0, 1e-160], 0.0),
    "all near the largest number": ([-1e308, 1e308], [1e307, 1e305], 1.7e308),
    "twenty near the largest number": ([-1e308, 1e308] * 10, [1e307] * 20, 0.0),
    "stds below 1e-154": ([3.0, 3.0], [1e-160, 2e-160], 3.0),
    "a target far away": ([0.0, 1.0, 3.0], [0.1, 0.2, 0.3], 1e200),
    "far from zero, and narrow": ([1e6, 1e6 + 1e-3, 1e6 - 1e-3] * 70, [1e-4, 2e-4, 1e-4] * 70, 1e6),
    "an atom among normals": ([0.0, 1.0, 2.0], [0.0, 1e-3, 1e3], 0.0),
}


def exact_moments(location: list[float], scale: list[float], t: float) -> tuple[float, float]:
    """CRPS and std with 60 digits."""

    def distance(m: mpmath.mpf, s: mpmath.mpf) -> mpmath.mpf:
        if s == 0:
            return abs(m)
        return m * mpmath.erf(m / s / mpmath.sqrt(2)) + s * mpmath.sqrt(2 / mpmath.pi) * mpmath.exp(-((m / s) ** 2) / 2)

    with mpmath.workdps(60):
        components = [(mpmath.mpf(m), mpmath.mpf(s)) for m, s in zip(location, scale, strict=True)]
        size = len(components)
        near = sum(distance(m - mpmath.mpf(t), s) for m, s in components) / size
        own = sum(distance(m - n, mpmath.sqrt(s**2 + r**2)) for m, s in components for n, r in components) / size**2
        mean = sum(m for m, _ in components) / size
        std = mpmath.sqrt(sum((m - mean) ** 2 + s**2 for m, s in components) / size)
        return float(near - own / 2), float(std)


@pytest.mark.parametrize("name", EXTREME)
def test_extreme_mixtures(name: str) -> None:
    """CRPS and std against arithmetic of 60 digits; the CRPS is never below 0. Seen to catch: sums that overflow,
    differences that overflow, a std whose squares do, differences of large numbers taken after rounding."""
    location, scale, t = EXTREME[name]
    crps, std = exact_moments(location, scale, t)
    of = mixture(location, scale)
    assert of.crps(float64([[t]])).item() == pytest.approx(crps, rel=1e-9)
    assert of.std.item() == pytest.approx(std, rel=1e-9) or max(map(abs, location)) * len(location) > 1e308


def test_what_is_not_a_number_stays_so() -> None:
    """A replica that diverged is nan, without an end or an error, and its neighbour is untouched. Seen to catch: nan as
    a number of nodes."""
    of = NormalMixture(float64([[[math.nan], [1.0]], [[0.0], [1.0]]]), float64(0.3))
    t = float64([[0.0], [0.0]])
    alone = NormalMixture(of.location[1:], of.scale)
    for found, expected in ((of.crps(t), alone.crps(t[1:])), (of.quantiles([0.3]), alone.quantiles([0.3]))):
        assert found[0].isnan().all() and torch.equal(found[1], expected[0])


def test_a_quantile_of_a_flat_stretch_is_its_left_end() -> None:
    """As of draws, where F is 0.5 from 8 stds beyond one half to 8 stds before the other. Seen to catch: Newton's
    step taken where F is flat."""
    of = mixture([0.0, 1.0, 100.0, 101.0], 1.0)
    (found,) = of.quantiles([0.5])[0, :, 0].tolist()
    assert found == pytest.approx(bisected(of, 0.5).item(), rel=1e-9) and found < 12


def test_a_density_at_an_atom_is_infinite() -> None:
    """And an atom has none elsewhere: nothing is raised. Seen to catch: 0/0, the atom's weight lost."""
    of = NormalMixture(float64([[0.0, 0.0], [1.0, 1.0]]).unsqueeze(0), float64([[0.0], [2.0]]).unsqueeze(0))
    found = of.log_density(float64([[0.0, 3.0]]))[0].tolist()
    assert found == [math.inf, pytest.approx(stats.norm.logpdf(3, 1, 2) - math.log(2))]
    assert mixture([0.0, 1.0], 0.0).log_density(float64([[0.5]])).item() == -math.inf


# Student's t ----------------------------------------------------------------------------------------------------------

DF = (1.2, 2.0, 2.5, 7.0, 300.0, 1e6, 1e12)


def student(df: float, location: float = 0.0, scale: float = 1.0) -> StudentT:
    return StudentT(*(float64([[value]]) for value in (df, location, scale)))


@pytest.mark.parametrize("df", DF)
def test_student_is_what_scipy_says(df: float) -> None:
    """CDF, density, quantiles and moments. Seen to catch: the tail near 1 by its complement, a finite std at df 2, no
    log of the scale."""
    of, other = student(df, 3.0, 0.5), stats.t(df, 3.0, 0.5)
    for t in (-40.0, 2.0, 3.0, 3.7, 1e4):
        at = float64([[t]])
        assert of.cdf(at).item() == of.cdf_below(at).item() == pytest.approx(other.cdf(t), rel=1e-9)
        assert of.log_density(at).item() == pytest.approx(other.logpdf(t), rel=1e-8)
    expected = [3 + 0.5 * stats.t.ppf(p, df) if p <= 0.5 else 3 - 0.5 * stats.t.ppf(1 - p, df) for p in LEVELS]
    np.testing.assert_allclose(of.quantiles(LEVELS)[0, :, 0], expected, rtol=1e-9)
    std = 0.5 * math.sqrt(df / (df - 2)) if df > 2 else math.inf
    assert of.mean.item() == 3 and of.std.item() == pytest.approx(std)


@pytest.mark.parametrize("z", [0.0, 0.3, -5.0, 1e3])
@pytest.mark.parametrize("df", [df for df in DF if df < 1e3])
def test_the_crps_of_student(df: float, z: float) -> None:
    """By quadrature of F² and (1 − F)². Seen to catch: ν for ν − 1, the scale forgotten, F for 2F − 1."""
    found = student(df, 1.0, 2.0).crps(float64([[1 + 2 * z]])).item()

    def part(of: Callable[[float], float], *ends: float) -> float:
        return sum(integrate.quad(of, a, b, epsabs=1e-13, limit=500)[0] for a, b in itertools.pairwise(ends))

    far = abs(z)
    inside = part(lambda x: stats.t.cdf(x, df) ** 2, *(end for end in (0, 1, 3, 10, 100) if end < far), far)
    beyond = part(lambda x: stats.t.sf(x, df) ** 2, far, far + 1, far + 4, far + 30, math.inf)
    below = part(lambda x: stats.t.sf(x, df) ** 2, 0, 1, 4, 30, math.inf)
    assert found == pytest.approx(2 * (inside + beyond + below), rel=1e-7)


@pytest.mark.parametrize("df", DF)
def test_the_constants_of_student(df: float) -> None:
    """CRPS and density at the center with 40 digits, up to 10¹² degrees of freedom. Seen to catch: logarithms of Gamma
    functions of large numbers whose difference has no digits left."""
    with mpmath.workdps(40):
        nu = mpmath.mpf(df)
        density = mpmath.exp(mpmath.loggamma((nu + 1) / 2) - mpmath.loggamma(nu / 2)) / mpmath.sqrt(nu * mpmath.pi)
        betas = mpmath.beta(0.5, nu - 0.5) / mpmath.beta(0.5, nu / 2) ** 2
        crps = 2 * density * nu / (nu - 1) - 2 * mpmath.sqrt(nu) / (nu - 1) * betas
    at = float64([[0.0]])
    assert student(df).log_density(at).item() == pytest.approx(float(mpmath.log(density)), rel=1e-12)
    assert student(df).crps(at).item() == pytest.approx(float(crps), rel=1e-10)


def test_student_at_the_extremes() -> None:
    """A target whose square overflows, and what does not exist. Seen to catch: ∞ · 0 in the density, a CRPS by a
    formula that does not hold."""
    assert student(3.0).crps(float64([[1e200]])).item() == pytest.approx(1e200)
    assert student(3.0).log_density(float64([[1e200]])).item() == pytest.approx(
        math.log(6 * math.sqrt(3) / math.pi) - 4 * 200 * math.log(10)
    )
    heavy = student(0.9)
    assert heavy.mean.isnan().all() and heavy.std.isnan().all() and heavy.crps(float64([[0.0]])).isnan().all()
    assert heavy.quantiles([0.75]).item() == pytest.approx(stats.t.ppf(0.75, 0.9))


# Interpolated quantiles -----------------------------------------------------------------------------------------------

QUANTILES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "five": ((0.05, 0.25, 0.5, 0.75, 0.95), (-2.0, -0.5, 0.1, 0.4, 3.0)),
    "two": ((0.2, 0.9), (1.0, 2.0)),
    "an atom inside": ((0.1, 0.3, 0.6, 0.9), (0.0, 1.0, 1.0, 4.0)),
    "atoms at both ends": ((0.1, 0.3, 0.6, 0.9), (0.0, 0.0, 1.0, 1.0)),
    "all the same": ((0.1, 0.5, 0.9), (2.0, 2.0, 2.0)),
}


def interpolated(name: str, points: int = 1) -> Interpolated:
    levels, values = QUANTILES[name]
    return Interpolated(float64(levels), float64(values).view(1, -1, 1).expand(1, -1, points))


def quantile_function(name: str, p: float) -> float:
    """The definition, one number at a time."""
    levels, values = QUANTILES[name]
    if p < levels[0]:
        return values[0] + levels[0] * (values[1] - values[0]) / (levels[1] - levels[0]) * math.log(p / levels[0])
    if p > levels[-1]:
        rest = 1 - levels[-1]
        slope = (values[-1] - values[-2]) / (levels[-1] - levels[-2])
        return values[-1] - rest * slope * math.log((1 - p) / rest)
    return float(np.interp(p, levels, values))


def integral(name: str, of: Callable[[float], float]) -> float:
    """∫₀¹ of(p) dp."""
    knots = [0.0, *QUANTILES[name][0], 1.0]
    return sum(integrate.quad(of, a, b, epsabs=1e-12, limit=200)[0] for a, b in itertools.pairwise(knots))


@pytest.mark.parametrize("name", QUANTILES)
def test_interpolated_quantiles_and_moments(name: str) -> None:
    """By the definition and by quadrature. Seen to catch: a tail's mean on the wrong side, a tail's variance without
    its mean's, the upper tail with the lower one's scale."""
    of = interpolated(name)
    levels = (0.001, 0.04, 0.1, 0.2, 0.3, 0.47, 0.5, 0.6, 0.75, 0.9, 0.93, 0.999)
    expected = [quantile_function(name, p) for p in levels]
    np.testing.assert_allclose(of.quantiles(levels)[0, :, 0], expected, rtol=1e-12, atol=1e-14)
    mean = integral(name, lambda p: quantile_function(name, p))
    variance = integral(name, lambda p: (quantile_function(name, p) - mean) ** 2)
    assert of.mean.item() == pytest.approx(mean, abs=1e-8)
    assert of.std.item() == pytest.approx(math.sqrt(variance), abs=1e-7)


@pytest.mark.parametrize("name", QUANTILES)
def test_interpolated_cdf(name: str) -> None:
    """Inverts the quantile function: F(Q(p)) ≥ p ≥ F⁻(Q(p)), with equality where Q rises. Seen to catch: an atom
    counted at its left limit, the tail of an end's atom counted before it is reached."""
    levels = tuple(np.linspace(0.001, 0.999, 333))
    of, single = interpolated(name, len(levels)), interpolated(name).quantiles(levels)
    t = single.view(1, -1)
    p = float64([levels])
    assert (of.cdf(t) >= p - 1e-12).all() and (of.cdf_below(t) <= p + 1e-12).all()
    smooth = of.cdf(t) - of.cdf_below(t) < 1e-12
    assert torch.allclose(of.cdf(t)[smooth], p[smooth], rtol=0, atol=1e-12)
    far = interpolated(name, 2).cdf(float64([[-1e9, 1e9]]))[0].tolist()
    assert far == pytest.approx([0.0, 1.0], abs=1e-15) and max(far) <= 1
    if name == "atoms at both ends":
        at = interpolated(name, 2)
        assert at.cdf(float64([[0.0, 1.0]]))[0].tolist() == pytest.approx([0.3, 1.0])
        assert at.cdf_below(float64([[0.0, 1.0]]))[0].tolist() == pytest.approx([0.0, 0.6])


@pytest.mark.parametrize("t", [-9.0, -2.0, -0.7, 0.0, 0.2, 1.0, 1.5, 2.0, 3.9, 4.0, 12.0])
@pytest.mark.parametrize("name", QUANTILES)
def test_the_crps_of_interpolated_quantiles(name: str, t: float) -> None:
    """Twice the pinball loss of all levels, by quadrature, with targets in both tails, between and on quantiles. Seen
    to catch: a tail's part left out where the target lies inside, (1 − F)² for F², an interval cut at its end."""

    def pinball(p: float) -> float:
        q = quantile_function(name, p)
        return 2 * (p * (t - q) if t >= q else (1 - p) * (q - t))

    expected = integral(name, pinball)
    assert interpolated(name).crps(float64([[t]])).item() == pytest.approx(expected, abs=2e-4 * (1 + expected))
    of = interpolated(name, 20001)
    grid = torch.linspace(-40, 40, 20001, dtype=torch.float64).unsqueeze(0)
    by_cdf = torch.trapezoid((of.cdf(grid) - (grid >= t).double()).square(), grid).item()
    assert interpolated(name).crps(float64([[t]])).item() == pytest.approx(by_cdf, abs=5e-3)


def test_a_tail_begins_as_the_interval_ends() -> None:
    """The density is the same on both sides of an outermost quantile. Seen to catch: a tail of the interval's width."""
    _, values = QUANTILES["five"]
    of = interpolated("five", 3)
    for q in (values[0], values[-1]):
        F = of.cdf(float64([[q - 1e-7, q, q + 1e-7]]))[0]
        assert (F[1] - F[0]).item() == pytest.approx((F[2] - F[1]).item(), rel=1e-5)


@pytest.mark.parametrize("p", [0.0, 1.0, math.nan, 95.0])
def test_impossible_levels_are_refused(p: float) -> None:
    """By every kind. Seen to catch: no check in one of them."""
    for of in (mixture([0.0], 1.0), student(3.0), interpolated("five")):
        with pytest.raises(ValueError, match="0 < p < 1"):
            of.quantiles([p])  # type: ignore[attr-defined]
