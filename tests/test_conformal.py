"""Conformal prediction and recalibration: the exact law of their coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.cqr import CQR
from gapbench.methods.engine.conformal import COVERAGES, LEVELS, Split, rank
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.local_conformal import LocalConformal
from gapbench.methods.quantile_regression import LEVELS as QUANTILES
from gapbench.methods.recalibrated import Recalibrated, Releveled, own_levels
from gapbench.methods.split_conformal import SplitConformal

REPLICAS, N, HELD = 3000, 100, 40


@dataclass(frozen=True)
class Wrong(FittedMethod):
    """N(0.3, 2²) everywhere, where the truth is N(0, 1)."""

    def __call__(self, x: Tensor) -> MixturePrediction:
        return MixturePrediction(torch.full((*x.shape[:1], 1, x.shape[1]), 0.3), torch.zeros(()), torch.tensor(2.0))


@dataclass(frozen=True)
class Believer(UncertaintyMethod):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Wrong:
        assert y.shape == (REPLICAS, N - HELD)
        return Wrong()


@pytest.mark.parametrize("cls", [SplitConformal, LocalConformal, CQR])
def test_coverage_given_the_calibration_points_is_beta(cls: type) -> None:
    """Beta(k, n + 1 − k) exactly, however wrong the method. Seen to catch: ⌈pn⌉ for ⌈p(n + 1)⌉, calibration on the
    training points, one end's score alone, the k-th largest."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(REPLICAS, N, generator=generator)
    fit = cls(Believer(), calibration=HELD / N).fit(MLP(), y.unsqueeze(-1), y, generator)
    prediction = fit(torch.zeros(REPLICAS, 1, 1))
    for coverage in COVERAGES:
        low, high = prediction.y.quantiles([(1 - coverage) / 2, (1 + coverage) / 2])[:, :, 0].numpy().T
        covered = stats.norm.cdf(high) - stats.norm.cdf(low)
        k = rank(coverage, HELD)
        assert stats.kstest(covered, stats.beta(k, HELD + 1 - k).cdf).pvalue > 1e-3
        assert abs(covered.mean() - k / (HELD + 1)) < 0.01


def test_a_band_is_no_distribution() -> None:
    """It has the quantiles of its levels alone, a mean, no std and no f. Seen to catch: nan for a known level."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(REPLICAS, N, generator=generator)
    band = SplitConformal(Believer(), HELD / N).fit(MLP(), y.unsqueeze(-1), y, generator)(torch.zeros(REPLICAS, 2, 1))
    found = band.y.quantiles([*LEVELS, 0.2])
    assert found[:, :-1].isfinite().all() and found[:, -1].isnan().all() and (found[:, :-1].diff(dim=1) >= 0).all()
    assert band.f is None and band.y.std.isnan().all() and torch.allclose(band.y.mean, torch.tensor(0.3).double())
    moved = band.rescaled(torch.full((REPLICAS,), 5.0), torch.full((REPLICAS,), 2.0))
    assert torch.allclose(moved.y.quantiles([0.95]), 5 + 2 * band.y.quantiles([0.95]))
    assert not np.allclose(band.values[0], band.values[1])  # each replica has points of its own


def test_the_split_is_a_partition() -> None:
    """Every point is in one part, and x goes with y. Seen to catch: held-out points that are trained on."""
    x = torch.arange(20.0).view(2, 10, 1)
    parts = Split.of(x, x.squeeze(-1), 3, torch.Generator().manual_seed(0))
    assert torch.equal(parts.x.squeeze(-1), parts.y) and torch.equal(parts.x_held.squeeze(-1), parts.y_held)
    for r in range(2):
        assert sorted([*parts.y[r].tolist(), *parts.y_held[r].tolist()]) == x[r].flatten().tolist()
    assert not torch.equal(parts.y_held[0] + 10, parts.y_held[1])


def test_too_few_points_are_refused_before_training() -> None:
    reason = SplitConformal(calibration=0.3).skip(MLP(), torch.zeros(1, 60, 1))
    assert reason is not None and "calibration = 0.3: 18 of 60 points: at least 19 for intervals of 95%" in reason
    assert CQR(calibration=0.3).skip(MLP(), torch.zeros(1, 64, 1)) is None


@dataclass(frozen=True)
class Widening(FittedMethod):
    """N(x, (1 + |x|)²), which is the truth times 1 + |x|."""

    def __call__(self, x: Tensor) -> MixturePrediction:
        return MixturePrediction(x.mT, torch.zeros(()), 1 + x.mT.abs())


@dataclass(frozen=True)
class Widener(UncertaintyMethod):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Widening:
        return Widening()


def test_a_local_band_is_as_wide_as_the_methods_own_error_bars() -> None:
    """Times one factor of each replica, around the method's mean; with true error bars the factor is that of the normal
    law. Seen to catch: the constant width of `split_conformal`, the variance in place of the std."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 400, 1, generator=generator)
    y = x[..., 0] + (1 + x[..., 0].abs()) * torch.randn(200, 400, generator=generator)
    fit = LocalConformal(Widener(), 0.5).fit(MLP(), x, y, generator)
    points = torch.tensor([-3.0, 0.0, 5.0])
    low, high = fit(points.expand(200, -1).unsqueeze(-1)).y.quantiles([0.05, 0.95]).float().unbind(1)  # (R, 3) each
    torch.testing.assert_close((low + high) / 2, points.expand(200, -1), rtol=1e-4, atol=1e-4)
    factors = (high - low) / 2 / (1 + points.abs())
    torch.testing.assert_close(factors, factors[:, :1].expand(-1, 3), rtol=1e-4, atol=0)
    assert abs(float(factors.mean()) - stats.norm.ppf(0.95)) < 0.05


def test_recalibrated_levels_are_right_on_average() -> None:
    """With 199 held-out points, R⁻¹(τ) is the 200τ-th of their PITs. Of any law, that is exceeded with probability
    1 − τ: 3,000 replicas, to 5 standard errors, Beta(200τ, 200(1 − τ)) of each. PITs at k/200 change nothing. Seen to
    catch: k/n for k/(n + 1), R in place of its inverse, PITs that are not sorted."""
    generator = np.random.default_rng(0)
    uniform = torch.from_numpy(generator.random((3000, 199)))
    levels, expected = own_levels(uniform**3) ** (1 / 3), torch.tensor(QUANTILES)
    error = (expected * (1 - expected) / 201 / 3000).sqrt()
    assert ((levels.mean(0) - expected).abs() < 5 * error).all()
    for column, level in enumerate(QUANTILES):
        assert stats.kstest(levels[:, column], stats.beta(200 * level, 200 * (1 - level)).cdf).pvalue > 1e-4
    even = torch.arange(1, 200, dtype=torch.float64).flip(0).unsqueeze(0) / 200
    torch.testing.assert_close(own_levels(even), expected.double().unsqueeze(0))


def test_recalibrated_quantiles_are_the_methods_own_at_other_levels() -> None:
    """N(0.3, 2²) at each replica's own levels, by scipy. Seen to catch: levels of another replica."""
    levels = torch.tensor([[0.1] * 5 + [0.5] + [0.9] * 5, sorted(torch.rand(11).tolist())], dtype=torch.float64)
    found = Releveled(Wrong(), levels)(torch.zeros(2, 4, 1)).values
    expected = torch.from_numpy(stats.norm(0.3, 2).ppf(levels.numpy())).float()
    torch.testing.assert_close(found, expected.unsqueeze(-1).expand(-1, -1, 4), rtol=1e-4, atol=1e-4)


def test_a_wrong_law_is_recalibrated() -> None:
    """y ~ N(0, 1) where the method says N(0.3, 2²): the quantiles become those of N(0, 1). Seen to catch: a method that
    is left as it is, points of the training used twice. A band has no law: that is said."""
    y = torch.randn(REPLICAS, N, generator=torch.Generator().manual_seed(0))
    x, generator = torch.zeros(REPLICAS, N, 1), torch.Generator().manual_seed(1)
    few = slice(0, 40)

    @dataclass(frozen=True)
    class Same(UncertaintyMethod):
        def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Wrong:
            return Wrong()

    fit = Recalibrated(method=Same(), calibration=0.4).fit(MLP(), x[few], y[few], generator)
    middle = fit(x[few, :1]).values[:, 2:-2, 0].mean(0)
    expected = torch.from_numpy(stats.norm.ppf(QUANTILES[2:-2])).float()
    assert (middle - expected).abs().max() < 5 * 2.2 / np.sqrt(40 * 40)
    with pytest.raises(ValueError, match="Recalibrated: Band has no distribution function"):
        Recalibrated(method=SplitConformal(Same())).fit(MLP(), x[few], y[few], generator)
