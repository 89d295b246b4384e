"""Random search (Bergstra & Bengio 2012, https://jmlr.org/papers/v13/bergstra12a.html): candidates around a method's
own settings, of which a validation split of the training data chooses one for each replica.

A suite for it has two rows, the method as it is and METHOD@tunedN. Neither test points nor other replicas take part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace

from gapbench.datasets.streams import stream, torch_stream
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.predictions import MixturePrediction, Prediction
from gapbench.methods.validated import Candidate, Validated
from gapbench.runners.budget import scaled
from gapbench.runners.suites import ADAPTERS, Suite, Task, Unknown, is_source, method_of

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


def tuning(suite: Suite, name: str, trials: int, gap: int | None) -> Suite:
    """The suite whose rows are a method as it is, and tuned. gap: as in Validated. Raises Unknown."""
    if is_source(name):
        raise Unknown(f"{name}: the suite that is written cannot hold a class of a file: expected a name")
    _, method = method_of(name, suite)
    if not isinstance(method, UncertaintyMethod):
        raise Unknown(f"{name}: a control has nothing to tune: expected a method")
    if suite.adapted in ADAPTERS.values():
        raise Unknown(f"the suite gives {name} other settings on each dataset: tune it on a suite that does not")
    stds = {task.model.prior_std for task in suite.tasks.values()}
    found = candidates(method, stds.pop() if len(stds) == 1 else None, trials)
    if len(set(found)) == 1 < trials:
        raise Unknown(f"{name}: it has none of the settings that are tuned: {', '.join(RANGES)}")
    kind = _kind(method, next(iter(suite.tasks.values())))
    if kind is not MixturePrediction:
        raise Unknown(f"{name}: it gives a {kind.__name__}: a search needs a mixture of normals")
    cut = "the middle fifth of the training points" if gap is not None else "a random fifth of the training points"
    return replace(
        suite,
        description=f"{name} as it is, and the best of {trials} trials by log likelihood on {cut}",
        tasks={of: replace(task, methods=(), first={}) for of, task in suite.tasks.items()},
        methods={name: method, f"{name}@tuned{trials}": Validated(found, shuffled=gap is None, gap=gap)},
        on_request={},
    )


def _kind(method: UncertaintyMethod, task: Task) -> type[Prediction]:
    """The kind of a method's predictions, by a training of some steps."""
    x, y, x_test = task.dataset.problems([0]).inputs
    return type(scaled(method, 0.001).fit(task.model, x, y, torch_stream("cpu", "kind"))(x_test[:, :2]))
