"""Coverage among the rows with low, middling and high values of a feature."""

from __future__ import annotations

import numpy as np
import pytest
from covmetrics import FSC
from scipy import stats

from gapbench.evaluation.conditional import groups, held, told, worst
from gapbench.evaluation.results import Result


def test_the_least_covered_group_is_the_kept_librarys() -> None:
    """Of each feature, the smallest coverage over its thirds. Seen to catch: thirds of the range, a mean of groups."""
    random = np.random.default_rng(0)
    x, inside = random.exponential(size=(300, 3)), random.random(300) < 0.85
    found = groups(x, x[:, 0], inside)
    assert len(found) == 9 and [one.coverage for one in found] == sorted(one.coverage for one in found)
    for feature in range(3):
        order = x[:, feature].argsort().argsort() // 100
        own = min(one.coverage for one in found if one.feature == feature)
        assert own == pytest.approx(FSC().evaluate(order, inside.astype(float)))
        assert {one.rows for one in found if one.feature == feature} == {100}


def test_equal_values_stay_together() -> None:
    """A flag makes two groups, a constant none. Seen to catch: a third that cuts a value in two."""
    flag = np.array([0.0] * 80 + [1.0] * 20)
    found = groups(np.stack([flag, np.ones(100)], 1), np.arange(100.0), np.arange(100) >= 10)
    assert [(one.part, one.rows, one.low, one.high) for one in found] == [("low", 80, 0, 0), ("high", 20, 1, 1)]
    assert found[0].coverage == pytest.approx(70 / 80) and not found[0].wrong


def test_rows_are_different_by_their_x_or_their_y() -> None:
    """Two hundred rows of a flag count 200 times, and a row that two splits hold out once. Seen to catch: rows of equal
    x taken for one, by which nothing could be wrong; every held-out row counted."""
    flag, y = np.repeat([[0.0], [1.0]], 200, 0), np.tile(np.arange(200.0), 2)
    twice = [np.concatenate([part, part]) for part in (flag, y)]
    for x, seen in ((flag, y), twice):
        low, high = groups(x, seen, np.tile(np.arange(200) % 4 > 0, len(x) // 200))
        band = tuple(end / 200 for end in stats.binom.interval(1 - 0.05 / 2, 200, 0.9))
        assert low.wrong and low.band == high.band == band


def test_chance_alone_is_not_wrong() -> None:
    """With right intervals some group is outside its band in at most 5 % of tables. Seen to catch: the band of one
    group."""
    random = np.random.default_rng(1)
    x = random.normal(size=(200, 10))
    tables = [any(one.wrong for one in groups(x, x[:, 0], random.random(200) < 0.9)) for _ in range(100)]
    assert np.mean(tables) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)  # 0.12; with the band of one group it is 0.37
    [one, *_] = groups(x, x[:, 0], x[:, 0] > -9)
    assert one.band == tuple(end / one.rows for end in stats.binom.interval(1 - 0.05 / 30, one.rows, 0.9))
    bad = groups(x, x[:, 0], (random.random(200) < 0.97) & ~((x[:, 4] > 0.5) & (random.random(200) < 0.5)))
    assert bad[0].feature == 4 and bad[0].part == "high" and bad[0].wrong


def test_rows_of_a_region_that_did_not_fail() -> None:
    """Seen to catch: failed replicas, another region, y outside counted as inside."""
    shape = (3, 4)
    curves = {
        "x_test": np.arange(24.0).reshape(3, 4, 2),
        "y_test": np.zeros(shape),
        "y_05": np.tile([-1.0, -1, 0.5, -1], (3, 1)),
        "y_95": np.tile([1.0, -0.5, 2, 1], (3, 1)),
    }
    region = np.tile([True, True, True, False], (3, 1))
    result = Result(
        "d", "m", "method", np.arange(3), {}, {"pit_y": np.zeros(shape)}, {"gap": region}, curves, failures={1: "why"}
    )
    rows = held(result, "gap")
    assert rows is not None
    np.testing.assert_array_equal(rows[2], [True, False, False] * 2)
    np.testing.assert_array_equal(rows[0], curves["x_test"][[0, 2]][:, :3].reshape(-1, 2))
    group = worst(result, "gap")
    assert group is not None and told(group, ["age"]).startswith(("age is", "feature 1 is"))
    pits = np.tile([0.04, 0.05, 0.95, 0.5], (3, 1))
    without = {"x_test": curves["x_test"]}
    by_pit = held(Result("d", "m", "method", np.arange(3), {}, {"pit_y": pits}, {"gap": region}, without), "gap")
    assert by_pit is not None and by_pit[2].tolist() == [False, True, True] * 3
    assert held(Result("d", "m", "method", np.arange(3), {}, {"pit_y": pits}, {"gap": region}), "gap") is None
