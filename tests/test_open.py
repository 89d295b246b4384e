"""What is open to other people and other tools: their methods and data, our results. One real run has them all."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from commands import elsewhere, gapbench, line

from gapbench.evaluation.plots import plot
from gapbench.evaluation.tables import tabulate
from gapbench.runners import doctor
from gapbench.runners.cli.main import main
from gapbench.runners.export import SCHEMA
from gapbench.runners.load import load, results

METHOD = '''"""The prior again (nobody 2026)."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws
{top}

@dataclass(frozen=True)
class {name}(UncertaintyMethod):
    draws: int = 20
    {field}

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        {body}
        theta = model.sample_prior(generator, (len(x), self.draws))
        return PosteriorDraws(model, theta * torch.full((1,), 1.1{dtype}))
'''
RUDE = """
import os
import numpy as np
import torch
torch.set_default_dtype(torch.float64); np.seterr(all="raise")
"""
DATASET = '''"""Houses, in square metres, rooms and years."""

from dataclasses import dataclass

import torch

from gapbench.datasets.base import Dataset, Problems
from gapbench.datasets.standardise import Standardisation


@dataclass(frozen=True)
class Houses(Dataset):
    n: int = 30

    def problems(self, replicas, seed=0):
        parts = []
        for replica in replicas:
            generator = torch.Generator().manual_seed(1000 * seed + replica)
            x = torch.randn(self.n + 8, 3, generator=generator, dtype=torch.float64)
            parts.append((x, 2e5 + 5e4 * x.sum(-1) + 1e4 * x[:, 0] ** 2))
        x, y = (torch.stack(part) for part in zip(*parts))
        train, test = slice(None, self.n), slice(self.n, None)
        units = Standardisation.of(x[:, train], y[:, train])
        return Problems(x[:, train], y[:, train], x[:, test], y[:, test], standardisation=units)
'''
CHOSEN = (
    *("run", "--suite", "quick", "--jobs", "2", "--out", "out"),
    *("--methods", "somebodys,prior", "--methods", "mine.py:OwnMethodσ,rude.py:Rude,exits.py:Exits"),
    *("--datasets", "gapped_sine_noisy,houses.py:Houses"),
)


def with_plugins(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The folder is on the path, as one where packages are installed."""
    return gapbench(folder, *words, PYTHONPATH=str(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with an entry point, as pip leaves it, and one that is broken; the user's files."""
    folder = tmp_path_factory.mktemp("open")
    (folder / "somebody.py").write_text(METHOD.format(name="OwnMethod", top="", body="", field="", dtype=""))
    for name, entry in (("somebody", "somebodys = somebody:OwnMethod"), ("broken", "vogn = broken_package:Vogn")):
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[gapbench.methods]\n{entry}\n")
    for file, name, parts in (
        ("mine.py", "OwnMethodσ", {"field": "squash: object = lambda y: y"}),
        (
            "rude.py",
            "Rude",
            {"dtype": ", dtype=torch.float32", "top": RUDE, "body": f"os.chdir('/'); {RUDE.splitlines()[-1]}"},
        ),
        ("exits.py", "Exits", {"body": "raise SystemExit(3)"}),
    ):
        text = METHOD.format(**{"name": name, "top": "", "body": "", "field": "", "dtype": "", **parts})
        (folder / file).write_text(text, encoding="utf-8")
    (folder / "houses.py").write_text(DATASET)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return with_plugins(folder, *CHOSEN)


def test_plugins_files_and_datasets_of_other_people_are_run(
    folder: Path, run: subprocess.CompletedProcess[str]
) -> None:
    """Each in a process of its own, the names of files and of plugins in one option; what cannot be loaded spoils
    nothing, and what ends its process is one failed row. Seen to catch: children that do not load the user's file, a
    default that cannot be pickled (a lambda)."""
    assert run.returncode == 1, run.stderr
    for part in re.split(r"^houses: ", run.stdout, flags=re.MULTILINE):
        names = re.findall(r"^(\w+) ", part, re.MULTILINE)
        assert {"somebodys", "own_methodσ", "rude", "prior"} <= set(names) and "exits" not in names
    assert "14 cells: 10 finished, 2 skipped, 2 failed" in run.stderr
    failed = re.findall(r"^Failed (\w+) · (\w+) · .* exit code 3.*", run.stderr, re.MULTILINE)
    assert failed == [("gapped_sine_noisy", "exits"), ("houses", "exits")]
    parts = {"arrays", "cells", "failures", "plans", "running", "skipped"}
    assert {path.name for path in (folder / "out").iterdir()} == parts


def test_a_rude_neighbour_changes_no_bit(folder: Path, run: subprocess.CompletedProcess[str]) -> None:
    """The rows are those of a run without it. Seen to catch: cells that share a process."""
    chosen = ("--suite", "quick", "--jobs", "1", "--methods", "mine.py:OwnMethodσ", "--datasets", "houses.py:Houses")
    alone = gapbench(folder, "run", *chosen, "--out", "alone")
    assert alone.returncode == 0, alone.stderr
    columns = ["dataset", "method", "replica", "region", "score", "value"]
    one, many = load(folder / "alone")[columns], load(folder / "out")[columns]
    same = many[(many["dataset"] == "houses") & many["method"].isin(one["method"].unique())]
    pd.testing.assert_frame_equal(same.reset_index(drop=True), one)


def test_a_second_run_keeps_everything(folder: Path, run: subprocess.CompletedProcess[str]) -> None:
    """The user's classes have the same keys in another process. (test_isolation.py looks for addresses in keys.)"""
    again = with_plugins(folder, *CHOSEN[:-1], "houses.py:Houses")
    assert "7 cells: 4 kept, 2 skipped, 1 failed" in again.stderr and " finished" not in again.stderr


def test_exports_hold_the_same_numbers(folder: Path, run: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    """CSV and Parquet are the tidy frame, Parquet with its explicit schema; LaTeX has a line for each row; in UTF-8
    whatever the locale. Seen to catch: a column left out of the schema, replicas as floats, a label not escaped."""
    frame = load(folder / "out")
    for form in ("csv", "parquet"):
        result = CliRunner().invoke(
            main, ["export", str(folder / "out"), "--format", form, "--out", f"{tmp_path}/{form}"]
        )
        assert result.exit_code == 0, result.output
    latex = line("export", "out", "--format", "latex", "--out", f"{tmp_path}/latex")
    done = elsewhere(folder, latex, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "csv"), frame, check_dtype=False)
    table = pq.read_table(tmp_path / "parquet")
    assert table.schema.equals(SCHEMA) and table.schema.names == list(frame.columns)
    assert pa.types.is_integer(table.schema.field("replica").type)
    np.testing.assert_array_equal(table.column("value").to_numpy(), frame["value"].to_numpy())
    text = (tmp_path / "latex").read_text(encoding="utf-8")
    assert r"own\_methodσ &" in text
    rows = [line for one in tabulate(results(folder / "out")) for line in one.lines]
    assert text.count(r" \\") == len(rows) + 2  # and a header for each dataset


def test_svg_figures_are_the_same_bytes(folder: Path, run: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    """Seen to catch: the date left in, the salt of the ids left to chance."""
    rows = [result for result in results(folder / "out") if result.method in ("rude", "prior")]
    first = [path.read_bytes() for path in plot(rows, tmp_path / "a", ("svg",)).paths]
    assert first == [path.read_bytes() for path in plot(rows, tmp_path / "b", ("svg",)).paths]
    assert len(first) > 1 and all(b"<svg" in data for data in first)


def test_a_broken_plugin_is_listed_as_such(folder: Path) -> None:
    """Seen to catch: exit code 4, "this should not happen", for every command."""
    words = "entry point vogn = broken_package:Vogn: needs broken_package: pip install broken_package"
    listed = with_plugins(folder, "list")
    assert listed.returncode == 0
    assert words in " ".join(listed.stdout.split()) and "\nsomebodys " in listed.stdout


@pytest.mark.parametrize(
    ("option", "source", "said"),
    [
        ("--methods", "nowhere.py:OwnMethod", "there is no file nowhere.py"),
        ("--methods", "mine.py", "which class? mine.py has OwnMethodσ"),
        ("--methods", "mine.py:Other", "mine.py has OwnMethodσ"),
        ("--methods", "broken.py:OwnMethod", "SyntaxError"),
        ("--methods", "notes.txt:OwnMethod", "expected path.py:Class"),
        ("--methods", "sibling.py:Own", "PYTHONPATH"),
        ("--datasets", "houses.py", "which class? houses.py has Houses"),
        ("--datasets", "broken.py:Houses", "SyntaxError"),
    ],
)
def test_a_file_that_is_no_use_is_one_clear_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, source: str, said: str
) -> None:
    """With exit code 2, before anything is written. Seen to catch: each of the checks removed."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py", "houses.py"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "broken.py").write_text("def")
    (tmp_path / "sibling.py").write_text("import houses")
    (tmp_path / "notes.txt").write_text("")
    result = CliRunner().invoke(main, ["run", option, source, "--out", "out"])
    assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_doctor_tells_versions_device_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to do about what is missing; the tools of the tests are one line, not eight. Seen to catch: a folder
    under a file called writable, a package that is missing passed over."""
    (tmp_path / "file").touch()
    sound = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert sound.exit_code == 0
    for name in ("python", "torch", "opacus", "device", "cores"):
        assert re.search(rf"^{name} +\S", sound.output, re.MULTILINE), sound.output
    assert "writable" in sound.output and "not writable" not in sound.output
    assert "is not writable" in CliRunner().invoke(main, ["doctor", str(tmp_path / "file" / "below")]).output

    needs = ["torch>=2", "nowhere-to-be-found[all]>=1", 'nor-this>=2; extra == "test"', 'nor-that; extra == "test"']
    needs.append('not-here; extra == "gp"')
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needs)
    lines = CliRunner().invoke(main, ["doctor", str(tmp_path)]).output
    assert re.search(r"^nowhere-to-be-found +missing — .* pip install 'nowhere-to-be-found\[all\]>=1'$", lines, re.M)
    assert re.search(r"^extra test +nor-this, nor-that: missing — needed to change gapbench, not to", lines, re.M)
    assert re.search(r"^extra gp +not-here: missing — pip install 'gapbench\[gp\]'$", lines, re.M)
