"""A cell cannot touch its neighbours: whatever one method does to its process, the others' bits stay as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gapbench.runners.store import Store

HEAD = '''"""A method that does something to its process."""
import os, random, signal, sys
from dataclasses import dataclass
import numpy as np
import torch
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.posterior_draws import PosteriorDraws
{top}
@dataclass(frozen=True)
class Mischief(UncertaintyMethod):
    draws: int = 4
    def fit(self, model, x, y, generator):
        {body}
        return PosteriorDraws(model, model.sample_prior(generator, (len(y), self.draws)))
'''
# What is done at the top of the file, in fit, and how the cell itself ends.
MISCHIEF = {
    "default dtype at import": ("torch.set_default_dtype(torch.float64)", "pass", "finished"),
    "numpy's errors at import": ('np.seterr(all="raise")', "pass", ""),
    "default device": ("", 'torch.set_default_device("meta")', ""),
    "gradients off at import": ("torch.set_grad_enabled(False)", "pass", ""),
    "global streams at import": ("torch.manual_seed(1); np.random.seed(1); random.seed(1)", "pass", "finished"),
    "threads at import": ("torch.set_num_threads(2)", "pass", "finished"),
    "another folder": ("", 'os.chdir("/")', "finished"),
    "another folder at import": ('os.chdir("/")', "pass", "finished"),
    "the environment": ("os.environ.clear()", "os.environ.clear()", "finished"),
    "sys.exit": ("", "sys.exit(3)", "failed: Died: its process ended with exit code 3|failed: SystemExit"),
    "os._exit": ("", "os._exit(0)", "failed: Died: its process ended with exit code 0"),
    "a kill": ("", "os.kill(os.getpid(), signal.SIGKILL)", "failed: Died: its process was ended by SIGKILL"),
    "a segfault": ("", "os.kill(os.getpid(), signal.SIGSEGV)", "failed: Died: its process was ended by SIGSEGV"),
}


def run(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gapbench.runners.cli.main import main; main()", "run", "--suite", "quick"]
    options = ["--datasets", "gapped_sine_noisy", "--replicas", "2", "--out", "out", "--jobs", "2", *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *options], cwd=folder, env=environment, capture_output=True, text=True)


def arrays(folder: Path) -> dict[str, object]:
    """The names, which are hashes, of what each method computed."""
    return {record.identity["method"]["name"]: record.arrays for record in Store(folder / "out").records()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(folder, "--methods", "sgld,svi")
    assert done.returncode == 0, done.stderr
    return arrays(folder)


def test_the_others_bits_stay(tmp_path: Path, undisturbed: dict[str, object]) -> None:
    """Beside all of them, SGLD, SVI and the controls are what they are without, each mischief ends as it must, and the
    run ends with a table. Seen to catch: cells in the run's own process, a user's file loaded there without a guard, a
    relative --out."""
    words = []
    for number, (top, body, _) in enumerate(MISCHIEF.values()):
        code = HEAD.format(top=top, body=body).replace("class Mischief(", f"class Mischief{number:02}(")
        (tmp_path / f"mischief{number:02}.py").write_text(code)
        words.append(f"mischief{number:02}.py:Mischief{number:02}")
    done = run(tmp_path, "--methods", ",".join([*words, "sgld,svi"]))
    for number, (what, (_, _, end)) in enumerate(MISCHIEF.items()):
        title = rf"^gapped_sine_noisy · mischief{number:02} · replicas 0–1: (?!started)(.*)$"
        (line,) = re.findall(title, done.stderr, re.MULTILINE)
        assert re.match(end, line), (what, line)
    assert done.returncode == 1 and "\nsvi " in done.stdout and "Traceback" not in done.stderr
    found = arrays(tmp_path)
    assert {name: found[name] for name in undisturbed} == undisturbed


OPEN = '''"""Methods with hyperparameters of every kind."""
from collections.abc import Callable
from dataclasses import dataclass
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.posterior_draws import PosteriorDraws

class Opaque:
    pass

@dataclass(frozen=True)
class Plain(UncertaintyMethod):
    draws: int = 4
    def fit(self, model, x, y, generator):
        return PosteriorDraws(model, model.sample_prior(generator, (len(y), self.draws)))

@dataclass(frozen=True)
class WithLambda(Plain):
    transform: Callable = lambda v: v + 1

@dataclass(frozen=True)
class WithObject(Plain):
    thing: object = Opaque()
'''


def test_hyperparameters_of_every_kind(tmp_path: Path) -> None:
    """A function is keyed by its content, so that the second run keeps, though it cannot be pickled; an object without
    content is refused by name, before training, and alone. Seen to catch: a key with an address (trained again), the
    run ended by an error of pickling."""
    (tmp_path / "open.py").write_text(OPEN)
    words = ",".join(f"open.py:{name}" for name in ("Plain", "WithLambda", "WithObject"))
    for status in ("finished", "kept"):
        done = run(tmp_path, "--methods", words)
        assert done.returncode == 1 and f"6 cells: 5 {status}, 1 failed" in done.stderr, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("Failed ")]
        assert "WithObject.thing: a Opaque has no content that can be keyed" in line
