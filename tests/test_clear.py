"""CLEAR: two kinds of error bars, weighed and calibrated; against a loop, and against the exact law of coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Generator, Tensor

from gapbench.methods import clear
from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.clear import CLEAR, of_both
from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.engine.conformal import COVERAGES, LEVELS, Split, rank
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.predictions import MixturePrediction, QuantilePrediction
from gapbench.methods.quantile_regression import QuantileRegression
from gapbench.methods.split_conformal import SplitConformal

SKEW = torch.tensor([-1.0, -0.8, -0.5, 0.3, 2.0, 4.0, 5.0], dtype=torch.float64)
AT = (0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975)


@dataclass(frozen=True)
class Skewed(FittedMethod):
    """Quantiles of y that are one shape everywhere, in units of `size`, around 2x."""

    size: float

    def __call__(self, x: Tensor) -> QuantilePrediction:
        return QuantilePrediction(AT, 2 * x.mT + self.size * SKEW.view(1, -1, 1).to(x))


@dataclass(frozen=True)
class Spread(FittedMethod):
    """f ~ N(x, (size |x|)²), with a noise of y that CLEAR must not look at."""

    size: float

    def __call__(self, x: Tensor) -> MixturePrediction:
        components = torch.stack([x[..., 0] + self.size * x[..., 0].abs() * z for z in (-1.0, -0.5, 0.0, 0.5, 1.0)], 1)
        return MixturePrediction(components, torch.zeros((), dtype=x.dtype), torch.tensor(9.0, dtype=x.dtype))


@dataclass(frozen=True)
class Told(UncertaintyMethod):
    """A method whose training gives this fit."""

    found: FittedMethod

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return self.found


def told(size: float = 1.0, spread: float = 1.0, calibration: float = 0.5) -> CLEAR:
    return CLEAR(Told(Skewed(size)), Told(Spread(spread)), calibration)


def weighed(
    q: NDArray[np.float64], f: NDArray[np.float64], y: NDArray[np.float64], ratio: float, p: float
) -> tuple[float, float]:
    """γ by a loop, and the pinball loss of both ends. q, f: low, middle and high quantiles, (3, held)."""
    below, above = q[1] - q[0] + ratio * (f[1] - f[0]), q[2] - q[1] + ratio * (f[2] - f[1])
    scores = sorted(max((f[1, i] - y[i]) / below[i], (y[i] - f[1, i]) / above[i]) for i in range(len(y)))
    gamma = scores[math.ceil(p * (len(y) + 1) - 1e-9) - 1]
    loss = 0.0
    for level, end in (((1 - p) / 2, f[1] - gamma * below), ((1 + p) / 2, f[1] + gamma * above)):
        loss += sum(level * e if e > 0 else (level - 1) * e for e in y - end) / len(y)
    return gamma, loss


def test_weights_and_factors_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """λ and γ of each replica and coverage, and the band at other points, by a second implementation on skewed errors.
    Seen to catch: the two ends exchanged, λ on the aleatoric bars, the loss of one end alone, the largest loss, one λ
    for all coverages, the median of y as the center, the law of y for that of f, calibration on the training part."""
    ratios = (0.0, 0.1, 0.5, 1.0, 5.0, 50.0)
    monkeypatch.setattr(clear, "LAMBDAS", ratios)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(8, 160, 1, generator=generator, dtype=torch.float64)
    wide = torch.linspace(0.0, 1.5, 8, dtype=torch.float64).unsqueeze(1)
    errors = torch.rand(8, 160, generator=generator, dtype=torch.float64).square() * 3 - 0.7
    y = x[..., 0] + errors + wide * x[..., 0].abs() * torch.randn(8, 160, generator=generator, dtype=torch.float64)
    fit = told(0.4, 0.8).fit(MLP(), x, y, torch.Generator().manual_seed(8))
    parts = Split.of(x, y, 80, torch.Generator().manual_seed(8))
    points = torch.linspace(-2, 2, 5, dtype=torch.float64)
    prediction = fit(points.view(1, 5, 1).expand(8, -1, -1))
    band, chosen = prediction.y.quantiles(LEVELS).numpy(), set()
    torch.testing.assert_close(prediction.y.mean, points.expand(8, -1))

    def laws(at: NDArray[np.float64], p: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        place = COVERAGES[::-1].index(p)
        q = np.stack([2 * at + 0.4 * float(SKEW[k]) for k in (place, 3, 6 - place)])
        outer = 1.0 if p > 0.6 else 0.5  # five atoms: the outermost beyond 0.8, else those next to the middle
        return q, np.stack([at - 0.8 * outer * abs(at), at, at + 0.8 * outer * abs(at)])

    for r in range(8):
        ends = []
        for c, p in enumerate(COVERAGES):
            q, f = laws(parts.x_held[r, :, 0].numpy(), p)
            tried = [weighed(q, f, parts.y_held[r].numpy(), ratio, p) for ratio in ratios]
            best = min(range(len(ratios)), key=lambda at: tried[at][1])
            assert float(fit.weight[r, c]) == ratios[best]
            assert float(fit.factor[r, c]) == pytest.approx(tried[best][0], rel=1e-9)
            chosen.add(ratios[best])
            q, f = laws(points.numpy(), p)
            ends.append(f[1] - tried[best][0] * (q[1] - q[0] + ratios[best] * (f[1] - f[0])))
            ends.append(f[1] + tried[best][0] * (q[2] - q[1] + ratios[best] * (f[2] - f[1])))
        np.testing.assert_allclose(band[r], np.sort(ends, 0), rtol=1e-9, atol=1e-9)  # intervals may cross
    assert len(chosen) > 2 and bool((prediction.values.diff(dim=1) >= 0).all())


def test_with_one_weight_the_coverage_is_beta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beta(k, n + 1 − k) exactly, however wrong both laws: nothing is chosen then. Seen to catch: ⌈pn⌉ for ⌈p(n + 1)⌉,
    the score of one end alone, γ of the training part."""
    monkeypatch.setattr(clear, "LAMBDAS", (0.7,))
    generator = torch.Generator().manual_seed(0)
    x, y = torch.zeros(3000, 100, 1) + 1, torch.randn(3000, 100, generator=generator)
    prediction = told(2.0, 0.3, 0.4).fit(MLP(), x, y, generator)(torch.ones(3000, 1, 1))
    for coverage in COVERAGES:
        low, high = prediction.y.quantiles([(1 - coverage) / 2, (1 + coverage) / 2])[:, :, 0].numpy().T
        k = rank(coverage, 40)
        covered = stats.norm.cdf(high) - stats.norm.cdf(low)
        assert stats.kstest(covered, stats.beta(k, 41 - k).cdf).pvalue > 1e-3


def test_the_weight_follows_what_the_errors_are() -> None:
    """If errors follow the bars of f, λ is 10 and more; if they have one size everywhere, a third and less: geometric
    means. Seen to catch: the loss of the aleatoric bars alone, the least width."""
    generator = torch.Generator().manual_seed(1)
    x = 3 * torch.randn(20, 600, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(20, 600, generator=generator, dtype=torch.float64)
    for scale, small in ((x[..., 0].abs(), False), (torch.ones(()), True)):
        fit = told(0.5, 1.0).fit(MLP(), x, x[..., 0] + scale * noise, generator)
        log = fit.weight[:, 1].clamp(min=1e-3).log10().mean()
        assert (log < -0.5) if small else (log > 1)


def test_bars_of_no_width_divide_nothing_by_zero() -> None:
    """Neither law knows any uncertainty at the held-out points, and half of them are where both say. Seen to catch:
    nan, of 0/0."""
    x, y = torch.zeros(2, 80, 1), torch.tensor([0.0, 1.0]).repeat(2, 40)
    fit = told(0.0, 1.0).fit(MLP(), x, y, torch.Generator().manual_seed(0))
    low, high = fit(x[:, :1]).y.quantiles([0.05, 0.95])[:, :, 0].T
    assert (low <= -0.99).all() and (high >= 0.99).all()


def test_what_both_trainings_say_is_kept() -> None:
    """The fall of the sum of both losses, with its standard error; the gradients of both; all failures. Seen to catch:
    the last training's alone, the mean of both, the sum of both errors, a nan of one training that is lost."""
    one = {
        "loss fall": torch.tensor([1.0, 5.0]),
        "loss fall error": torch.tensor([0.3, 0.0]),
        "gradient evaluations": torch.tensor([7.0, 7.0]),
        "loss": torch.tensor([1.0, math.nan]),
    }
    other = {
        "loss fall": torch.tensor([2.0, math.nan]),
        "loss fall error": torch.tensor([0.4, 0.3]),
        "gradient evaluations": torch.tensor([4.0, 4.0]),
        "loss": torch.tensor([2.0, 3.0]),
    }
    for pair in ((one, other), (other, one)):
        found = of_both(*pair)
        assert found["gradient evaluations"].tolist() == [11, 11] and found["loss"][0] == 3
        torch.testing.assert_close(found["loss fall error"], torch.tensor([0.5, 0.3]))
        assert found["loss fall"][0] == 3 and found["loss fall"][1].isnan() and found["loss"][1].isnan()
    alone = of_both({"rhat": torch.ones(2), "gradient evaluations": torch.ones(2)}, one)
    assert alone["loss fall"].tolist() == [1, 5] and alone["gradient evaluations"].tolist() == [8, 8]
    noise, law = Told(Skewed(1.0, failures={0: "a"})), Told(Spread(1.0, failures={1: "b"}))
    fit = CLEAR(noise, law).fit(MLP(), torch.ones(2, 80, 1), torch.randn(2, 80), torch.Generator().manual_seed(0))
    assert fit.failures == {0: "a", 1: "b"}


def test_what_has_no_median_is_refused_in_words() -> None:
    """An epistemic method without a law of f, an aleatoric one that is a band, too few points, and what either method
    refuses of the points that it would train on. Seen to catch: an AttributeError, nan of a band, all points."""
    x, y, generator = torch.ones(1, 200, 1), torch.randn(1, 200), torch.Generator().manual_seed(0)
    for name, method in (
        ("NoneType", CLEAR(Told(Skewed(1.0)), QuantileRegression(steps=10))),
        ("Band", CLEAR(SplitConformal(Told(Spread(1.0))), Told(Spread(1.0)))),
    ):
        with pytest.raises(ValueError, match=f"CLEAR: {name} has no median: expected an aleatoric method"):
            method.fit(MLP(), x, y, generator)
    assert "at least 19 for intervals of 95%" in str(CLEAR().skip(MLP(), x[:, :40]))
    picky = DeepEnsemble(own_data=True, members=3)  # 200 points would not do, and 140 neither
    for method in (CLEAR(epistemic=picky), CLEAR(aleatoric=picky)):
        reason = method.skip(MLP(), x)
        assert reason is not None and reason == picky.skip(MLP(), x[:, :140]) and "140" in reason
