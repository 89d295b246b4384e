"""The code behind a result: a hash of the meaning of a class's module and of all modules that it imports.

Imports of imports count too. Prose does not count (see `content.meaning`), nor does the place of the code. The standard
library and installed packages do not count either: their versions are in each record's provenance.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType

from gapbench.datasets.content import meaning

LIBRARY = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
INSTALLED = {"site-packages", "dist-packages"}
# Modules that methods import, but that decide no number of a training. Scores have a version of their own
# (METRICS_VERSION), and claims are only tested.
UNCOUNTED = {f"gapbench.methods.engine.{name}" for name in ("distributions", "exactness", "stationary_law")}


def code_hash(*values: object) -> str:
    """The sha256 of the meaning of the modules that define these values, and of all modules that those import.

    values: classes, functions, and objects made of these.
    """
    parts = sorted(_meaning(path, path.stat().st_mtime_ns) for path in modules(*values).values())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def modules(*values: object) -> dict[str, Path]:
    """The files of the modules that define these values, and of all that those import: name -> file."""
    reached: dict[str, Path] = {}
    waiting, seen = [one.__module__ for one in _code(values)], set(UNCOUNTED)
    while waiting:
        name = waiting.pop()
        path = None if name in seen else source_of(name)
        seen.add(name)
        if path is not None:
            reached[name] = path
            waiting += _imports(path, name, path.stat().st_mtime_ns)
    return reached


def _code(value: object) -> Iterator[type | FunctionType]:
    """The classes and functions that a value is made of."""
    if isinstance(value, type | FunctionType):
        yield value
    elif is_dataclass(value):
        yield type(value)
        for one in fields(value):
            yield from _code(getattr(value, one.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _code(item)


def source_of(name: str) -> Path | None:
    """The file of a module whose code counts; None for packages, installed modules and missing modules."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if not isinstance(module, ModuleType) or file is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, AttributeError, ValueError):  # no such module, or a part of one that cannot be imported
            return None
        file = None if spec is None or not spec.has_location else spec.origin
    if file is None or not file.endswith(".py"):
        return None
    path, foreign = _place(file)
    ours = name.startswith("gapbench.")  # also if gapbench is installed
    return path if ours or not foreign else None


@cache
def _place(file: str) -> tuple[Path, bool]:
    """A file without links in its path; and whether it is of the standard library or of an installed package."""
    path = Path(file).resolve()
    return path, bool(INSTALLED & set(path.parts)) or any(path.is_relative_to(folder) for folder in LIBRARY)


def imports(path: Path, name: str) -> Iterator[str]:
    """The names of all modules that a module may import, anywhere in its code. Some names may be no modules."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from _with_parents(base)
            for alias in node.names:
                yield f"{base}.{alias.name}"


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: number + 1]) for number in range(len(parts)))


@cache
def _imports(path: Path, name: str, changed: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(imports(path, name)))


@cache
def _meaning(path: Path, changed: int) -> str:
    return meaning(path.read_text(encoding="utf-8"))
