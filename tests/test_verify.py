"""`verify`: cells that are run again, and how it tells what is as recorded from what is not."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gapbench.datasets.base import Layout
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.controls import PriorPredictive, Truth
from gapbench.evaluation.likeness import Likeness, likeness
from gapbench.evaluation.results import Result
from gapbench.methods.base import FittedMethod
from gapbench.methods.engine.model import MLP
from gapbench.methods.mc_dropout import MCDropout
from gapbench.runners import publish, suites
from gapbench.runners.cli.main import main
from gapbench.runners.store import Record, Store, key_of, sha256
from gapbench.runners.verify import sample


@dataclass(frozen=True)
class Moody(MCDropout):
    """Raises when it is told to; its code and settings stay as they are."""

    def fit(self, *args: Any) -> FittedMethod:
        if MOOD:
            raise ValueError("not today")
        return super().fit(*args)


MOOD: list[str] = []


@pytest.fixture(autouse=True)
def tiny(in_this_process: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Suites of milliseconds, in this process, in an empty folder, and no waiting for the disk."""
    data = {"sine": GappedSine(n=12, noise_std=0.1, test_points=13), "quiet": GappedSine(n=12, test_points=13)}
    tasks = {name: suites.Task(dataset, MLP(hidden=(4,))) for name, dataset in data.items()}
    methods = {"dropout": Moody(steps=3, draws=4), "ensemble": MCDropout(rate=0.5, steps=3, draws=4)}
    other = {**methods, "dropout": MCDropout(steps=4, draws=4)}
    slow = {"slow": MCDropout(steps=5, draws=4)}
    made = {
        "default": suites.Suite("about default", tasks, methods, 3, on_request=slow, block=2),
        "other": suites.Suite("about other", {"sine": tasks["sine"]}, other, 3),
    }
    monkeypatch.setattr(suites, "suites", lambda: made)
    monkeypatch.setattr(suites, "CONTROLS", {"prior": PriorPredictive(4), "truth": Truth()})
    monkeypatch.chdir(tmp_path)
    MOOD.clear()


def gapbench(*argv: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [str(arg) for arg in argv], prog_name="gapbench")


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the suite default, cells of two replicas and of one; made once and copied."""
    if not RAN:
        RAN.append(tmp_path_factory.mktemp("ran") / "default")
        result = gapbench("run", "--device", "cpu", "--jobs", 1, "--out", RAN[0], "-q")
        assert result.exit_code == 0, result.output
    shutil.copytree(RAN[0], "default")
    return Path("default").absolute()


RAN: list[Path] = []


def verdicts(result: click.testing.Result) -> dict[str, str]:
    """Cell -> verdict and what follows, from the lines on standard output."""
    lines = re.findall(r"^(.* · replicas \S+): (.*)$", result.stdout, re.MULTILINE)
    assert result.exit_code in (0, 1) and len(lines) == len(dict(lines)) == len(result.stdout.splitlines()) - 1
    return dict(lines)


def verify(*argv: object) -> click.testing.Result:
    return gapbench("verify", "--device", "cpu", "--jobs", 1, *argv)


def files(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def rewritten(store: Store, name: str, change: Callable[[dict[str, Any]], None], **identity: Any) -> tuple[str, Record]:
    """A sound record in place of the one of a method's first block on sine, with its points changed."""
    (old,) = (
        one
        for one in store.records()
        if (one.identity["method"]["name"], one.identity["dataset"]["name"]) == (name, "sine")
        and one.identity["block"][0] == 0
    )
    points = store.arrays(old.arrays["points"])
    change(points)
    new = replace(
        old,
        identity={**old.identity, **identity},
        arrays={**old.arrays, "points": store.save(points)},
    )
    store.path(key_of(old.identity)).unlink()
    store.write(key_of(new.identity), new)
    return key_of(new.identity), new


def test_what_is_as_recorded_has_the_same_bits(folder: Path) -> None:
    """Of every cell, also the last block, which is smaller, and nothing of the folder is changed. Seen to catch: cells
    of the first blocks alone, records of controls left out, methods on request left out, the temporary folder left
    behind."""
    assert gapbench("run", "--device", "cpu", "--jobs", 1, "--out", "default", "-q", "--methods", "slow").exit_code == 0
    before, temporary = files(folder), set(Path("/tmp").glob("gapbench-verify-*"))
    result = verify(folder, "--sample", "all")
    found = verdicts(result)
    assert result.exit_code == 0 and len(found) == 2 * 2 * 4 + 2  # quiet data have no truth
    assert set(found.values()) == {"same bits: 2 files of arrays have the same hashes"}
    assert {"sine · slow · replicas 2–2", "quiet · prior · replicas 0–1"} <= found.keys()
    assert result.stdout.endswith("18 cells: 18 same bits\n")
    assert files(folder) == before and set(Path("/tmp").glob("gapbench-verify-*")) == temporary


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda points: _times(points["point rmse_f"][1], 1 + 1e-6), "within tolerance: .* 1.0e-06 .*(rmse_f · "),
        (lambda points: _times(points["point rmse_f"][1], 1.1), "statistically alike: .* 9.1e-02 .*(rmse_f · "),
        (lambda points: _times(points["point rmse_f"][1], np.nan), "different: rmse_f · .* in one of the runs alone"),
        (
            lambda points: np.add(points["point crps_y"], 1, out=points["point crps_y"]),
            "different: crps_y · gap moved by -1,",
        ),
    ],
    ids=["rounding", "one replica", "nan", "all replicas"],
)
def test_a_changed_number_is_seen(folder: Path, change: Callable[[dict[str, Any]], None], words: str) -> None:
    """In a sound record. Seen to catch: only the first replica looked at, only the headline, nan equal to anything,
    exit code 0, old − new."""
    rewritten(Store(folder), "ensemble", change)
    result = verify(folder, "--sample", "all", "--methods", "ensemble")
    found = verdicts(result)
    assert len(found) == 4 and result.exit_code == words.startswith("different")
    assert re.match(words.replace("(", "[(]"), found.pop("sine · ensemble · replicas 0–1"))
    assert all(words.startswith("same bits") for words in found.values())


def _times(values: Any, factor: float) -> None:
    values *= factor


def test_what_has_changed_since_is_told(folder: Path) -> None:
    """Seen to catch: a record of other code not found, the code of the record told as changed for all."""
    store = Store(folder)
    (old,) = (
        one
        for one in store.records()
        if one.identity["method"]["name"] == "dropout"
        and one.identity["dataset"]["name"] == "sine"
        and one.identity["block"][0] == 0
    )
    method = {**old.identity["method"], "code": "0" * 64}
    rewritten(store, "dropout", lambda points: None, method=method, metrics=4)
    found = verdicts(verify(folder, "--sample", "all", "--methods", "dropout"))
    assert found.pop("sine · dropout · replicas 0–1") == (
        "same bits: 2 files of arrays have the same hashes; changed since: the code, the scores' definitions"
    )
    assert not any("changed since" in words for words in found.values())


def test_what_is_of_no_cell_of_the_suite_is_counted(folder: Path) -> None:
    """Another setting, another suite, and an older version of a cell. Seen to catch: methods matched by name alone,
    the older version run, nothing said of the rest."""
    again = ("run", "--device", "cpu", "--jobs", 1, "--out", "default", "-q", "--methods", "dropout")
    assert gapbench(*again, "--set", "dropout.rate=0.3").exit_code == 0
    store = Store(folder)
    _, newest = rewritten(store, "dropout", lambda points: None)
    older = replace(
        newest,
        identity={**newest.identity, "method": {**newest.identity["method"], "code": "0" * 64}},
        provenance={**newest.provenance, "finished": "2000"},
    )
    store.write(key_of(older.identity), older)
    result = verify(folder, "--sample", "all")
    found = verdicts(result)
    assert result.exit_code == 0 and "changed since" not in result.stdout and len(found) == 14
    assert "Left out: 5 records that are of no cell of suite default" in result.stderr
    other = verify(folder, "--suite", "other", "--sample", "all")
    assert set(verdicts(other)) == {
        f"sine · {name} · replicas {block}" for name in ("ensemble", "prior", "truth") for block in ("0–1", "2–2")
    }
    nothing = verify(folder, "--suite", "other", "--methods", "dropout")
    assert nothing.exit_code == 3 and nothing.stdout == ""
    assert "Error: " in nothing.stderr and "no record there is of a cell of suite other" in nothing.stderr


def test_a_cell_that_fails_and_a_damaged_record_are_told(folder: Path) -> None:
    """Exit code 1, and the rest is looked at. Seen to catch: the damaged arrays found by no one (their hash is in the
    record), the record set aside."""
    store = Store(folder)
    keys = {(one.identity["method"]["name"], one.identity["dataset"]["name"]): one for one in store.records()}
    array = store.root / "arrays" / f"{keys['prior', 'quiet'].arrays['predictions']}.npz"
    array.write_bytes(array.read_bytes()[:-1])
    path = store.path(key_of(keys["truth", "sine"].identity))
    path.write_bytes(path.read_bytes()[:-1])
    before = files(folder)
    MOOD.append("bad")
    result = verify(folder, "--sample", "all")
    found = Counter(words.partition(": ")[0] for words in verdicts(result).values())
    assert result.exit_code == 1 and files(folder) == before
    assert found == {"failed": 5, "same bits": 8} and f"Left out: {path}" in result.stderr
    assert result.stdout.count("failed: ValueError: not today") == 4
    assert f"failed: its record is no use: Damaged: {array}" in result.stdout


def test_a_published_folder_is_verified_by_its_scores(folder: Path, blank_figures: None) -> None:
    """Rounded as published, block by block; the suite is that of its manifest. Seen to catch: float64 compared, the
    whole result compared with one block, the suite taken from the folder's name."""
    publish.publish(folder, Path("published/default"))
    Path("published/default").rename("published/elsewhere")
    result = verify("published/elsewhere", "--sample", "all")
    found = verdicts(result)
    assert result.exit_code == 0 and len(found) == 14
    assert all(
        re.fullmatch(r"same bits: \d+ scores of each replica are the same, rounded as published", w)
        for w in found.values()
    )
    scores, manifest = Path("published/elsewhere/scores.parquet"), Path("published/elsewhere/manifest.json")
    frame = pd.read_parquet(scores)
    at = frame.query("dataset == 'sine' and method == 'ensemble' and replica == 2 and score == 'crps_y'").index[0]
    frame.loc[at, "value"] = np.float32(frame.loc[at, "value"] * (1 + 2**-16))
    sink = io.BytesIO()
    frame.to_parquet(sink, index=False)
    scores.write_bytes(sink.getvalue())
    words = json.loads(manifest.read_text())
    words["sha256"]["scores.parquet"] = sha256(sink.getvalue())
    manifest.write_text(json.dumps(words))
    found = verdicts(verify("published/elsewhere", "--sample", "all"))
    assert found.pop("sine · ensemble · replicas 2–2").startswith("within tolerance: scores differ by at most ")
    assert all(words.startswith("same bits") for words in found.values())


def test_a_folder_that_names_no_suite_is_one_line(folder: Path) -> None:
    """Seen to catch: the default suite taken."""
    folder.rename("mine")
    result = verify("mine")
    assert result.exit_code == 2 and "'mine' is no suite: --suite says whose cells these are" in result.stderr
    assert verify("mine", "--suite", "default", "--sample", 1).exit_code == 0
    for words, code in ((("nowhere", "--suite", "default"), 3), (("mine", "--suite", "zzz"), 2)):
        assert verify(*words).exit_code == code
    for bad in ("0", "-1", "many", "", "1.5"):
        assert verify("mine", f"--sample={bad}").exit_code == 2
    assert "did you mean dropout" in verify("mine", "--suite", "default", "--methods", "dropuot").stderr


def test_every_cell_is_as_likely_drawn() -> None:
    """Seen to catch: the first ones taken, the same draw for every seed, one drawn twice."""
    counts = Counter[int]()
    for seed in range(2000):
        drawn = sample(range(20), 5, seed)
        assert len(set(drawn)) == 5 and drawn == sorted(drawn) == sample(range(20), 5, seed)
        counts.update(drawn)
    assert all(abs(counts[at] - 500) < 4.5 * np.sqrt(2000 * 0.25 * 0.75) for at in range(20))
    assert sample(range(20), None, 0) == list(range(20)) == sample(range(20), 99, 0)


# Likeness ------------------------------------------------------------------------------------------------------------


def result(crps: Any, failures: tuple[int, ...] = (), kind: str = "crps_y") -> Result:
    values = np.array(crps, float)
    nothing = np.zeros((len(values), 1))
    return Result(
        "sine",
        "svi",
        "method",
        np.arange(len(values)),
        {kind: {"all": values}},
        {"pit_y": nothing, "pit_f": nothing},
        {},
        layout=Layout(),
        summary=((kind, "all"),),
        failures=dict.fromkeys(failures, "diverged"),
    )


def verdict(old: Any, new: Any) -> str:
    return likeness(result(old), result(new)).verdict


def test_the_tolerance_is_of_a_score_s_size() -> None:
    """Seen to catch: an absolute tolerance, one of the value alone (near 0 nothing agrees), no floor for scores that
    are 0, a score of which the old run had none."""
    for unit in (1e-6, 1.0, 1e6):
        assert verdict([unit, 2 * unit], [unit * 1.0009, 2 * unit]) == "within tolerance"
        assert verdict([unit, 2 * unit], [unit, 2 * unit * 1.0012]) != "within tolerance"
        assert verdict([1e-5 * unit, unit], [2e-5 * unit, unit]) == "within tolerance"
    assert verdict([0.0, 0.0], [1e-17, 0.0]) == "within tolerance"
    assert verdict([np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0]) == "within tolerance"
    for value in (np.inf, -np.inf, 1.0):
        assert verdict([np.nan, 1.0, 1.0], [value, 1.0, 1.0]) == "different"
    assert verdict([np.nan, np.nan], [1.0, 2.0]) == "within tolerance"  # it was not scored
    assert verdict([1.0, 2.0], [np.nan, np.nan]) == "different"
    assert verdict([np.inf, 1.0, 1.0], [-np.inf, 1.0, 1.0]) == "different"


@pytest.mark.parametrize("replicas", [3, 10])
def test_two_trainings_of_one_law_are_rarely_told_apart(replicas: int) -> None:
    """As rarely as a normal number is more than 3 stds from 0: 0.27 %, 5.4 of 2,000. Replicas differ a hundred times
    more than trainings of the same replica, and a shift of three stds of these is found with ten replicas. Seen to
    catch: 3 standard errors whatever the number of replicas, differences that are not paired, another level."""
    rng = np.random.default_rng(replicas)
    told = found = 0
    for _ in range(2000):
        data = 100 + 100 * rng.random(replicas)
        old, new = data + rng.standard_normal((2, replicas))
        told += verdict(old, new) == "different"
        found += verdict(old, new + 3) == "different"
    assert 1 <= told <= 15
    assert replicas == 3 or found > 1000


def test_the_verdict_is_that_of_the_paired_t_test() -> None:
    """scipy's own, at the level that all scores of the headline share. Seen to catch: the std with n in place of n − 1,
    the whole level for each score."""
    rng, seen = np.random.default_rng(0), Counter[bool]()
    for _ in range(500):
        old = 100 + rng.standard_normal(5)
        new = old + rng.standard_normal(5) + 4 * rng.random()
        for columns in (1, 2):
            summary = (("crps_y", "all"), ("rmse_y", "all"))[:columns]
            told = likeness(*(replace(result(one), summary=summary) for one in (old, new))).verdict == "different"
            assert told == (stats.ttest_rel(old, new).pvalue < 2 * stats.norm.sf(3) / columns)
            seen[told] += 1
    assert min(seen.values()) > 50


def test_what_cannot_be_judged_is_different() -> None:
    """Seen to catch: one replica called alike, other failures passed over, no score called alike, equal shifts of all
    replicas without a spread called alike."""
    one = likeness(result([1.0]), result([2.0]))
    assert one.verdict == "different" and "one replica has no spread" in one.detail
    assert verdict([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]) == "different"
    assert likeness(result([1.0, 1.0], (0,)), result([1.0, 1.0], (1,))) == Likeness(
        "different", "replicas that failed: 0 before, 1 now"
    )
    nothing = likeness(result([1.0, 1.0]), result([1.0, 1.0], kind="rmse_y"))
    assert nothing == Likeness("different", "no score in common")
