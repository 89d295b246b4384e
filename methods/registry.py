"""The registry of methods: concrete subclasses of UncertaintyMethod in methods/, in entry points, and in named files.

Other packages announce their methods in the entry point group `gapbench.methods`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.requirements import requirements

GROUP = "gapbench.methods"
FILE_MODULE = "gapbench_file_"  # prefix of the names of modules that are loaded from a user's file


@dataclass
class Registry:
    """The methods found, name -> class. unavailable: name of a file or entry point -> why it gives no method."""

    methods: dict[str, type[UncertaintyMethod]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, cls: object, source: str) -> None:
        """Add a class, or note why the class cannot be used. source: the origin of the class, in words."""
        if not is_method(cls):
            self.unavailable[name] = f"{source}: expected a concrete UncertaintyMethod class"
        elif self.methods.get(name, cls) is not cls:
            self.unavailable[f"{name} ({source})"] = "the name is taken; choose another"
        else:
            try:
                cls()
            except (Exception, SystemExit) as error:
                self.unavailable[name] = _why(error, f"{source} must give every field a default")
            else:
                self.methods[name] = cls


def methods() -> dict[str, type[UncertaintyMethod]]:
    """All methods that can be used, name -> class. MCDropout is mc_dropout; an entry point has its own name."""
    return registry().methods


def unavailable() -> dict[str, str]:
    """The files of methods/ and the entry points that give no method, name -> reason."""
    return registry().unavailable


def registry() -> Registry:
    """The registry of all methods, sorted by name. A file or plugin that cannot be loaded is only noted as such."""
    found = Registry()
    for module in pkgutil.iter_modules([str(Path(__file__).parent)], "gapbench.methods."):
        if module.ispkg:
            continue
        name = module.name.rpartition(".")[2]
        try:
            loaded = importlib.import_module(module.name)
        except (Exception, SystemExit) as error:
            found.unavailable[name] = _why(error, f"mend {name}.py, or take it out of methods/")
            continue
        for cls in classes(loaded, UncertaintyMethod):
            found.add(method_name(cls), cls, f"{name}.py")
    for entry in metadata.entry_points(group=GROUP):
        source = f"entry point {entry.name} = {entry.value}"
        try:
            cls = entry.load()
        except (Exception, SystemExit) as error:
            found.unavailable[entry.name] = f"{source}: {_why(error, 'mend or uninstall its package')}"
        else:
            found.add(entry.name, cls, source)
    return Registry(dict(sorted(found.methods.items())), found.unavailable)


def _why(error: BaseException, advice: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("gapbench"):
        missing = error.name.partition(".")[0]
        extras = (f"'gapbench[{one.extra}]'" for one in requirements() if one.extra and one.name == missing)
        return f"needs {error.name}: pip install {next(extras, missing)}"
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}: {advice}"


def classes(module: ModuleType, base: type) -> list[type]:
    """The concrete subclasses of `base` that a module itself defines."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and not inspect.isabstract(value)
        and value.__module__ == module.__name__
    ]


def class_from_file(source: str, base: type) -> type:
    """The class of "path.py:Class". This runs the file's code: name only files that you trust.

    Raises ValueError if the file does not exist or lacks the class, or if the class is no concrete `base`.
    """
    path, colon, name = source.rpartition(":")
    if not colon:
        path, name = source, ""
    if not path.endswith(".py"):
        raise ValueError(f"{source}: expected path.py:Class")
    if not Path(path).is_file():
        raise ValueError(f"{source}: there is no file {path}")
    module = load_file(path)
    known = {cls.__name__: cls for cls in classes(module, base)}
    if name not in known:
        there = ", ".join(known) or f"no concrete {base.__name__}"
        raise ValueError(f"{source}: {_lacks(module, name, base)} {path} has {there}")
    return known[name]


def _lacks(module: ModuleType, name: str, base: type) -> str:
    """The reason why a module does not give the class of this name, in words."""
    cls = getattr(module, name, None) if name else None
    if isinstance(cls, type) and issubclass(cls, base) and inspect.isabstract(cls):
        return f"{name} does not define {', '.join(sorted(getattr(cls, '__abstractmethods__', ())))};"
    return f"it defines no {base.__name__} {name};" if name else "which class?"


def load_file(path: str) -> ModuleType:
    """The module of a Python file, run at most once in a process.

    Raises ValueError if it is no Python file, and any error that its code raises.
    """
    file = Path(path).resolve()
    name = FILE_MODULE + hashlib.sha256(str(file).encode()).hexdigest()[:16]
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ValueError(f"{path} is not a Python file (.py)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # registered before it runs: dataclasses look up their module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, ImportError) and (error.name or "").partition(".")[0] in _beside(file):
                hint = f"a file beside {file.name} is only found if its folder is on PYTHONPATH, or in a package"
                raise ImportError(f"{error}: {hint}") from error
            raise
    return sys.modules[name]


def _beside(file: Path) -> set[str]:
    """The names of modules beside this file, in the same folder; and "", for a relative import."""
    return {"", *(path.stem for path in file.parent.iterdir() if path.suffix == ".py" or path.is_dir())}


def file_of(cls: type) -> str | None:
    """The user's file that a class was loaded from; None for a class of an importable module."""
    module = sys.modules.get(cls.__module__)
    return str(module.__file__) if module is not None and cls.__module__.startswith(FILE_MODULE) else None


def is_method(value: object) -> TypeGuard[type[UncertaintyMethod]]:
    """True if the value is a concrete class of methods."""
    return isinstance(value, type) and issubclass(value, UncertaintyMethod) and not inspect.isabstract(value)


def method_name(cls: type) -> str:
    """The class's name in snake_case, with runs of capitals kept together."""
    return snake_case(cls.__name__)


def snake_case(name: str) -> str:
    """The snake_case of a name in CamelCase: MCDropout is mc_dropout."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
