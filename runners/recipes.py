"""Recipes: descriptions from which another process makes an object again.

A recipe names the class and the fields that differ from the class's defaults. So a default may be anything, such as a
lambda, and the class of a user's file is loaded only in the process that needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import reduce
from typing import Any

from gapbench.methods.registry import file_of, load_file


class NoRecipe(ValueError):
    """An object that cannot be made again in another process; the message names it and says what to do."""


@dataclass(frozen=True)
class Recipe:
    """A recipe of a dataclass instance. module, qualname: those of the class. file: the user's file with the class;
    None for an importable module. settings: recipes of the fields that differ from their defaults."""

    module: str
    qualname: str
    file: str | None
    settings: Mapping[str, Any]

    def make(self) -> Any:
        """The object. A user's file is run if this process has not run the file yet."""
        module = importlib.import_module(self.module) if self.file is None else load_file(self.file)
        cls = reduce(getattr, self.qualname.split("."), module)
        return cls(**{name: made(value) for name, value in self.settings.items()})  # type: ignore[operator]


def recipe(value: object) -> Any:
    """The recipe of a dataclass; a tuple, list or dict with recipes in it; any other value itself. Raises NoRecipe."""
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return type(value)(recipe(item) for item in value)
    if type(value) is dict:
        return {key: recipe(item) for key, item in value.items()}
    if not is_dataclass(value) or isinstance(value, type):
        return value
    cls = type(value)
    if "<locals>" in cls.__qualname__:
        raise NoRecipe(f"{cls.__qualname__}: a class inside a function cannot be found again; define it in a file")
    settings = {
        one.name: recipe(getattr(value, one.name))
        for one in fields(value)
        if one.init and not is_default(one, getattr(value, one.name))
    }
    return Recipe(cls.__module__, cls.__qualname__, file_of(cls), settings)


def made(value: Any) -> Any:
    """The object that `recipe` described."""
    if isinstance(value, Recipe):
        return value.make()
    if type(value) in (tuple, list):
        return type(value)(made(item) for item in value)
    return {key: made(item) for key, item in value.items()} if type(value) is dict else value


def is_default(one: Field[Any], value: object) -> bool:
    """True if a field's value is the field's default; False where the two cannot be compared."""
    default = one.default if one.default_factory is MISSING else one.default_factory()
    try:
        return default is value or (type(default) is type(value) and bool(default == value))
    except Exception:  # tensors and arrays do not compare to one truth value
        return False
