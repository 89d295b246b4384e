"""The bootstrap over replicas: against the plain one that makes all resamples at once, against scipy, and in memory."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from gapbench.datasets.streams import stream
from gapbench.evaluation import bootstrap
from gapbench.evaluation.bootstrap import RESAMPLES, Bootstrap, estimate, estimates, resampled
from gapbench.evaluation.calibration import calibration_error, miscalibration_area, pit_ks
from gapbench.evaluation.results import Column, Result

Floats = NDArray[np.float64]

PLAIN = ("crps_y", "gap")
POOLED = {"calibration_error_y": calibration_error, "miscalibration_area_f": miscalibration_area, "pit_ks_f": pit_ks}


def make(method: str, crps: Floats, pits: Floats | None = None, dataset: str = "sine", first: int = 0) -> Result:
    """crps: (R,), by replica. pits: (R, M), of y and (their squares) of f; the gap is the first half of the points."""
    pits = np.full((len(crps), 1), np.nan) if pits is None else pits
    gap = np.tile(np.arange(pits.shape[1]) < max(1, pits.shape[1] // 2), (len(crps), 1))
    scores = {"crps_y": {"gap": crps}}
    replicas = np.arange(first, first + len(crps))
    return Result(dataset, method, "method", replicas, scores, {"pit_y": pits, "pit_f": pits**2}, {"gap": gap})


def at_once(result: Result, column: Column, replicas: NDArray[np.int64]) -> Floats:
    """The second implementation: every resample at the same time, as the first version of this project had it."""
    number = len(replicas)
    rng = stream("bootstrap", result.dataset, replicas.tolist())
    counts = rng.multinomial(number, np.full(number, 1 / number), RESAMPLES).astype(np.float64)
    chosen, (name, region) = np.searchsorted(result.replicas, replicas), column
    if name not in POOLED:
        values = result.scores[name][region][chosen]
        return np.asarray(np.where(counts > 0, counts * values, 0).sum(-1) / counts.sum(-1))
    inside = (np.ones_like(result.regions["gap"]) if region == "all" else result.regions[region])[chosen]
    pits, owner = result.pits[f"pit_{name[-1]}"][chosen][inside], np.nonzero(inside)[0]
    values = POOLED[name](pits, counts[:, owner])
    return np.maximum(values - (values.mean() - POOLED[name](pits)), 0)


@pytest.mark.parametrize("column", [PLAIN, *((name, region) for name in POOLED for region in ("all", "gap"))], ids=str)
@pytest.mark.parametrize("chunk", [1, 3000, bootstrap.CHUNK])
def test_pieces_are_the_whole(column: Column, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One resample at a time, a few, or all: the resamples that were, to 1e-12, for any choice of replicas. Seen to
    catch: a generator for each piece, the last piece lost, PITs sorted without their owners, the bias of a piece."""
    monkeypatch.setattr(bootstrap, "CHUNK", chunk)
    bootstrap._kept.cache_clear()
    rng = np.random.default_rng(0)
    result = make("a", rng.random(11), rng.random((11, 6)), first=3)
    for replicas in (result.replicas, result.replicas[[0, 4, 5, 10]]):
        found = resampled(result, column, replicas)
        assert found.shape == (RESAMPLES,)
        np.testing.assert_allclose(found, at_once(result, column, replicas), rtol=0, atol=1e-12)
    bootstrap._kept.cache_clear()


@pytest.mark.parametrize("column", [PLAIN, *((name, region) for name in POOLED for region in ("all", "gap"))], ids=str)
def test_counts_are_repeated_replicas(column: Column) -> None:
    """estimates() with integer counts is the score of a result in which each replica stands that many times. Seen to
    catch: PITs weighted by another replica's count, the region ignored, pit_y for pit_f."""
    rng = np.random.default_rng(0)
    crps, pits = rng.random(7), rng.random((7, 4))
    result = make("a", crps, pits)
    counts = rng.integers(0, 4, (5, 7))
    found = estimates(result, column, np.arange(7), counts)
    assert found.shape == (5,)
    for value, count in zip(found, counts, strict=True):
        repeated = make("a", np.repeat(crps, count), np.repeat(pits, count, 0))
        assert value == pytest.approx(estimate(repeated, column, repeated.replicas), rel=1e-12)
        name, region = column
        own = np.repeat(pits ** (2 if name[-1] == "f" else 1), count, 0)
        own = own[:, :2] if region == "gap" else own
        by_hand = POOLED[name](own.ravel()) if name in POOLED else np.repeat(crps, count).mean()
        assert value == pytest.approx(float(by_hand), rel=1e-12)


def test_a_replica_that_is_not_counted_has_no_say() -> None:
    """Whatever its value. Seen to catch: 0·inf = nan."""
    result = make("a", np.array([1.0, 1, 1, np.inf]))
    assert estimates(result, PLAIN, np.arange(4), np.array([[1.0, 2, 5, 0]])).tolist() == [1.0]


def test_the_interval_is_the_percentile_bootstrap() -> None:
    """scipy's, with 9,999 resamples against 2000: the ends agree to 10 % of the width. Seen to catch: a 90 % interval,
    a bootstrap over points."""
    values = np.exp(np.random.default_rng(3).standard_normal(12))
    low, high = Bootstrap(PLAIN).interval(make("a", values))
    rng = np.random.default_rng(0)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=rng).confidence_interval
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.1 * (theirs.high - theirs.low))


def test_coverage_of_the_interval_and_false_alarms() -> None:
    """In 400 worlds of 10 replicas with equal methods, intervals hold the true mean, and differences are called
    significant, as often as a percentile bootstrap of 10 normal numbers does: it is narrower than Student's by
    √(9/10)·1.96/2.26, so 90.5 % rather than 95 %. Within 3 standard errors. Seen to catch: a 90 % interval, an
    interval for differences that is not paired (no false alarm at all), one-sided at 5 %."""
    worlds, count, covered, alarms = 400, 10, 0, 0
    for world in range(worlds):
        shared = 5 * np.random.default_rng(2 * world).standard_normal(count)
        own = [np.random.default_rng(1000 + 2 * world + index).standard_normal(count) for index in range(2)]
        a, b = (make(name, 7 + shared + one, dataset=f"world {world}") for name, one in zip("ab", own, strict=True))
        found = Bootstrap(PLAIN)
        low, high = found.interval(a)
        covered += low < 7 < high
        alarms += found.better(a, b) + found.better(b, a)
    expected = 2 * stats.t.cdf(stats.norm.ppf(0.975) * math.sqrt((count - 1) / count), count - 1) - 1
    error = math.sqrt(expected * (1 - expected) / worlds)
    assert abs(covered / worlds - expected) < 3 * error
    assert abs(alarms / worlds - (1 - expected)) < 3 * error


def test_the_interval_of_a_pooled_score_is_around_it() -> None:
    """Replicas of one observation each, calibrated, in 60 worlds: PITs drawn twice are further from uniform, so the
    plain percentile interval lies above the value in some and far above on average. Seen to catch: that one."""
    column, inside, excess = ("calibration_error_y", "gap"), 0, []
    for world in range(60):
        result = make("a", np.ones(10), np.repeat(np.random.default_rng(world).random((10, 1)), 4, 1))
        value, (low, high) = estimate(result, column, result.replicas), Bootstrap(column).interval(result)
        inside += low <= value <= high
        excess.append((low + high) / 2 - value)
    assert inside == 60 and abs(np.mean(excess)) < 0.03


LIMIT = """
import resource, numpy as np
from gapbench.evaluation.bootstrap import Bootstrap
from gapbench.evaluation.results import Result
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in kB on Linux
for score, replicas, points in (("calibration_error_y", 300, 81), ("crps_y", 20_000, 1)):
    pits = np.random.default_rng(0).random((replicas, points))
    scores = {"crps_y": {"all": pits[:, 0].copy()}}
    result = Result("sine", "a", "method", np.arange(replicas), scores, {"pit_y": pits}, {})
    low, high = Bootstrap((score, "all")).interval(result)
    assert low < high
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_stays_below_300_mb() -> None:
    """Of 81 PITs of 300 replicas, of which one array of all resamples takes 389 MB in float64, and of a mean over
    20,000, whose counts take 320 MB. In a process of its own, whose largest memory before and after is compared. Seen
    to catch: all resamples at once, all counts at once in float64."""
    run = subprocess.run([sys.executable, "-c", LIMIT], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    grown = [int(line) for line in run.stdout.split()]  # a maximum never falls, so the second is of both
    assert len(grown) == 2 and max(grown) < 300
