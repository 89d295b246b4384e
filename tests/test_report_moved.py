"""What moved between two folders: the statistics, what is known of the records, and the page."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from click.testing import Result as Ran
from scipy import stats

from gapbench.datasets.base import Layout
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.compare import holm
from gapbench.evaluation.controls import PriorPredictive, Truth
from gapbench.evaluation.moved import Number, change, lacking, moved, summary
from gapbench.evaluation.moved_page import page, words
from gapbench.evaluation.results import Column, Floats, Result, rounded
from gapbench.methods.engine.model import MLP
from gapbench.methods.mc_dropout import MCDropout
from gapbench.runners import publish, suites
from gapbench.runners.cli.main import main
from gapbench.runners.moved import changed, differing, same_data
from gapbench.runners.report import Origin
from gapbench.runners.store import Store

CRPS: Column = ("crps_y", "all")
TEN = np.arange(10)


def make(
    values: Mapping[Column, Floats] | Floats,
    method: str = "one",
    dataset: str = "sine",
    first: int = 0,
    layout: Layout = Layout("grid", 0),  # noqa: B008 it is frozen
    regions: Sequence[str] = (),
) -> Result:
    """A result whose headline has these columns; of an array, the CRPS alone."""
    by_column = values if isinstance(values, Mapping) else {CRPS: values}
    count = len(next(iter(by_column.values())))
    scores: dict[str, dict[str, Floats]] = {}
    for (name, region), numbers in by_column.items():
        scores.setdefault(name, {})[region] = np.asarray(numbers, float)
    masks = {name: np.ones((count, 2), bool) for name in regions}
    pits = {"pit_y": np.tile([0.25, 0.75], (count, 1))}
    return Result(
        dataset, method, "method", first + np.arange(count), scores, pits, masks, {}, layout, tuple(by_column)
    )


def judge(a: Result | Sequence[Result], b: Result | Sequence[Result], same: int = 10) -> list[Number]:
    """The numbers of two folders whose first replicas have the same data."""
    left, right = ([one] if isinstance(one, Result) else list(one) for one in (a, b))
    places = [(one.dataset, one.method) for one in left]
    return moved(left, right, dict.fromkeys(places, frozenset(range(same))))


# Statistics -----------------------------------------------------------------------------------------------------------


def test_differences_are_those_of_scipy() -> None:
    """Seen to catch: A − B, one-sided p, a normal law's interval, equal variances, n in place of n − 1, the freedom of
    one of the two samples."""
    random = np.random.default_rng(0)
    a, b = random.standard_normal(9), 0.5 + 3 * random.standard_normal(9)
    paired, p = change(a, b, True)
    theirs = stats.ttest_rel(b, a)
    ends = theirs.confidence_interval(0.95)
    np.testing.assert_allclose([paired.value, paired.low, paired.high, p], [(b - a).mean(), *ends, theirs.pvalue])
    unpaired, p = change(a[:6], b, False)
    welch = stats.ttest_ind(b, a[:6], equal_var=False)
    ends = welch.confidence_interval(0.95)
    np.testing.assert_allclose(
        [unpaired.value, unpaired.low, unpaired.high, p], [b.mean() - a[:6].mean(), *ends, welch.pvalue]
    )
    assert change(a, a + 0.5, True)[1] < 1e-12  # equal up to rounding: no scale, and no warning
    assert change(np.ones(3), np.ones(4), False)[1] == 1.0


def test_holm_is_its_definition() -> None:
    """A hypothesis is rejected at a level if, of the sorted p, it and all before are below level ÷ tests that are left.
    Seen to catch: Bonferroni, Hochberg's step up, no running maximum, the order of the sorted p kept."""
    random = np.random.default_rng(1)
    for p in (random.uniform(0, 0.05, 7), np.array([0.01, 0.01, 0.03, 0.03]), np.array([0.9, 0.8])):
        for level in (0.01, 0.05, 0.1, 0.2, 0.9):
            rejected = set[int]()
            for left, at in zip(range(len(p), 0, -1), np.argsort(p, kind="stable"), strict=True):
                if p[at] > level / left:
                    break
                rejected.add(int(at))
            assert rejected == set(np.flatnonzero(holm(p) <= level))
    assert len(holm([])) == 0


@pytest.mark.parametrize("paired", [True, False])
def test_if_nothing_changed_one_pair_of_folders_in_twenty_has_a_number_that_moved(paired: bool) -> None:
    """In 150 pairs of folders with 8 numbers each, of skewed scores; paired ones share the data, which matter more than
    the training. Seen to catch: no correction, pairs compared as two samples, an interval that is not of its level."""
    random, said, covered = np.random.default_rng(2), 0, 0.0
    for _ in range(150):
        data = random.standard_normal((8, 10))
        other = data if paired else random.standard_normal((8, 10))
        sides = [
            [
                make(np.exp(0.5 * (own[at] + 0.3 * random.standard_normal(10))), f"m{at % 3}", f"d{at // 3}")
                for at in range(8)
            ]
            for own in (data, other)
        ]
        numbers = judge(*sides, same=10 if paired else 0)
        said += any(one.verdict == "moved" for one in numbers)
        covered += np.mean([one.difference.low <= 0 <= one.difference.high for one in numbers])
        assert all(one.verdict in ("moved", "noise") for one in numbers)
    assert 0.01 < said / 150 < 0.1
    assert covered / 150 == pytest.approx(0.95, abs=0.02)


def test_pairs_find_what_two_means_cannot() -> None:
    """A shift much smaller than what the data decide. Seen to catch: replicas paired by position in place of number,
    pairs of other data, the replicas of one folder alone in the means, fewer than three pairs tested."""
    random = np.random.default_rng(3)
    base = 2 + random.standard_normal(12) ** 2
    a, b = make(base), make(base[3:] + 0.1 + 0.01 * random.standard_normal(9), first=3)
    (found,) = judge(a, b, same=12)
    assert found.verdict == "moved" and found.basis == "9 pairs of 12 and 9 replicas"
    assert found.difference.low < 0.1 < found.difference.high
    assert found.a == pytest.approx(base[3:].mean()) and found.b - found.a == pytest.approx(found.difference.value)
    (found,) = judge(a, b, same=5)
    assert found.verdict == "noise" and found.basis == "12 and 9 replicas, not paired"
    assert found.a == pytest.approx(base.mean())


def test_verdicts_without_a_test() -> None:
    """Seen to catch: float64 compared with what is published, rounded; the last bit overlooked, tolerance of the mean
    in place of each replica, a mean over infinite values judged, splits of one table compared as two samples, a pooled
    score, two replicas tested."""
    values = 1 + TEN / 7

    def verdict(a: Result, b: Result, same: int = 10) -> tuple[str, str]:
        (found,) = judge(a, b, same)
        return found.verdict, found.basis

    nudged, swapped = values.copy(), values.copy()
    nudged[3] = np.nextafter(nudged[3], 2)
    swapped[:2] += [0.01, -0.01]
    assert verdict(make(values), make(values)) == ("same bits", "10 pairs")
    assert verdict(make(values), make(rounded(values).astype(float)))[0] == "same bits"
    assert verdict(make(values), make(nudged))[0] == "within tolerance"
    assert verdict(make(values), make(1.0009 * values))[0] == "within tolerance"
    assert verdict(make(values), make(swapped))[0] == "noise"
    assert verdict(make(values[:2]), make(values[:2]))[0] == "same bits"
    assert verdict(make(values[:2]), make(values[:2] + 1)) == ("not tested", "2 pairs: too few to test")
    assert verdict(make(values), make(values), same=0) == ("noise", "10 and 10 replicas, not paired")
    nan, infinite = np.full(10, np.nan), np.where(TEN == 2, np.inf, values)
    assert verdict(make(values), make(nan)) == ("not tested", "only A has it")
    assert verdict(make(nan), make(values)) == ("not tested", "only B has it")
    assert judge(make(nan), make(nan)) == []
    assert verdict(make(values), make(infinite)) == ("not tested", "10 pairs: a value is infinite")
    assert verdict(make(infinite), make(infinite))[0] == "same bits"
    assert verdict(make(1e300 * values), make(1.0001e300 * values))[0] == "within tolerance"
    for layout in (Layout(overlap=0.1), Layout(sample=False)):
        splits = [make(part, layout=layout) for part in (values, values[::-1])]
        assert verdict(splits[0], splits[1])[0] == "noise"
        assert "they share rows, or are all that there are" in verdict(splits[0], splits[1], same=0)[1]
    pooled = [replace(make(values, regions=["all"]), summary=(("pit_ks_y", "all"),)) for _ in range(2)]
    assert "one number of all replicas together has no test" in verdict(pooled[0], pooled[1])[1]


def test_what_moved_most_stands_first() -> None:
    """In its own size. Seen to catch: the order of p, of differences in units, the smallest first, same bits first."""
    random = np.random.default_rng(4)
    base = 1 + random.uniform(0, 0.1, 10)
    shifts = {"large": 100.0, "small": 1.0, "same": 1.0, "noise": 1.0}
    a = [make(size * base, name) for name, size in shifts.items()]
    b = [
        make(101 * base, "large"),
        make(1.5 * base + random.uniform(0, 0.3, 10), "small"),
        make(base, "same"),
        make(base + random.normal(0, 0.3, 10), "noise"),
    ]
    found = judge(a, b)
    assert [one.method for one in found] == ["small", "large", "noise", "same"]
    said = "2 of 4 numbers moved; noise: 1, same bits: 1."
    assert summary(found) == said and summary([]) == "A and B have no number in common."


def test_what_only_one_has_is_said() -> None:
    """Seen to catch: A and B exchanged, regions of other datasets, methods of a dataset that only one has."""
    a = [make(TEN, "x"), make(TEN, "y"), make(TEN, dataset="old"), make(TEN, dataset="both", regions=["gap"])]
    b = [make(TEN, "y"), make(TEN, dataset="both", regions=["data"]), make(TEN, "z", "new")]
    assert lacking(a, b) == [
        "Datasets that only A has: old.",
        "sine: methods that only A has: x.",
        "both: regions that only A has: gap.",
        "Datasets that only B has: new.",
        "both: regions that only B has: data.",
    ]
    assert lacking(a, a) == []


# Records --------------------------------------------------------------------------------------------------------------


def origin(*blocks: tuple[int, int, str], **more: Any) -> Origin:
    """An origin with these blocks: first, stop, hash."""
    content = {"class": "A", "fields": {"lr": 1, "inner": {"class": "B", "fields": {"k": 2}}}}
    shared = {"method": {"content": content, "code": "c" * 64}, "model": "m", "seed": 0, "metrics": 5, **more}
    data = more.pop("data", "d")
    shared.pop("data", None)
    return Origin(
        [
            {**shared, "dataset": {"content": data, "sha256": sha256}, "block": [first, stop], "references": None}
            for first, stop, sha256 in blocks
        ],
        [],
    )


def test_the_same_data_are_of_one_dataset_seed_and_hash() -> None:
    """Seen to catch: the hash overlooked, hashes of other blocks compared, the seed overlooked, the dataset overlooked,
    replicas that only one of them has."""
    a = origin((0, 2, "p"), (2, 4, "q"))
    assert same_data(a, a) == {0, 1, 2, 3}
    assert same_data(a, origin((0, 2, "p"), (2, 4, "other"))) == {0, 1}
    assert same_data(a, origin((1, 9, "r"))) == {1, 2, 3}
    assert same_data(a, origin((0, 4, "p"), seed=1)) == same_data(a, origin((0, 4, "p"), data="e")) == set()


def test_what_is_not_the_same_is_named() -> None:
    """Seen to catch: each of the names left out, a field without its path, another class compared field by field."""
    a = origin((0, 2, "p"))
    assert dict(changed(a, origin((0, 2, "p")))) == {}
    other = {"class": "A", "fields": {"lr": 1, "inner": {"class": "B", "fields": {"k": 3, "new": 4}}}}
    b = origin((0, 2, "q"), method={"content": other, "code": "e" * 64}, model="n", seed=1, metrics=6, data="e")
    assert dict(changed(a, b)) == {
        "settings": "inner.k: 2 → 3, inner.new: none → 4",
        "dataset": "d → e",
        "network": "m → n",
        "seed": "0 → 1",
        "scores' definitions": "5 → 6",
        "code": "cccccccc → eeeeeeee",
        "data": "the same replicas have other numbers",
    }
    referred = Origin([{**a.identity, "references": ["r"]}], [])
    assert dict(changed(a, referred)) == {"references": "other reference posteriors"}
    assert list(differing({"class": "A", "fields": {"k": 1}}, {"class": "B", "fields": {"k": 1}})) == [
        "A(k=1) → B(k=1)"
    ]


# The page, and the command --------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """The words of a page."""
    return html.unescape(
        " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*</style>", "", text, flags=re.DOTALL)).split())
    )


def test_the_numbers_are_written_in_their_units() -> None:
    """By hand. Seen to catch: the log of a ratio shown, shares as fractions, an interval of nothing, the region left
    out."""
    ratio: Column = ("reference_log_std", "gap")
    share: Column = ("coverage_90_y", "data")
    jitter = 1 + 1e-2 * np.cos(TEN)
    a = make({ratio: np.log(0.5 * jitter), share: 0.9 * jitter, CRPS: jitter})
    b = make({ratio: np.log(1.0 * jitter**2), share: 0.8 * jitter, CRPS: jitter})
    by_heading = {
        line[2]: line for line in (words(one, {("sine", "one"): {"code": "", "seed": ""}}) for one in judge(a, b))
    }
    assert by_heading["std ÷ posterior's · gap"][3:5] == ("0.5", "1")
    assert re.fullmatch(r"× 2(\.00)? \[1\.99, 2\.01\]", by_heading["std ÷ posterior's · gap"][5])
    assert by_heading["90 % has y · data"][3:5] == ("90 %", "80 %")
    assert re.fullmatch(r"-10 points \[-10\.1, -9\.9\d?\]", by_heading["90 % has y · data"][5])
    assert by_heading["CRPS of y · all"][5:] == ("", "10 pairs", "code, seed")


def test_no_name_is_markup_and_nothing_is_loaded() -> None:
    """Seen to catch: autoescape off, a hash of another text, a script."""
    evil = "</style><script>alert(1)</script>"
    a, b = make(1 + TEN, evil, evil), make(2 + TEN**2, evil, evil)
    text = page((evil, "b"), judge(a, b), [evil], {(evil, evil): {"code": evil}}, [(evil, evil)], [evil])
    assert "<script" not in text and text.count("&lt;script&gt;") >= 8
    assert not re.search(r"https?:|\bsrc=|@import|url\(|\bstyle=", text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'; base-uri" in text


@pytest.fixture
def gapbench(in_this_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """The command line in an empty folder, with a suite of milliseconds; steps=…: of its method."""
    monkeypatch.setattr(suites, "CONTROLS", {"prior": PriorPredictive(4), "truth": Truth()})
    monkeypatch.chdir(tmp_path)

    def call(*argv: object, steps: int = 3) -> Ran:
        tasks = {"sine": suites.Task(GappedSine(n=12, noise_std=0.1, test_points=13), MLP(hidden=(4,)))}
        suite = suites.Suite("tiny", tasks, {"dropout": MCDropout(steps=steps, draws=8)}, 4, block=2)
        monkeypatch.setattr(suites, "suites", lambda: {"default": suite})
        return CliRunner().invoke(main, [str(arg) for arg in argv], prog_name="gapbench")

    return call


def test_the_command_compares_local_and_published_folders(
    gapbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to catch: settings of the wrong folder, seeds compared in pairs, a published folder that is never the same
    bits, damage that is not told, more than two folders, a page beside published files."""
    run = ("run", "--device", "cpu", "--jobs", 1, "-q", "--out")
    for folder, more, steps in (("a", (), 3), ("b", (), 40), ("c", ("--seed", 1), 3)):
        assert gapbench(*run, folder, *more, steps=steps).exit_code == 0
    monkeypatch.setattr("gapbench.evaluation.plots.plot", lambda *words, **more: SimpleNamespace(paths=[]))
    monkeypatch.setattr(publish, "page", lambda *words: "")
    publish.publish(tmp_path / "a", tmp_path / "published" / "a")

    ran = gapbench("report", "a", "published/a")
    path = tmp_path / "a-a-moved.html"
    assert ran.exit_code == 0 and ran.stdout == f"{path}\n"
    text = plain(path.read_text(encoding="utf-8"))
    assert re.search(r"None of (\d+) numbers moved; same bits: \1\.", text)
    assert f"A is {tmp_path.name}/a , B is published/a ." in text
    assert "Code, settings, data and seeds of all that both have are the same." in text
    assert "the same kind of machine, with the same versions and commit" in text

    assert gapbench("report", "a", "b", "--out", "x.html").exit_code == 0
    text = plain(Path("x.html").read_text(encoding="utf-8"))
    assert "dropout sine settings steps: 3 → 40" in text and "sine seed" not in text
    assert "4 pairs" in text and "not paired" not in text
    ran = gapbench("report", "published/a", "c", "--out", "x.html", "--debug")
    assert ran.exit_code == 0, ran.output
    text = plain(Path("x.html").read_text(encoding="utf-8"))
    assert "dropout sine seed 0 → 1" in text and "4 and 4 replicas, not paired" in text
    assert not re.search(r"\d pairs", text)

    for argv in (("a", "b", "c"), ("a", "b", "--watch"), ("a", "b", "--out", tmp_path)):
        assert gapbench("report", *argv).exit_code == 2
    assert gapbench("report", "a", "nowhere").exit_code == 3
    store = Store(tmp_path / "a")
    store.path(store.keys()[0]).write_text("{}")
    ran = gapbench("report", "a", "published/a")
    assert ran.exit_code == 1 and "Left out: " in ran.stderr
    text = plain(path.read_text(encoding="utf-8"))
    assert "A: left out: " in text and "those of one folder cannot all be read" in text
