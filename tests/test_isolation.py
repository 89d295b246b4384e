"""A cell cannot touch its neighbours: whatever one method does to its process, the others' bits stay as they are."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import elsewhere, gapbench, line

from gapbench.datasets.base import Dataset, Problems
from gapbench.evaluation.controls import Truth
from gapbench.evaluation.entries import Run
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.runners.cell import Cell
from gapbench.runners.complete import complete
from gapbench.runners.guard import standard
from gapbench.runners.guard import undisturbed as undisturbed_process
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
    "default device at import": ('torch.set_default_device("meta")', 'torch.set_default_device("cpu")', "finished"),
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
NOISY = ("--datasets", "gapped_sine_noisy", "--replicas", "2")


RUN = ("run", "--suite", "quick", "--out", "out", "--jobs", "2", "--device", "cpu")


def run(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return gapbench(folder, *RUN, *argv)


def arrays(folder: Path) -> dict[str, object]:
    """The names, which are hashes, of what each method computed."""
    return {record.identity["method"]["name"]: record.arrays for record in Store(folder / "out").records()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(folder, *NOISY, "--methods", "sgld,svi")
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
    done = run(tmp_path, *NOISY, "--methods", ",".join([*words, "sgld,svi"]))
    for number, (what, (_, _, end)) in enumerate(MISCHIEF.items()):
        title = rf"^gapped_sine_noisy · mischief{number:02} · replicas 0–1: (?!started)(.*)$"
        (line,) = re.findall(title, done.stderr, re.MULTILINE)
        assert re.match(end, line), (what, line)
    assert done.returncode == 1 and "\nsvi " in done.stdout and "Traceback" not in done.stderr
    found = arrays(tmp_path)
    assert {name: found[name] for name in undisturbed} == undisturbed
    finished = {f"mischief{number:02}" for number, (*_, end) in enumerate(MISCHIEF.values()) if end == "finished"}
    assert finished <= set(found), "a record is written under another folder"


@dataclass(frozen=True, kw_only=True)
class Line(Dataset):
    """Data of whatever dtype and on whatever device torch's defaults say."""

    def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
        x = torch.linspace(0, 1, 5).expand(len(replicas), -1).contiguous()
        return Problems(x.unsqueeze(-1), x, x.unsqueeze(-1), x, x, torch.full_like(x, 0.1))


@pytest.mark.parametrize(
    "settings",
    [
        partial(torch.set_default_dtype, torch.float64),
        partial(torch.set_default_device, "meta"),
        partial(torch.set_grad_enabled, False),
        partial(np.seterr, all="raise"),
    ],
)
def test_data_and_scores_have_the_settings_that_torch_begins_with(tmp_path: Path, settings: Callable[[], None]) -> None:
    """A method's file may set others for its training, such as another device; the method is still compared on the same
    data, and scored. Seen to catch: data made with the method's settings, and scored with them."""
    cell = Cell("line", Line(), MLP(hidden=(4,)), "truth", Truth(), 0, 2, 0)
    run, found = Run(MixturePrediction(torch.zeros(2, 3, 5), *torch.tensor([0.0, 1e-3]))), []
    for number, change in enumerate((lambda: None, settings)):
        store = Store(tmp_path / str(number))
        with undisturbed_process():
            change()
            with standard():
                problems = cell.dataset.problems(cell.replicas, cell.seed)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("gapbench.runners.complete.trained", lambda *_: run)
                outcome = complete(cell, store, "cpu")
        assert outcome.status == "finished", outcome.reason
        found.append((problems.sha256, [record.arrays for record in store.records()]))
    assert found[0] == found[1]


SINE = '''"""Data that come with much more than data."""
import os, random, sys
from dataclasses import dataclass
import numpy as np
import torch
from gapbench.datasets.gapped_sine import GappedSine
{top}
@dataclass(frozen=True)
class Sine(GappedSine):
    noise_std: float = 0.1
    test_points: int = 21
    def problems(self, replicas, seed=0):
        {body}
        return super().problems(replicas, seed)
'''
SETTINGS = """
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)
np.seterr(all="raise")
os.chdir("/")
"""
BODY = """torch.set_default_dtype(torch.float64)
        if 0 not in replicas:
            sys.exit(3)"""


def test_what_a_dataset_sets_does_not_hold_for_the_methods(tmp_path: Path) -> None:
    """SVI on data from such a file has the bits that it has on the same data from a tidy one. Where the data of the
    second block end the process, that block fails, and the run has a table.

    Seen to catch: the dataset's file loaded in the methods' processes without a guard, its `problems` called without
    one, `problems` called in the run's own process to note that a cell has failed.
    """
    found = {}
    for folder, (top, body) in {"tidy": ("", "pass"), "untidy": (SETTINGS, BODY)}.items():
        place = tmp_path / folder
        place.mkdir()
        (place / "sine.py").write_text(SINE.format(top=top, body=body))
        done = run(place, "--methods", "svi", "--datasets", "sine.py:Sine", "--replicas", "11")
        assert done.returncode == (folder == "untidy") and "\nsvi " in done.stdout, done.stderr
        failed = re.findall(r"^sine · (.*) · replicas 10–10: failed: Died: .* exit code 3", done.stderr, re.MULTILINE)
        assert sorted(failed) == (["prior", "reference", "svi", "truth"] if folder == "untidy" else []), done.stderr
        found[folder] = {
            record.identity["method"]["name"]: record.arrays
            for record in Store(place / "out").records()
            if record.identity["block"] == [0, 10]
        }
    assert found["tidy"] == found["untidy"] and set(found["tidy"]) == {"prior", "svi", "truth"}


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
    first = run(tmp_path, *NOISY, "--methods", words)
    second = elsewhere(tmp_path, line(*RUN, *NOISY, "--methods", words))  # nothing has the address that it had
    for done, status in ((first, "finished"), (second, "kept")):
        assert done.returncode == 1 and f"6 cells: 5 {status}, 1 failed" in done.stderr, done.stderr
        (told,) = [one for one in done.stderr.splitlines() if one.startswith("Failed ")]
        assert "WithObject.thing: " in told and "Opaque has no content that can be keyed" in told
