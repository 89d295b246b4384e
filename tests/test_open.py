"""What is open to other people and other tools: their methods, our results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from gapbench.evaluation.plots import plot
from gapbench.evaluation.tables import summarise
from gapbench.methods.registry import from_file, methods
from gapbench.runners.cli.main import main
from gapbench.runners.export import SCHEMA
from gapbench.runners.load import load, results

PUBLISHED = Path(__file__).resolve().parent.parent / "results" / "published" / "notebook_sgld"
OWN = '''"""The prior again (nobody 2026)."""

from dataclasses import dataclass

from torch import Generator, Tensor

from gapbench.methods.base import PosteriorDraws, UncertaintyMethod
from gapbench.methods.engine.model import Model


@dataclass(frozen=True)
class OwnMethod(UncertaintyMethod):
    draws: int = 20

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        return PosteriorDraws(model, model.sample_prior(generator, (len(x), self.draws)))
'''


def gapbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    code = "from gapbench.runners.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_third_party_package_is_found_and_run(tmp_path: Path) -> None:
    """A package with an entry point, as pip leaves it: a module and its .dist-info. Two jobs, so that a worker process
    must find it too. Seen to catch: the group's name misspelt, entry points left out of the suite."""
    (tmp_path / "somebody.py").write_text(OWN)
    info = tmp_path / "somebody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gapbench.methods]\nsomebodys = somebody:OwnMethod\n")
    chosen = ("--suite", "quick", "--methods", "somebodys", "--datasets", "gapped_sine_noisy", "--jobs", "2")
    run = gapbench(tmp_path, "run", *chosen, "--out", "out")
    assert run.returncode == 0, run.stderr
    assert re.search(r"^somebodys ", run.stdout, re.MULTILINE)


def test_a_file_of_ones_own_is_run_in_other_processes(tmp_path: Path) -> None:
    """`--method path.py:Class`. Seen to catch: workers that do not load the file (the cell cannot be received)."""
    (tmp_path / "mine.py").write_text(OWN)
    chosen = ("--suite", "quick", "--methods", "prior", "--method", "mine.py:OwnMethod", "--jobs", "2")
    run = gapbench(tmp_path, "run", *chosen, "--datasets", "gapped_sine_noisy", "--out", "out")
    assert run.returncode == 0, run.stderr
    assert re.search(r"^own_method ", run.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere.py:OwnMethod", "not a file"),
        ("mine.py", "expected path.py:Class"),
        ("mine.py:Other", "found OwnMethod"),
        ("broken.py:OwnMethod", "SyntaxError"),
        ("notes.txt:OwnMethod", "not a Python file"),
    ],
)
def test_a_file_that_is_no_method_is_one_clear_line(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With exit code 2. Seen to catch: each of the checks removed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("def")
    (tmp_path / "notes.txt").write_text("")
    result = CliRunner().invoke(main, ["run", "--method", source, "--out", "out"])
    assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output


def test_a_file_is_loaded_once(tmp_path: Path) -> None:
    """One class, not a new one each time: records and pickles name it. Seen to catch: no look into sys.modules."""
    (tmp_path / "mine.py").write_text(OWN)
    assert from_file(f"{tmp_path}/mine.py:OwnMethod") is from_file(f"{tmp_path}/mine.py:OwnMethod")
    assert "own_method" not in methods()


def test_exports_hold_the_same_numbers(tmp_path: Path) -> None:
    """CSV and Parquet are the tidy frame, Parquet with its explicit schema; LaTeX has a line for each row. Seen to
    catch: a column left out of the schema, replicas as floats, a row's label not escaped."""
    frame = load(PUBLISHED)
    for form in ("csv", "parquet", "latex"):
        file = tmp_path / form
        result = CliRunner().invoke(main, ["export", str(PUBLISHED), "--format", form, "--out", str(file)])
        assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "csv"), frame, check_dtype=False)
    table = pq.read_table(tmp_path / "parquet")
    assert table.schema.equals(SCHEMA)
    np.testing.assert_array_equal(table.column("value").to_numpy(), frame["value"].to_numpy())
    text = (tmp_path / "latex").read_text()
    assert r"corrected\_rates (not converged) &" in text
    rows = summarise(results(PUBLISHED))["row"].nunique()
    assert text.count(r" \\") == rows + 1  # and the header


def test_svg_figures_are_the_same_bytes(tmp_path: Path) -> None:
    """Seen to catch: the date left in, the salt of the ids left to chance."""
    rows = results(PUBLISHED)
    first = [path.read_bytes() for path in plot(rows, tmp_path / "a", ("svg",))]
    assert first == [path.read_bytes() for path in plot(rows, tmp_path / "b", ("svg",))]
    assert len(first) == 3 and all(b"<svg" in data for data in first)


def test_doctor_tells_versions_device_and_folder(tmp_path: Path) -> None:
    """And what to do about a folder that cannot be written. Seen to catch: a folder under a file called writable."""
    (tmp_path / "file").touch()
    sound = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert sound.exit_code == 0
    for name in ("python", "torch", "opacus", "device", "cores"):
        assert re.search(rf"^{name} +\S", sound.output, re.MULTILINE), sound.output
    assert "writable" in sound.output and "not writable" not in sound.output
    assert "is not writable" in CliRunner().invoke(main, ["doctor", str(tmp_path / "file" / "below")]).output
