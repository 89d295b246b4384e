"""The suites: which tasks are compared on, and which method stands behind each name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gapbench.datasets.base import Dataset
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.prior_draws import PriorDraws
from gapbench.evaluation.conformance import cut
from gapbench.evaluation.controls import Control, PriorPredictive, ReferencePosterior, Truth
from gapbench.evaluation.entries import Entry, Trained
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.jitter import Jittered
from gapbench.methods.engine.minibatches import OpacusLoader, Poisson
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.noise import LearnedNoise
from gapbench.methods.hmc import HMC
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.registry import class_from_file, method_name, methods
from gapbench.methods.sgld import SGLD
from gapbench.methods.svi import SVI
from gapbench.runners.cell import Cell

CONTROLS: Mapping[str, Control] = {"reference": ReferencePosterior(), "prior": PriorPredictive(), "truth": Truth()}


@dataclass(frozen=True)
class Task:
    """A dataset with the model that is learned on it: its network, prior and noise."""

    dataset: Dataset
    model: Model


@dataclass(frozen=True)
class Suite:
    """Methods to compare on the same tasks.

    on_request: methods that are run only if they are named. replicas: unless --replicas says otherwise. block: how many
    of them are trained as one stack.
    """

    description: str
    tasks: Mapping[str, Task]
    methods: Mapping[str, UncertaintyMethod]
    replicas: int = 10
    on_request: Mapping[str, UncertaintyMethod] = field(default_factory=dict)
    block: int = 10
    shrinks: bool = False  # whether budgets are cut to seconds, those of a user's methods too


def suites() -> dict[str, Suite]:
    """Name -> suite."""
    return {
        "default": _default(),
        "all": _all(),
        "quick": _quick(),
        "prior": _prior(),
        "budgets": _budgets(),
        "notebook_sgld": _notebook_sgld(),
    }


def _default() -> Suite:
    """The methods that the question is answered with. HMC takes an hour, and the reference has its law from longer
    chains, so it runs on request."""
    private = SGLD(
        lr=0.01,
        batch=8,
        noise_multiplier=1.0,
        temperature=1.0,
        allow_clipping=True,
        burn_in=800,
        draws=50,
        thin=16,
        chains=4,
        sampling=Poisson(),
    )
    return Suite(
        "two gapped sines; 1-50-50-1, θ ~ N(0, 2 I), noise 0.1 known: the same for every method",
        {
            "gapped_sine": Task(GappedSine(), MLP()),
            "gapped_sine_noisy": Task(GappedSine(n=200, noise_std=0.1), MLP()),
        },
        {"mc_dropout": MCDropout(), "sgld": SGLD(), "sgld_private": private, "svi": SVI()},
        on_request={"hmc": HMC()},
    )


def _all() -> Suite:
    """Every method that is found, with its default settings, on the tasks of the default suite."""
    default = _default()
    found = {name: cls() for name, cls in methods().items()}
    return replace(
        default,
        description="every method that is found, on the tasks of the default suite",
        methods={**found, **default.methods},
        on_request={},
    )


def _quick() -> Suite:
    """The default suite with budgets of a few seconds: to see that everything runs, not to compare anything."""
    default = _default()
    return replace(
        default,
        description="the default suite with budgets cut to seconds: shows that everything runs, compares nothing",
        methods={name: shrunk(method) for name, method in default.methods.items()},
        on_request={name: shrunk(method) for name, method in default.on_request.items()},
        shrinks=True,
        replicas=2,
    )


def shrunk(method: UncertaintyMethod) -> UncertaintyMethod:
    """The same method with budgets of seconds."""
    small = {"steps": 200, "burn_in": 100, "draws": 20, "thin": 5, "chains": 4, "members": 2, "max_steps": 20}
    return cut(method, small)


def _prior() -> Suite:
    """The default suite's methods on tasks drawn from the prior of a smaller network, on which exact Bayes is
    calibrated everywhere. HMC, which samples it, is the proof, with as many draws as the others."""
    default, tasks = _default(), PriorDraws()
    sgld = default.methods["sgld"]
    assert isinstance(sgld, SGLD)
    return Suite(
        "200 tasks drawn from the prior of a 1-20-20-1, n = 40: on these, exact Bayes is calibrated in the gap too",
        {"prior_draws": Task(tasks, tasks.model)},
        {**default.methods, "sgld": replace(sgld, batch=tasks.n // 2)},
        replicas=200,
        on_request={"hmc": HMC(burn_in=100, draws=50, thin=4, chains=4)},
        block=100,
    )


def _budgets() -> Suite:
    """Methods name@steps of each chain, at growing budgets with 200 draws whatever the budget: SGLD at three step sizes
    and with the noise multiplier of privacy, private SGLD, HMC."""
    default = _default()
    sgld, private = default.methods["sgld"], default.methods["sgld_private"]
    assert isinstance(sgld, SGLD) and isinstance(private, SGLD)
    settings_at_budgets: dict[str, UncertaintyMethod] = {}
    settings = {f"sgld_lr{lr:g}": replace(sgld, lr=lr) for lr in (2e-4, 6e-4, 8e-4)}
    settings["sgld_sigma1"] = replace(sgld, noise_multiplier=1.0, allow_clipping=True, sampling=Poisson())
    for name, setting in settings.items():
        for steps in (630, 2450, 9800, 39_200)[: None if setting == sgld else 3]:
            settings_at_budgets[f"{name}@{steps}"] = replace(setting, burn_in=steps * 5 // 7, thin=steps // 35)
    for steps in (400, 1600, 6400):
        settings_at_budgets[f"sgld_private@{steps}"] = replace(private, burn_in=steps // 2, thin=steps // 100)
    for steps in (30, 60, 120):
        settings_at_budgets[f"hmc@{steps}"] = HMC(burn_in=steps - 25, draws=25, thin=1)
    return Suite(
        "what compute buys and privacy costs: distance to the posterior at growing budgets, drawn by `gapbench plot`",
        {"gapped_sine_noisy": default.tasks["gapped_sine_noisy"]},
        settings_at_budgets,
        replicas=5,
    )


def _notebook_sgld() -> Suite:
    """The notebook's run (100 epochs of 63 steps, one model kept after each) and what it would be done right."""
    as_it_was = SGLD(
        lr=0.01,
        batch=16,
        noise_multiplier=1.0,
        temperature=1.0,
        allow_clipping=True,
        burn_in=0,
        draws=100,
        thin=63,
        chains=1,
        sampling=OpacusLoader(),
    )
    settings = {
        "notebook": as_it_was,
        "corrected_rates": replace(as_it_was, sampling=Poisson()),
        "corrected": replace(as_it_was, sampling=Poisson(), noise_multiplier=1e-3, allow_clipping=False),
    }
    network = MLP(
        hidden=(100, 100),
        prior_std=math.sqrt(10),
        noise_std=math.sqrt(0.5),
        scale_by_fan_in=False,
        default_init=True,
    )
    return Suite(
        "the notebook's SGLD run as it was; at sampling rate b/n and divisor b; and also without clipping",
        {"gapped_sine_notebook": Task(GappedSine(extrapolation=0.0, test_points=100), network)},
        {name: Jittered(method, f_std=0.01) for name, method in settings.items()},
        replicas=20,
    )


class Unknown(ValueError):
    """A choice that makes no sense; the message names it and says what was expected."""


@dataclass(frozen=True)
class Selection:
    """What is to be run. entries: name -> entry; tasks: name -> task."""

    entries: Mapping[str, Entry]
    tasks: Mapping[str, Task]

    def cells(self, replicas: int, seed: int, block: int) -> list[Cell]:
        """All cells. block: replicas that are trained as one stack (so --replicas 20 reuses the cells of --replicas
        10); the last one is smaller if `replicas` is not a multiple of it."""
        return [
            Cell(of, task.dataset, fitting(task), name, entry, first, min(first + block, replicas), seed)
            for of, task in self.tasks.items()
            for name, entry in self.entries.items()
            for first in range(0, replicas, block)
        ]


def fitting(task: Task) -> Model:
    """The task's model, for as many features as its data have."""
    return task.model.with_features(task.dataset.problems([0]).x.shape[2])


def select(
    suite: Suite,
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
    load: Callable[[str, type], type] = class_from_file,
) -> Selection:
    """Entries and tasks of a suite, or those that are named, a user's own among them.

    methods, datasets: names of the suite and "path.py:Class"; none for all of the suite, those on request left out.
    Controls always run beside. Raises Unknown for a name that is not there or is taken, and whatever a file's code
    raises.
    """
    known: dict[str, UncertaintyMethod | Control] = {**suite.methods, **suite.on_request, **CONTROLS}
    chosen: dict[str, UncertaintyMethod | Control] = {} if methods else dict(suite.methods)
    for word in methods:
        if is_source(word):
            own = load(word, UncertaintyMethod)
            name = method_name(own)
            if name in known or name in chosen:
                taken = "a shipped method or control" if name in known else "another class that you named"
                raise Unknown(f"{word}: its name {name} is that of {taken}; rename the class")
            chosen[name] = shrunk(own()) if suite.shrinks else own()
        else:
            chosen[named("method", word, known)] = known[word]
    tasks: dict[str, Task] = {} if datasets else dict(suite.tasks)
    for word in datasets:
        if is_source(word):
            dataset = load(word, Dataset)()
            name = method_name(type(dataset))
            if name in suite.tasks or name in tasks:
                raise Unknown(f"{word}: its name {name} is that of another dataset; rename the class")
            tasks[name] = Task(dataset, dataset.network or MLP(noise_std=LearnedNoise()))
        else:
            tasks[named("dataset", word, suite.tasks)] = suite.tasks[word]
    entries = {name: Trained(one) if isinstance(one, UncertaintyMethod) else one for name, one in chosen.items()}
    return Selection({**entries, **{name: one for name, one in CONTROLS.items() if name not in entries}}, tasks)


def is_source(word: str) -> bool:
    """Whether a word names a class of a file, and not a name."""
    return ":" in word or word.endswith(".py")


def named(kind: str, name: str, known: Iterable[str]) -> str:
    """The name itself. Raises Unknown, with the nearest name that is known."""
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}" if near else f"expected one of {', '.join(known)}"
    raise Unknown(f"unknown {kind} {name!r}: {hint}; `gapbench list` shows all")
