"""`submit`: a method of somebody's file in a folder for a pull request, and how `verify` reads that folder."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click.testing
import numpy as np
import pandas as pd
import pytest

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.controls import PriorPredictive, Truth
from gapbench.methods.engine.model import MLP
from gapbench.methods.registry import FILE_MODULE
from gapbench.runners import code, provenance, suites
from gapbench.runners.cli.main import main
from gapbench.runners.store import Store, sha256

TOY = '''"""The mean and std of y, whatever x is (nobody 2026)."""

from dataclasses import dataclass
from pathlib import Path

import torch

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.predictions import MixturePrediction


@dataclass(frozen=True, kw_only=True)
class Everywhere(FittedMethod):
    mean: torch.Tensor
    std: torch.Tensor

    def __call__(self, x):
        location = self.mean.view(-1, 1, 1).expand(-1, 1, x.shape[1])
        return MixturePrediction(location, scale=torch.zeros(()), noise_std=self.std.view(-1, 1, 1))


@dataclass(frozen=True)
class Toy(UncertaintyMethod):
    def fit(self, model, x, y, generator):
        failures = {}
        if model.features == 1:  # not in the check
            assert Path(__file__).name == "method.py"
            pass
        return Everywhere(mean=y.mean(1), std=1.5 * y.std(1), failures=failures)
'''
OUT = Path("submissions/toy-default")
SUBMIT = ("submit", "toy.py:Toy", "--device", "cpu", "--jobs", 1)


SOURCES = cache(code.source_of)


def source_of(name: str) -> Path | None:
    """As it is, but remembers where gapbench's own modules and those of packages are."""
    return FIND(name) if name.startswith(FILE_MODULE) or name == "helper" else SOURCES(name)


FIND = code.source_of


@pytest.fixture(autouse=True)
def tiny(in_this_process: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Suites of milliseconds, in this process, in an empty folder with a toy method. Nothing waits for the disk, draws
    a figure or asks git."""
    monkeypatch.setattr(code, "source_of", source_of)
    monkeypatch.setattr(provenance, "commit", lambda: "abc")
    tasks = {
        name: suites.Task(GappedSine(n=12, noise_std=std, test_points=13), MLP(hidden=(4,)))
        for name, std in (("sine", 0.1), ("loud", 0.3))
    }
    made = {
        "default": suites.Suite("about default", tasks, {}, 3, block=2),
        "closed": suites.Suite("about closed", {"sine": suites.Task(**{**vars(tasks["sine"]), "methods": ("x",)})}, {}),
    }
    monkeypatch.setattr(suites, "suites", lambda: made)
    monkeypatch.setattr("gapbench.runners.submission.suites", lambda: made)
    monkeypatch.setattr(suites, "CONTROLS", {"prior": PriorPredictive(4), "truth": Truth()})
    monkeypatch.setattr("gapbench.evaluation.plots.plot", lambda *given, **more: SimpleNamespace(paths=[]))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # test_verify.py, beside this, watches the usual one
    monkeypatch.chdir(tmp_path)
    Path("toy.py").write_text(TOY)


def gapbench(*argv: object) -> click.testing.Result:
    """A command as in a process of its own, which runs a user's file once more."""
    for name in [name for name in sys.modules if name.startswith(FILE_MODULE)]:
        del sys.modules[name]
    return click.testing.CliRunner().invoke(main, [str(arg) for arg in argv], prog_name="gapbench")


def verify(*argv: object) -> click.testing.Result:
    return gapbench("verify", "--device", "cpu", "--jobs", 1, *argv)


def toy(body: str, name: str = "toy.py") -> None:
    """The toy with something else to do where it is trained, and not where it is checked."""
    Path(name).write_text(TOY.replace("            pass\n", f"            {body}\n"))


def files(root: Path) -> dict[str, bytes]:
    """The files that git sees."""
    found = (path for path in root.rglob("*") if path.is_file() and "local" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def scores(folder: Path = OUT) -> pd.DataFrame:
    return pd.read_parquet(folder / "default" / "scores.parquet")


def test_a_submission_has_all_that_a_reader_needs_and_is_verified() -> None:
    """A first run, and the same command again: nothing is trained, and the same bytes are written. Seen to catch:
    the user's path in a file, records and predictions seen by git, cells of controls drawn before the method's,
    the user's file run in place of the one that is submitted."""
    first = gapbench(*SUBMIT)
    assert first.exit_code == 0, first.output
    assert f"Submission: {OUT.absolute()}" in first.stderr and "toy" in first.stdout
    found = files(OUT)
    published = {f"default/{name}" for name in ("manifest.json", "scores.parquet", "curves.npz", "README.md")}
    assert found.keys() == published | {"README.md", "method.py", "check.txt", "report.html", "submission.json"}
    assert (OUT / "local" / ".gitignore").read_text() == "*\n"
    assert found["method.py"].decode() == TOY
    assert set(scores()["method"]) == {"toy", "prior", "truth"} and set(scores()["replica"]) == {0, 1, 2}
    assert found["check.txt"].decode().splitlines()[:2] == ["Toy()", "kept      the fields tell all hyperparameters"]
    page = found["README.md"].decode()
    for words in (
        "submit method.py:Toy --suite default --device cpu\n",
        "verify . ",
        "`Toy()`",
        "sine: replicas 0–2, seed 0",
        "torch ",
    ):
        assert words in page
    assert not any(str(Path.cwd()).encode() in data for data in found.values())

    again = gapbench(*SUBMIT)
    assert again.exit_code == 0 and files(OUT) == found and again.stdout == first.stdout
    assert "started" in first.stderr and "started" not in again.stderr

    shutil.copytree(OUT, "pulled", ignore=shutil.ignore_patterns("local"))  # what a reader has
    for size, methods in ((1, {"toy"}), ("all", {"toy", "prior", "truth"})):
        result = verify("pulled", "--sample", size)
        *lines, last = result.stdout.splitlines()
        assert (
            result.exit_code == 0 and "method.py is run now: it is somebody's code, to be read first" in result.stderr
        )
        assert {line.split(" · ")[1] for line in lines} == methods and lines[0].split(" · ")[1] == "toy"
        assert all(": same bits: " in line for line in lines) and last == f"{len(lines)} cells: {len(lines)} same bits"
    assert len(lines) == 12
    assert len(verify("pulled", "--sample", "all", "--methods", "toy").stdout.splitlines()) == 1 + 4
    assert "Not there" not in result.stderr and "Left out" not in result.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (TOY.replace("y.mean(1)", "torch.randn(len(y))"), "broken    the generator decides everything: "),
        (TOY.replace("1.5 * y.std(1)", "y.std().expand(len(y))"), "broken    replicas do not see each other: "),
        (TOY.replace("failures = {}", "raise KeyError('oops')"), "broken    shapes, types, finite: KeyError: 'oops'"),
    ],
)
def test_a_broken_promise_ends_it_before_anything_is_written(code: str, words: str) -> None:
    """Seen to catch: a run in spite of it, exit code 0, one broken promise hidden by kept ones after it."""
    Path("toy.py").write_text(code)
    result = gapbench(*SUBMIT)
    assert result.exit_code == 1 and words in result.stderr and not Path("submissions").exists()
    assert re.search(r"toy breaks \d of its promises: nothing was trained", result.stderr)


def test_an_interrupt_loses_nothing_that_was_finished() -> None:
    """And what is not finished is not taken for a submission. Seen to catch: a folder that the same command refuses,
    a half submission verified."""
    Path("stop").touch()
    toy("if Path('stop').exists() and len(y) == 1: raise KeyboardInterrupt")
    stopped = gapbench(*SUBMIT, "--datasets", "sine")
    assert stopped.exit_code == 130 and "run the same command again" in stopped.stderr
    done = set(Store(OUT / "local").keys())
    assert 0 < len(done) < 6
    half = verify(OUT)
    assert half.exit_code == 3 and "the submission is not finished" in half.stderr
    Path("stop").unlink()
    result = gapbench(*SUBMIT, "--datasets", "sine")
    assert result.exit_code == 0 and result.stderr.count(": finished") == 6 - len(done)


def signed(page: str, name: str) -> None:
    """Put the sha256 that a file has now into a page of the submission."""
    about = json.loads((OUT / page).read_text())
    about["sha256"][name] = sha256((OUT / page).parent.joinpath(name).read_bytes())
    (OUT / page).write_text(json.dumps(about))


def test_an_altered_number_is_detected() -> None:
    """Whether its sha256 is altered too or not. Seen to catch: sha256 not looked at, controls not compared."""
    assert gapbench(*SUBMIT, "--datasets", "sine", "--replicas", 1).exit_code == 0
    whole, frame = files(OUT), scores()
    for method, factor in (("toy", 0.5), ("prior", 2.0)):
        changed = frame.copy()
        at = (changed["method"] == method) & (changed["score"] == "crps_y")
        changed.loc[at, "value"] = (changed.loc[at, "value"] * factor).astype(np.float32)
        sink = io.BytesIO()
        changed.to_parquet(sink, index=False)
        (OUT / "default" / "scores.parquet").write_bytes(sink.getvalue())
        told = verify(OUT, "--sample", "all")
        assert told.exit_code == 3 and "scores.parquet: its content is not what manifest.json says" in told.stderr
        signed("default/manifest.json", "scores.parquet")
        told = verify(OUT, "--sample", "all")
        assert told.exit_code == 3 and "manifest.json: its content is not what submission.json says" in told.stderr
        signed("submission.json", "default/manifest.json")
        told = verify(OUT, "--sample", "all")
        assert told.exit_code == 1
        wrong = [line for line in told.stdout.splitlines()[:-1] if ": same bits: " not in line]
        assert len(wrong) == 1 and wrong[0].startswith(f"sine · {method} · replicas 0–0: different: ")
        for name, data in whole.items():
            (OUT / name).write_bytes(data)
    toy("y = 2 * y", str(OUT / "method.py"))
    told = verify(OUT)
    assert told.exit_code == 3 and "method.py: its content is not what submission.json says" in told.stderr


def test_what_is_written_is_of_the_file_as_it_is() -> None:
    """Of its code, though another's results are newer in the folder, and of as many replicas as were asked for. What
    the suite has besides is told by verify. Seen to catch: all records of the folder taken, cells that nobody
    misses."""
    assert gapbench(*SUBMIT, "--datasets", "sine").exit_code == 0
    before = files(OUT)
    toy("y = 2 * y")
    assert gapbench(*SUBMIT, "--datasets", "sine").exit_code == 0
    assert not scores().equals(pd.read_parquet(io.BytesIO(before["default/scores.parquet"])))
    toy("pass")
    result = gapbench(*SUBMIT, "--datasets", "sine")
    assert "started" not in result.stderr and files(OUT) == before
    assert "left out, though the suite has them: loud" in before["README.md"].decode()
    assert gapbench(*SUBMIT, "--datasets", "sine", "--replicas", 2).exit_code == 0
    assert set(scores()["replica"]) == {0, 1}
    told = verify(OUT, "--sample", 1)
    lacking = re.findall(r"^Not there, though suite default has it: (.*)$", told.stderr, re.MULTILINE)
    assert told.exit_code == 0
    assert sorted(lacking) == ["loud · toy · replicas 0–1", "loud · toy · replicas 2–2", "sine · toy · replicas 2–2"]


@pytest.mark.parametrize(
    "body", ["raise ValueError('too hard')", "failures = dict.fromkeys(range(len(y)), 'too hard')"]
)
def test_a_method_that_fails_is_written_down(body: str) -> None:
    """Exit code 1, and the reason is in the submission, the same when nothing is tried again. Seen to catch: exit
    code 0, the path of a note on this machine."""
    toy(body)
    result = gapbench(*SUBMIT, "--datasets", "sine")
    assert result.exit_code == 1 and "toy has no sound result: the submission says so" in result.stderr
    found = files(OUT)
    page = found["README.md"].decode()
    assert "**Not everything went well:**" in page and page.count("too hard") == 2
    assert "sine · toy · replicas 0–1 failed: " in page and str(Path.cwd()) not in page
    assert gapbench(*SUBMIT, "--datasets", "sine").exit_code == 1 and files(OUT) == found
    told = verify(OUT, "--sample", "all")
    assert told.exit_code == 0 and ": same bits: " in told.stdout
    assert ("Not there, though suite default has it: sine · toy · replicas 0–1" in told.stderr) == ("raise" in body)


def test_a_folder_of_something_else_is_refused() -> None:
    """And stays as it is. Seen to catch: another method's submission overwritten, a folder of other files."""
    Path("mine").mkdir()
    (Path("mine") / "thesis.tex").write_text("years of work")
    Path("file").touch()
    Path("other.py").write_text(TOY.replace("Toy", "Other"))
    assert gapbench(*SUBMIT, "--datasets", "sine", "--replicas", 1).exit_code == 0
    before = files(Path())
    other = (*SUBMIT[:1], "other.py:Other", *SUBMIT[2:], "--out", OUT)
    for argv, words in (
        ((*SUBMIT, "--out", "mine"), "mine is not empty: expected an empty folder, or an earlier submission of toy"),
        ((*SUBMIT, "--out", "file"), "file is not empty: expected an empty folder"),
        (other, "holds a submission of toy on suite default, not of other on default: choose another --out"),
    ):
        result = gapbench(*argv)
        assert result.exit_code == 3 and words in result.stderr and files(Path()) == before
    Path("empty").mkdir()
    assert gapbench(*SUBMIT, "--datasets", "sine", "--replicas", 1, "--out", "empty").exit_code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"suite": "../default"}, "it names the class 'Toy' and the suite '../default': expected names that exist"),
        ({"class": "x.py:Toy"}, "it names the class 'x.py:Toy' and the suite"),
        ({"class": None}, "it names the class None"),
        ({"format": 2}, "written by a newer gapbench"),
        ({"format": None}, "damaged: TypeError"),
    ],
)
def test_a_submission_cannot_name_what_it_likes(change: dict[str, Any], words: str) -> None:
    """Before any of its code is run. Seen to catch: a path out of the folder, a file beside it."""
    OUT.mkdir(parents=True)
    about = {"format": 1, "class": "Toy", "method": "toy", "suite": "default", "sha256": {}}
    (OUT / "submission.json").write_text(json.dumps({**about, **change}))
    (OUT / "method.py").write_text("raise SystemExit('it was run')")
    result = verify(OUT)
    assert result.exit_code == 3 and words in result.stderr and "run" not in result.stdout


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nowhere.py:Toy",), "nowhere.py:Toy: there is no file nowhere.py"),
        (("toy.py:Toi",), "toy.py:Toi: it defines no UncertaintyMethod Toi; toy.py has Toy"),
        (("toy.py",), "which class? toy.py has Toy"),
        (("toy.py:Everywhere",), "it defines no UncertaintyMethod Everywhere; toy.py has Toy"),
        (("toy.py:../../Toy",), "it defines no UncertaintyMethod ../../Toy; toy.py has Toy"),
        (("named.py:../../Toy",), "the class is called '../../Toy': expected a name of letters, digits and _"),
        (("svi",), "'svi': expected METHOD.PY:CLASS, the class of a file of yours"),
        (("svi.py:SVI",), "its name svi is that of another method or a control: rename the class"),
        (("two.py:Toy",), "helper.py, which is of no installed package: put all in one file"),
        (("toy.py:Toy", "--suite", "defualt"), "unknown suite 'defualt': did you mean default"),
        (("toy.py:Toy", "--suite", "closed"), "its tasks are run with methods of its own alone"),
        (("toy.py:Toy", "--datasets", "toy.py:Toy"), "unknown dataset 'toy.py:Toy'"),
        (("toy.py:Toy", "--shard", "1/2"), "--shard: a submission needs all cells"),
        (("toy.py:Toy", "--out", ""), "expected the path of a folder"),
    ],
)
def test_a_mistake_is_one_line(argv: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, and nothing is written. Seen to catch: a name of a class that is a path, a file that needs another
    one, a suite that runs nothing of it."""
    Path("named.py").write_text(f"{TOY}\nToy.__name__ = '../../Toy'\n")
    Path("svi.py").write_text(TOY.replace("Toy", "SVI"))
    Path("helper.py").write_text("")
    Path("two.py").write_text(f"import helper\n{TOY}")
    monkeypatch.syspath_prepend(Path.cwd())
    before = files(Path())
    result = gapbench("submit", *argv)
    assert result.exit_code == 2 and words in result.stderr, result.stderr
    assert {name for name in files(Path()) if "__pycache__" not in name} == before.keys()
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ") and result.stdout == ""
