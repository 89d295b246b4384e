"""Finds the methods: the concrete subclasses of UncertaintyMethod in the files of methods/, those that other packages
announce under the entry point group `gapbench.methods`, and any file that is named."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TypeGuard

from gapbench.methods.base import UncertaintyMethod

GROUP = "gapbench.methods"


class NotAMethod(ValueError):
    """A file of methods/ or an entry point that gives none; the message names it and says what to do."""


def methods() -> dict[str, type[UncertaintyMethod]]:
    """Row name -> class, sorted by name. MCDropout is mc_dropout, SGLD is sgld; an entry point has its own name.

    Raises NotAMethod if a file cannot be imported, or an entry point is no method or has the name of a shipped one.
    """
    found = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)], "gapbench.methods."):
        try:
            there = vars(importlib.import_module(module.name))
        except Exception as error:
            file = Path(__file__).with_name(f"{module.name.rpartition('.')[2]}.py")
            raise NotAMethod(f"{file}: {type(error).__name__}: {error}: mend it, or take it out of methods/") from error
        for cls in there.values():
            if is_method(cls) and cls.__module__ == module.name:
                found[row_name(cls)] = cls
    for entry in metadata.entry_points(group=GROUP):
        cls = entry.load()
        if not is_method(cls):
            raise NotAMethod(f"entry point {entry.name} = {entry.value}: expected a concrete UncertaintyMethod class")
        if found.setdefault(entry.name, cls) is not cls:
            raise NotAMethod(f"entry point {entry.name} = {entry.value}: the name is taken; choose another")
    return dict(sorted(found.items()))


def from_file(source: str) -> type[UncertaintyMethod]:
    """The class of "path.py:Class". Running a file is running its code: name only files that you trust.

    Raises ValueError if there is no such file, no such class in it, or the class is no method.
    """
    path, _, name = source.rpartition(":")
    file = Path(path).resolve()
    if not path or not file.is_file():
        raise ValueError(f"{source}: expected path.py:Class, and {path or 'the path'} is not a file")
    module_name = f"gapbench_file_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, file)
        if spec is None or spec.loader is None:
            raise ValueError(f"{source}: {path} is not a Python file (.py)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # before it runs: dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    cls = getattr(sys.modules[module_name], name, None)
    if not is_method(cls):
        known = [key for key, value in vars(sys.modules[module_name]).items() if is_method(value)]
        raise ValueError(
            f"{source}: no concrete UncertaintyMethod of that name there; found {', '.join(known) or 'none'}"
        )
    return cls


def is_method(value: object) -> TypeGuard[type[UncertaintyMethod]]:
    """Whether this is a class that can be fitted."""
    return isinstance(value, type) and issubclass(value, UncertaintyMethod) and not inspect.isabstract(value)


def row_name(cls: type) -> str:
    """snake_case, with runs of capitals kept together."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
