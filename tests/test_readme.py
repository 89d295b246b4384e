"""README and docs are kept true: tables are of the published results, links lead somewhere, examples work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import elsewhere, gapbench
from gap_splits import GAP_SPLITS

from gapbench.methods.evidential import Evidential
from gapbench.methods.hmc import HMC
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.svi import SVI
from gapbench.runners import api
from gapbench.runners.description import claim, description
from gapbench.runners.load import load
from gapbench.runners.methods_page import SHOWN, methods_page, panels
from gapbench.runners.publish import CURVES, MANIFEST, README, SCORES, page, read_manifest, read_published
from gapbench.runners.readme import PART, refresh, with_headline
from gapbench.runners.store import StoreError
from gapbench.runners.suites import suites

ROOT = Path(__file__).resolve().parent.parent
FRONT = ROOT / "README.md"
DOCS = ROOT / "docs"
PUBLISHED = ROOT / "results" / "published"
REPLICAS: dict[str, int | dict[str, int]] = {  # of each dataset
    "default": 10,
    "prior": 200,
    "budgets": 5,
    "tuning": 5,
    "notebook_sgld": 20,
    "notebooks": 10,
    "knobs": 5,
    "tasks": 5,
    "all": 10,
    "data_size": 5,
    "uci_gap": GAP_SPLITS,
    "uci_gap_all_rows": GAP_SPLITS,
    "uci_reference": 5,
    "uci_deep_ensemble": 20,
    "uci": 20,
    "uci_mc_dropout": 20,
}


def blocks(document: Path) -> list[str]:
    """The Python code of a document."""
    return re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


def test_the_readme_is_a_front_door() -> None:
    """At most 200 lines. Seen to catch: the long README of before."""
    text = FRONT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200 and len(text.encode()) <= 16_000


@pytest.mark.one_file
def test_the_headline_is_of_the_published_results() -> None:
    """Number by number. Seen to catch: a number edited, the marks removed, a column taken out."""
    text = FRONT.read_text(encoding="utf-8")
    assert len(PART.findall(text)) == 1 and "| reference | " in text
    assert with_headline(FRONT) == text, "run `gapbench readme` and commit what it writes"


LONG = {"budgets", "data_size", "knobs", "prior"}  # pages that take ten seconds each; the others are made alike


@pytest.mark.parametrize("suite", [name for name in REPLICAS if name not in LONG])
def test_the_page_of_a_suite_is_of_its_results(suite: str) -> None:
    """Seen to catch: a number edited, a figure that the page does not show."""
    folder = PUBLISHED / suite
    text = (folder / README).read_text(encoding="utf-8")
    assert page(folder, read_published(folder)) == text, "run `gapbench readme` and commit what it writes"


@pytest.mark.one_file
def test_the_page_of_the_methods_is_of_their_files_and_results() -> None:
    """Seen to catch: a caveat or a default that was changed, a panel removed."""
    rows = [one for one in read_published(PUBLISHED / "all") if one.dataset == SHOWN]
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert text == methods_page(rows), "run `gapbench readme` and commit what it writes"
    pictures = panels(rows)
    assert pictures.keys() == {path.stem for path in (DOCS / "methods").glob("*.png")}
    assert all(len(data) < 20_000 for data in pictures.values())
    assert claim(HMC()) == "the exact posterior" and claim(SVI()) == "the mean-field optimum"
    assert claim(MCDropout()) == "the mode, without variance" and claim(Evidential()) == "none"
    told = description(SVI())
    assert (told.family, told.expected) == ("variational", "too narrow in a gap") and told.body.endswith("pyro.ai")
    assert told.caveat.startswith("on a Gaussian") and told.caveat.endswith("(Foong et al. 2020).")


@pytest.mark.one_file
def test_links_and_images_lead_to_files() -> None:
    """Of every page. Seen to catch: a figure removed, a document renamed."""
    pages = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *PUBLISHED.glob(f"*/{README}")]
    found = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if not target.startswith("https://")
    ]
    missing = [(page.name, target) for page, target in found if not (page.parent / target).exists()]
    assert len(found) > 20 and missing == []
    for document in DOCS.glob("*.md"):
        assert f"({document.relative_to(ROOT).as_posix()})" in FRONT.read_text(encoding="utf-8"), "nobody finds it"


@pytest.mark.one_file
@pytest.mark.parametrize("suite", REPLICAS)
def test_the_published_results_are_complete(suite: str) -> None:
    """Every method that the manifest names, on all its replicas, beside a baseline, and no other file. Which methods
    those are is the manifest's word, not the registry's. Seen to catch: a result missing in the scores, a block
    missing, a file of the old kind left."""
    folder, numbers = PUBLISHED / suite, REPLICAS[suite]
    manifest, results = read_manifest(folder), read_published(folder)
    assert manifest["suite"] == suite
    assert [(one["dataset"], one["method"]) for one in manifest["results"]] == [(r.dataset, r.method) for r in results]
    for one in manifest["datasets"]:
        number = numbers[one["name"]] if isinstance(numbers, dict) else numbers
        first = suites()[suite].tasks[one["name"]].first
        assert one["replicas"] == [[0, number - 1]]
        rows = [result for result in results if result.dataset == one["name"]]
        assert {"method", "baseline"} <= {result.kind for result in rows}
        for result in rows:
            if result.kind != "reference":  # references are there for some replicas only
                assert result.replicas.tolist() == list(range(min(number, first.get(result.method, number)))), (
                    result.method
                )
            sizes = {len(values) for by in result.scores.values() for values in by.values()}
            assert sizes == {len(result.replicas)}
    assert {path.name for path in folder.iterdir()} == {MANIFEST, SCORES, CURVES, README, "figures"}


# --- What is generated ------------------------------------------------------------------------------------------------


@pytest.fixture
def front(tmp_path: Path) -> Path:
    """A README of a suite with one small published result."""
    from gapbench.datasets.base import Layout
    from gapbench.runners import publish
    from gapbench.runners.store import Record, Store, key_of

    store = Store(tmp_path / "full")
    values = np.linspace(0.1, 0.9, 12).reshape(6, 2)
    arrays = {f"point {name}": values for name in ("crps_y", "pit_y", "pit_f")} | {"region all of it": values > 0}
    identity = {
        "dataset": {"name": "sine", "content": {}, "sha256": ""},
        "model": {},
        "method": {"name": "σ_method", "content": {}, "code": ""},
        "block": [0, 6],
        "seed": 0,
        "metrics": publish.METRICS_VERSION,
    }
    run = {"finished": "", "seconds": 1.0, "device": "CPU", "versions": {"torch": "1", "gapbench": "2"}}
    saved = {"points": store.save(arrays)}
    store.write(
        key_of(identity),
        Record(identity, "method", "MixturePrediction", list(range(6)), saved, Layout("rows"), provenance=run),
    )
    publish.publish(tmp_path / "full", tmp_path / "results" / "published" / "small")
    front = tmp_path / "README.md"
    front.write_text("Before σ\n\n<!-- headline: small sine -->\nold\n<!-- end -->\n\nAfter\n", encoding="utf-8")
    return front


def test_the_headline_is_written_between_its_marks(front: Path) -> None:
    """And nothing else of the README; what is up to date is not written again. Seen to catch: text outside the marks
    lost, an old page of a suite left, a dataset that is not there."""
    suite = front.parent / "results" / "published" / "small" / README
    assert refresh(front) == [front]
    text = front.read_text(encoding="utf-8")
    assert text.startswith("Before σ\n\n<!-- headline: small sine -->\n**sine: ")
    assert (
        text.endswith("less is better.\n<!-- end -->\n\nAfter\n") and "| σ_method | " in text and "\nold\n" not in text
    )
    assert refresh(front) == []
    before = suite.read_text(encoding="utf-8")
    suite.write_text("old", encoding="utf-8")
    assert refresh(front) == [suite] and suite.read_text(encoding="utf-8") == before
    front.write_text(text.replace("small sine", "small sin"), encoding="utf-8")
    with pytest.raises(StoreError, match="small sin -->: suite small has no dataset of this name"):
        refresh(front)


# --- Examples ---------------------------------------------------------------------------------------------------------


def test_the_readmes_python_works(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions come in the units of y, 10⁵, of an ensemble of fewer steps. Seen to catch: a
    renamed import, predictions left standardised."""
    named = api._named
    monkeypatch.setattr(api, "_named", lambda name: replace(named(name), steps=1000))  # type: ignore[call-arg]
    [code] = blocks(FRONT)
    assert len(code.splitlines()) <= 20
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    predicted, y = names["predicted"], names["y"]
    assert predicted.mean_y.shape == (20,) and len(capsys.readouterr().out.splitlines()) > 10
    assert np.all(np.abs(predicted.mean_y - y.mean()) < 4 * y.std()) and np.all(predicted.std_y < 2 * y.std())


def test_the_estimator_of_the_page_works(capsys: pytest.CaptureFixture[str]) -> None:
    """On the real table of docs/scikit_learn.md. Seen to catch: a renamed import, an interval of another level."""
    [code] = blocks(DOCS / "scikit_learn.md")
    exec(compile(code, "scikit_learn.md", "exec"), {})
    share, *scores = capsys.readouterr().out.replace("[", " ").replace("]", " ").split()
    assert 0.8 < float(share) < 0.97 and len(scores) == 5 and all(-50 < float(score) < -20 for score in scores)


def test_the_new_dataset_runs(tmp_path: Path) -> None:
    """Saved and run as docs/add_a_dataset.md says. Seen to catch: a renamed import, a dataset without a known truth
    that fails."""
    [code] = blocks(DOCS / "add_a_dataset.md")
    (tmp_path / "plane.py").write_text(code, encoding="utf-8")
    chosen = ("--datasets", "plane.py:Plane", "--methods", "svi,mc_dropout", "--out", "out", "--jobs", "1")
    run = gapbench(tmp_path, "run", "--suite", "quick", *chosen)
    assert run.returncode == 0 and "RMSE" in run.stdout and "mc_dropout" in run.stdout, run.stderr


def test_the_new_prediction_runs(tmp_path: Path) -> None:
    """From a file of one's own. Seen to catch: a renamed import, a field without a default above one that has it."""
    _, code, _ = blocks(DOCS / "add_a_method.md")
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    run = gapbench(tmp_path, "run", "--suite", "quick", "--methods", "mine.py:Marginal", "--out", "out")
    assert run.returncode == 0 and "marginal" in run.stdout, run.stderr


def test_the_frame_has_the_columns_that_the_docs_name() -> None:
    """docs/usage.md names its columns, and the curves. Seen to catch: a column or a curve renamed."""
    frame, curves = blocks(DOCS / "usage.md")
    columns = frame.rpartition("tidy: ")[2].split(", ")
    assert list(load(str(PUBLISHED / "default")).columns) == [column.strip() for column in columns]
    found: dict[str, Any] = {}
    exec(curves.replace('"results/published', f'"{PUBLISHED}'), found)
    shapes = {name: found[name].shape for name in ("x", "low", "high")}
    assert shapes["low"] == shapes["high"] == shapes["x"][:2]
    there = ~np.isnan(found["low"])
    assert there[:, [0, -1]].all() and (found["low"] <= found["high"])[there].all()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with the new method of docs/add_a_method.md saved as told; importable with PYTHONPATH."""
    code, _, _ = blocks(DOCS / "add_a_method.md")
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("datasets", "methods", "evaluation", "runners", "tests", "docs", "results/published"):
        shutil.copytree(ROOT / folder, root / "gapbench" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, root / "gapbench")
    (root / "gapbench" / "methods" / "snapshot_ensemble.py").write_text(code, encoding="utf-8")
    return root


def test_the_new_method_runs_from_its_one_file_and_keeps_its_promises(checkout: Path) -> None:
    """It is found, trained, scored and tabled, and its docstring is what `list` shows. `gapbench check` passes, on the
    file as it is printed, and with the claim that is printed below it. Seen to catch: a method of the registry that
    `run` does not know, a claim printed for another class."""
    _, _, claim = blocks(DOCS / "add_a_method.md")
    code = (checkout / "gapbench" / "methods" / "snapshot_ensemble.py").read_text(encoding="utf-8")
    engine = "from gapbench.methods.engine.adam_trained"
    code = code.replace(engine, f"from gapbench.methods.base import Claim\n{engine}").replace(
        "dataclass\n", "dataclass, replace\n", 1
    )
    code = code.replace("class SnapshotEnsemble(", "class Claiming(")  # the name is taken here
    (checkout / "claiming.py").write_text(code + "\n" + textwrap.indent(claim, "    "), encoding="utf-8")
    chosen = "--methods snapshot_ensemble --datasets gapped_sine_noisy --out out --jobs 1"
    checks = ("check snapshot_ensemble", "check claiming.py:Claiming")
    done = elsewhere(checkout, "list", f"run --suite quick {chosen}", *checks, PYTHONPATH=str(checkout))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Snapshot ensemble (Huang et al. 2017" in done.stdout and "https://arxiv.org/abs/1704.00109" in done.stdout
    assert re.search(r"^snapshot_ensemble +\d", done.stdout, re.MULTILINE)
    verdicts = re.findall(r"^(.*?)  +mean and covariance on linear regression are", done.stdout, re.MULTILINE)
    assert verdicts == ["no claim", "kept"]


MARK = "@pytest.mark." + "one_file"


def test_one_new_file_fails_nothing(checkout: Path) -> None:
    """The tests that walk registry, README and published results pass beside the new file, and those with a case for
    each method test it too. Seen to catch: the default suite that is whatever lies in methods/, a list of methods in a
    test."""
    settings = ("-c", str(checkout / "gapbench" / "pyproject.toml"), "-p", "no:cacheprovider", "-q")
    # Only the files that have such tests: to collect all of them takes a minute. Of those that have a case for each
    # method, only its cases; of those that read nothing but what is published, one.
    files = [
        str(path) for path in (checkout / "gapbench" / "tests").glob("test_*.py") if MARK in path.read_text("utf-8")
    ]
    each, published = "test_contract or test_device", "test_findings or are_complete or leaderboards"
    kept = f"snapshot_ensemble or are_complete and all or not ({each} or {published})"
    assert len(files) > 8
    command = [sys.executable, "-m", "pytest", *settings, *files, "-m", "one_file", "-k", kept, "-rA"]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTEST_ADDOPTS": ""}
    tested = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout[-3000:]
    assert len(re.findall(r"^PASSED .*snapshot_ensemble", tested.stdout, re.MULTILINE)) >= 4


@pytest.mark.one_file
def test_the_published_verdicts_are_of_the_methods_as_they_are() -> None:
    """What `gapbench check --all` printed. Seen to catch: a setting that was changed since, a broken promise."""
    lines = (PUBLISHED / "check.txt").read_text(encoding="utf-8").splitlines()
    methods = [line for line in lines if not line.startswith(("kept  ", "no claim  "))]
    assert len(methods) > 20 and set(methods) <= {repr(one) for one in suites()["all"].methods.values()}
