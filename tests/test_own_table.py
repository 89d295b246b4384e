"""One's own table: its splits, the answer, the page, predictions, and the command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from commands import gapbench
from scipy import stats

from gapbench.datasets.base import ProblemError
from gapbench.datasets.content import describe
from gapbench.datasets.own_table import OwnTable, sha256_of, with_a_gap
from gapbench.datasets.table_file import TableError
from gapbench.evaluation.answer import Judged, Place, choice, judge
from gapbench.evaluation.answer import answer as answered
from gapbench.evaluation.answer_page import page
from gapbench.evaluation.results import Result
from gapbench.runners.cli.main import main
from gapbench.runners.cli.own_table import OwnTable as OwnOptions
from gapbench.runners.own_table import suite_of
from gapbench.runners.suites import WHOLE, select

N = 90


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A table whose target depends on a, and less on b; c is nothing; k is a category; missing values in b."""
    random = np.random.default_rng(3)
    a, b, c = random.normal(size=(3, N)).round(3)
    frame = pd.DataFrame({"a": a, "b": b, "c": c, "flag": random.integers(0, 2, N), "k": ["u", "v", "w"] * (N // 3)})
    frame["y"] = (100 + 20 * np.sin(2 * a) + 5 * b + random.normal(0, 1, N)).round(3)
    frame["when"] = [f"2020-{1 + day // 28:02d}-{1 + day % 28:02d}" for day in random.permutation(N)]
    frame.loc[5, "b"] = np.nan
    frame.to_csv(tmp_path / "mine.csv", index=False)
    return tmp_path / "mine.csv"


def own(file: Path, **fields: object) -> OwnTable:
    common = {"path": str(file), "sha256": sha256_of(str(file)), "target": "y", "impute": True, "drop": ("when",)}
    return OwnTable(**{**common, **fields})  # type: ignore[arg-type]


# Splits ---------------------------------------------------------------------------------------------------------------


def test_random_splits(file: Path) -> None:
    """A tenth is held out, and nothing is in two parts; a number that is missing is the median of the training rows.
    Seen to catch: the median of all rows, the same rows in each split."""
    dataset = own(file)
    problems, table = dataset.problems(range(5)), dataset.table
    assert problems.x.shape == (5, 81, 7) and problems.x_test.shape == (5, 9, 7) and dataset.count is None
    assert problems.regions["data"].all() and list(problems.regions) == ["data"]
    for replica in range(5):
        both = torch.cat([problems.y[replica], problems.y_test[replica]])
        assert sorted(both.tolist()) == sorted(table.y.tolist())
        x = problems.x[replica, :, 1]
        at = int(np.flatnonzero(table.y[5] == both.numpy())[0])
        filled = torch.cat([problems.x[replica], problems.x_test[replica]])[at, 1]
        others = torch.cat([x[:at], x[at + 1 :]]) if at < 81 else x
        assert filled == pytest.approx(float(np.median(others.numpy())))
    assert len({tuple(part.tolist()) for part in problems.y_test}) == 5
    again = own(file).problems([3])
    assert torch.equal(again.x[0], problems.x[3]) and not torch.equal(dataset.problems([3], seed=1).x[0], problems.x[3])


def test_gap_splits(file: Path) -> None:
    """The middle third of a feature is nowhere in the training; a tenth of the other rows is held out beside it."""
    dataset = own(file, kind="gap", gaps=("a", "c"))
    problems = dataset.problems(range(2))
    assert dataset.count == 2 and not dataset.layout.sample
    for replica, column in enumerate((0, 2)):
        inside = problems.x_test[replica][problems.regions["gap"][replica], column]
        trained = problems.x[replica, :, column]
        assert len(inside) == 30 and problems.regions["data"][replica].sum() == 6
        assert not ((trained > inside.min()) & (trained < inside.max())).any()


def test_which_features_get_a_gap(file: Path) -> None:
    """Those that say most about the target first; no category, and nothing whose middle third is one value. Seen to
    catch: the order of the columns, a flag of 0 and 1 with many zeros."""
    table = own(file).table
    ranked = with_a_gap(table)
    assert list(ranked)[:2] == ["a", "b"] and "k = u" not in ranked and ranked["a"] > 0.5
    a = table.x[:, 0]
    bins = np.searchsorted(np.quantile(a, np.linspace(0.1, 0.9, 9)), a)
    within = sum(table.y[bins == one].var() * (bins == one).mean() for one in range(10))
    assert ranked["a"] == pytest.approx(1 - within / table.y.var())


def test_splits_by_time(file: Path) -> None:
    """Each window is trained on, and the rows after it are held out; rows of one day are on one side. Seen to catch: a
    window that sees its own future, a day cut in two."""
    dataset = own(file, kind="time", time="when", drop=())
    y, sorted_by_day = dataset.table.y, pd.read_csv(file).sort_values("when", kind="stable")
    np.testing.assert_array_equal(y, sorted_by_day["y"].to_numpy())
    for replica in range(5):
        part = dataset.problems([replica])
        first = 9 * replica
        np.testing.assert_array_equal(part.y[0].numpy(), y[first : first + 45])
        np.testing.assert_array_equal(part.y_test[0].numpy(), y[first + 45 : first + 54])
    frame = pd.read_csv(file)
    frame["when"] = [f"2020-01-{1 + row // 7:02d}" for row in range(N)]
    frame.to_csv(file, index=False)
    daily = own(file, kind="time", time="when", drop=())
    day = dict(zip(frame["y"], frame["when"], strict=True))
    for replica in range(5):
        part = daily.problems([replica])
        assert max(day[value] for value in part.y[0].tolist()) < min(day[value] for value in part.y_test[0].tolist())
    frame.assign(when="2020-01-01").to_csv(file, index=False)
    with pytest.raises(ProblemError, match="too few different times"):
        own(file, kind="time", time="when", drop=()).problems([0])


def test_splits_by_group(file: Path) -> None:
    """Every group is held out once, whole; folds are of about one size. Seen to catch: groups cut in two, a group that
    is held out twice, an overlap that is not test ÷ training rows."""
    frame = pd.read_csv(file)
    frame["k"] = [f"g{row % 17 if row < 60 else 17}" for row in range(N)]
    frame.to_csv(file, index=False)
    dataset, whose = own(file, kind="group", group="k"), dict(zip(frame["y"], frame["k"], strict=True))
    seen: list[str] = []
    for replica in range(5):
        part = dataset.problems([replica])
        trained, held = ({whose[value] for value in side[0].tolist()} for side in (part.y, part.y_test))
        assert not trained & held and part.y_test.shape[1] <= 30
        seen += held
    assert sorted(seen) == sorted(set(frame["k"])) and dataset.count == 5
    assert dataset.layout.overlap == pytest.approx(18 / 72)
    frame.assign(k=["u", "v", "w"] * (N // 3)).to_csv(file, index=False)
    assert suite_of(file, "y", ["when"], group="k", impute=True).tasks["mine_group_splits"].dataset.count == 3


def test_a_file_that_was_moved_is_the_same_table(file: Path, tmp_path: Path) -> None:
    """Seen to catch: the path in the key, so that everything is trained again, from other random numbers."""
    moved = tmp_path / "elsewhere.csv"
    moved.write_bytes(file.read_bytes())
    assert describe(own(file), "dataset") == describe(own(moved), "dataset") != describe(own(file, splits=7), "dataset")
    assert str(tmp_path) not in str(describe(own(file), "dataset"))


def test_a_file_that_changes_during_a_run_is_refused(file: Path) -> None:
    dataset = own(file)
    file.write_text(file.read_text(encoding="utf-8").replace("u,", "v,"), encoding="utf-8")
    with pytest.raises(TableError, match="it was changed since this run began"):
        dataset.problems([0])


def test_the_suite_of_a_file(file: Path) -> None:
    """All methods of `uci`; those that need all rows at once only if they are named, where there are many rows."""
    suite = suite_of(file, "y", ["when"], impute=True)
    random, in_gaps = "mine_random_splits", "mine_gap_splits"
    assert list(suite.tasks) == [random, in_gaps] and len(suite.methods) >= 8
    assert set(WHOLE) <= suite.methods.keys() and suite.tasks[in_gaps].dataset.count == 3
    frame = pd.concat([pd.read_csv(file)] * 30).assign(a=lambda part: part["a"] + np.arange(len(part)) / 1e6)
    frame.dropna().to_csv(file, index=False)
    large = suite_of(file, "y", ["when"])
    assert set(WHOLE) == large.on_request.keys() and not set(WHOLE) & large.methods.keys()
    assert any("need all" in note for note in large.notes)
    for gap, why in (
        ("k", "its values are words"),
        ("k = u", "to be a gap"),
        ("z", "no such feature: expected auto, all, none, or some of a"),
    ):
        with pytest.raises(TableError, match=why):
            suite_of(file, "y", ["when"], [gap])
    assert list(suite_of(file, "y", ["when"], group="k").tasks) == ["mine_group_splits"]
    two = suite_of(file, "y", ["when"], splits=2)
    stops = {one.dataset_name: one.stop for one in select(two, ["svi"]).cells(two.replicas, 0, two.block)}
    assert stops == {random: 2, in_gaps: 3}
    assert two.tasks[random].dataset == suite_of(file, "y", ["when"]).tasks[random].dataset
    with pytest.raises(TableError, match="--replicas 900: expected at most"):
        suite_of(file, "y", time="when", splits=900)


# The answer -----------------------------------------------------------------------------------------------------------


def judged(method: str, coverage: float, crps: float, rows: int = 200, status: str = "ranked") -> Judged:
    low, high = stats.binom.interval(0.95, rows, 0.9)
    return Judged(method, status, crps, coverage, (low / rows, high / rows), rows, 1.0, 1.0)


def test_verdicts() -> None:
    """By the band of the binomial law. Seen to catch: the band of another level, wide for narrow."""
    assert [judged("a", share, 1).verdict for share in (0.80, 0.88, 0.9, 0.93, 0.97)] == [
        "too narrow", "right", "right", "right", "too wide",
    ]  # fmt: skip
    assert judged("a", np.nan, 1).verdict == "n/a"


def test_the_choice() -> None:
    """The least CRPS in the gap, of methods that are nowhere too narrow; not one that did not converge. Seen to catch:
    the least CRPS of all, the held-out rows alone, a method without a gap."""
    held = Place("held-out rows", (judged("sharp", 0.9, 1), judged("good", 0.9, 2), judged("wide", 0.99, 5)))
    gap = Place("rows in a gap", (judged("sharp", 0.5, 1), judged("good", 0.9, 3), judged("wide", 0.99, 4)))
    best, why = choice([held, gap])
    assert best == "good" and "hold 90 % of 200" in why[1] and why[-1].endswith("in a gap: sharp.")
    assert choice([held])[0] == "sharp"
    narrow = Place("rows in a gap", (judged("sharp", 0.5, 1), judged("good", 0.7, 3), judged("wide", 0.6, 4)))
    best, why = choice([held, narrow])
    assert best == "good" and "every method's 90 % intervals are too narrow" in why[0]
    unsound = Place("held-out rows", (judged("a", 0.9, 1, status="not converged"),))
    assert choice([unsound]) == (None, ["No method is sound: see which failed or did not converge."])
    assert choice([])[0] is None


def test_coverage_is_over_rows() -> None:
    """Of splits of 10 and 30 rows, whose intervals hold 5 and 30: 35 of 40. Seen to catch: the mean over splits."""
    inside = np.zeros((2, 30), bool)
    inside[0, :10] = inside[1] = True
    result = Result(
        "group_splits", "m", "method", np.arange(2), {"coverage_90_y": {"data": np.array([0.5, 1.0])}},
        {"pit_y": np.zeros((2, 30))}, {"data": inside},
    )  # fmt: skip
    found = judge(result, "data")
    assert (found.rows, found.coverage) == (40, 35 / 40) and found.band[0] == stats.binom.ppf(0.025, 40, 0.9) / 40


def test_a_row_that_is_held_out_twice_counts_once() -> None:
    """In the band. Of right intervals on 200 rows of which 50 random splits hold out 20 each, 5 % are not "right", to 4
    standard errors; with every held-out row counted, 42 %. x has two values. Seen to catch: that, and rows of equal x
    taken for one, after which all are "right"."""
    random, wrong = np.random.default_rng(5), 0
    for _ in range(200):
        inside = random.random(200) < 0.9
        rows = np.stack([random.permutation(200)[:20] for _ in range(50)])
        pits = np.where(inside[rows], 0.5, 0.01)
        shares = {"coverage_90_y": {"data": inside[rows].mean(1)}}
        curves = {"x_test": (rows[..., None] % 2).astype(float), "y_test": rows.astype(float)}
        masks = {"data": np.ones(rows.shape, bool)}
        result = Result("random_splits", "m", "method", np.arange(50), shares, {"pit_y": pits}, masks, curves)
        wrong += judge(result, "data").verdict != "right"
    assert 0 < wrong / 200 < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200)


def test_the_page_escapes_and_needs_no_network() -> None:
    """Seen to catch: a column's name as HTML, a script, a link to elsewhere."""
    text = page(answered([]), "<b>t</b>", "a & b", "<y>", ["<script>x</script>: constant"], "run 'a' > b")
    assert "<b>t</b>" not in text and "&lt;script&gt;" in text and "a &amp; b" in text
    assert "<script" not in text and "http" not in text.replace("http-equiv", "") and "default-src 'none'" in text


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command(file: Path, tmp_path: Path) -> None:
    """From the file to an answer, its page, and predictions of new rows in the units of the target, by the command
    that it says, which leaves the page as it is. Seen to catch: predictions of standardised y, of one split, new rows
    in another order, a prediction for a word of which nothing was learned."""
    new = pd.DataFrame({"k": ["v"] * 3, "c": [0.0] * 3, "b": [0, 0, np.nan], "a": [-0.7, 0.0, 0.7], "flag": [0, 1, 0]})
    stranger = new.iloc[[1]].assign(k="zz")
    pd.concat([new[:1], stranger, new[1:]]).to_csv(tmp_path / "new.csv", index=False)
    words = ["run", "--csv", str(file), "--target", "y", "--drop", "when", "--impute", "median", "--jobs", "1"]
    words += ["--methods", "nngp,deep_ensemble", "--set", "deep_ensemble.steps=30", "--out", str(tmp_path / "out")]

    done = gapbench(tmp_path, *words)
    assert done.returncode == 0 and "Stopped" not in done.stderr, done.stderr
    assert "Use nngp." in done.stdout and "On rows in a gap" in done.stdout and "deep_ensemble[s" in done.stdout
    assert "k: 3 categories" in done.stderr and "b: 1 missing values" in done.stderr and "gaps in a, b" in done.stderr
    answer = (tmp_path / "out" / "answer.html").read_text(encoding="utf-8")
    assert "Use nngp" in answer and "deep_ensemble[steps=30]" in answer
    told = CliRunner().invoke(main, ["coverage", str(tmp_path / "out")])
    assert told.exit_code == 0 and re.search(r"nngp +(a|b|c|flag|k = \w) is ", told.stdout), told.output
    none = CliRunner().invoke(main, ["coverage", str(tmp_path / "out"), "--region", "nowhere"])
    assert none.exit_code == 2 and "no method has test rows there" in none.stderr

    said = next(line for line in done.stdout.splitlines() if line.startswith("Train it on all rows"))
    command = shlex.split(said.partition(": ")[2].replace("NEW.csv", str(tmp_path / "new.csv")))
    again = gapbench(tmp_path, *command[1:])
    assert again.returncode == 0 and "finished" not in again.stdout, again.stderr
    assert (tmp_path / "out" / "answer.html").read_text(encoding="utf-8") == answer
    cqr = OwnOptions(file, "y", (), (), None, None, None, None).command(
        "cqr[calibration=0.5]", ["cqr.calibration=0.5"], 3, None
    )
    assert cqr.endswith("--methods cqr --set cqr.calibration=0.5 --seed 3 --predict NEW.csv")
    assert "the table does not have k = 'zz': rows without a prediction: 1" in again.stderr
    found = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(found["row"]) == [1, 2, 3, 4] and found.iloc[1, 1:].isna().all()
    found = found.drop(index=1)
    assert list(found.columns[1:]) == ["mean", "std", "q05", "q25", "q50", "q75", "q95"]
    assert list(found["mean"]) == sorted(found["mean"]) and found["mean"].between(70, 130).all()
    assert (found["q05"] < found["q50"]).all() and (found["q50"] < found["q95"]).all() and (found["std"] > 0.3).all()

    other = file.rename(tmp_path / "another one.csv")  # in the same folder, it stands beside the first
    other.write_text(other.read_text(encoding="utf-8").replace("u,", "v,"), encoding="utf-8")
    words[words.index(str(file))], words[words.index("nngp,deep_ensemble")] = str(other), "nngp"
    del words[words.index("--set") : words.index("--set") + 2]
    assert gapbench(tmp_path, *words).returncode == 0
    both = CliRunner().invoke(main, ["table", str(tmp_path / "out")])
    assert both.exit_code == 0 and "mine_gap_splits: mean" in both.stdout, both.output
    assert "another_one_gap_splits: mean" in both.stdout and "not shown" not in both.output


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--target", "y"], "--target is of --csv FILE, which is missing"),
        (["--csv", "FILE"], r"which column is to be predicted\? --target one of: a, b, c, flag, k, y, when"),
        (["--csv", "FILE", "--target", "z"], "--target z: no such column"),
        (["--csv", "FILE", "--target", "y", "--suite", "quick"], "takes the place of --suite and --datasets"),
        (["--csv", "FILE", "--target", "y"], r"missing values in b \(1\): --impute median fills them"),
        (["--csv", "FILE", "--target", "y", "--impute", "median", "--gap", "k = u"], "--gap k = u: .* to be a gap"),
        (
            ["--csv", "FILE", "--target", "y", "--impute", "median", "--group", "k", "--time", "a"],
            "expected one of them",
        ),
    ],
)
def test_what_makes_no_sense(file: Path, words: list[str], why: str) -> None:
    """One line, and exit code 2, before anything is trained."""
    done = CliRunner().invoke(main, ["run", *(str(file) if word == "FILE" else word for word in words)])
    assert done.exit_code == 2
    assert re.search(why, done.stderr), done.stderr
