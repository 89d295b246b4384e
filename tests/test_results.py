"""Results: what is defined, what counts as converged, blocks merged, and the tidy frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from gapbench.evaluation.diagnostics import RHAT_THRESHOLD
from gapbench.evaluation.entries import Kind
from gapbench.evaluation.results import COLUMNS, Result, merge, tidy


def make(
    crps: ArrayLike,
    *,
    kind: Kind = "method",
    first: int = 0,
    points: int = 4,
    failures: Mapping[int, str] | None = None,
    rhat: ArrayLike | None = None,
    limit: float = RHAT_THRESHOLD,
    diagnostics: Mapping[str, ArrayLike] | None = None,
) -> Result:
    """R replicas with one CRPS each, `points` test points, the last of which is the gap, and PITs that tell replicas
    apart. Failed replicas are nan."""
    values = np.array(crps, dtype=float)
    count = len(values)
    replicas = np.arange(first, first + count)
    failed = np.isin(replicas, list(failures or {}))
    values[failed] = np.nan
    scores = {"crps_y": {"all": values, "gap": values + 1}, "std_f": {"all": values}}
    if rhat is not None:
        own = np.where(failed, np.nan, rhat)
        scores |= {"rhat": {"all": own}, "rhat_limit": {"all": np.full(count, limit)}}
    pits = np.where(failed[:, None], np.nan, np.linspace(0, 0.9, points) + replicas[:, None] / 1000)
    return Result(
        "sine",
        "a",
        kind,
        replicas,
        scores,
        {"pit_y": pits, "pit_f": np.full_like(pits, np.nan)},
        {"gap": np.tile(np.arange(points) == points - 1, (count, 1)), "nowhere": np.zeros(pits.shape, bool)},
        {"std_f": pits + 1},
        diagnostics={name: np.asarray(value, dtype=float) for name, value in (diagnostics or {}).items()},
        failures=failures or {},
        provenance=[{"first": first}],
    )


@pytest.mark.parametrize(
    ("fall", "error", "status"),
    [
        ([0.0, 0.1, -3.0], 0.0, "ranked"),
        ([0.0, 0.11, -3.0], 0.0, "not converged"),
        ([0.0, 0.29, -3.0], 0.1, "ranked"),  # which chance explains
        ([0.0, 0.31, -3.0], 0.1, "not converged"),
        ([0.0, 0.0, 0.0], 0.26, "not converged"),  # nothing is known
        ([0.0, math.nan, 0.0], 0.0, "not converged"),
        ([*[0.0] * 19, 9.0], 0.0, "ranked"),  # one in twenty
        ([*[0.0] * 18, 9.0, 9.0], 0.0, "not converged"),
    ],
)
def test_a_loss_that_still_falls_is_not_converged(fall: list[float], error: float, status: str) -> None:
    """Seen to catch: the error forgotten, or added once; an unknown fall that counts as none; failed replicas judged;
    one replica of many that decides."""
    count, diagnostics = len(fall), {"loss fall": fall, "loss fall error": [error] * len(fall)}
    assert make([1.0] * count, diagnostics=diagnostics).status == status
    failed = {name: [*values, 9.0] for name, values in diagnostics.items()}
    assert make([1.0] * (count + 1), diagnostics=failed, failures={count: "diverged"}).status == status
    assert make([1.0] * count, kind="baseline", diagnostics=diagnostics).status == "baseline"
    # Chains are judged by their R-hat, whatever else they report.
    assert make([1.0] * count, rhat=[1.0] * count, diagnostics=diagnostics).status == "ranked"
    assert make([1.0] * count, diagnostics={"loss fall": fall}).status == "ranked"


@pytest.mark.parametrize(
    ("rhat", "status"),
    [
        ([1.0, 1.01, 1.05], "ranked"),
        ([1.0, 1.01, 1.051], "not converged"),
        ([1.0, math.inf, 1.0], "not converged"),
        ([1.0, math.nan, 1.0], "not converged"),
        ([math.nan] * 3, "ranked"),  # a method without chains
        ([1.0] * 19 + [1.2], "ranked"),
        ([1.0] * 18 + [1.2] * 2, "not converged"),
    ],
)
def test_convergence_decides_the_status(rhat: list[float], status: str) -> None:
    """All replicas but one in twenty must have converged; nan is not converged. One that failed has no say; a control
    is what it is. Seen to catch: the mean over replicas, `all` for 95 %, `not (rhat > limit)` (nan ranked), failed
    replicas' nan counted, a fixed limit."""
    assert RHAT_THRESHOLD == 1.05
    ones = np.ones(len(rhat))
    assert make(ones, rhat=rhat).status == status
    failed = dict.fromkeys((1, 2, 18, 19), "diverged")
    assert make(ones, rhat=rhat, failures=failed).status == "ranked"
    assert make(ones, rhat=rhat, kind="baseline").status == "baseline"
    assert make(ones, rhat=ones + 0.1, limit=1.11).status == "ranked"  # few draws have another limit
    assert make(ones, failures=dict.fromkeys(range(len(rhat)), "diverged")).status == "failed"


def test_what_is_valid() -> None:
    """The replicas that have a value: of a plain score, of pooled PITs in a region, of nothing that a control knows.
    Seen to catch: a score of another region, PITs of an empty region, nan counted, the oracle scored on f, the
    reference scored against itself."""
    result = make(np.arange(4.0), failures={2: "diverged"})
    for column in (("crps_y", "all"), ("crps_y", "gap"), ("pit_ks_y", "gap"), ("calibration_error_y", "all")):
        assert result.valid(column).tolist() == [0, 1, 3], column
    for column in (
        ("crps_y", "nowhere"),
        ("pit_ks_y", "nowhere"),
        ("pit_ks_y", "x"),
        ("pit_ks_f", "all"),
        ("rhat", "all"),
    ):
        assert result.valid(column).tolist() == [], column
    assert result.valid(("std_f", "all")).tolist() == [0, 1, 3]
    oracle = replace(result, kind="oracle")
    assert oracle.valid(("std_f", "all")).tolist() == [] and oracle.valid(("crps_y", "all")).tolist() == [0, 1, 3]
    w1 = {"reference_w1": {"all": np.ones(4)}}
    assert len(replace(result, scores=w1).valid(("reference_w1", "all"))) == 4
    assert len(replace(result, scores=w1, kind="reference").valid(("reference_w1", "all"))) == 0


def test_merged_blocks_are_the_whole() -> None:
    """Whatever their order: replicas sorted, and with them scores, PITs, regions, curves, diagnostics. Seen to catch:
    blocks in the order given, replicas sorted without their values, failures of the last block only."""
    crps = np.random.default_rng(0).random(13)
    failures = {2: "diverged", 11: "not finite"}

    def block(start: int, stop: int) -> Result:
        own = {replica: why for replica, why in failures.items() if start <= replica < stop}
        steps = {"steps": np.arange(start, stop)}
        return make(crps[start:stop], first=start, failures=own, diagnostics=steps, rhat=np.ones(stop - start))

    whole, joined = block(0, 13), merge([block(10, 13), block(0, 5), block(5, 10)])
    np.testing.assert_array_equal(joined.replicas, np.arange(13))
    for name in ("pits", "regions", "curves", "diagnostics"):
        ours, theirs = getattr(joined, name), getattr(whole, name)
        assert list(ours) == list(theirs)
        for key in theirs:
            np.testing.assert_array_equal(ours[key], theirs[key])
    pd.testing.assert_frame_equal(tidy([joined]), tidy([whole]))
    assert joined.failures == failures and joined.status == whole.status == "ranked"
    assert [run["first"] for run in joined.provenance] == [10, 0, 5]


def test_a_merge_keeps_what_all_blocks_have() -> None:
    """A block all of whose replicas failed lists scores that the method never has (R-hat of a method without chains).
    Seen to catch: a KeyError, the first block's names taken."""
    failed = make(np.zeros(2), rhat=np.ones(2), failures={0: "diverged", 1: "diverged"})
    sound = replace(make(np.ones(3), first=2), curves={})
    for parts in ([failed, sound], [sound, failed]):
        joined = merge(parts)
        assert "rhat" not in joined.scores and joined.curves == {} and joined.status == "ranked"
        assert joined.scores["crps_y"]["all"][2:].tolist() == [1, 1, 1]


def test_blocks_of_different_numbers_of_held_out_rows_are_merged() -> None:
    """The shorter is filled up with what counts for nothing. Seen to catch: a concatenation that fails, True or 0 as
    the filling, filling that is inside "all"."""
    joined = merge([make(np.ones(2), points=3), make(np.ones(2), points=5, first=2)])
    assert joined.pits["pit_y"].shape == (4, 5) and np.isnan(joined.pits["pit_y"][:2, 3:]).all()
    assert joined.inside("gap").sum(1).tolist() == [1] * 4
    assert len(joined.valid(("pit_ks_y", "gap"))) == len(joined.valid(("pit_ks_y", "all"))) == 4
    again = merge([joined, make(np.ones(1), points=6, first=4)])
    assert again.inside("all").sum(1).tolist() == [3, 3, 5, 5, 6]


def test_diagnostics_that_do_not_fit_are_unknown() -> None:
    """Of each replica, and nothing else is touched. Seen to catch: a vector cut to length, an exception, the diagnostic
    lost without a word."""
    bad = {"scalar": np.array(0.3), "chains": np.ones((3, 2)), "long": np.ones(4), "fine": np.arange(3)}
    result = make(np.ones(3), diagnostics=bad)
    assert {name: np.isnan(value).tolist() for name, value in result.diagnostics.items()} == {
        "scalar": [True] * 3,
        "chains": [True] * 3,
        "long": [True] * 3,
        "fine": [False] * 3,
    }
    assert len(merge([result, make(np.ones(2), first=3, diagnostics=bad)]).diagnostics["scalar"]) == 5
    assert len(tidy([result])) == 3 * (3 + 4)


def test_the_tidy_frame_has_every_number() -> None:
    """A line for each replica, region and score, the method's own diagnostics under "run", failed replicas marked. Seen
    to catch: values of one replica under another's number, the status of the method for that of a failed replica."""
    result = make([0.5, 0.25, 0.75], first=4, failures={5: "diverged"}, diagnostics={"steps": [1, 2, 3]})
    other = replace(make([9.0]), method="b", kind="baseline")
    frame = tidy([result, other])
    assert tuple(frame.columns) == COLUMNS
    own = frame[(frame["method"] == "a") & (frame["score"] == "crps_y") & (frame["region"] == "gap")]
    assert own["replica"].tolist() == [4, 5, 6] and own["status"].tolist() == ["ranked", "failed", "ranked"]
    np.testing.assert_array_equal(own["value"], [1.5, np.nan, 1.75])
    steps = frame[frame["score"] == "steps"]
    assert steps["value"].tolist() == [1, 2, 3] and set(steps["region"]) == {"run"}
    assert set(frame["status"][frame["method"] == "b"]) == {"baseline"}
    assert tuple(tidy([]).columns) == COLUMNS
