"""`gapbench tune`'s suite: two rows, a method as it is and METHOD@tunedN, or METHOD@gap_tunedN by a gap.

For each replica a validation split of its training data chooses one of some candidates. Neither test points nor other
replicas take part.
"""

from __future__ import annotations

from dataclasses import replace

from gapbench.datasets.streams import torch_stream
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.predictions import MixturePrediction, Prediction
from gapbench.methods.validated import Validated
from gapbench.runners.budget import scaled
from gapbench.runners.candidates import RANGES, candidates
from gapbench.runners.suites import ADAPTERS, Suite, Task, Unknown, is_source, method_of


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
    kind_of_search = "tuned" if gap is None else "gap_tuned"
    cut = "the middle fifth of the training points" if gap is not None else "a random fifth of the training points"
    return replace(
        suite,
        description=f"{name} as it is, and the best of {trials} trials by log likelihood on {cut}",
        tasks={of: replace(task, methods=(), first={}) for of, task in suite.tasks.items()},
        methods={name: method, f"{name}@{kind_of_search}{trials}": Validated(found, shuffled=gap is None, gap=gap)},
        on_request={},
    )


def _kind(method: UncertaintyMethod, task: Task) -> type[Prediction]:
    """The kind of a method's predictions, by a training of some steps."""
    x, y, x_test = task.dataset.problems([0]).inputs
    return type(scaled(method, 0.001).fit(task.model, x, y, torch_stream("cpu", "kind"))(x_test[:, :2]))
