"""Suites as TOML files: the built-in ones come back from theirs, and a mistake is told in one line."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
import tomli_w
from click.testing import CliRunner, Result
from torch import Generator, Tensor

from gapbench.datasets.base import Dataset
from gapbench.datasets.content import describe
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.entries import Trained
from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.cqr import CQR
from gapbench.methods.engine.jitter import Jittered
from gapbench.methods.engine.minibatches import Minibatches, Poisson
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.noise import LearnedNoise, Noise
from gapbench.methods.hmc import HMC
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.registry import Registry, classes, registry
from gapbench.methods.sgld import SGLD
from gapbench.runners import run, store, suite_file, suites, workers
from gapbench.runners.cell import Cell
from gapbench.runners.cli.main import main
from gapbench.runners.suite_file import name_of, read, written
from gapbench.runners.suites import Suite, Task, Unknown, equal_budget, select

ROOT = Path(__file__).resolve().parent.parent
SMALL = """
description = "small"
block = 5
notes = ["one"]

[tasks.sine]
dataset = { class = "GappedSine", n = 12, span = [-3, 3.0] }
model = { class = "MLP", hidden = [7], noise_std = { class = "LearnedNoise", center = 1 } }
methods = ["dropout"]
first = { sgld = 3 }
replicas = 4

[methods]
dropout = { class = "MCDropout", lr = 1, steps = 3 }
sgld = { class = "SGLD", sampling = { class = "Poisson" } }

[on_request]
slow = { class = "Jittered", method = { class = "MCDropout" }, f_std = inf }
"""
MINE = """
from dataclasses import dataclass
from gapbench.methods.base import UncertaintyMethod

@dataclass(frozen=True)
class MyNet(UncertaintyMethod):
    steps: int = 5

    def fit(self, model, x, y, generator):
        raise NotImplementedError
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The small suite as a file."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def refusal(path: Path, text: str | bytes) -> str:
    """The line that a text is refused with, without the name of the file, which it begins with."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Unknown) as caught:
        read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line.removeprefix(f"{path}: ")


# Round trips ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", suites.suites())
def test_every_suite_comes_back_from_its_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same content to the type, in the same order, so its cells have the same keys; and without the tables.

    Seen to catch: a float that comes back as an integer, `adapted` and `shrinks` forgotten, methods sorted, methods
    within methods left out where they are not the default's, a task's own `first` lost.
    """
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path))
    suite = suites.suites()[name]
    path = tmp_path / "suite.toml"
    path.write_text(written(suite), encoding="utf-8")
    again = read(path)
    assert again == suite and describe(again) == describe(suite)
    assert [list(part) for part in (again.tasks, again.methods)] == [
        list(part) for part in (suite.tasks, suite.methods)
    ]

    def contents(suite: Suite) -> list[dict[str, Any]]:
        return [
            Cell(of, task.dataset, task.model, name, Trained(method), 0, 1, 0).content
            for of, task in suite.tasks.items()
            for name, method in {**suite.methods, **suite.on_request}.items()
        ]

    assert contents(again) == contents(suite)


def test_what_a_file_says(file: Path) -> None:
    """In every field. Seen to catch: lr = 1 that stays an integer, an array that stays a list, `block` forgotten."""
    suite = read(file)
    assert suite == Suite(
        "small",
        {
            "sine": Task(
                GappedSine(n=12, span=(-3.0, 3.0)),
                MLP(hidden=(7,), noise_std=LearnedNoise(center=1.0)),
                methods=("dropout",),
                first={"sgld": 3},
                replicas=4,
            )
        },
        {"dropout": MCDropout(lr=1.0, steps=3), "sgld": SGLD(sampling=Poisson())},
        on_request={"slow": Jittered(MCDropout(), math.inf)},
        block=5,
        notes=("one",),
    )
    dropout, sine = suite.methods["dropout"], suite.tasks["sine"].dataset
    assert isinstance(dropout, MCDropout) and type(dropout.lr) is float
    assert isinstance(sine, GappedSine) and type(sine.span) is tuple and type(sine.span[0]) is float


def test_only_what_differs_from_the_defaults_is_written() -> None:
    """Seen to catch: every field written, a class that is left out."""
    task = Task(GappedSine(n=12), MLP(), methods=("band",))
    found = tomllib.loads(written(Suite("words", {"n@12": task}, {"band": CQR(method=MCDropout(rate=0.5))})))
    assert found == {
        "description": "words",
        "tasks": {
            "n@12": {"methods": ["band"], "dataset": {"class": "GappedSine", "n": 12}, "model": {"class": "MLP"}}
        },
        "methods": {"band": {"class": "CQR", "method": {"class": "MCDropout", "rate": 0.5}}},
    }


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Odd(UncertaintyMethod):
    """A method with every kind of field that TOML can have, and two that it cannot."""

    kind: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    weights: Mapping[str, float] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    pair: tuple[int, float] = (1, 2.0)
    number: int | float = 1
    limit: float | None = None
    width: int | None = 3
    shift: Tensor | None = None
    noise: Noise | None = None

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        raise NotImplementedError


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite_file, "PARTS", (*suite_file.PARTS, Odd))


@pytest.mark.parametrize(
    "method",
    [
        Odd(kind="b", colour=Colour.BLUE, weights={"x y": 1.0, "z": math.inf}, names=["θ\n"], pair=(3, -4.5)),
        Odd(number=2.0, limit=-math.inf, noise=LearnedNoise(center=1e-300)),
        Odd(number=10**20, limit=0.1 + 0.2),
        Odd(limit=math.nan),
    ],
)
@pytest.mark.usefixtures("odd")
def test_every_kind_of_value_comes_back(method: Odd, file: Path) -> None:
    """To the bit. Seen to catch: a union that makes 2.0 of 2, a list that becomes a tuple, an Enum by its value."""
    suite = replace(read(file), methods={"dropout": MCDropout(), "sgld": method})
    file.write_text(written(suite), encoding="utf-8")
    again = read(file)
    assert describe(again) == describe(suite) and type(again.methods["sgld"].names) is list  # type: ignore[attr-defined]


@pytest.mark.usefixtures("odd")
def test_what_toml_does_not_have_is_refused_by_name(file: Path) -> None:
    """None where it is no default, a tensor, a class of nobody's table; and values of another kind. Seen to catch:
    None left out, and so read as the default, an array that is looked up among names."""

    @dataclass(frozen=True)
    class Other(Odd):
        pass

    suite = read(file)
    for method, said in (
        (Odd(width=None), r"methods\.x\.width: None cannot stand in TOML"),
        (Odd(shift=Tensor([1.0])), r"methods\.x\.shift: tensor\(\[1\.\]\) cannot stand in TOML"),
        (Other(), r"methods\.x: .*Other\(.* cannot stand in TOML: give it as the default of a class of your own"),
    ):
        with pytest.raises(Unknown, match=said):
            written(replace(suite, methods={"x": method}))
    for field_name in ("kind", "colour", "weights", "names", "pair", "number", "limit"):
        for nonsense in ("[[]]", "{ a = [] }", '"c"', "1979-05-27"):
            text = SMALL.replace("lr = 1, steps = 3", f"{field_name} = {nonsense}")
            assert refusal(file, text.replace('"MCDropout", ', '"Odd", ', 1)).startswith(
                f"methods.dropout.{field_name}"
            )
    text = SMALL.replace('class = "MCDropout", lr = 1, steps = 3', 'class = "Odd", shift = 1')
    assert refusal(
        file, text
    ) == "methods.dropout.shift = 1: expected something that TOML does not have: give it as " + (
        "the default of a class of your own"
    )


@pytest.mark.one_file
def test_every_dataset_and_part_of_a_method_has_a_name() -> None:
    """But for one's own table, which --csv is for. Seen to catch: a new dataset that no file can name."""
    stems = [f"datasets.{path.stem}" for path in (ROOT / "datasets").glob("*.py")]
    stems += [f"methods.engine.{name}" for name in ("minibatches", "model", "noise")]
    there = {
        cls.__name__
        for stem in stems
        for base in (Dataset, Minibatches, Model, Noise)
        for cls in classes(import_module(f"gapbench.{stem}"), base)
    }
    assert there - {"Gapped", "Noise", "OwnTable"} <= {cls.__name__ for cls in suite_file.PARTS}


# Classes --------------------------------------------------------------------------------------------------------------


def test_a_class_of_ones_own_is_found_beside_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the command runs. Seen to catch: the path taken from the working folder."""
    (file.parent / "code").mkdir()
    (file.parent / "code" / "mine.py").write_text(MINE)
    text = SMALL.replace('class = "MCDropout", lr = 1, steps = 3', 'class = "code/mine.py:MyNet", steps = 9')
    file.write_text(text)
    monkeypatch.chdir(ROOT)
    mine = read(file).methods["dropout"]
    assert type(mine).__name__ == "MyNet" and mine.steps == 9  # type: ignore[attr-defined]
    assert "MyNet has no 'step': did you mean steps" in refusal(file, text.replace("steps = 9", "step = 9"))
    assert "there is no file" in refusal(file, text.replace("code/mine.py", "mine.py"))
    assert "it defines no UncertaintyMethod MyNot; " in refusal(file, text.replace(":MyNet", ":MyNot"))
    assert "it defines no Dataset MyNet; " in refusal(file, SMALL.replace('"GappedSine"', '"code/mine.py:MyNet"'))


def test_a_plugins_method_has_the_name_of_its_entry_point(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never that of a class of gapbench; what is not available is told by its reason. Seen to catch: a plugin's
    class SVI in the place of the shipped one, both ways."""
    plugin = type("SVI", (Odd,), {"__module__": "plugin"})
    found = Registry({"theirs": plugin, **registry().methods}, {"deep_kernel": "needs gpytorch"})
    monkeypatch.setattr(suites, "registry", lambda: replace(found, methods=dict(found.methods)))
    suite = replace(read(file), methods={"dropout": plugin(), "sgld": suites.suites()["default"].methods["svi"]})
    file.write_text(written(suite), encoding="utf-8")
    assert read(file) == suite and 'class = "theirs"' in file.read_text(encoding="utf-8")
    line = refusal(file, SMALL.replace('"MCDropout", lr', '"DeepKernel", lr'))
    assert line == "methods.dropout.class: 'DeepKernel': not available: needs gpytorch"


@pytest.mark.parametrize("word", ["os:system", "gapbench.methods.sgld:SGLD", "..:SGLD", "/etc/passwd:SGLD"])
def test_no_module_is_imported_by_its_name(word: str, file: Path) -> None:
    """Seen to catch: importlib asked for the word."""
    assert "expected path.py:Class" in refusal(file, SMALL.replace('"MCDropout", lr', f'"{word}", lr'))


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"GappedSine"', '"GapedSine"', "tasks.sine.dataset.class: 'GapedSine': did you mean GappedSine"),
        ('"GappedSine"', '"SGLD"', "tasks.sine.dataset.class: 'SGLD': expected one of GappedSine, GappedStep, "),
        ('"SGLD"', '"sgld"', "methods.sgld.class: 'sgld': did you mean SGLD"),
        ('class = "SGLD", ', "", "methods.sgld: expected class = one of AnchoredEnsemble, "),
        ('"SGLD"', "3", "methods.sgld: expected class = one of AnchoredEnsemble, "),
        ("steps = 3", "step = 3", "methods.dropout: MCDropout has no 'step': did you mean steps"),
        ("block = 5", "blocks = 5", "Suite has no 'blocks': did you mean block"),
        ("block = 5", 'class = "Suite"', "Suite has no 'class': did you mean "),
        ("steps = 3", "steps = 3.0", "methods.dropout.steps = 3.0: expected an integer"),
        ("steps = 3", "steps = true", "methods.dropout.steps = True: expected an integer"),
        ("steps = 3", 'steps = "3"', "methods.dropout.steps = '3': expected an integer"),
        ("steps = 3", "steps = 2020-01-01", "methods.dropout.steps = datetime.date(2020, 1, 1): expected an integer"),
        ("lr = 1,", "lr = false,", "methods.dropout.lr = False: expected a number"),
        ("lr = 1,", f"lr = 1{'0' * 400},", "int too large to convert to float"),
        ("lr = 1,", "lr = -1,", "methods.dropout: ValueError: MCDropout: lr = -1.0: expected a positive step size"),
        ("hidden = [7]", "hidden = [7.5]", "tasks.sine.model.hidden[0] = 7.5: expected an integer"),
        ("hidden = [7]", "hidden = 7", "tasks.sine.model.hidden = 7: expected an array, each an integer"),
        ("hidden = [7]", "activation = 1", "tasks.sine.model.activation = 1: expected one of relu, tanh, silu"),
        ("hidden = [7]", "features = 2", "tasks.sine.model.features = 2: expected 1, as the data have"),
        ("[-3, 3.0]", "[-3]", "tasks.sine.dataset.span = [-3]: expected an array of 2"),
        (
            '{ class = "LearnedNoise", center = 1 }',
            '"little"',
            "tasks.sine.model.noise_std = 'little': expected a number or a table with the class of a Noise",
        ),
        ('"LearnedNoise"', '"Noise"', "tasks.sine.model.noise_std.class: 'Noise': expected one of LearnedNoise, Het"),
        (", f_std = inf", "", "on_request.slow: Jittered needs f_std"),
        ("f_std = inf", "f_std = nan", "on_request.slow: ValueError: Jittered: f_std = nan: expected a positive std"),
        ('description = "small"', "", "Suite needs description"),
        ('["dropout"]', '["dropuot"]', "tasks.sine.methods: no method 'dropuot': did you mean dropout"),
        ("first = { sgld", "first = { mala", "tasks.sine.first: no method 'mala': expected one of dropout, sgld, slow"),
        ("sgld = 3", "sgld = 0", "tasks.sine.first.sgld = 0: expected a number from 1 to 100000"),
        ("replicas = 4", "replicas = 0", "tasks.sine.replicas = 0: expected a number from 1 to 100000"),
        ("replicas = 4", "mcse = nan", "tasks.sine.mcse = nan: expected a positive number"),
        ("block = 5", "block = 0", "block = 0: expected a number from 1 to 100000"),
        ("block = 5", "replicas = 100001", "replicas = 100001: expected a number from 1 to 100000"),
        ("block = 5", 'adapted = "equal_budgets"', "adapted: 'equal_budgets': did you mean equal_budget"),
        ("block = 5", "adapted = []", "adapted = []: expected one of dropout_grid, equal_budget, "),
        ("block = 5", "block = ", "Invalid value (at line 3, column 9)"),
        ("block = 5", "block = 5\nblock = 5", "Cannot overwrite a value (at line 4, column 10)"),
        ("block = 5", f"x = {'[' * 5000}", "tables or arrays lie too deep in each other"),
        ("[on_request]\nslow", "[on_request]\nsgld", "on_request: the name 'sgld' is that of one of the methods"),
        (
            "[on_request]\nslow",
            "[on_request]\ntruth",
            "on_request: the name 'truth' is that of a control: choose another",
        ),
        ("sgld = { class", "prior = { class", "methods: the name 'prior' is that of a control: choose another"),
    ],
)
def test_a_mistake_is_told_by_its_place(old: str, new: str, said: str, file: Path) -> None:
    """In one line, with what was expected. Seen to catch: a class of another kind, True for 1, an Overflow- or
    RecursionError that goes on, a name that hides a control, a misspelt method that is run nowhere."""
    assert old in SMALL
    assert refusal(file, SMALL.replace(old, new)).startswith(said)


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "a\\\\b", ".", "..", ".x", "a,b", "a=b", "a:b", "[x]", "x\\n", "x" * 61]
)
@pytest.mark.parametrize("part", ["tasks.sine", "methods.sgld", "on_request.slow"])
def test_a_name_is_no_path_and_one_word_of_a_command_line(name: str, part: str, file: Path) -> None:
    """Seen to catch: a task whose figures are written elsewhere, a line break at the end of a name."""
    data = tomllib.loads(SMALL)
    table, old = part.split(".")
    data[table][name.replace("\\n", "\n").replace("\\\\", "\\")] = data[table].pop(old)
    data["tasks"] = {key: {**task, "first": {}} for key, task in data["tasks"].items()}
    assert refusal(file, tomli_w.dumps(data)).startswith(f"{table}: the name '")


def test_a_suite_has_tasks_and_methods(file: Path) -> None:
    """Seen to catch: a run of nothing."""
    data = tomllib.loads(SMALL)
    for part in ("tasks", "methods"):
        assert refusal(file, tomli_w.dumps({**data, part: {}})) == f"{part}: expected one at least"
        rest = {name: item for name, item in data.items() if name != part}
        assert refusal(file, tomli_w.dumps(rest)) == f"Suite needs {part}"


def test_other_encodings(file: Path) -> None:
    """UTF-8 with a byte order mark is read; what is no UTF-8 is told by its byte. Seen to catch: a mark that is a
    syntax error, a UnicodeDecodeError that goes on."""
    assert refusal(file, SMALL.encode("utf-16")) == "byte 0 is no UTF-8, which TOML is: save it as UTF-8"
    assert refusal(file, b"\n#\xe9") == "byte 2 is no UTF-8, which TOML is: save it as UTF-8"
    file.write_bytes(SMALL.replace("small", "größer").replace("\n", "\r\n").encode("utf-8-sig"))
    assert read(file).description == "größer"


@pytest.mark.parametrize("odd", [None, True, -1, 0.5, math.inf, "", "x", [], [[]], {}, {"class": "SGLD"}, {"": 0}])
def test_nonsense_anywhere_is_told_too(odd: object, file: Path) -> None:
    """Each value of the file in turn, replaced or, for None, left out. Seen to catch: a TypeError of a value that
    cannot be hashed, an AttributeError of a task that is no table."""

    def changed(table: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for name, item in table.items():
            rest = {key: part for key, part in table.items() if key != name}
            found.append(rest if odd is None else {**table, name: odd})
            if isinstance(item, dict):
                found += [{**table, name: part} for part in changed(item)]
        return found

    refused = 0
    for data in changed(tomllib.loads(SMALL)):
        file.write_text(tomli_w.dumps(data))
        try:
            assert isinstance(read(file), Suite)
        except Unknown as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 5


# The command line -----------------------------------------------------------------------------------------------------


def gapbench(*argv: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in argv], prog_name="gapbench")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Cell]:
    """The cells that a command would compute, in an empty folder."""
    seen: list[Cell] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "start_server", lambda: None)
    monkeypatch.setattr(run, "run_cells", lambda cells, *_, **__: seen.extend(cells) or [])
    return seen


def test_the_options_of_run_choose_from_it(file: Path, no_work: list[Cell]) -> None:
    """And its folder has the file's name. Seen to catch: the number of replicas of the default suite, the folder
    `default`, the notes not told."""
    assert gapbench("run", "--from", file).exit_code == 0
    trained = [cell for cell in no_work if isinstance(cell.entry, Trained)]
    assert [(cell.name, cell.first, cell.stop) for cell in trained] == [("dropout", 0, 4)]
    no_work.clear()
    words = ("--methods", "slow,dropout", "--datasets", "sine", "--set", "dropout.rate=0.2", "--seed", 7)
    result = gapbench("run", "--from", file, *words, "--replicas", 2)
    assert result.exit_code == 0 and result.stderr.startswith("small\none\n")
    (cell,) = [cell for cell in no_work if isinstance(cell.entry, Trained)]
    assert cell.entry == Trained(MCDropout(lr=1.0, steps=3, rate=0.2)) and cell.name == "dropout[rate=0.2]"
    assert (cell.first, cell.stop, cell.seed) == (0, 2, 7)
    assert os.listdir("gapbench-results") == ["small"]


def test_it_takes_the_place_of_another_suite(file: Path, tmp_path: Path) -> None:
    """Exit code 2, one line. Seen to catch: --suite that is silently forgotten."""
    (tmp_path / "x.csv").write_text("a,y\n1,2\n")
    for more in (("--suite", "quick"), ("--suite", "default"), ("--csv", tmp_path / "x.csv", "--target", "y")):
        result = gapbench("run", "--from", file, *more)
        assert result.exit_code == 2 and result.stderr.endswith("of --suite and --csv: expected one of them\n")


@pytest.mark.usefixtures("no_work")
def test_files_that_cannot_be_read(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2 for what is not there or makes no sense, 3 for what cannot be read; nothing is written. Seen to
    catch: a traceback of a null byte."""
    file.write_text("=")
    for path, said in (
        ("nowhere.toml", "'nowhere.toml' does not exist"),
        (tmp_path, "is a directory"),
        ("a\0b", "expected the path of a file"),
        (file, f"{file}: Invalid statement (at line 1, column 1)"),
    ):
        result = gapbench("run", "--from", path)
        assert (result.exit_code, result.stderr.count("Error: ")) == (2, 1) and said in result.stderr

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    result = gapbench("run", "--from", file)
    assert result.exit_code == 3 and result.stderr == f"Error: {file}: Permission denied\n"
    assert os.listdir(tmp_path) == ["small.toml"]


@pytest.mark.parametrize("name", ["..toml", "...toml", ".toml", "a b.toml", "-x.toml", "[x].toml", "default.toml"])
@pytest.mark.usefixtures("no_work")
def test_a_files_name_is_no_bad_path(name: str, file: Path) -> None:
    """Nor the folder of another suite; with --out it may be any. Seen to catch: "...toml", whose stem is ".."."""
    path = file.rename(file.with_name(name))
    result = gapbench("run", "--from", path)
    assert result.exit_code == 2 and result.stderr.startswith(f"Error: {path}: the results' folder has its name")
    assert os.listdir(path.parent) == [name]
    assert gapbench("run", "--from", path, "--out", "out").exit_code == 0
    assert name_of(Path("σ_2@n.toml")) == "σ_2@n"


def test_show_prints_utf8_and_nothing_else() -> None:
    """Whatever the locale; and says which suite is meant. Seen to catch: ? for θ, which changes the description."""
    code = "from gapbench.runners.cli.main import main; main(['suite', 'show', 'default'])"
    latin = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], env=latin, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == written(suites.suites()["default"])
    result = gapbench("suite", "show", "defualt")
    assert result.exit_code == 2 and "unknown suite 'defualt': did you mean default" in result.stderr


# The page -------------------------------------------------------------------------------------------------------------


def test_the_example_of_the_page_is_read_and_runs(tmp_path: Path) -> None:
    """docs/suites.md shows this suite. Seen to catch: a class or a field that was renamed."""
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "suites.md").read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    suite, noisy = read(path), GappedSine(n=200, noise_std=0.1)
    assert suite.tasks == {
        "wide_gap": Task(replace(noisy, gap=(-2.0, 2.0)), MLP()),
        "unknown_noise": Task(noisy, MLP(noise_std=LearnedNoise(0.1)), methods=("dropout", "dropout_half")),
    }
    half = MCDropout(rate=0.5)
    assert suite.methods == {"dropout": MCDropout(), "dropout_half": half, "dropout_band": CQR(method=half)}
    assert suite.on_request == {"hmc": HMC()} and suite.adapted is equal_budget and suite.replicas == 5
    words = ("--datasets", "wide_gap", "--methods", "dropout_half", "--set", "dropout_half.steps=30", "--replicas", 1)
    result = gapbench("run", "--from", path, *words, "--jobs", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0 and "dropout_half[steps=30]" in result.stdout, result.output
    kept = store.Store(tmp_path / "out")
    assert len(list(kept.keys())) == len(select(suite, ["dropout_half"], ["wide_gap"]).cells(1, 0, 10)) - 1  # reference
