"""The README is kept true: its tables are of the published records, and its new method works as it is printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gapbench.runners.load import results
from gapbench.runners.readme import PART, records_hash, stale

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def test_the_readme_shows_the_published_records() -> None:
    """By the records' hash. Seen to catch: a record removed, a record added, the README's hash edited."""
    suites = [match["suite"] for match in PART.finditer(README.read_text())]
    assert suites == ["default", "prior", "budgets", "notebook_sgld"]
    assert stale(README) == [], "run `gapbench readme` and commit what it writes"


def test_the_readmes_figures_exist() -> None:
    """Every image that the README shows is in the repository. Seen to catch: a figure removed."""
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text())
    assert images and all((ROOT / image).is_file() for image in images)


@pytest.mark.parametrize(
    ("suite", "replicas"), [("default", 10), ("prior", 200), ("budgets", 5), ("notebook_sgld", 20)]
)
def test_the_published_results_are_complete(suite: str, replicas: int) -> None:
    """All rows of every suite, on all replicas. Seen to catch: a row missing, a block missing."""
    from gapbench.runners.suites import suites

    chosen = suites()[suite]
    found = {(result.dataset, result.row): result for result in results(ROOT / "results" / "published" / suite)}
    for dataset in chosen.datasets:
        for row in (*chosen.methods, "prior"):
            assert found[dataset, row].replicas.tolist() == list(range(replicas))
    assert records_hash(ROOT / "results" / "published" / suite)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the README's new method saved as it says; importable with PYTHONPATH."""
    [code] = re.findall(r"```python\n(\"\"\"Deep ensemble.*?)```", README.read_text(), re.DOTALL)
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("datasets", "methods", "evaluation", "runners"):
        shutil.copytree(ROOT / folder, root / "gapbench" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "gapbench" / "methods" / "deep_ensemble.py").write_text(code)
    return root


def in_checkout(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], cwd=checkout, env=environment, capture_output=True, text=True)


def test_the_new_method_runs_from_its_one_file(checkout: Path) -> None:
    """It is found, trained, scored and tabled, and its docstring is what `list` shows."""
    cli = "from gapbench.runners.cli.main import main; main()"
    listed = in_checkout(checkout, "-c", cli, "list")
    assert "Deep ensemble (Lakshminarayanan, Pritzel & Blundell 2017" in listed.stdout, listed.stderr
    assert "https://arxiv.org/abs/1612.01474" in listed.stdout
    chosen = ("--methods", "deep_ensemble", "--datasets", "gapped_sine_noisy", "--out", "out", "--jobs", "1")
    run = in_checkout(checkout, "-c", cli, "run", "--suite", "quick", *chosen)
    assert run.returncode == 0 and "deep_ensemble" in run.stdout, run.stderr


def test_the_new_method_keeps_its_promises_and_its_claim(checkout: Path) -> None:
    """`gapbench check`, on the file as it is printed, and with the claim that is printed below it."""
    [claim] = re.findall(r"```python\n(@property\ndef exactness.*?)```", README.read_text(), re.DOTALL)
    code = (checkout / "gapbench" / "methods" / "deep_ensemble.py").read_text()
    code = code.replace("import PosteriorDraws,", "import Claim, PosteriorDraws,").replace(
        "dataclass\n", "dataclass, replace\n", 1
    )
    (checkout / "claiming.py").write_text(code + "\n" + textwrap.indent(claim, "    "))
    cli = "from gapbench.runners.cli.main import main; main()"
    plain = in_checkout(checkout, "-c", cli, "check", "deep_ensemble")
    claiming = in_checkout(checkout, "-c", cli, "check", "claiming.py:DeepEnsemble")
    for found, verdict in ((plain, "no claim"), (claiming, "kept    ")):
        assert found.returncode == 0, found.stdout + found.stderr
        assert f"{verdict}  mean and covariance on linear regression are as claimed" in found.stdout


def test_the_contract_tests_pick_the_new_method_up(checkout: Path) -> None:
    """And it passes them."""
    for name in ("conftest.py", "test_contract.py"):
        shutil.copy(ROOT / "tests" / name, checkout / name)
    settings = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(checkout), "-p", "no:cacheprovider", "-q")
    tests = in_checkout(checkout, "-m", "pytest", *settings, "test_contract.py", "-k", "deep_ensemble")
    assert tests.returncode == 0, tests.stdout[-3000:]
    assert re.search(r"[1-9]\d* passed", tests.stdout)
