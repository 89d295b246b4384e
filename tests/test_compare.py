"""Paired comparisons: Student's interval, what it covers, power, the correction for overlapping splits, the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from gapbench.datasets.base import Layout
from gapbench.evaluation.compare import (
    Incomparable,
    compare,
    effect_interval,
    least_effect,
    needed,
    paired,
    power,
)
from gapbench.evaluation.results import Result
from gapbench.runners.cli.main import main

PUBLISHED = Path(__file__).resolve().parent.parent / "results" / "published" / "default"


def make(values: np.ndarray, score: str, method: str = "a", layout: Layout | None = None) -> Result:
    """A result with this score in region "gap", of which four test points are one."""
    replicas, points = np.arange(len(values)), np.full((len(values), 10), np.nan)
    inside = np.zeros((len(values), 10), bool)
    inside[:, :4] = True
    return Result(
        "table",
        method,
        "method",
        replicas,
        {score: {"gap": values}},
        {"pit_y": points},
        {"gap": inside},
        layout=layout or Layout("grid", 0),
    )


def test_the_interval_is_students() -> None:
    """That of scipy's paired t test; of logs for a positive score. Seen to catch: percentiles of the normal law, a std
    with n, unpaired differences."""
    random = np.random.default_rng(0)
    a, b = random.normal(3, 1, 8), random.normal(2, 1, 8)
    found = compare(make(a, "nll_y"), make(b, "nll_y", "b"), ("nll_y", "gap"))
    exact = stats.ttest_rel(a, b).confidence_interval()
    assert not found.ratio and found.replicas == 8 and found.naive is None
    assert (found.difference.low, found.difference.high) == pytest.approx((exact.low, exact.high))
    a, b = np.exp(a), np.exp(b)
    found = compare(make(a, "crps_y"), make(b, "crps_y", "b"), ("crps_y", "gap"))
    assert found.ratio and found.difference.low == pytest.approx(np.exp(exact.low))
    assert found.better == (a < b).sum()
    assert found.significant == (stats.ttest_rel(np.log(a), np.log(b)).pvalue < 0.05)


def test_the_interval_covers_what_it_says() -> None:
    """Of ten draws: 95 % by Student, of a normal law and of the logs of a lognormal one, where the percentile bootstrap
    has 90 %. Seen to catch: n in place of n − 1, a bootstrap."""
    random = np.random.default_rng(1)
    draws = random.normal(0.3, 1, (3000, 10))
    intervals = [paired(one).difference for one in draws]
    covered = np.mean([one.low <= 0.3 <= one.high for one in intervals])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 3000)
    index = random.integers(0, 10, (1000, 10))
    low, high = np.percentile(draws[:1000][:, index].mean(-1), [2.5, 97.5], axis=1)
    assert np.mean((low <= 0.3) & (high >= 0.3)) < 0.92


def test_the_chance_of_the_next_replica() -> None:
    """Its interval covers the true chance in 95 % of 1000 cases, and the next draw is better as often as is said, to 4
    standard errors. Seen to catch: the chance of the mean, a central law, the direction turned."""
    random = np.random.default_rng(2)
    draws, following = random.normal(-0.5, 1, (1000, 10)), random.normal(-0.5, 1, 1000)
    found = [one for draw in draws if (one := paired(draw).next_better)]
    covered = np.mean([one.low <= stats.norm.cdf(0.5) <= one.high for one in found])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 1000)
    said, happened = np.array([one.value for one in found]), following < 0
    assert abs((said - happened).mean()) < 4 * np.sqrt(0.25 / 1000)
    sure = said > 0.8
    assert abs((said - happened)[sure].mean()) < 4 * np.sqrt(0.25 / sure.sum())
    up = paired(-draws[0], better_below=False).next_better
    assert up is not None
    assert (up.value, up.low, up.high) == pytest.approx((found[0].value, found[0].low, found[0].high))


def test_power() -> None:
    """Against 4000 t tests; `needed` is the first number with it. Seen to catch: a one-sided test, the normal law."""
    draws = np.random.default_rng(3).normal(0.8, 1, (4000, 8))
    assert abs(power(0.8, 8) - (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()) < 4 * 0.5 / np.sqrt(4000)
    assert power(0.0, 8) == pytest.approx(0.05)
    for effect in (0.2, 0.5, 1.0, 2.0):
        number = int(needed(effect))
        assert power(effect, number) >= 0.8 > power(effect, number - 1)
        assert least_effect(number) <= effect
    normal = ((stats.norm.isf(0.025) + stats.norm.ppf(0.8)) / 0.01) ** 2
    assert needed(50.0) == 3 and needed(0.0) == np.inf and needed(0.01) == pytest.approx(normal + 2, abs=1)


def test_the_interval_of_an_effect_is_the_noncentral_one() -> None:
    """Its ends are the effects under which what was seen is a quantile of 97.5 % and 2.5 %; far out too. Seen to catch:
    ends exchanged, no √n."""
    low, high = effect_interval(0.7, 12)
    t = 0.7 * np.sqrt(12)
    assert stats.nct.cdf(t, 11, low * np.sqrt(12)) == pytest.approx(0.975)
    assert stats.nct.cdf(t, 11, high * np.sqrt(12)) == pytest.approx(0.025)
    # Where the noncentral law ends, the interval goes on without a jump; of many draws the mean's own error decides.
    inner, outer = effect_interval(30 / np.sqrt(10), 10), effect_interval(30.001 / np.sqrt(10), 10)
    assert outer == pytest.approx(inner, rel=0.02)
    assert effect_interval(-1.0, 2000) == pytest.approx(
        (-1 - 1.96 * np.sqrt(1.5 / 2000), -1 + 1.96 * np.sqrt(1.5 / 2000)), rel=0.01
    )


def test_what_can_be_detected() -> None:
    """Its interval holds the value for the true std in 95 % of cases. Seen to catch: the ends of χ² exchanged, its
    degrees of freedom off by one."""
    draws = np.random.default_rng(4).normal(0, 2, (1000, 10))
    found = [one for draw in draws if (one := paired(draw).detectable)]
    exact = 2 * least_effect(10)
    covered = np.mean([one.low <= exact <= one.high for one in found])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 1000)
    high, low = (float(np.sqrt(9 / end)) for end in stats.chi2.interval(0.95, 9))  # of the std of ten draws
    assert (found[0].low / found[0].value, found[0].high / found[0].value) == pytest.approx((low, high))


def test_splits_of_one_table() -> None:
    """The interval is wider by √(1 + n · test ÷ train), and decides. What can be detected, and the splits needed,
    follow it: more splits of the same table do not help a small effect. Seen to catch: train ÷ test, the naive interval
    for significance, `detectable` and `needed` of independent replicas."""
    random, layout = np.random.default_rng(5), Layout(overlap=4 / 90)
    a, b = (make(random.normal(at, 0.05, 20), "nll_y", name, layout) for name, at in (("a", 1.0), ("b", 1.05)))
    found = compare(a, b, ("nll_y", "gap"))
    assert found.naive is not None and found.detectable is not None and found.needed is not None
    naive, corrected = (one.high - one.low for one in (found.naive, found.difference))
    assert corrected / naive == pytest.approx(np.sqrt(1 + 20 * 4 / 90))
    assert found.naive.high < 0 < found.difference.high and not found.significant
    differences = a.scores["nll_y"]["gap"] - b.scores["nll_y"]["gap"]
    mean, std = differences.mean(), differences.std(ddof=1)
    assert found.detectable.value == pytest.approx(least_effect(20, 4 / 90) * std)
    assert found.needed.value == needed(abs(mean) / std, 4 / 90) > needed(abs(mean) / std)
    assert least_effect(20, 4 / 90) > 1.2 * least_effect(20)
    assert needed(0.5, 1 / 9) == np.inf and needed(1.2, 1 / 9) < np.inf


def test_the_corrected_test_finds_what_it_says() -> None:
    """The share of 4000 tables on which the corrected test of 10 splits is significant is the power, to 4 standard
    errors: of splits whose mean has the variance that is assumed. Seen to catch: power without the overlap."""
    random, n, overlap = np.random.default_rng(9), 10, 1 / 9
    shared = random.normal(0, np.sqrt(overlap), (4000, 1))
    draws = 1.0 + shared + random.normal(0, 1, (4000, n))
    found = np.mean([paired(one, overlap=overlap).significant for one in draws])
    assert abs(found - power(1.0, n, overlap)) < 4 * 0.5 / np.sqrt(4000)


def test_splits_that_are_all_there_are() -> None:
    """One split a feature is no sample of features: no interval, and nothing is significant."""
    layout = Layout(sample=False)
    a, b = make(np.array([1.0, 2, 3, 9]), "crps_y", "a", layout), make(np.array([2.0, 4, 6, 8]), "crps_y", "b", layout)
    found = compare(a, b, ("crps_y", "gap"))
    assert (found.better, found.replicas, found.significant, found.next_better, found.needed) == (
        3,
        4,
        False,
        None,
        None,
    )
    assert found.difference.value == pytest.approx((9 / 64) ** 0.25) and np.isnan(found.difference.low)


def test_a_score_with_a_right_value() -> None:
    """Distances from 0 are compared. Coverage is refused: of ten points, right bars are off by chance, and bars that
    are too wide by none. Seen to catch: signs that cancel."""
    random = np.random.default_rng(6)
    values = random.normal(0, 0.1, 6), random.choice([-1, 1], 6) * random.normal(1, 0.1, 6)
    near, far = (make(part, "reference_log_std", name) for part, name in zip(values, "ab", strict=True))
    found = compare(near, far, ("reference_log_std", "gap"))
    assert found.significant and found.better == 6 and found.difference.high < 1
    near, far = (make(np.full(6, at), "coverage_90_y", name) for at, name in ((0.9, "a"), (0.6, "b")))
    with pytest.raises(Incomparable, match=r"coverage_90_y: it should be 0\.9.*interval_90_y"):
        compare(near, far, ("coverage_90_y", "gap"))


def test_equal_methods_and_too_few_replicas() -> None:
    same = make(np.full(5, 0.3), "crps_y")
    found = compare(same, same, ("crps_y", "gap"))
    assert found.difference.value == 1 and not found.significant
    assert found.needed is not None and found.needed.value == np.inf and found.better == 0
    with pytest.raises(Incomparable, match="share 2 replicas of table, expected three"):
        compare(make(np.ones(2), "crps_y"), same, ("crps_y", "gap"))
    with pytest.raises(Incomparable, match="a value of b on table is infinite"):
        compare(same, make(np.array([1, np.inf, 1, 1, 1]), "crps_y", "b"), ("crps_y", "gap"))
    with pytest.raises(Incomparable, match="rhat_limit: expected a score of each replica"):
        compare(same, same, ("rhat_limit", "gap"))


def test_the_command() -> None:
    """Of the published table. Seen to catch: THIS and OTHER exchanged, a dataset left out."""
    run = CliRunner().invoke
    done = run(main, ["compare", "mclmc", "svi", str(PUBLISHED), "--columns", "reference_w1,nll_y"])
    assert done.exit_code == 0 and done.stderr == ""
    assert "gapped_sine: mclmc against svi" in done.stdout and "gapped_sine_noisy: mclmc against svi" in done.stdout
    assert "reference_w1 · gap" in done.stdout and "nll_y · data" in done.stdout and "× 0.0" in done.stdout
    wrong = run(main, ["compare", "mclmc", "sgdl", str(PUBLISHED)])
    assert wrong.exit_code == 2 and "unknown method 'sgdl': did you mean sgld" in wrong.stderr
    pooled = run(main, ["compare", "mclmc", "svi", str(PUBLISHED), "--columns", "pit_ks_f"])
    assert pooled.exit_code == 2 and "nothing to compare" in pooled.stderr
