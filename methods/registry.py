"""Finds the methods: every concrete subclass of UncertaintyMethod in a file of methods/, by its file's name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

from gapbench.methods.base import UncertaintyMethod


def methods() -> dict[str, type[UncertaintyMethod]]:
    """Row name -> class, sorted by name. MCDropout is mc_dropout, SGLD is sgld."""
    found = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)], "gapbench.methods."):
        for cls in vars(importlib.import_module(module.name)).values():
            if is_method(cls) and cls.__module__ == module.name:
                found[row_name(cls)] = cls
    return dict(sorted(found.items()))


def is_method(value: object) -> bool:
    """Whether this is a class that can be fitted."""
    return isinstance(value, type) and issubclass(value, UncertaintyMethod) and not inspect.isabstract(value)


def row_name(cls: type) -> str:
    """snake_case, with runs of capitals kept together."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
