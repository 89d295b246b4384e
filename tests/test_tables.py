"""From results to tables, on results made by hand: means, intervals, and what is called significant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from gapbench.datasets.base import Layout
from gapbench.evaluation import bootstrap
from gapbench.evaluation.bootstrap import MIN_REPLICAS
from gapbench.evaluation.calibration import calibration_error
from gapbench.evaluation.diagnostics import RHAT_THRESHOLD
from gapbench.evaluation.entries import Kind
from gapbench.evaluation.headline import most
from gapbench.evaluation.results import Column, Result, merge
from gapbench.evaluation.scores import SCORES, replica_scores
from gapbench.evaluation.tables import (
    SUMMARY,
    Cell,
    Line,
    Table,
    compared,
    departures,
    everything,
    number,
    provenance,
    remarks,
    run_table,
    summary,
    tabulate,
)

Floats = NDArray[np.float64]

GAP = ("crps_y", "gap")
MASKS = {
    "data": [True, True, False, False],
    "gap": [False, False, True, False],
    "extrapolation": [False, False, False, True],
}


def make(
    method: str,
    crps: ArrayLike,
    *,
    dataset: str = "sine",
    kind: Kind = "method",
    failures: Mapping[int, str] | None = None,
    first: int = 0,
    run: Mapping[str, object] | None = None,
    diagnostics: Mapping[str, ArrayLike] | None = None,
    layout: Layout | None = None,
    declared: tuple[Column, ...] | None = None,
    known_f: bool = True,
    masks: Mapping[str, Sequence[bool]] = MASKS,
    **points: ArrayLike,
) -> Result:
    """A result of R replicas and four test points (two of data, one of gap, one beyond). crps: CRPS of y, (R,) or
    (R, 4); points: any other score, the same. Replicas in `failures` are nan everywhere, as in a record."""
    crps = np.asarray(crps, dtype=float)
    count = len(crps)
    replicas = np.arange(first, first + count)
    nowhere = np.full(count, np.nan)
    values = {"crps_y": crps, "std_f": np.ones(count), "pit_y": nowhere, "pit_f": nowhere, **points}
    if known_f:
        values = {"coverage_90_f": np.ones(count), **values}
    if "rhat" in points:
        values = {"rhat_limit": np.full(count, RHAT_THRESHOLD), **values}
    failures = failures or {}
    table = {}
    for name, value in values.items():
        value = np.array(value, dtype=float)
        table[name] = np.array(np.broadcast_to(value.reshape(count, -1), (count, 4)))
        table[name][np.isin(replicas, list(failures))] = np.nan
    regions = {name: np.tile(mask, (count, 1)) for name, mask in masks.items()}
    return Result(
        dataset,
        method,
        kind,
        replicas,
        replica_scores(table, regions),
        {name: table[name] for name in ("pit_y", "pit_f")},
        regions,
        {},
        layout or Layout("grid", 0),
        declared,
        {name: np.asarray(value, dtype=float) for name, value in (diagnostics or {}).items()},
        failures,
        [run or {"seconds": 1.5, "device": "abacus", "versions": {"torch": "1", "gapbench": "2"}}],
    )


def find(tables: Sequence[Table], method: str, column: Column = GAP, dataset: str = "sine") -> Cell:
    """The only cell of this method and column."""
    [table] = [table for table in tables if table.dataset == dataset]
    return line(tables, method, dataset).cells[table.columns.index(column)]


def line(tables: Sequence[Table], method: str, dataset: str = "sine") -> Line:
    [found] = [line for table in tables if table.dataset == dataset for line in table.lines if line.method == method]
    return found


def only(*columns: Column):  # type: ignore[no-untyped-def]
    return lambda rows: columns


def best(results: Sequence[Result], column: Column = GAP) -> list[str]:
    """The methods that are marked."""
    [table] = tabulate(results, only(column))
    return [line.method for line in table.lines if line.cells[0].best]


def noise(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape)


# --- Values -----------------------------------------------------------------------------------------------------------


def test_the_value_is_the_mean_over_replicas_of_each_region() -> None:
    """RMSE: of each replica's root. Seen to catch: the region of another column, the median, a column of another
    method."""
    crps, rmse = np.abs(noise(0, 6, 4)), np.abs(noise(1, 6, 4))
    results = [make("a", crps, rmse_y=rmse), make("b", crps + 1, rmse_y=rmse)]
    tables = tabulate(results, everything)
    roots = results[0].scores["rmse_y"]
    for region, points in {"all": [0, 1, 2, 3], "data": [0, 1], "gap": [2], "extrapolation": [3]}.items():
        assert find(tables, "a", ("crps_y", region)).value == pytest.approx(crps[:, points].mean())
        assert find(tables, "b", ("crps_y", region)).value == pytest.approx(crps[:, points].mean() + 1)
        assert find(tables, "a", ("rmse_y", region)).value == pytest.approx(roots[region].mean())
    assert ("crps_f", "gap") not in tables[0].columns  # nobody scored it


def test_an_interval_stands_around_the_value_and_the_same_table_comes_twice() -> None:
    """The bootstrap's stream comes from the data set's name and the replicas alone. Seen to catch: a fresh generator,
    a stream that depends on the methods shown."""
    results = [make("a", noise(0, 8) + 3), make("b", noise(1, 8) + 3)]
    first = tabulate(results)
    bootstrap._kept.cache_clear()
    assert tabulate(results) == first
    alone, together = find(tabulate(results[:1]), "a"), find(tabulate(results), "a")
    assert alone.low < alone.value < alone.high
    assert (alone.low, alone.high) == (together.low, together.high)


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_few_replicas_have_no_interval(count: int) -> None:
    """And decide nothing, however clear. Seen to catch: MIN_REPLICAS ignored in the interval, in the comparison,
    counted over methods."""
    assert MIN_REPLICAS == 5
    rows = [make("a", 1 + 0.01 * np.arange(count)), make("b", 9 - 0.01 * np.arange(count))]
    assert best(rows) == (["a"] if count >= 5 else [])
    assert math.isnan(find(tabulate(rows), "a").low) == (count < 5)


# --- What is best -----------------------------------------------------------------------------------------------------


def test_a_clear_winner_is_marked() -> None:
    """Alone, whatever the order of the methods. Seen to catch: the largest, every method but the worst, better than any
    other for better than every other."""
    rows = [make("a", 1 + 0.1 * noise(0, 10)), make("b", 2 + 0.1 * noise(1, 10)), make("c", 3 + 0.1 * noise(2, 10))]
    assert best(rows) == best(rows[::-1]) == ["a"]
    assert best([rows[2], rows[1]]) == ["b"]


@pytest.mark.parametrize("layout", [Layout(overlap=1 / 9), Layout(sample=False)])
def test_splits_of_one_table_are_no_sample(layout: Layout) -> None:
    """Their rows have values, and neither intervals nor a winner: a bootstrap would take them for independent. Seen to
    catch: a star by a naive interval."""
    rows = [make(name, at + 0.1 * noise(at, 10), layout=layout) for at, name in enumerate("ab", 1)]
    assert best(rows) == []
    [table] = tabulate(rows, lambda rows: [("crps_y", "all")])
    cells = [line.cells[0] for line in table.lines]
    assert [round(cell.value) for cell in cells] == [1, 2] and all(np.isnan(cell.low) for cell in cells)


def test_rows_are_in_the_order_of_their_crps() -> None:
    """Those without one stand last. Seen to catch: no CRPS that counts as 0."""
    rows = [make("none", np.full(10, np.nan)), make("worse", np.full(10, 2.0)), make("better", np.full(10, 1.0))]
    [table] = tabulate(rows, lambda rows: [("crps_y", "all")])
    assert [line.method for line in table.lines] == ["better", "worse", "none"]


def test_without_a_clear_winner_nothing_is_marked() -> None:
    """Two equal methods, though both beat the third; and a method against itself. Seen to catch: the lowest mean always
    marked, ties marked (≤ for <)."""
    rows = [make("a", 1 + 0.1 * noise(0, 10)), make("b", 1 + 0.1 * noise(1, 10)), make("c", 3 + 0.1 * noise(2, 10))]
    assert best(rows) == []
    assert best([rows[0], make("copy", 1 + 0.1 * noise(0, 10))]) == []


def test_only_shared_replicas_are_compared() -> None:
    """Ten replicas each, but only four that both have: nothing to say; six: they decide, and the others, on which the
    loser would win, do not. Seen to catch: methods compared position by position, each on its own replicas."""
    a, b = make("a", 1 + 0.01 * noise(0, 10)), make("b", 2 + 0.01 * noise(1, 10), first=6)
    assert best([a, b]) == []
    values = np.r_[1 + 0.01 * noise(0, 6), np.full(4, 50.0)]
    other = make("b", np.r_[2 + 0.01 * noise(1, 6), np.full(4, 0.0)], failures=dict.fromkeys((6, 7, 8, 9), "diverged"))
    assert best([make("a", values), other]) == ["a"]


def test_pairing_finds_what_the_intervals_hide() -> None:
    """A large effect of the replica shared by both methods, a small constant difference: the intervals overlap almost
    wholly, and yet every replica says the same. Dealt to other replicas the same numbers say nothing. Seen to catch:
    resamples drawn anew for each method."""
    shared = 5 * noise(0, 12)
    a, b = 10 + shared + 0.01 * noise(1, 12), 10.1 + shared + 0.01 * noise(2, 12)
    tables = tabulate([make("a", a), make("b", b)], only(GAP))
    assert find(tables, "a").best and not find(tables, "b").best
    assert find(tables, "a").high > find(tables, "b").value
    assert find(tables, "b").low < find(tables, "a").value
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
        rows = [make(method, np.ones(8), **{name: value + spread}) for method, value in (("good", good), ("bad", bad))]
        assert best(rows, (name, "gap")) == ["good"], name
    for name in ("std_f", "std_aleatoric"):
        rows = [make(method, np.ones(8), **{name: value + spread}) for method, value in (("a", 1.0), ("b", 9.0))]
        assert best(rows, (name, "gap")) == []


def test_what_is_not_ranked_is_neither_marked_nor_compared() -> None:
    """A chain that did not converge, a method that failed, baseline and oracle: all with better scores than a and b, of
    which a is best. A method that is ranked alone is not best of anything. Seen to catch: not converged methods marked,
    methods compared with the oracle, with the not converged."""
    count = 8
    a, b = make("a", 2 + 0.1 * noise(0, count)), make("b", 3 + 0.1 * noise(1, count))
    others = [
        make("unconverged", 1 + 0.1 * noise(2, count), rhat=np.full(count, 1.2)),
        make("broken", np.zeros(count), failures=dict.fromkeys(range(count), "diverged")),
        make("prior", 1 + 0.1 * noise(3, count), kind="baseline"),
        make("truth", 0.1 * noise(4, count), kind="oracle"),
    ]
    assert [result.status for result in (a, *others)] == ["ranked", "not converged", "failed", "baseline", "oracle"]
    assert best([a, b, *others]) == ["a"]
    assert best([b, *others]) == []


# --- The controls -----------------------------------------------------------------------------------------------------


def test_the_controls_are_watched() -> None:
    """Beating the truth and losing to the prior are found, significantly and only in NLL and CRPS of y, and put in
    words; a method in between does neither, nor do the controls themselves. Methods that did not converge are watched
    too. Seen to catch: baseline and oracle exchanged, differences that are not significant, any score, unranked methods
    left out."""
    count = 10
    truth = make("truth", 2 + 0.1 * noise(0, count), kind="oracle", rmse_y=np.ones(count), nll_y=np.zeros(count))
    prior = make("prior", 4 + 0.1 * noise(1, count), kind="baseline", rmse_y=np.ones(count), nll_y=np.ones(count))
    rows = [
        make("magic", 1 + 0.1 * noise(2, count), rmse_y=np.zeros(count), nll_y=np.full(count, 0.5)),
        make("honest", 3 + 0.1 * noise(3, count), rmse_y=np.full(count, 9.0), nll_y=np.full(count, 0.5)),
        make("hopeless", 5 + 0.1 * noise(4, count), rhat=np.full(count, 3.0), nll_y=np.full(count, 7.0)),
        make("lucky", 1.8 + 2 * stats.zscore(noise(5, count))),
        make("unlucky", 4.2 + 2 * stats.zscore(noise(6, count))),
        truth,
        prior,
    ]
    columns = only(GAP, ("crps_y", "data"), ("nll_y", "gap"), ("rmse_y", "gap"))

    def flagged(results: Sequence[Result], flag: str) -> set[tuple[str, str, str]]:
        [table] = tabulate(results, columns)
        return {
            (line.method, *column)
            for line in table.lines
            for column, cell in zip(table.columns, line.cells, strict=True)
            if getattr(cell, flag)
        }

    assert flagged(rows, "beats_oracle") == {("magic", "crps_y", "gap"), ("magic", "crps_y", "data")}
    hopeless = {("hopeless", "crps_y", "gap"), ("hopeless", "crps_y", "data"), ("hopeless", "nll_y", "gap")}
    assert flagged(rows, "loses_to_baseline") == hopeless
    words = remarks(rows)
    assert len(words) == 2
    assert "magic" in words[0] and "a bug" in words[0] and "crps_y · data, crps_y · gap" in words[0]
    assert "hopeless" in words[1] and "prior" in words[1] and "nll_y · gap" in words[1]
    assert not flagged(rows[:-2], "beats_oracle") and not flagged(rows[:-2], "loses_to_baseline")
    assert remarks([rows[1], truth, prior]) == []


def test_the_oracle_is_scored_on_observations_only() -> None:
    """It knows f, so it has no score of f, no gap ratio, no R-hat. Seen to catch: an oracle with CRPS 0 of f, an oracle
    whose CRPS of y is missing too."""
    truth = make("truth", np.ones(6), kind="oracle", crps_f=np.zeros(6), pit_y=np.full(6, 0.3), pit_f=np.full(6, 0.3))
    [table] = tabulate([truth], everything)
    assert {name for name, _ in table.columns} == {
        "crps_y",
        "calibration_error_y",
        "miscalibration_area_y",
        "pit_ks_y",
    }


# --- Failures and what is not known -----------------------------------------------------------------------------------


def test_failed_replicas_are_left_out_and_counted() -> None:
    """Of means, intervals and pooled PITs; and the line says how many. Seen to catch: failed replicas as 0, the whole
    method lost, the number of replicas reduced, their PITs pooled as nan."""
    values, pits = np.arange(1.0, 9.0), noise(0, 8, 4) % 1
    kept = [1, 2, 3, 4, 6, 7]
    result = make("a", values, failures={0: "diverged", 5: "not finite"}, pit_y=pits)
    tables = tabulate([result], only(GAP, ("calibration_error_y", "data")))
    found, own = find(tables, "a"), line(tables, "a")
    assert found.value == values[kept].mean()
    assert (own.replicas, own.failed, found.known) == (8, 2, 6)
    assert values[kept].min() <= found.low < found.high <= values[kept].max()
    assert "2 of 8 replicas failed" in own.label
    pooled = find(tables, "a", ("calibration_error_y", "data"))
    assert pooled.value == pytest.approx(calibration_error(pits[kept, :2].ravel()))
    assert pooled.low < pooled.value < pooled.high


def test_infinite_values_are_shown_and_disturb_nothing() -> None:
    """Chains that never moved have an infinite R-hat: the mean is infinite, and neither a warning (an error in this
    test suite) nor a verdict comes of it; a resample without the infinite replica is finite. Seen to catch: 0·inf =
    nan in the bootstrap, warnings from inf − inf in an interval and in a comparison."""
    some, every = np.ones(8), np.full(8, np.inf)
    some[3] = np.inf
    rows = [make("some", some), make("every", every), make("each", every), make("sound", np.ones(8))]
    rows.append(make("stuck", np.ones(8), rhat=some))
    tables = tabulate(rows, only(("rhat", "all"), GAP))
    assert find(tables, "stuck", ("rhat", "all")).value == find(tables, "some").value == math.inf
    assert find(tables, "stuck", ("rhat", "all")).low == find(tables, "some").low == 1.0
    assert not any(cell.best for line in tables[0].lines for cell in line.cells)


def test_pooled_scores_are_ranked_like_others() -> None:
    """A calibrated method against one whose error bars are inflated fourfold, each replica's points one observation:
    pooled, and marked; the mean of each replica's own error would prefer the inflated one. Seen to catch: that mean."""
    z = np.repeat(stats.norm.ppf((np.arange(40) + 0.5) / 40)[:, None], 4, 1)
    rows = [make("right", np.ones(40), pit_y=stats.norm.cdf(z)), make("wide", np.ones(40), pit_y=stats.norm.cdf(z / 4))]
    column = ("calibration_error_y", "gap")
    assert best(rows, column) == ["right"]
    assert find(tabulate(rows, only(column)), "right", column).value == pytest.approx(1 / 160)
    separate = [np.mean([calibration_error(own) for own in row.pits["pit_y"]]) for row in rows]
    assert separate[1] < separate[0]


def test_a_diagnostic_of_a_wrong_length_spoils_nothing() -> None:
    """One number for all replicas, one a chain, too many: n/a in the table of runs, and every other number stands.
    Seen to catch: the check removed (a zero-dimensional array ends the table)."""
    bad = {"scalar": np.array(0.3), "chains": np.ones((6, 2)), "long": np.ones(7), "fine": np.full(6, 2.0)}
    results = [make("a", np.ones(6), diagnostics=bad), make("b", np.ones(6), diagnostics={"fine": [3.0] * 6})]
    runs = run_table(results)
    values = {
        (method, name): value for _, method, own in runs.lines for name, value in zip(runs.columns, own, strict=True)
    }
    assert values["a", "fine"] == 2.0 and values["b", "fine"] == 3.0 and values["b", "scalar"] is None
    for name in ("scalar", "chains", "long"):
        value = values["a", name]
        assert value is not None and math.isnan(value)
    assert find(tabulate(results), "a").value == 1.0


# --- Which columns, which order ---------------------------------------------------------------------------------------


def test_a_table_shows_what_the_dataset_asks_for() -> None:
    """Its own columns, else those of its layout: the gap's summary only where there are data, a gap and a known truth;
    else what observations say, by the regions there are. Columns in which nothing is defined are left out. Seen to
    catch: KeyError for want of a gap, columns of f without a truth, the declared columns ignored, "all" repeated as a
    region."""
    rows, tasks = Layout("rows"), Layout("tasks")
    halves = {"left": [True, True, False, False], "right": [False, False, True, True]}
    y = ["rmse_y", "coverage_90_y", "width_90_y", "crps_y", "nll_y"]
    assert summary([make("a", np.ones(2))]) == SUMMARY
    own = (("std_y", "left"), ("crps_y", "nowhere"))
    assert summary([make("a", np.ones(2), declared=own)]) == own
    own = (("crps_y", "data"), ("std_y", "gap"))
    near = tuple((name, region) for name in ("reference_log_std", "reference_w1") for region in ("data", "gap"))
    for w1, before in (([0.1, 0.2], near), ([0.1, np.nan], ())):  # distances stand there if every replica has them
        known = make("a", np.ones(2), declared=own, reference_log_std=np.zeros(2), reference_w1=w1)
        assert summary([make("b", np.ones(2), declared=own), known]) == (*before, *own)
        assert set(most([known])) == {*before, *own}
    assert summary([make("a", np.ones(2), layout=rows, known_f=False, masks={})]) == (
        *((name, "all") for name in y),
        ("rhat", "all"),
    )
    for one in (
        make("a", np.ones(2), layout=rows, known_f=False, masks=halves),
        make("a", np.ones(2), known_f=False, masks=halves),
    ):
        assert summary([one]) == (*((name, region) for name in y for region in halves), ("rhat", "all"))
    without_gap = {name: mask for name, mask in MASKS.items() if name != "gap"}
    found = summary([make("a", np.ones(2), masks=without_gap)])
    assert ("coverage_90_f", "extrapolation") in found and not any(region == "gap" for _, region in found)
    found = summary([make("a", np.ones(2), layout=tasks)])
    assert found[:3] == tuple(("pit_ks_f", region) for region in MASKS) and ("coverage_95_f", "gap") in found
    found = summary([make("a", np.ones(2), layout=tasks, known_f=False)])
    assert found[0] == ("pit_ks_y", "data") and not any(name.endswith("_f") for name, _ in found)
    [table] = tabulate([make("a", np.ones(2), layout=rows, known_f=False, masks=halves)])
    assert table.columns == (("crps_y", "left"), ("crps_y", "right"))


def test_regions_without_a_point_have_no_columns() -> None:
    """A mask that is false everywhere is no region. Seen to catch: names taken from the masks alone."""
    nowhere = {**MASKS, "gap": [False] * 4}
    result = make("a", np.ones(2), masks=nowhere)
    assert not any(region == "gap" for _, region in (*summary([result]), *everything([result]), *compared([result])))


def test_every_default_column_is_a_score() -> None:
    """In a region that the results have, and none twice. Seen to catch: a renamed score."""
    for layout in (Layout("grid", 0), Layout("tasks"), Layout("rows")):
        for known in (True, False):
            rows = [make("a", np.ones(2), layout=layout, known_f=known)]
            for columns in (summary(rows), everything(rows), compared(rows)):
                assert len(set(columns)) == len(columns)
                assert set(columns) <= set(everything(rows))
    assert {name for name, _ in everything(rows)} == set(SCORES)


def test_the_order_of_the_lines() -> None:
    """Ranked ones by CRPS, not converged, failed, reference, baseline, oracle. Seen to catch: lines by name, controls
    first."""
    count = 6
    results = [
        make("truth", 0.5 + 0.1 * noise(4, count), kind="oracle"),
        make("broken", np.ones(count), failures=dict.fromkeys(range(count), "diverged")),
        make("prior", 4 + 0.1 * noise(3, count), kind="baseline"),
        make("slow", 3 + 0.1 * noise(2, count), rhat=np.full(count, 1.5)),
        make("reference", 2 + 0.1 * noise(2, count), kind="reference"),
        make("second", 2 + 0.1 * noise(1, count), failures={3: "diverged"}),
        make("first", 1 + 0.1 * noise(0, count)),
        make("alone", np.ones(1), dataset="other"),
    ]
    sine, other = tabulate(results)
    assert [line.label for line in sine.lines] == [
        "first",
        "second (1 of 6 replicas failed)",
        "slow (not converged)",
        "broken (failed, 6 of 6 replicas failed)",
        "reference",
        "prior (baseline)",
        "truth (oracle)",
    ]
    assert sine.title == "sine: mean over 6 replicas, 95 % interval below"
    assert other.title == "other: mean over 1 replica"
    alone = tabulate(results[1:2])
    assert [line.label for line in alone[0].lines] == ["broken (failed, 6 of 6 replicas failed)"]


# --- Runs and words ---------------------------------------------------------------------------------------------------


def test_what_the_runs_say() -> None:
    """Seconds are added over blocks, the largest memory counts, diagnostics are averaged over the replicas that did not
    fail; a value for every method and column; no control. Seen to catch: the last block's seconds, memory added,
    diagnostics of failed replicas, a method without a diagnostic that shifts its line."""
    spent = {"device": "abacus", "versions": {"torch": "1", "gapbench": "2"}}
    runs = [
        {**spent, "seconds": 1.5, "cpu seconds": 1.0, "peak memory (bytes)": 3e8},
        {**spent, "seconds": 2.5, "cpu seconds": 2.0, "peak memory (bytes)": 2e8},
    ]
    blocks = [
        make("a", np.ones(2), diagnostics={"clipped": [0.5, 0.25]}, run=runs[0]),
        make("a", np.ones(2), first=2, diagnostics={"clipped": [np.nan, 0.75]}, failures={2: "diverged"}, run=runs[1]),
    ]
    results = [
        merge(blocks),
        make("b", np.ones(4), diagnostics={"steps": [7.0] * 4}),
        make("prior", np.ones(4), kind="baseline"),
    ]
    table = run_table(results)
    assert table.columns == ("seconds", "CPU seconds", "peak MB", "clipped", "steps")
    assert table.lines == (
        ("sine", "a", (4.0, 3.0, 300.0, 0.5, None)),
        ("sine", "b", (1.5, None, None, None, 7.0)),
    )
    failed = make("c", np.ones(2), diagnostics={"clipped": [np.nan] * 2}, failures={0: "diverged", 1: "diverged"})
    [(_, _, (_, clipped))] = run_table([failed]).lines
    assert clipped is not None and math.isnan(clipped)


def test_mixed_machines_are_named() -> None:
    """One machine: one sentence; two: one each, with the methods. Seen to catch: the first run's machine for all."""
    old = {"seconds": 1, "device": "abacus", "versions": {"torch": "1", "gapbench": "2"}}
    new = {**old, "device": "engine"}
    assert provenance([make("a", np.ones(2), run=old)]) == ["Computed on: abacus, torch 1, gapbench 2"]
    mixed = provenance([make("a", np.ones(2), run=old), make("b", np.ones(2), run=old), make("b", np.ones(2), run=new)])
    assert len(mixed) == 2 and all("Mixed" in sentence for sentence in mixed)
    assert "a, b computed on: abacus" in mixed[0] and "b computed on: engine" in mixed[1]


def test_departures_from_exact_bayes_are_named() -> None:
    """Of tasks only: who is within the band of Kolmogorov's law, who beyond, and where. Seen to catch: the layout
    ignored, `<` for `>`, the band of one region for three."""
    grid = np.tile((np.arange(100)[:, None] + 0.5) / 100, (1, 4))
    shifted = np.where(np.arange(4) == 2, grid**2, grid)
    tasks = Layout("tasks")
    results = [
        make("exact", np.ones(100), layout=tasks, pit_f=grid),
        make("wrong", np.ones(100), layout=tasks, pit_f=shifted),
    ]
    [words] = departures(results)
    assert "Within: exact. Beyond: wrong (gap 0.25" in words and "data" not in words.partition("Beyond")[2]
    assert f"within {number(stats.kstwo.isf(0.05 / 3, 100))} of uniform" in words
    assert departures([make("exact", np.ones(100), pit_f=grid)]) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.123456, "0.123"),
        (-0.0001234, "-0.000123"),
        (12.345, "12.3"),
        (999.4, "999"),
        (999.6, "1000"),
        (-999.9, "-1000"),
        (-123456.7, "-123457"),
        (1.25e7, "1.25e+07"),
        (3e-9, "3e-09"),
        (math.inf, "inf"),
        (math.nan, "n/a"),
    ],
)
def test_numbers(value: float, shown: str) -> None:
    """Three digits, and whole numbers up to a million. Seen to catch: 1e+03 for 999.6, the sign forgotten in the
    limit."""
    assert number(value) == shown
