"""Content: a full description of a value, in a form that can be hashed. Keys and random streams are derived from it.

Nothing here relies on `repr`, which may show an address (no content) or a rounded number (not the whole content).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch


class Undescribable(ValueError):
    """A value without content that can be keyed; the message says where the value stands and what to use instead."""


def describe(value: object, place: str = "value") -> Any:
    """The content of a value, JSON-able. place: the name of the value in errors. Raises Undescribable."""
    try:
        return _describe(value, place)
    except RecursionError:
        problem = "it contains itself, so it has no content that can be keyed"
        raise Undescribable(f"{place}: {problem}; a function may call itself if it is defined in a module") from None


def _describe(value: object, place: str) -> Any:
    if isinstance(value, Enum):  # before int and str, which some are
        return {"enum": f"{type(value).__name__}.{value.name}"}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, PurePath):
        return {"path": str(value)}
    if isinstance(value, torch.dtype | torch.device | np.dtype):
        return {type(value).__name__: str(value)}
    if isinstance(value, tuple | list):
        return [_describe(item, f"{place}[{at}]") for at, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return {"set": sorted((_describe(item, place) for item in value), key=str)}
    if isinstance(value, Mapping):
        return {
            "mapping": [[_describe(key, place), _describe(item, f"{place}[{key!r}]")] for key, item in value.items()]
        }
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        return _array(np.asarray(value), place)
    if is_dataclass(value) and not isinstance(value, type):
        # A field of metadata {"place": True} says where something lies, and another field what it is.
        told = [one.name for one in fields(value) if not one.metadata.get("place")]
        parts = {name: _describe(getattr(value, name), f"{place}.{name}") for name in told}
        return {"class": type(value).__name__, "fields": parts}
    if callable(value):
        return _callable(value, place)
    raise Undescribable(
        f"{place}: a {type(value).__name__} has no content that can be keyed; use a number, a string, a tuple, "
        "an array, a function or a frozen dataclass of these"
    )


def _array(value: np.ndarray[Any, Any], place: str) -> Any:
    if value.dtype.hasobject:
        raise Undescribable(f"{place}: an array of objects has no content that can be keyed; use one of numbers")
    data = np.ascontiguousarray(value).tobytes()
    return {"array": str(value.dtype), "shape": list(value.shape), "sha256": hashlib.sha256(data).hexdigest()}


def _callable(value: Callable[..., Any], place: str) -> Any:
    if isinstance(value, functools.partial):
        parts = {"function": value.func, "arguments": value.args, "keywords": value.keywords}
        return {"partial": {name: _describe(part, f"{place}.{name}") for name, part in parts.items()}}
    if isinstance(value, MethodType):
        return {"method": value.__func__.__name__, "of": _describe(value.__self__, place)}
    if isinstance(value, FunctionType):
        return _function(value, place)
    if isinstance(value, type):
        return {"type": f"{value.__module__}.{value.__qualname__}"}
    if isinstance(value, BuiltinFunctionType | np.ufunc) or type(value).__name__ == "builtin_function_or_method":
        return {"builtin": f"{getattr(value, '__module__', None)}.{value.__name__}"}
    raise Undescribable(
        f"{place}: a {type(value).__name__} that can be called has no content that can be keyed; use a function"
    )


def _function(value: FunctionType, place: str) -> Any:
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    names = sorted(_names(value.__code__))
    used = {name: value.__globals__[name] for name in names if name in value.__globals__}
    simple = {
        name: item for name, item in used.items() if not isinstance(item, ModuleType | type) and not callable(item)
    }
    return {
        "function": _code(value, place),
        "defaults": _describe(value.__defaults__ or (), f"{place} defaults"),
        "keywords": _describe(value.__kwdefaults__ or {}, f"{place} defaults"),
        "closure": _describe(cells, f"{place} closure"),
        "globals": _describe(simple, f"{place} globals"),
    }


def _names(code: CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _code(value: FunctionType, place: str) -> str:
    """The meaning of a function's source. For a lambda: the meaning of that lambda alone, not of its whole line."""
    code = value.__code__  # a function that wraps another has its name, but not its code
    try:
        source = textwrap.dedent(inspect.getsource(code))
    except (OSError, TypeError) as error:
        raise Undescribable(
            f"{place}: the source of {value.__qualname__} is not to be had; define it in a file"
        ) from error
    if code.co_name != "<lambda>":
        (function,) = ast.parse(source).body
        return meaning(function)
    found = {meaning(node) for node in _lambdas(source) if _same_code(node, code)}
    if len(found) != 1:
        raise Undescribable(f"{place}: the lambda cannot be told from others of its line; use a function with a name")
    return found.pop()


def _lambdas(source: str) -> list[ast.Lambda]:
    """The lambdas of a piece of source that may begin or end in the middle of an expression."""
    starts = [at for at in range(len(source)) if source.startswith("lambda", at)]
    found = []
    for start in starts:
        for end in range(len(source), start, -1):
            try:
                node = ast.parse(f"({source[start:end]})", mode="eval").body
            except SyntaxError:
                continue
            if isinstance(node, ast.Lambda):
                found.append(node)
                break
    return found


def _same_code(node: ast.Lambda, code: CodeType) -> bool:
    compiled = compile(ast.fix_missing_locations(ast.Expression(node)), "<lambda>", "eval")
    (inner,) = [constant for constant in compiled.co_consts if isinstance(constant, CodeType)]
    return inner.co_consts == code.co_consts and inner.co_varnames == code.co_varnames and _plain(inner) == _plain(code)


def _plain(code: CodeType) -> tuple[str, ...]:
    """The names that a piece of code uses: global names and those of a closure."""
    return tuple(sorted({*code.co_names, *code.co_freevars}))


def meaning(tree: str | ast.AST) -> str:
    """A dump of code that is the same for the same meaning: without docstrings, positions and empty fields.

    Empty fields are left out because new versions of Python add some.
    """
    return _dump(ast.parse(tree) if isinstance(tree, str) else tree)


def _dump(node: object) -> str:
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = {name: getattr(node, name, None) for name in node._fields}
    if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        body = node.body
        first = body[0] if body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            parts["body"] = body[1:]
    kept = {name: part for name, part in parts.items() if part is not None and part != [] and name != "type_comment"}
    return f"{type(node).__name__}({','.join(f'{name}={_dump(part)}' for name, part in kept.items())})"
