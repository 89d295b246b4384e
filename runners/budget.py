"""Equal budgets: the settings with which a method should take a given number of CPU seconds.

The numbers of steps are multiplied by budget / cost, the cost being that in costs.json, and rounded.
Nothing is timed while a method trains, so that a run has the same bits on every machine and every day. On another
machine than the publishing one, all methods take longer or less by about the same factor.
"""

from __future__ import annotations

from dataclasses import fields, replace

from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.validated import Validated
from gapbench.runners.costs import cost

# The settings that are scaled. Draws, members and chains stay as they are.
COUNTS = ("steps", "adam_steps", "burn_in", "thin")


BEYOND = 1.2  # times the budget: what takes longer, because it has the fewest steps already, is refused


class Unmeasured(ValueError):
    """The cost of a method is not known, or no settings keep to the budget; the message says what to do."""


def budgeted(method: UncertaintyMethod, name: str, dataset: str, seconds: float) -> UncertaintyMethod:
    """The method with the steps that should take this many CPU seconds a replica on a dataset.

    A method without steps, such as a closed form, is returned as it is. Raises Unmeasured.
    """
    if not has_steps(method):
        return method
    row = name.partition("[")[0]
    if isinstance(method, Validated):
        raise Unmeasured(f"--budget: {row} is a search of settings, whose cost goes with its trials: leave it out")
    known = cost(name, dataset)
    if known is None:
        raise Unmeasured(f"--budget: what {row} costs was not measured: leave it out, or set its steps by --set")
    after = scaled(method, seconds / known)
    least = known * _steps(after) / max(_steps(method), 1)
    if least > BEYOND * seconds:
        raise Unmeasured(f"--budget {seconds:g}s: {row} takes {least:.2g} s at least: leave it out, or give more")
    return after


def has_steps(method: UncertaintyMethod) -> bool:
    """False for a method whose time no setting of its own changes, such as a closed form."""
    return bool(_counts(method) or _inner(method) or isinstance(method, Validated))


def scaled(method: UncertaintyMethod, factor: float) -> UncertaintyMethod:
    """The method with this many times the steps; of a wrapper, the method inside. A number that ends in 0 still does,
    since some methods adapt every ten steps; not that of thin, with which nothing adapts."""
    changed: dict[str, int | UncertaintyMethod] = {}
    for name, count in _counts(method).items():
        unit = 1 if count % 10 or name == "thin" else 10
        changed[name] = unit * max(1, round(count * factor / unit)) if count else 0
    changed |= {name: scaled(inner, factor) for name, inner in _inner(method).items()}
    return replace(method, **changed)


def changes(before: UncertaintyMethod, after: UncertaintyMethod) -> str:
    """What differs between two settings of a method, in words, such as "steps 8000 → 21050"; "" for nothing."""
    found = [f"{name} {count} → {_counts(after)[name]}" for name, count in _counts(before).items()]
    inner = [changes(one, _inner(after)[name]) for name, one in _inner(before).items()]
    return ", ".join(words for words in [*found, *inner] if words)


def _counts(method: UncertaintyMethod) -> dict[str, int]:
    return {one.name: getattr(method, one.name) for one in fields(method) if one.name in COUNTS and one.init}


def _steps(method: UncertaintyMethod) -> int:
    """All steps of a method, of its chains too, and of the methods inside."""
    each = {"thin": getattr(method, "draws", 1)}
    own = sum(each.get(name, 1) * count for name, count in _counts(method).items())
    return own + sum(map(_steps, _inner(method).values()))


def _inner(method: UncertaintyMethod) -> dict[str, UncertaintyMethod]:
    values = {one.name: getattr(method, one.name) for one in fields(method) if one.init}
    return {name: value for name, value in values.items() if isinstance(value, UncertaintyMethod)}
