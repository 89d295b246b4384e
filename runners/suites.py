"""The suites: which datasets, which network, and which method stands behind each row's name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gapbench.datasets.base import Dataset
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.prior_draws import PriorDraws
from gapbench.evaluation.conformance import cut
from gapbench.evaluation.controls import Control, PriorPredictive, Truth
from gapbench.evaluation.reference import ReferencePosterior
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.hmc import HMC
from gapbench.methods.minibatches import OpacusLoader, Poisson
from gapbench.methods.model import MLP, Model
from gapbench.methods.registry import methods
from gapbench.methods.sgld import SGLD

CONTROLS: Mapping[str, Control] = {"reference": ReferencePosterior(), "prior": PriorPredictive(), "truth": Truth()}
ON_REQUEST = ("hmc",)  # takes an hour; the reference row has its result from longer chains


@dataclass(frozen=True)
class Suite:
    """Rows to compare on the same data, network, prior and noise. on_request: run only if they are named.
    replicas: unless --replicas says otherwise. block: how many of them are trained as one stack."""

    about: str
    model: Model
    datasets: Mapping[str, Dataset]
    methods: Mapping[str, UncertaintyMethod]
    replicas: int = 10
    on_request: Mapping[str, UncertaintyMethod] = field(default_factory=dict)
    block: int = 10


def suites() -> dict[str, Suite]:
    made = (_default, _quick, _prior, _budgets, _notebook_sgld)
    return {one.__name__.removeprefix("_"): one() for one in made}


def _default() -> Suite:
    """Every method of methods/ with its default settings, and SGLD a second time as it is when it is private."""
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
    rows = {name: cls() for name, cls in methods().items()}
    on_request = {name: rows.pop(name) for name in ON_REQUEST if name in rows}
    return Suite(
        "1-50-50-1, θ ~ N(0, 2 I) with 1/√fan_in inside, noise 0.1 known: the same for every method",
        MLP(),
        {"gapped_sine": GappedSine(), "gapped_sine_noisy": GappedSine(n=200, noise=0.1)},
        dict(sorted({**rows, "sgld_private": private}.items())),
        on_request=on_request,
    )


def _quick() -> Suite:
    """The default suite with budgets of a few seconds: to see that everything runs, not to compare anything."""
    default = _default()
    return replace(
        default,
        about="the default suite with budgets cut to seconds: shows that everything runs, compares nothing",
        methods={name: shrunk(method) for name, method in default.methods.items()},
        on_request={name: shrunk(method) for name, method in default.on_request.items()},
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
        tasks.model,
        {"prior_draws": tasks},
        {**default.methods, "sgld": replace(sgld, batch=tasks.n // 2)},
        replicas=200,
        on_request={"hmc": HMC(burn_in=100, draws=50, thin=4, chains=4)},
        block=100,
    )


def _budgets() -> Suite:
    """Rows name@steps of each chain, at growing budgets with 200 draws whatever the budget: SGLD at three step sizes
    and with the noise multiplier of privacy, private SGLD, HMC."""
    default = _default()
    sgld, private = default.methods["sgld"], default.methods["sgld_private"]
    assert isinstance(sgld, SGLD) and isinstance(private, SGLD)
    rows: dict[str, UncertaintyMethod] = {}
    settings = {f"sgld_lr{lr:g}": replace(sgld, lr=lr) for lr in (2e-4, 6e-4, 8e-4)}
    settings["sgld_sigma1"] = replace(sgld, noise_multiplier=1.0, allow_clipping=True, sampling=Poisson())
    for name, setting in settings.items():
        for steps in (630, 2450, 9800, 39_200)[: None if setting == sgld else 3]:
            rows[f"{name}@{steps}"] = replace(setting, burn_in=steps * 5 // 7, thin=steps // 35)
    for steps in (400, 1600, 6400):
        rows[f"sgld_private@{steps}"] = replace(private, burn_in=steps // 2, thin=steps // 100)
    for steps in (30, 60, 120):
        rows[f"hmc@{steps}"] = HMC(burn_in=steps - 25, draws=25, thin=1)
    return Suite(
        "what compute buys and privacy costs: distance to the posterior at growing budgets, drawn by `gapbench plot`",
        default.model,
        {"gapped_sine_noisy": default.datasets["gapped_sine_noisy"]},
        rows,
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
    return Suite(
        "the notebook's SGLD run as it was; at sampling rate b/n and divisor b; and also without clipping",
        MLP(
            hidden=(100, 100),
            prior_std=math.sqrt(10),
            noise_std=math.sqrt(0.5),
            f_std=0.01,
            scale_by_fan_in=False,
            default_init=True,
        ),
        {"gapped_sine_notebook": GappedSine(edge=0.0, test_points=100)},
        {
            "notebook": as_it_was,
            "corrected_rates": replace(as_it_was, sampling=Poisson()),
            "corrected": replace(as_it_was, sampling=Poisson(), noise_multiplier=1e-3, allow_clipping=False),
        },
        replicas=20,
    )
