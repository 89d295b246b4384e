"""From scored replicas to a table, on results made by hand: means, intervals, and what is called significant."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from gapbench.evaluation.calibration import calibration_error, miscalibration_area
from gapbench.evaluation.diagnostics import CONVERGED
from gapbench.evaluation.scores import SCORES
from gapbench.evaluation.tables import (
    ENOUGH,
    EVERYTHING,
    SUMMARY,
    Result,
    entry,
    header,
    label,
    markdown,
    merge,
    number,
    provenance,
    remarks,
    run_table,
    summarise,
    text,
)

Floats = NDArray[np.float64]

GAP = ("crps_y", "gap")
MASKS = {"data": [True, True, False, False], "gap": [False, False, True, False], "edge": [False, False, False, True]}


def make(
    row: str,
    crps: ArrayLike,
    *,
    dataset: str = "sine",
    kind: Literal["method", "floor", "ceiling"] = "method",
    failures: Mapping[int, str] | None = None,
    first: int = 0,
    run: Mapping[str, object] | None = None,
    diagnostics: Mapping[str, ArrayLike] | None = None,
    **points: ArrayLike,
) -> Result:
    """A result of R replicas and four test points (two of data, one of gap, one of edge). crps: CRPS of y, (R,) or
    (R, 4); points: any other score, the same. Replicas in `failures` are nan everywhere, as in a record."""
    crps = np.asarray(crps, dtype=float)
    count = len(crps)
    replicas = np.arange(first, first + count)
    nowhere = np.full(count, np.nan)
    values = {"crps_y": crps, "std_f": np.ones(count), "pit_y": nowhere, "pit_f": nowhere, **points}
    if "rhat" in points:
        values = {"rhat_limit": np.full(count, CONVERGED), **values}
    failures = failures or {}
    table = {}
    for name, value in values.items():
        value = np.array(value, dtype=float)
        table[name] = np.array(np.broadcast_to(value.reshape(count, -1), (count, 4)))
        table[name][np.isin(replicas, list(failures))] = np.nan
    return Result(
        dataset,
        row,
        kind,
        replicas,
        table,
        {name: np.tile(mask, (count, 1)) for name, mask in MASKS.items()},
        {"x_test": np.zeros((count, 4, 1)) + replicas.reshape(-1, 1, 1)},
        {name: np.asarray(value, dtype=float) for name, value in (diagnostics or {}).items()},
        failures,
        [run or {"seconds": 1.5, "device": "abacus", "versions": {"torch": "1", "gapbench": "2"}}],
    )


def line(frame: pd.DataFrame, row: str, column: tuple[str, str] = GAP, dataset: str = "sine") -> pd.Series:
    """The only line of this row and column."""
    found = frame[
        (frame["row"] == row)
        & (frame["score"] == column[0])
        & (frame["region"] == column[1])
        & (frame["dataset"] == dataset)
    ]
    assert len(found) == 1
    return found.iloc[0]


def best(results: Sequence[Result], column: tuple[str, str] = GAP) -> list[str]:
    """The rows that are marked."""
    frame = summarise(results, [column])
    return list(frame["row"][frame["best"]])


def noise(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape)


# --- Values and intervals ---------------------------------------------------------------------------------------------


def test_the_value_is_the_mean_over_replicas_of_each_region() -> None:
    """RMSE: of each replica's root. Seen to catch: the root of the mean over all replicas, the region of another
    column, the median, a column of another row."""
    crps, rmse = np.abs(noise(0, 6, 4)), np.abs(noise(1, 6, 4))
    results = [make("a", crps, rmse_y=rmse), make("b", crps + 1, rmse_y=rmse)]
    frame = summarise(results, EVERYTHING)
    assert len(frame) == 2 * len(EVERYTHING)
    for region, points in {"all": [0, 1, 2, 3], "data": [0, 1], "gap": [2], "edge": [3]}.items():
        assert line(frame, "a", ("crps_y", region))["value"] == pytest.approx(crps[:, points].mean())
        assert line(frame, "b", ("crps_y", region))["value"] == pytest.approx(crps[:, points].mean() + 1)
        roots = np.sqrt(rmse[:, points].mean(1))
        assert line(frame, "a", ("rmse_y", region))["value"] == pytest.approx(roots.mean())
    assert line(frame, "a", ("gap_wider", "all"))["value"] == 0.0
    assert math.isnan(line(frame, "a", ("crps_f", "gap"))["value"])  # nobody scored it


def test_the_interval_is_the_percentile_bootstrap() -> None:
    """scipy's, with 200,000 resamples against 2000: the ends agree to 10 % of the width. Seen to catch: a 90 %
    interval, a bootstrap over points, ± the standard error."""
    values = np.exp(noise(3, 12))
    found = line(summarise([make("a", values)], [GAP]), "a")
    rng = np.random.default_rng(0)
    low, high = np.percentile(values[rng.integers(12, size=(200_000, 12))].mean(1), [2.5, 97.5])
    width = high - low
    assert found["low"] == pytest.approx(low, abs=0.1 * width)
    assert found["high"] == pytest.approx(high, abs=0.1 * width)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=rng).confidence_interval
    assert (found["low"], found["high"]) == pytest.approx(tuple(theirs), abs=0.1 * width)


def test_coverage_of_the_interval_and_false_alarms() -> None:
    """In 400 worlds of 10 replicas with equal methods, intervals hold the true mean, and differences are called
    significant, as often as a percentile bootstrap of 10 normal numbers does: it is narrower than Student's by
    √(9/10)·1.96/2.26, so 90.5 % rather than 95 %. Within 3 standard errors. Seen to catch: a 90 % interval, an
    interval for differences that is not paired (no false alarm at all), one-sided at 5 %."""
    worlds, count = 400, 10
    results = []
    for world in range(worlds):
        shared = 5 * noise(2 * world, count)
        for index, row in enumerate("ab"):
            values = 7 + shared + noise(1000 + 2 * world + index, count)
            results.append(make(row, values, dataset=f"world {world}"))
    frame = summarise(results, [GAP])
    expected = 2 * stats.t.cdf(stats.norm.ppf(0.975) * math.sqrt((count - 1) / count), count - 1) - 1
    error = math.sqrt(expected * (1 - expected) / worlds)
    a = frame[frame["row"] == "a"]
    covered = ((a["low"] < 7) & (a["high"] > 7)).mean()
    assert abs(covered - expected) < 3 * error
    assert abs(frame["best"].sum() / worlds - (1 - expected)) < 3 * error


def test_one_replica_has_no_interval() -> None:
    """And its value stands alone. Seen to catch: an interval of width 0, an error."""
    frame = summarise([make("a", [0.25])], [GAP])
    assert line(frame, "a")["value"] == 0.25
    assert math.isnan(line(frame, "a")["low"])
    assert entry(line(frame, "a")) == ("0.25", "")


def test_the_same_table_twice() -> None:
    """The bootstrap's stream comes from the data set's name and the replicas alone. Seen to catch: a fresh generator,
    a stream that depends on the rows shown."""
    results = [make("a", noise(0, 8) + 3), make("b", noise(1, 8) + 3)]
    pd.testing.assert_frame_equal(summarise(results), summarise(results))
    alone = line(summarise(results[:1], [GAP]), "a")
    together = line(summarise(results, [GAP]), "a")
    assert (alone["low"], alone["high"]) == (together["low"], together["high"])


# --- What is best -----------------------------------------------------------------------------------------------------


def test_a_clear_winner_is_marked() -> None:
    """Alone, whatever the order of the rows. Seen to catch: the largest, every row but the worst, better than any other
    for better than every other."""
    rows = [make("a", 1 + 0.1 * noise(0, 10)), make("b", 2 + 0.1 * noise(1, 10)), make("c", 3 + 0.1 * noise(2, 10))]
    assert best(rows) == best(rows[::-1]) == ["a"]
    assert best([rows[2], rows[1]]) == ["b"]


def test_without_a_clear_winner_nothing_is_marked() -> None:
    """Two equal rows, though both beat the third; and a row against itself. Seen to catch: the lowest mean always
    marked, ties marked (≤ for <)."""
    rows = [make("a", 1 + 0.1 * noise(0, 10)), make("b", 1 + 0.1 * noise(1, 10)), make("c", 3 + 0.1 * noise(2, 10))]
    assert best(rows) == []
    assert best([rows[0], make("copy", 1 + 0.1 * noise(0, 10))]) == []


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_few_replicas_decide_nothing(count: int) -> None:
    """Below five, however clear. Seen to catch: ENOUGH ignored, counted over rows."""
    assert ENOUGH == 5
    rows = [make("a", 1 + 0.01 * np.arange(count)), make("b", 9 - 0.01 * np.arange(count))]
    assert best(rows) == (["a"] if count >= 5 else [])


def test_only_shared_replicas_are_compared() -> None:
    """Ten replicas each, but only four that both have: nothing to say; six: they decide, and the others, on which the
    loser would win, do not. Seen to catch: rows compared position by position, each on its own replicas."""
    a, b = make("a", 1 + 0.01 * noise(0, 10)), make("b", 2 + 0.01 * noise(1, 10), first=6)
    assert best([a, b]) == []
    values = np.r_[1 + 0.01 * noise(0, 6), np.full(4, 50.0)]
    other = make("b", np.r_[2 + 0.01 * noise(1, 6), np.full(4, 0.0)], failures=dict.fromkeys((6, 7, 8, 9), "diverged"))
    assert best([make("a", values), other]) == ["a"]


def test_pairing_finds_what_the_intervals_hide() -> None:
    """A large effect of the replica shared by both rows, a small constant difference: the intervals overlap almost
    wholly, and yet every replica says the same. Dealt to other replicas the same numbers say nothing. Seen to catch:
    resamples drawn anew for each row, significance by intervals that do not overlap."""
    shared = 5 * noise(0, 12)
    a, b = 10 + shared + 0.01 * noise(1, 12), 10.1 + shared + 0.01 * noise(2, 12)
    frame = summarise([make("a", a), make("b", b)], [GAP])
    assert line(frame, "a")["best"] and not line(frame, "b")["best"]
    assert line(frame, "a")["high"] > line(frame, "b")["value"]
    assert line(frame, "b")["low"] < line(frame, "a")["value"]
    assert best([make("a", a), make("b", np.roll(b, 1))]) == []


def test_better_means_what_the_score_says() -> None:
    """Lower, higher, nearest to the nominal value from either side; and nothing where neither is good. Seen to catch:
    lower for everything, distance to 0, the signed distance to the nominal value."""
    spread = 0.005 * noise(0, 8)
    for name, good, bad in (
        ("crps_f", 1.0, 2.0),
        ("ess_bulk", 200.0, 100.0),
        ("coverage_90_y", 0.92, 0.80),
        ("coverage_90_y", 0.85, 0.97),
        ("coverage_50_y", 0.55, 0.90),
        ("rhat", 1.01, 1.04),
    ):
        rows = [make(row, np.ones(8), **{name: value + spread}) for row, value in (("good", good), ("bad", bad))]
        assert best(rows, (name, "gap")) == ["good"], name
    for name in ("std_f", "std_aleatoric"):
        assert (
            best(
                [make(row, np.ones(8), **{name: value + spread}) for row, value in (("a", 1.0), ("b", 9.0))],
                (name, "gap"),
            )
            == []
        )


def test_what_is_not_ranked_is_neither_marked_nor_compared() -> None:
    """A chain that did not converge, a row that failed, floor and ceiling: all with better scores than a and b, of
    which a is best. A row that is ranked alone is not best of anything. Seen to catch: not converged rows marked, rows
    compared with the ceiling, with the not converged, with rows that have no value."""
    count = 8
    a, b = make("a", 2 + 0.1 * noise(0, count)), make("b", 3 + 0.1 * noise(1, count))
    others = [
        make("unconverged", 1 + 0.1 * noise(2, count), rhat=np.full(count, 1.2)),
        make("broken", np.zeros(count), failures=dict.fromkeys(range(count), "diverged")),
        make("prior", 1 + 0.1 * noise(3, count), kind="floor"),
        make("truth", 0.1 * noise(4, count), kind="ceiling"),
    ]
    assert [result.status for result in (a, *others)] == ["ranked", "not converged", "failed", "floor", "ceiling"]
    assert best([a, b, *others]) == ["a"]
    assert best([b, *others]) == []


@pytest.mark.parametrize(
    ("rhat", "status"),
    [
        ([1.0, 1.01, 1.05], "ranked"),
        ([1.0, 1.01, 1.051], "not converged"),
        ([1.0, math.inf, 1.0], "not converged"),
        ([1.0, math.nan, 1.0], "not converged"),
        ([1.0] * 19 + [1.2], "ranked"),
        ([1.0] * 18 + [1.2] * 2, "not converged"),
    ],
)
def test_convergence_decides_the_status(rhat: list[float], status: str) -> None:
    """The worst point decides, of all replicas but one in twenty; nan is not converged. One that failed has no say.
    Seen to catch: the mean over replicas, `any` for `all`, `all` for 95 %, `not (rhat > 1.05)` (nan ranked), failed
    replicas' nan counted."""
    assert CONVERGED == 1.05
    ones = np.ones(len(rhat))
    assert make("a", ones, rhat=rhat).status == status
    one_point = np.ones((len(rhat), 4))
    one_point[:, 3] = rhat
    assert make("a", ones, rhat=one_point).status == status
    failed = dict.fromkeys((1, 2, 18, 19), "diverged")
    assert make("a", ones, rhat=rhat, failures=failed).status == "ranked"
    assert make("a", ones, rhat=rhat, kind="floor").status == "floor"
    assert make("a", ones, rhat=ones + 0.1, rhat_limit=ones + 0.11).status == "ranked"  # few draws have another limit
    for rhat_then, status_then in ((1.04, "ranked"), (1.06, "not converged")):  # records of older scores have none
        older = make("a", ones, rhat=np.full(len(ones), rhat_then))
        points = {name: value for name, value in older.points.items() if name != "rhat_limit"}
        assert replace(older, points=points).status == status_then


# --- Floor and ceiling ------------------------------------------------------------------------------------------------


def test_the_controls_are_watched() -> None:
    """Beating the truth and losing to the prior are found, significantly and only in NLL and CRPS of y, and put in
    words; a method in between does neither, nor do the controls themselves. Rows that did not converge are watched too.
    Seen to catch: floor and ceiling exchanged, differences that are not significant, any score, unranked rows left
    out."""
    count = 10
    truth = make("truth", 2 + 0.1 * noise(0, count), kind="ceiling", rmse_y=np.ones(count), nll_y=np.zeros(count))
    prior = make("prior", 4 + 0.1 * noise(1, count), kind="floor", rmse_y=np.ones(count), nll_y=np.ones(count))
    rows = [
        make("magic", 1 + 0.1 * noise(2, count), rmse_y=np.zeros(count), nll_y=np.full(count, 0.5)),
        make("honest", 3 + 0.1 * noise(3, count), rmse_y=np.full(count, 9.0), nll_y=np.full(count, 0.5)),
        make("hopeless", 5 + 0.1 * noise(4, count), rhat=np.full(count, 3.0), nll_y=np.full(count, 7.0)),
        make("lucky", 1.8 + 2 * stats.zscore(noise(5, count))),
        make("unlucky", 4.2 + 2 * stats.zscore(noise(6, count))),
        truth,
        prior,
    ]
    columns = [GAP, ("crps_y", "data"), ("nll_y", "gap"), ("rmse_y", "gap")]
    frame = summarise(rows, columns)
    beats = frame[frame["beats_ceiling"]]
    assert set(zip(beats["row"], beats["score"], beats["region"], strict=True)) == {
        ("magic", "crps_y", "gap"),
        ("magic", "crps_y", "data"),
    }
    loses = frame[frame["loses_to_floor"]]
    assert set(zip(loses["row"], loses["score"], loses["region"], strict=True)) == {
        ("hopeless", "crps_y", "gap"),
        ("hopeless", "crps_y", "data"),
        ("hopeless", "nll_y", "gap"),
    }
    words = remarks(frame)
    assert len(words) == 2
    assert "magic" in words[0] and "a bug" in words[0] and "crps_y · gap, crps_y · data" in words[0]
    assert "hopeless" in words[1] and "prior" in words[1] and "nll_y · gap" in words[1]
    assert not summarise(rows[:-2], columns)[["beats_ceiling", "loses_to_floor"]].any(axis=None)
    assert remarks(summarise([rows[1], truth, prior], columns)) == []


def test_the_ceiling_is_scored_on_observations_only() -> None:
    """It knows f, so it has no score of f, no gap ratio, no R-hat. Seen to catch: a ceiling with RMSE 0 of f, a ceiling
    whose CRPS of y is missing too."""
    truth = make("truth", np.ones(6), kind="ceiling", crps_f=np.zeros(6), pit_y=np.full(6, 0.3), pit_f=np.full(6, 0.3))
    frame = summarise([truth], EVERYTHING)
    shown = set(frame["score"][~frame["value"].isna()])
    assert shown == {"crps_y", "calibration_error_y", "miscalibration_area_y", "pit_distance_y"}


# --- Blocks and failures ----------------------------------------------------------------------------------------------


def test_merged_blocks_are_the_whole() -> None:
    """Whatever their order: replicas sorted, and with them points, regions, grid, diagnostics; the same table. Seen to
    catch: blocks in the order given, replicas sorted without their values, failures of the last block only."""
    rng = np.random.default_rng(0)
    crps, pits, rhat = rng.random((13, 4)), rng.random((13, 4)), 1 + 0.01 * rng.random((13, 4))
    failures = {2: "diverged", 11: "not finite"}
    steps = np.arange(13.0)

    def block(start: int, stop: int) -> Result:
        return make(
            "a",
            crps[start:stop],
            pit_y=pits[start:stop],
            rhat=rhat[start:stop],
            first=start,
            failures={replica: why for replica, why in failures.items() if start <= replica < stop},
            diagnostics={"steps": steps[start:stop]},
        )

    whole, joined = block(0, 13), merge([block(10, 13), block(0, 5), block(5, 10)])
    np.testing.assert_array_equal(joined.replicas, np.arange(13))
    for name in ("points", "regions", "grid", "diagnostics"):
        ours, theirs = getattr(joined, name), getattr(whole, name)
        assert set(ours) == set(theirs)
        for key in theirs:
            np.testing.assert_array_equal(ours[key], theirs[key])
    assert joined.failures == failures
    assert len(joined.provenance) == 3
    assert joined.status == whole.status == "ranked"
    pd.testing.assert_frame_equal(summarise([joined], EVERYTHING), summarise([whole], EVERYTHING))


def test_a_merge_keeps_what_all_blocks_have() -> None:
    """A block all of whose replicas failed lists scores that the row never has (R-hat of a method without chains).
    Seen to catch: a KeyError, the first block's names taken."""
    failed = make("a", np.zeros(2), rhat=np.ones(2), failures={0: "diverged", 1: "diverged"})
    sound = make("a", np.ones(3), first=2)
    for parts in ([failed, sound], [sound, failed]):
        joined = merge(parts)
        assert "rhat" not in joined.points
        assert joined.status == "ranked"
        assert line(summarise([joined], [GAP]), "a")["value"] == 1.0


def test_failed_replicas_are_left_out_and_counted() -> None:
    """Of means, intervals and pooled PITs; and the row says how many. Seen to catch: failed replicas as 0, the whole
    row lost, the number of replicas reduced, their PITs pooled as nan."""
    values, pits = np.arange(1.0, 9.0), noise(0, 8, 4) % 1
    failures = {0: "diverged", 5: "not finite"}
    kept = [1, 2, 3, 4, 6, 7]
    result = make("a", values, failures=failures, pit_y=pits)
    frame = summarise([result], [GAP, ("calibration_error_y", "data")])
    found = line(frame, "a")
    assert found["value"] == values[kept].mean()
    assert (found["replicas"], found["failed"]) == (8, 2)
    assert values[kept].min() <= found["low"] < found["high"] <= values[kept].max()
    assert "2 of 8 replicas failed" in label(found)
    pooled = line(frame, "a", ("calibration_error_y", "data"))
    assert pooled["value"] == pytest.approx(calibration_error(pits[kept, :2].ravel()))
    assert pooled["low"] < pooled["value"] < pooled["high"]


def test_a_value_says_how_many_replicas_it_is_of() -> None:
    """Below it, if not all that are sound have one: a mean over two is no mean over six. Seen to catch: nothing said,
    failed replicas counted, said of complete values too."""
    w1 = np.array([0.5, np.nan, 0.7, np.nan, np.nan, np.nan, np.nan])
    result = make("a", np.arange(7.0), failures={6: "diverged"}, reference_w1=w1)
    frame = summarise([result], [GAP, ("reference_w1", "gap")])
    below = dict(zip(frame["score"], (entry(one)[1] for _, one in frame.iterrows()), strict=True))
    assert " of " not in below["crps_y"] and below["reference_w1"] == "[0.5, 0.7] 2 of 6"
    assert "[0.5, 0.7] 2 of 6" in markdown(frame) and "[0.5, 0.7] 2 of 6" in rendered(text(frame))
    alone = summarise([make("a", np.arange(3.0), reference_w1=[0.5, np.nan, np.nan])], [("reference_w1", "gap")])
    assert entry(alone.iloc[0]) == ("0.5", "1 of 3")


def test_infinite_values_are_shown_and_disturb_nothing() -> None:
    """Chains that never moved have an infinite R-hat: the mean is infinite, and neither a warning (an error in this
    test suite) nor a verdict comes of it; a resample without the infinite replica is finite. Seen to catch: 0·inf =
    nan in the bootstrap, warnings from inf − inf in an interval and in a comparison."""
    some, every = np.ones(8), np.full(8, np.inf)
    some[3] = np.inf
    rows = [make("some", some), make("every", every), make("each", every), make("sound", np.ones(8))]
    rows.append(make("stuck", np.ones(8), rhat=some))
    frame = summarise(rows, [("rhat", "all"), GAP])
    assert line(frame, "stuck", ("rhat", "all"))["value"] == line(frame, "some")["value"] == math.inf
    assert line(frame, "stuck", ("rhat", "all"))["low"] == line(frame, "some")["low"] == 1.0
    assert not frame["best"].any()
    assert "inf" in markdown(frame) and "nan" not in markdown(frame)
    assert rows[0].estimates(GAP, np.arange(8), np.array([1.0, 2, 5, 0, 0, 0, 0, 0])) == 1.0


# --- Scores pooled over replicas --------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [("calibration_error_y", "data"), ("miscalibration_area_f", "all"), GAP], ids=str)
def test_counts_are_repeated_replicas(column: tuple[str, str]) -> None:
    """estimates() with integer counts is the score of a result in which each replica stands that many times. Seen to
    catch: PITs weighted by another replica's count, counts of points for counts of replicas, the mean over replicas of
    each one's calibration error, the region ignored."""
    rng = np.random.default_rng(0)
    crps, pits = rng.random((7, 4)), rng.random((7, 4)) ** 2
    pits_f = rng.random((7, 4)) ** 3
    result = make("a", crps, pit_y=pits, pit_f=pits_f)
    counts = rng.integers(0, 4, (5, 7)).astype(float)
    found = result.estimates(column, np.arange(7), counts)
    assert found.shape == (5,)
    for value, count in zip(found, counts.astype(int), strict=True):
        repeated = make(
            "a", *(np.repeat(crps, count, 0),), pit_y=np.repeat(pits, count, 0), pit_f=np.repeat(pits_f, count, 0)
        )
        again = repeated.estimates(column, repeated.replicas, np.ones(count.sum()))
        assert value == pytest.approx(float(again), rel=1e-12)
        by_hand = {
            "calibration_error_y": lambda k=count: calibration_error(np.repeat(pits, k, 0)[:, :2].ravel()),
            "miscalibration_area_f": lambda k=count: miscalibration_area(np.repeat(pits_f, k, 0).ravel()),
            "crps_y": lambda k=count: np.repeat(crps, k, 0)[:, 2].mean(),
        }[column[0]]
        assert value == pytest.approx(float(by_hand()), rel=1e-12)
    chosen = np.array([1, 4, 6])
    some = make("a", crps[chosen], pit_y=pits[chosen], pit_f=pits_f[chosen])
    assert float(result.estimates(column, chosen, np.ones(3))) == pytest.approx(
        float(some.estimates(column, np.arange(3), np.ones(3)))
    )


def test_the_interval_of_a_pooled_score_is_around_it() -> None:
    """Replicas of one observation each, calibrated, in 60 worlds: PITs drawn twice are further from uniform, so the
    plain percentile interval lies above the value in some and far above on average. Seen to catch: that one."""
    column, inside, excess = ("calibration_error_y", "gap"), 0, []
    for world in range(60):
        pits = np.repeat(np.random.default_rng(world).random((10, 1)), 4, 1)
        found = line(summarise([make("a", np.ones(10), pit_y=pits)], [column]), "a", column)
        inside += found["low"] <= found["value"] <= found["high"]
        excess.append((found["low"] + found["high"]) / 2 - found["value"])
    assert inside == 60 and abs(np.mean(excess)) < 0.03


def test_pooled_scores_are_ranked_like_others() -> None:
    """A calibrated row against one whose error bars are inflated fourfold, each replica's points one observation:
    pooled, and marked; the mean of each replica's own error would prefer the inflated one. Seen to catch: that mean."""
    z = np.repeat(stats.norm.ppf((np.arange(40) + 0.5) / 40)[:, None], 4, 1)
    rows = [make("right", np.ones(40), pit_y=stats.norm.cdf(z)), make("wide", np.ones(40), pit_y=stats.norm.cdf(z / 4))]
    column = ("calibration_error_y", "gap")
    assert best(rows, column) == ["right"]
    frame = summarise(rows, [column])
    assert line(frame, "right", column)["value"] == pytest.approx(1 / 160)
    separate = [np.mean([calibration_error(own) for own in row.points["pit_y"]]) for row in rows]
    assert separate[1] < separate[0]


# --- How it is printed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.123456, "0.123"),
        (-0.0001234, "-0.000123"),
        (1.0, "1"),
        (12.345, "12.3"),
        (999.4, "999"),
        (999.6, "1000"),
        (-999.9, "-1000"),
        (1000.4, "1000"),
        (-123456.7, "-123457"),
        (1.25e7, "1.25e+07"),
        (3e-9, "3e-09"),
        (math.inf, "inf"),
    ],
)
def test_numbers(value: float, shown: str) -> None:
    """Three digits, and whole numbers up to a million. Seen to catch: 1e+03 for 999.6, the sign forgotten in the
    limit."""
    assert number(value) == shown


def test_headers() -> None:
    """Score, region, direction and unit; no region where there is only one. Seen to catch: two spaces where there is no
    direction, a direction that is not the score's."""
    assert header(("crps_y", "gap")) == "crps_y · gap ↓ (y)"
    assert header(("nll_y", "data")) == "nll_y · data ↓ (nats)"
    assert header(("coverage_90_f", "edge")) == "coverage_90_f · edge → 0.9"
    assert header(("std_f", "gap")) == "std_f · gap (y)"
    assert header(("gap_ratio", "all")) == "gap_ratio"
    assert header(("rhat", "all")) == "rhat → 1"
    assert header(("ess_bulk", "all")) == "ess_bulk · all ↑"
    assert len({header(column) for column in EVERYTHING}) == len(EVERYTHING)


def rows_of_every_kind() -> list[Result]:
    count = 6
    return [
        make("best", 1 + 0.1 * noise(0, count), crps_f=np.ones(count)),
        make("second", 2 + 0.1 * noise(1, count), failures={3: "diverged"}),
        make("slow", 3 + 0.1 * noise(2, count), rhat=np.full(count, 1.5)),
        make("broken", np.ones(count), failures=dict.fromkeys(range(count), "diverged")),
        make("prior", 4 + 0.1 * noise(3, count), kind="floor"),
        make("truth", 0.5 + 0.1 * noise(4, count), kind="ceiling"),
    ]


def test_what_is_not_defined_is_not_available() -> None:
    """nan prints as n/a, never as nan, and a column that nobody has is not shown. Seen to catch: nan printed, empty
    cells, empty columns."""
    frame = summarise(rows_of_every_kind(), [GAP, ("crps_f", "data"), ("rmse_f", "data")])
    assert entry(line(frame, "second", ("crps_f", "data"))) == ("n/a", "")
    assert entry(line(frame, "broken")) == ("n/a", "")
    table = markdown(frame)
    assert "nan" not in table and "rmse_f" not in table
    assert table.count("n/a") == 6  # CRPS of the broken row, and of f in all rows but the first


def test_markdown_is_a_table() -> None:
    """A header, a rule and a line for each row, with the same number of cells, in the order ranked by CRPS, not
    converged, failed, floor, ceiling. Seen to catch: a rule one cell short, a cell lost where there is no interval,
    rows by name, the mark left as an asterisk."""
    results = [*rows_of_every_kind(), make("alone", np.ones(1), dataset="other")]
    parts = markdown(summarise(results, [GAP, ("crps_f", "data"), ("gap_wider", "all")])).split("\n\n")
    assert len(parts) == 4
    title, table = parts[:2]
    assert title == "**sine: mean over 6 replicas, 95 % interval below**"
    assert parts[2] == "**other: mean over 1 replica, 95 % interval below**"
    lines = table.split("\n")
    cells = [re.split(r"(?<!\\)\|", text)[1:-1] for text in lines]
    assert [len(row) for row in cells] == [4] * 8
    assert cells[1][0].strip() == "---" and all(cell.strip() == "---:" for cell in cells[1][1:])
    assert [row[0].strip() for row in cells[2:]] == [
        "best",
        "second (1 of 6 replicas failed)",
        "slow (not converged)",
        "broken (failed, 6 of 6 replicas failed)",
        "prior (floor)",
        "truth (ceiling)",
    ]
    marked = re.compile(r"^\*\*[\d.]+\*\*<br><sub>\[[\d.]+, [\d.]+\]</sub>$")
    assert marked.match(cells[2][1].strip())
    assert not any(marked.match(row[1].strip()) for row in cells[3:])


def rendered(tables: Sequence[Table]) -> str:
    console = Console(file=io.StringIO(), width=320, color_system=None)
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def test_text_shows_what_is_there() -> None:
    """Intervals keep their brackets, whatever stands in them, and no markup or backslash is left over. Seen to catch:
    an interval taken for markup, a backslash printed, the asterisk's `[bold]` shown."""
    results = rows_of_every_kind()
    columns = [GAP, ("crps_f", "data"), ("gap_wider", "all")]
    frame = summarise(results, columns)
    shown = rendered(text(frame))
    assert "sine: mean over 6 replicas" in shown
    for _, found in frame.iterrows():
        for part in entry(found):
            assert part in shown
        assert label(found) in shown
    for remnant in ("\\", "[bold", "[dim", "[/"):
        assert remnant not in shown
    unbounded = frame.assign(low=-math.inf, high=math.inf)
    assert "[-inf, inf]" in rendered(text(unbounded))
    assert "[inf, inf]" in rendered(text(frame.assign(low=math.inf, high=math.inf)))


def test_names_are_not_markup() -> None:
    """A row or a data set that is called so keeps its brackets. Seen to catch: [red] swallowed by rich, [/] as an
    error, in the table and in the runs'."""
    results = [make(name, np.ones(2), dataset="sine [bold] [/dim]") for name in ("sgld[red]", "[/]")]
    frame = summarise(results, [GAP])
    shown = rendered(text(frame))
    for name in ("sgld[red]", "[/]", "sine [bold] [/dim]"):
        assert name in shown and name in rendered([run_table(results)])


def test_a_table_of_failures_alone() -> None:
    """When every row of a data set failed, the table says so and is not an error. Seen to catch: an IndexError for want
    of a column with a value."""
    results = [make("broken", np.ones(6), failures=dict.fromkeys(range(6), "diverged"))]
    frame = summarise(results, SUMMARY)
    assert frame["value"].isna().all()
    assert "broken (failed, 6 of 6 replicas failed)" in markdown(frame)
    assert "broken (failed, 6 of 6 replicas failed)" in rendered(text(frame))


def test_what_the_runs_say() -> None:
    """Seconds are added over blocks, diagnostics averaged over the replicas that did not fail; a cell for every method
    and diagnostic; no control. Seen to catch: the last block's seconds, diagnostics of failed replicas, a method
    without a diagnostic that shifts its row."""
    blocks = [
        make("a", np.ones(2), diagnostics={"clipped": [0.5, 0.25]}),
        make("a", np.ones(2), first=2, diagnostics={"clipped": [np.nan, 0.75]}, failures={2: "diverged"}),
    ]
    results = [
        merge(blocks),
        make("b", np.ones(4), diagnostics={"steps": [7.0] * 4}),
        make("prior", np.ones(4), kind="floor"),
    ]
    lines = run_table(results, markdown=True).split("\n")
    cells = [[cell.strip() for cell in text.split("|")[1:-1]] for text in lines]
    assert cells[0] == ["dataset", "row", "seconds", "clipped", "steps"]
    assert cells[2:] == [["sine", "a", "3", "0.5", ""], ["sine", "b", "2", "", "7"]]
    shown = rendered([run_table(results)])
    assert all(cell in shown for row in cells[2:] for cell in row)
    failed = make("c", np.ones(2), diagnostics={"clipped": [np.nan] * 2}, failures={0: "diverged", 1: "diverged"})
    assert run_table([failed], markdown=True).split("\n")[2].split("|")[4].strip() == "n/a"


def test_mixed_machines_are_named() -> None:
    """One machine: one sentence; two: one each, with the rows. Seen to catch: the first run's machine for all."""
    old = {"seconds": 1, "device": "abacus", "versions": {"torch": "1", "gapbench": "2"}}
    new = {**old, "device": "engine"}
    assert provenance([make("a", np.ones(2), run=old)]) == ["Computed on: abacus, torch 1, gapbench 2"]
    mixed = provenance([make("a", np.ones(2), run=old), make("b", np.ones(2), run=old), make("b", np.ones(2), run=new)])
    assert len(mixed) == 2 and all("Mixed" in sentence for sentence in mixed)
    assert "a, b computed on: abacus" in mixed[0] and "b computed on: engine" in mixed[1]


def test_the_columns_exist() -> None:
    """Every column of the tables is a score, in a region that results have. Seen to catch: a renamed score."""
    assert set(SUMMARY) <= set(EVERYTHING)
    assert len(set(EVERYTHING)) == len(EVERYTHING)
    assert {name for name, _ in EVERYTHING} == set(SCORES)
    assert {region for _, region in EVERYTHING} == {"all", *MASKS}
