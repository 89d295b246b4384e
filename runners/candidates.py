"""The candidates of a random search (Bergstra & Bengio 2012, https://jmlr.org/papers/v13/bergstra12a.html): a method's
own settings, and others around them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace

from gapbench.datasets.streams import stream
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.validated import Candidate, Validated

# Each setting is its own value times a factor, log-uniform between these. Steps and members stay: they are the budget.
RANGES: Mapping[str, tuple[float, float]] = {
    "lr": (0.1, 10.0),
    "sgd_lr": (0.1, 10.0),
    "rate": (0.1, 10.0),
    "friction": (0.1, 10.0),
    "init_scale": (0.1, 10.0),
}
PRIOR = (1 / 3, 3.0)  # the factors of the prior's std
BELOW_ONE = ("rate", "friction")


def candidates(method: UncertaintyMethod, prior_std: float | None, trials: int) -> tuple[Candidate, ...]:
    """The method as it is, and trials − 1 others. prior_std: that of the model; None to leave it alone.

    The same method, prior and place in the search always give the same candidate, so more trials add to fewer.
    """
    found = [Candidate(method)]
    for trial in range(1, trials):
        random = stream("tuning", type(method).__name__, trial)

        def near(value: float, ends: tuple[float, float]) -> float:
            factor = math.exp(random.uniform(math.log(ends[0]), math.log(ends[1])))  # noqa: B023  # of this round
            return float(f"{value * factor:.3g}")

        changed = {}
        for one in fields(method):
            value = getattr(method, one.name)
            if one.name in RANGES and isinstance(value, float) and value > 0:
                most = 0.9 if one.name in BELOW_ONE else math.inf
                changed[one.name] = min(near(value, RANGES[one.name]), most)
        prior = None if prior_std is None else near(prior_std, PRIOR)
        found.append(Candidate(replace(method, **changed), prior_std=prior))
    return tuple(found)


def searches(name: str, method: UncertaintyMethod, prior_std: float, trials: int) -> dict[str, UncertaintyMethod]:
    """A method as it is, and the best of the trials by two splits of the training points: a random fifth decides, or
    the fifth in the middle of the first feature."""
    found = candidates(method, prior_std, trials)
    return {
        name: method,
        f"{name}@tuned{trials}": Validated(found, shuffled=True),
        f"{name}@gap_tuned{trials}": Validated(found, gap=0),
    }
