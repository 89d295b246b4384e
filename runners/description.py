"""What a method's file says of it: its title, family, caveat and claim."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass

import numpy as np

from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.exactness import Gaussian, example

EXACT = "the exact posterior"


@dataclass(frozen=True)
class Description:
    """The parts of a method's module docstring; "" for a part that it lacks. expected: how its error bars are known to
    be wrong, such as "too narrow in a gap". claim: the law of θ on linear regression, in words."""

    title: str
    body: str
    family: str
    expected: str
    caveat: str
    claim: str


def description(method: UncertaintyMethod) -> Description:
    """The description of a method, from the lines of its docstring that begin with Family, Expected and Caveat."""
    title, _, body = (sys.modules[type(method).__module__].__doc__ or "").strip().partition("\n\n")
    parts = []
    for heading in ("Caveat", "Expected", "Family"):  # from the last
        body, _, part = body.partition(f"\n{heading}:")
        parts.append(" ".join(part.split()))
    caveat, expected, family = parts
    return Description(
        " ".join(title.split()),
        body.rstrip(),
        family.removesuffix("."),
        expected.removesuffix("."),
        caveat,
        claim(method),
    )


def claim(method: UncertaintyMethod) -> str:
    """What the method claims on linear regression, in words."""
    if method.exactness is None:
        return "none"
    regression = example()
    law = method.exactness.law(regression)
    known = {
        EXACT: regression.posterior,
        "the mean-field optimum": regression.mean_field,
        "the mode, without variance": regression.point,
    }
    for words, one in known.items():
        if _same(law, one):
            return words
    doc = inspect.getdoc(vars(type(method))["exactness"]) or ""
    return doc.partition(".\n")[0].partition("; ")[0].rstrip(".")


def _same(a: Gaussian, b: Gaussian) -> bool:
    return np.allclose(a.mean, b.mean) and np.allclose(a.covariance, b.covariance)
