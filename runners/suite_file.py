"""A suite as a TOML file: read, and written.

The file has the fields of Suite and of the classes that it names, as tables. A class is one of a fixed table, or of a
file of the user's: no other module can be named.
"""

from __future__ import annotations

import re
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum, EnumType
from pathlib import Path
from types import FunctionType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tomli_w

from gapbench.datasets.blocks import Blocks
from gapbench.datasets.gapped_heteroscedastic import GappedHeteroscedastic
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.gapped_step import GappedStep
from gapbench.datasets.prior_draws import PriorDraws
from gapbench.datasets.repeated import Repeated
from gapbench.datasets.two_clusters import TwoClusters
from gapbench.datasets.uci import UCI
from gapbench.methods.engine.jitter import Jittered
from gapbench.methods.engine.minibatches import Epochs, FixedSize, OpacusLoader, Poisson
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise
from gapbench.methods.registry import Registry, snake_case
from gapbench.methods.validated import Candidate
from gapbench.runners.recipes import is_default
from gapbench.runners.suites import (
    ADAPTERS,
    CONTROLS,
    Suite,
    Task,
    Unknown,
    discovered,
    explained,
    is_source,
    load_class,
    nearest,
    suites,
)

NAME = re.compile(r"\w[\w.@+-]{0,59}")  # no path, nothing that the words of a command line are split at
IN_WORDS = "up to 60 letters, digits and _ . @ + -, with a letter, a digit or _ first"
MOST = 100_000  # replicas, as of --replicas

PARTS = (
    *(GappedSine, GappedStep, GappedHeteroscedastic, TwoClusters, PriorDraws, UCI, Blocks, Repeated),
    *(MLP, LearnedNoise, HeteroscedasticNoise),
    *(FixedSize, Epochs, Poisson, OpacusLoader),
    Jittered,
)
CLASSLESS = (Suite, Task, Candidate)  # the file says by their place what they are
ADAPTED = get_type_hints(Suite)["adapted"]
WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


def read(path: Path) -> Suite:
    """The suite of a file. Raises Unknown for what makes no sense, and OSError for a file that cannot be read."""
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
        suite: Suite = _Reader(path.absolute().parent).made(Suite, table, "")
        _check(suite)
    except UnicodeDecodeError as error:
        raise Unknown(f"{path}: byte {error.start} is no UTF-8, which TOML is: save it as UTF-8") from error
    except RecursionError as error:
        raise Unknown(f"{path}: tables or arrays lie too deep in each other") from error
    except (ValueError, OverflowError) as error:
        raise Unknown(f"{path}: {error}") from error
    return suite


def written(suite: Suite) -> str:
    """The TOML of a suite, without the settings that are the defaults of their classes. Raises Unknown for a value that
    TOML cannot hold."""
    names = {thing: name for name, thing in {**_classes(discovered()), **ADAPTERS}.items()}
    return tomli_w.dumps(_item(suite, "", names))


def name_of(path: Path) -> str:
    """The name of a file's suite, and of the folder of its results: that of the file without its ending.

    Raises Unknown for a name that could be another path, and for that of a built-in suite, whose results it would join.
    """
    if not NAME.fullmatch(path.stem):
        raise Unknown(f"{path}: the results' folder has its name: expected {IN_WORDS}; rename it, or give --out")
    if path.stem in suites():
        raise Unknown(
            f"{path}: the results' folder has its name, and is that of a built-in suite: rename it, or give --out"
        )
    return path.stem


def _classes(found: Registry) -> dict[str, type]:
    """Name -> class, of all that a file names shortly. A plugin's method has the name of its entry point."""
    methods = {
        cls.__name__ if cls.__module__.startswith("gapbench.") else name: cls for name, cls in found.methods.items()
    }
    return {**methods, **{cls.__name__: cls for cls in PARTS}}


def _at(place: str, key: str) -> str:
    """The place of a key, as TOML writes it."""
    key = key if re.fullmatch(r"[\w-]+", key) else repr(key)
    return f"{place}.{key}" if place else key


def _wrong(place: str, problem: str) -> Unknown:
    return Unknown(f"{place}: {problem}" if place else problem)


# Reading --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reader:
    """A reader of tables. folder: of the TOML file, where the paths of the user's classes start."""

    folder: Path
    found: Registry = field(default_factory=discovered)

    def made(self, base: type, table: Any, place: str) -> Any:
        """The object of a table: a `base`, of the class that the table names. Raises Unknown."""
        if not isinstance(table, dict):
            raise _wrong(f"{place} = {reprlib.repr(table)}", f"expected {_words(base)}")
        cls = base if base in CLASSLESS else self.class_of(base, table.get("class"), place)
        settings = {name: item for name, item in table.items() if name != "class" or base in CLASSLESS}
        known = {one.name: one for one in fields(cls) if one.init}
        for name in settings:
            if name not in known:
                raise _wrong(place, f"{cls.__name__} has no {name!r}: {nearest(name, known)}")
        for name, one in known.items():
            if name not in settings and one.default is MISSING and one.default_factory is MISSING:
                raise _wrong(place, f"{cls.__name__} needs {name}")
        with explained(place):
            kinds = get_type_hints(cls)
        values = {name: self.value(kinds[name], item, _at(place, name)) for name, item in settings.items()}
        with explained(place):
            return cls(**values)

    def class_of(self, base: type, word: Any, place: str) -> type:
        """The class of a word, a short name or path.py:Class. Raises Unknown."""
        if isinstance(word, str) and is_source(word):
            try:
                return load_class(str(self.folder / word), base)
            except Unknown as error:
                raise _wrong(place, str(error)) from error
        fit = {name: cls for name, cls in _classes(self.found).items() if issubclass(cls, base)}
        if not isinstance(word, str):
            raise _wrong(place, f"expected class = one of {', '.join(fit)}, or path.py:Class")
        if word not in fit:
            why = self.found.unavailable.get(snake_case(word))
            raise _wrong(_at(place, "class"), f"{word!r}: " + (f"not available: {why}" if why else nearest(word, fit)))
        return fit[word]

    def value(self, kind: Any, item: Any, place: str) -> Any:
        """The value of a field of this type. Raises Unknown."""
        origin, inner = get_origin(kind), get_args(kind)
        if is_dataclass(kind):
            return self.made(kind, item, place)  # type: ignore[arg-type]
        if kind is float and type(item) is int:  # a key's hash tells 1 from 1.0
            return float(item)
        if kind in WORDS and type(item) is kind:
            return item
        if kind == ADAPTED and isinstance(item, str):
            if item in ADAPTERS:
                return ADAPTERS[item]
            raise _wrong(place, f"{item!r}: {nearest(item, ADAPTERS)}")
        if origin is Literal and any(item == one and type(item) is type(one) for one in inner):
            return item
        if isinstance(kind, EnumType) and isinstance(item, str) and item in kind.__members__:
            return kind[item]
        if origin in (Union, UnionType):
            tables = [one for one in inner if is_dataclass(one)]
            if isinstance(item, dict) and tables:
                return self.value(tables[0], item, place)
            for one in sorted(inner, key=lambda one: one is not type(item)):  # an integer is a number, too
                with suppress(Unknown):
                    return self.value(one, item, place)
        if origin in (Mapping, dict) and inner[0] is str and isinstance(item, dict):
            return {name: self.value(inner[1], part, _at(place, name)) for name, part in item.items()}
        if origin in (tuple, list, Sequence) and isinstance(item, list):
            each = inner if origin is tuple and ... not in inner else inner[:1] * len(item)
            if len(each) == len(item):
                parts = (self.value(*pair, f"{place}[{at}]") for at, pair in enumerate(zip(each, item, strict=True)))
                return list(parts) if origin is list else tuple(parts)
        raise _wrong(f"{place} = {reprlib.repr(item)}", f"expected {_words(kind)}")


def _words(kind: Any) -> str:
    """A type in the words of TOML."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind in WORDS:
        return WORDS[kind]
    if kind == ADAPTED:
        return f"one of {', '.join(ADAPTERS)}"
    if origin is Literal or isinstance(kind, EnumType):
        return f"one of {', '.join(inner or kind.__members__)}"
    if origin in (Union, UnionType):
        return " or ".join(_words(one) for one in inner if one is not NoneType)
    if origin in (tuple, list, Sequence):
        fixed = origin is tuple and ... not in inner
        return f"an array of {len(inner)}" if fixed else f"an array, each {_words(inner[0])}"
    if kind in CLASSLESS or (origin in (Mapping, dict) and inner[0] is str):
        return "a table"
    if is_dataclass(kind):
        return f"a table with the class of a {kind.__name__}"  # type: ignore[union-attr]
    return "something that TOML does not have: give it as the default of a class of your own"


def _check(suite: Suite) -> None:
    """Raises Unknown for names and numbers that a suite cannot have."""
    for part in ("tasks", "methods", "on_request"):
        for name in getattr(suite, part):
            if not NAME.fullmatch(name):
                raise Unknown(f"{part}: the name {name!r}: expected {IN_WORDS}")
            if part != "tasks" and name in CONTROLS:
                raise Unknown(f"{part}: the name {name!r} is that of a control: choose another")
    for part in ("tasks", "methods"):
        if not getattr(suite, part):
            raise Unknown(f"{part}: expected one at least")
    for name in suite.on_request:
        if name in suite.methods:
            raise Unknown(f"on_request: the name {name!r} is that of one of the methods: choose another")
    _check_numbers({"replicas": suite.replicas, "block": suite.block})
    for name, task in suite.tasks.items():
        _check_task(task, _at("tasks", name), {**suite.methods, **suite.on_request})


def _check_task(task: Task, place: str, methods: Mapping[str, object]) -> None:
    for part in ("methods", "first"):
        for name in getattr(task, part):
            if name not in methods:
                raise Unknown(f"{place}.{part}: no method {name!r}: {nearest(name, methods)}")
    _check_numbers({_at(f"{place}.first", name): number for name, number in task.first.items()})
    _check_numbers({f"{place}.replicas": 1 if task.replicas is None else task.replicas})
    if not task.mcse > 0:
        raise Unknown(f"{place}.mcse = {task.mcse}: expected a positive number")
    with explained(place):
        features = None if task.dataset.missing else task.dataset.problems([0]).x.shape[2]
    if features not in (None, task.model.features):
        raise Unknown(f"{place}.model.features = {task.model.features}: expected {features}, as the data have")


def _check_numbers(numbers: Mapping[str, int]) -> None:
    for place, number in numbers.items():
        if not 1 <= number <= MOST:
            raise Unknown(f"{place} = {number}: expected a number from 1 to {MOST}")


# Writing --------------------------------------------------------------------------------------------------------------


def _item(value: object, place: str, names: Mapping[object, str]) -> Any:
    """The TOML of a value. names: of classes and functions. Raises Unknown."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_item(part, f"{place}[{at}]", names) for at, part in enumerate(value)]
    if isinstance(value, Mapping):
        return {name: _item(part, _at(place, name), names) for name, part in value.items()}
    if isinstance(value, FunctionType) and value in names:
        return names[value]
    if type(value) not in (*names, *CLASSLESS) or not is_dataclass(value):  # None, too, which TOML does not have
        raise _wrong(place, f"{value!r} cannot stand in TOML: give it as the default of a class of your own")
    told = {
        one.name: getattr(value, one.name)
        for one in fields(value)
        if one.init and not is_default(one, getattr(value, one.name))
    }
    settings = {name: _item(part, _at(place, name), names) for name, part in told.items()}
    return settings if type(value) in CLASSLESS else {"class": names[type(value)], **settings}
