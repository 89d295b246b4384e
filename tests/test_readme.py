"""The README is kept true: its tables are of the published results, and its new method works as it is printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from gapbench.runners.publish import CURVES, MANIFEST, README, SCORES, read_manifest, read_published
from gapbench.runners.readme import PART, refresh, stale

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "README.md"
PUBLISHED = ROOT / "results" / "published"
REPLICAS = {"default": 10, "prior": 200, "budgets": 5, "notebook_sgld": 20}


@pytest.mark.one_file
def test_the_readme_shows_the_published_results() -> None:
    """By the manifest's hash. Seen to catch: a manifest edited, the README's hash edited."""
    suites = [match["suite"] for match in PART.finditer(PAGE.read_text(encoding="utf-8"))]
    assert set(suites) <= set(REPLICAS) and len(suites) == len(set(suites)) > 0
    assert stale(PAGE) == [], "run `gapbench readme` and commit what it writes"


@pytest.mark.one_file
def test_the_readmes_figures_exist() -> None:
    """Every image that the README and the suites' pages show is in the repository. Seen to catch: a figure removed."""
    pages = [PAGE, *PUBLISHED.glob(f"*/{README}")]
    images = [
        (page, image) for page in pages for image in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text("utf-8"))
    ]
    assert images and all((page.parent / image).is_file() for page, image in images)


@pytest.mark.one_file
@pytest.mark.parametrize("suite", REPLICAS)
def test_the_published_results_are_complete(suite: str) -> None:
    """Every method that the manifest names, on all replicas, beside a baseline, and no other file. Which methods
    those are is the manifest's word, not the registry's. Seen to catch: a result missing in the scores, a block
    missing, a file of the old kind left."""
    folder, number = PUBLISHED / suite, REPLICAS[suite]
    manifest, results = read_manifest(folder), read_published(folder)
    assert manifest["suite"] == suite
    assert [(one["dataset"], one["method"]) for one in manifest["results"]] == [(r.dataset, r.method) for r in results]
    for one in manifest["datasets"]:
        assert one["replicas"] == [[0, number - 1]]
        rows = [result for result in results if result.dataset == one["name"]]
        assert {"method", "baseline"} <= {result.kind for result in rows}
        for result in rows:
            if result.kind != "reference":  # references are there for some replicas only
                assert result.replicas.tolist() == list(range(number)), result.method
            sizes = {len(values) for by in result.scores.values() for values in by.values()}
            assert sizes == {len(result.replicas)}
    assert {path.name for path in folder.iterdir()} == {MANIFEST, SCORES, CURVES, README, "figures"}


# --- Parts ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Path:
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
    page = tmp_path / "README.md"
    page.write_text("Before σ\n\n<!-- results: small  -->\nold\n<!-- end -->\n\nAfter\n", encoding="utf-8")
    return page


def test_a_part_is_written_from_what_is_published(page: Path) -> None:
    """Between its marks alone, stale before and not after, and stale again when the manifest changes; twice the same.
    Seen to catch: text outside the marks lost, the hash of something else, images that are not there."""
    assert stale(page) == ["small"]
    assert refresh(page) == [page]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before σ\n\n<!-- results: small ") and text.endswith("<!-- end -->\n\nAfter\n")
    assert "| σ_method | " in text and "old" not in text and "crps_y" in text and "Computed on: CPU" in text
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert images and all((page.parent / image).is_file() for image in images)
    assert stale(page) == []
    refresh(page)
    assert page.read_text(encoding="utf-8") == text
    manifest = page.parent / "results" / "published" / "small" / MANIFEST
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1'), encoding="utf-8")
    assert stale(page) == ["small"]


# --- Add a method -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with the README's new method saved as it says; importable with PYTHONPATH."""
    [code] = re.findall(r"```python\n(\"\"\"Deep ensemble.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("datasets", "methods", "evaluation", "runners", "tests", "results/published"):
        shutil.copytree(ROOT / folder, root / "gapbench" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, root / "gapbench")
    (root / "gapbench" / "methods" / "deep_ensemble.py").write_text(code, encoding="utf-8")
    return root


def in_checkout(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    return subprocess.run([sys.executable, *command], cwd=checkout, env=environment, capture_output=True, text=True)


CLI = "from gapbench.runners.cli.main import main; main()"


def test_the_new_method_runs_from_its_one_file(checkout: Path) -> None:
    """It is found, trained, scored and tabled, and its docstring is what `list` shows. Seen to catch: a method of the
    registry that `run` does not know."""
    listed = in_checkout(checkout, "-c", CLI, "list")
    assert "Deep ensemble (Lakshminarayanan, Pritzel & Blundell 2017" in listed.stdout, listed.stderr
    assert "https://arxiv.org/abs/1612.01474" in listed.stdout
    chosen = ("--methods", "deep_ensemble", "--datasets", "gapped_sine_noisy", "--out", "out", "--jobs", "1")
    run = in_checkout(checkout, "-c", CLI, "run", "--suite", "quick", *chosen)
    assert run.returncode == 0 and "deep_ensemble" in run.stdout, run.stderr


def test_the_new_method_keeps_its_promises_and_its_claim(checkout: Path) -> None:
    """`gapbench check`, on the file as it is printed, and with the claim that is printed below it. Seen to catch: a
    claim printed for another class."""
    [claim] = re.findall(r"```python\n(@property\ndef exactness.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    code = (checkout / "gapbench" / "methods" / "deep_ensemble.py").read_text(encoding="utf-8")
    code = code.replace("import UncertaintyMethod", "import Claim, UncertaintyMethod").replace(
        "dataclass\n", "dataclass, replace\n", 1
    )
    code = code.replace("class DeepEnsemble(", "class Claiming(")  # the name is taken here
    (checkout / "claiming.py").write_text(code + "\n" + textwrap.indent(claim, "    "), encoding="utf-8")
    plain = in_checkout(checkout, "-c", CLI, "check", "deep_ensemble")
    claiming = in_checkout(checkout, "-c", CLI, "check", "claiming.py:Claiming")
    for found, verdict in ((plain, "no claim"), (claiming, "kept    ")):
        assert found.returncode == 0, found.stdout + found.stderr
        assert f"{verdict}  mean and covariance on linear regression are as claimed" in found.stdout


def test_one_new_file_fails_nothing(checkout: Path) -> None:
    """The tests that walk registry, README and published results pass beside the new file, and those of the contract
    test it too. Seen to catch: the default suite that is whatever lies in methods/, a list of methods in a test."""
    tests = str(checkout / "gapbench" / "tests")
    settings = ("-c", str(checkout / "gapbench" / "pyproject.toml"), "-p", "no:cacheprovider", "-q")
    walking = in_checkout(checkout, "-m", "pytest", *settings, tests, "-m", "one_file")
    assert walking.returncode == 0, walking.stdout[-3000:]
    own = in_checkout(checkout, "-m", "pytest", *settings, f"{tests}/test_contract.py", "-k", "deep_ensemble")
    assert own.returncode == 0, own.stdout[-3000:]
    for tested in (walking, own):
        assert re.search(r"[1-9]\d* passed", tested.stdout)
