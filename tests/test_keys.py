"""A key hashes meaning: what decides numbers is in it, in full, and prose is not."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from gapbench.datasets.content import Undescribable, describe, meaning
from gapbench.methods.registry import load_file
from gapbench.methods.sgld import SGLD
from gapbench.methods.svi import SVI
from gapbench.runners.cell import Cell
from gapbench.runners.code import code_hash, imports, source_of
from gapbench.runners.suites import select, suites

LEVEL = 2.0


def identity(v: float) -> float:
    """The same number."""
    return v


def scaled(v: float) -> float:
    return LEVEL * v


class Size(IntEnum):
    SMALL = 1


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    table: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    transform: Callable[[float], float] = identity
    values: object = None


def test_content_is_the_same_for_the_same_and_other_for_other() -> None:
    """Every kind of hyperparameter, and one near each. Seen to catch: `repr` of arrays (cut in the middle), floats to
    six digits, -0.0 taken for 0.0, a nested field left out, the closure of a function left out, an address, the
    function inside a wrapper taken for the wrapper, a member of an IntEnum taken for its number."""

    def shifted(by: float) -> Callable[[float], float]:
        return lambda v: v + by

    def twice(function: Callable[[float], float]) -> Callable[[float], float]:
        @functools.wraps(function)
        def wrapper(v: float) -> float:
            return function(function(v))

        return wrapper

    def negated(function: Callable[[float], float]) -> Callable[[float], float]:
        @functools.wraps(function)
        def wrapper(v: float) -> float:
            return -function(v)

        return wrapper

    long = np.arange(2000.0)
    other = long.copy()
    other[1000] += 1e-9
    values: list[object] = [
        None, True, 1, 1.0, 1.0 + 2e-16, -0.0, 0.0, float("inf"), "1", b"1", (1, 2), (1, (2,)), {"a": 1}, {"b": 1},
        {1, 2}, long, other, long.astype(np.float32), torch.from_numpy(long[:3]), torch.float32, torch.device("cpu"),
        Path("a"), Inner(), Inner(rate=0.2), Inner(table=(1, 3)), identity, scaled, lambda v: v + 1, lambda v: v + 2,
        shifted(1.0), shifted(2.0), functools.partial(scaled, v=1.0), functools.partial(scaled, v=2.0), np.sin, len,
        max, twice(scaled), negated(scaled), Size.SMALL, Outer(), Outer(Inner(0.3)), Outer(transform=scaled),
        Outer(values=long), SGLD(), SGLD(lr=1e-3),
    ]  # fmt: skip
    found = [json.dumps(describe(value)) for value in values]
    assert len(set(found)) == len(found), [v for v in values if found.count(json.dumps(describe(v))) > 1]
    assert found == [json.dumps(describe(value)) for value in values] and " at 0x" not in "".join(found)
    assert describe(shifted(1.0)) == describe(shifted(1.0)) and describe(Inner()) == describe(Inner(0.1, (1, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "LEVEL", 3.0)
        assert json.dumps(describe(scaled)) not in found  # a number that a function reads is part of what it is


def test_two_lambdas_of_one_line_are_told_apart() -> None:
    """Seen to catch: the first lambda of the line taken for each."""
    first, second = lambda v: v + 1, lambda v: v * 2
    assert describe(first) != describe(second)


@pytest.mark.parametrize(
    "value",
    [object(), Iterator, np.array([object()]), (x for x in ()), Outer(values=object())],
    ids=lambda v: str(type(v)),
)
def test_what_has_no_content_is_refused_by_name(value: object) -> None:
    """With where it stands. Seen to catch: `repr` as the last resort."""
    if isinstance(value, type):
        return  # a class is its name
    with pytest.raises(Undescribable, match=r"^Thing(\.values)?: an? \w+"):
        describe(value, "Thing")


def test_what_contains_itself_is_refused_by_name() -> None:
    """Seen to catch: a RecursionError, which names nothing."""

    def countdown(n: float) -> float:
        return n if n <= 0 else countdown(n - 1)

    around: list[object] = []
    around.append(around)
    for value in (countdown, around):
        with pytest.raises(Undescribable, match=r"^Thing: it contains itself"):
            describe(value, "Thing")


def test_content_is_the_same_in_another_process() -> None:
    """Seen to catch: an address, the order of a set."""
    imports = "from gapbench.datasets.content import describe\nfrom gapbench.runners.suites import suites\nimport json"
    text = "json.dumps(describe([*suites()['default'].methods.values(), set('abcdefgh')]))"
    program = f"{imports}\nprint({text})"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip()
    here = json.dumps(describe([*suites()["default"].methods.values(), set("abcdefgh")]))
    assert here == there and "mc_dropout" not in there and "MCDropout" in there


def test_the_meaning_of_code_is_without_prose() -> None:
    """Docstrings, comments, line breaks and quotes do not count; everything that runs does. Seen to catch: docstrings
    of classes kept, a string that is no docstring left out, the first statement after a docstring lost."""
    plain = "class A:\n    x = 1\n    def f(self):\n        return 'y'\n"
    prose = (
        '"""Module."""\n# a comment\nclass A:\n    """Class."""\n    x = (1)\n\n    def f(self):\n'
        '        """Method."""\n        return "y"\n'
    )
    assert meaning(plain) == meaning(prose)
    for other in ("x = 2", "return 'z'", "def g(self)", "class B"):
        old = {"x = 2": "x = 1", "return 'z'": "return 'y'", "def g(self)": "def f(self)", "class B": "class A"}[other]
        assert meaning(plain.replace(old, other)) != meaning(plain)
    assert meaning("x = 1\n'not a docstring'") != meaning("x = 1")
    node = ast.parse("def f(): pass").body[0]
    before = meaning(node)
    node.type_params = []  # type: ignore[attr-defined]  # as Python 3.12 has it
    assert meaning(node) == before


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], ModuleType]:
    """Writes a user's two files and loads the first afresh."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(text: str, helper: str) -> ModuleType:
        (tmp_path / "my_helper_of_keys.py").write_text(helper)
        file = tmp_path / "mine.py"
        file.write_text(text)
        for name in [name for name, module in sys.modules.items() if getattr(module, "__file__", None) == str(file)]:
            del sys.modules[name]
        sys.modules.pop("my_helper_of_keys", None)
        return load_file(str(file))

    return load


MINE = '''
from dataclasses import dataclass
import my_helper_of_keys
from gapbench.methods.mc_dropout import MCDropout

@dataclass(frozen=True)
class Mine(MCDropout):
    """Words."""
'''


def test_the_authors_second_file_counts(own: Callable[[str, str], ModuleType]) -> None:
    """An edit of a helper, and of the class, is another key; a reworded docstring of either is none. Seen to catch: the
    class's own file alone, bytes for meaning."""
    first = code_hash(own(MINE, "LEVEL = 0.0\n").Mine)
    assert first == code_hash(own(MINE.replace("Words", "Other words"), '"""New prose."""\nLEVEL = 0.0  # here\n').Mine)
    assert first != code_hash(own(MINE, "LEVEL = 50.0\n").Mine)
    assert first != code_hash(own(MINE.replace('"""Words."""', "steps: int = 7"), "LEVEL = 0.0\n").Mine)


def test_what_a_package_imports_from_itself_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a relative import in its `__init__`. Seen to catch: the package's parent taken for the package."""
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "package_of_keys"
    package.mkdir()
    (package / "__init__.py").write_text("from .level import LEVEL\nclass Mine: ...\n")
    (package / "level.py").write_text("LEVEL = 1\n")
    mine = importlib.import_module("package_of_keys").Mine
    first = code_hash(mine)
    (package / "level.py").write_text("LEVEL = 25\n")
    assert code_hash(mine) != first


def test_what_a_method_reaches_is_counted_and_no_more() -> None:
    """Its file, its base class and what it is built from; no other method, no library, nothing that only scores. Seen
    to catch: a glob of methods/, site-packages below the checkout, modules imported inside functions left out."""

    def reached(name: str, seen: set[str]) -> set[str]:
        path = source_of(name)
        if path is not None and name not in seen:
            seen.add(name)
            for other in imports(path, name):
                reached(other, seen)
        return seen

    found = reached("gapbench.methods.sgld", set())
    assert {"gapbench.methods.base", "gapbench.methods.engine.model", "gapbench.methods.engine.gradients"} <= found
    assert not {name for name in found if name.startswith(("torch", "opacus", "numpy", "gapbench.methods.svi"))}
    assert code_hash(SGLD) != code_hash(SVI) and code_hash(SGLD) == code_hash(SGLD)
    assert source_of("torch") is None and source_of("json") is None and source_of("no_such_module") is None


def test_cells_have_keys_of_their_own() -> None:
    """Of every cell of all suites, and the random streams differ as the keys do. Seen to catch: the model or the block
    left out."""
    cells: list[Cell] = []
    for name in ("default", "quick", "notebook_sgld", "budgets"):
        suite = suites()[name]
        cells += select(suite).cells(20, 0, 10)
    streams = {cell.stream("fit", "cpu").initial_seed() for cell in cells}
    different = {repr((list(cell.content.values()), cell.first, cell.stop)) for cell in cells}
    assert len(streams) == len(different)
