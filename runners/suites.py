"""The suites: which tasks are compared on, and which method stands behind each name."""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from typing import Any, TypeVar

from gapbench.datasets.base import Dataset
from gapbench.datasets.blocks import Blocks
from gapbench.datasets.gapped_heteroscedastic import GappedHeteroscedastic
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.gapped_step import GappedStep
from gapbench.datasets.prior_draws import PriorDraws
from gapbench.datasets.repeated import Repeated
from gapbench.datasets.two_clusters import TwoClusters
from gapbench.datasets.uci import TABLES, UCI, read
from gapbench.evaluation.certificate import MAX_MCSE, PRECISE
from gapbench.evaluation.conformance import cut
from gapbench.evaluation.controls import Control, PriorPredictive, ReferencePosterior, Truth
from gapbench.evaluation.entries import Entry, Trained
from gapbench.evaluation.knobs import AT_CENTER, CENTER, KNOBS
from gapbench.methods.anchored_ensemble import AnchoredEnsemble
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.collapsed_svi import CollapsedSVI
from gapbench.methods.cqr import CQR
from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.jitter import Jittered
from gapbench.methods.engine.minibatches import OpacusLoader, Poisson
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise
from gapbench.methods.evidential import Evidential
from gapbench.methods.flipout import Flipout
from gapbench.methods.hmc import HMC
from gapbench.methods.kronecker_laplace import KroneckerLaplace
from gapbench.methods.laplace import Laplace
from gapbench.methods.local_conformal import LocalConformal
from gapbench.methods.mams import MAMS
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.mclmc import MCLMC
from gapbench.methods.mixture_density import MixtureDensity
from gapbench.methods.multi_swag import MultiSWAG
from gapbench.methods.nngp import NNGP
from gapbench.methods.packed_ensemble import PackedEnsemble
from gapbench.methods.recalibrated import Recalibrated
from gapbench.methods.registry import Registry, class_from_file, method_name, registry
from gapbench.methods.sgld import SGLD
from gapbench.methods.svi import SVI
from gapbench.methods.swag import SWAG
from gapbench.methods.validated import Candidate, Validated
from gapbench.runners.budget import COUNTS, budgeted, changes, has_steps, scaled
from gapbench.runners.candidates import searches
from gapbench.runners.cell import Cell
from gapbench.runners.guard import undisturbed
from gapbench.runners.store import first_line

T = TypeVar("T")

# Chains that start at the members of a deep ensemble (Sommer et al. 2025, https://arxiv.org/abs/2502.06335): the 10
# chains and the energy error that were published, with a tenth of the 60,000 steps.
MILE = MCLMC(error=0.1, collapse=False, adam_steps=2000, burn_in=5000, draws=20, thin=50, chains=10)

TO_OPTIMA = 200  # steps of Adam by which MCLMC's chains come near enough to an optimum, at 200 points

CONTROLS: Mapping[str, Control] = {"reference": ReferencePosterior(), "prior": PriorPredictive(), "truth": Truth()}


@dataclass(frozen=True)
class Task:
    """A dataset with the model that is learned on it: its network, prior and noise.

    mcse: the largest Monte-Carlo error of its references in data and gap, in stds of f. methods: the names of the
    suite's methods that are run on it; all if none is named. first: of methods that are dear here, how many of the
    first replicas they are run on. replicas: how many of its replicas are run at most; None for no limit.
    """

    dataset: Dataset
    model: Model
    mcse: float = MAX_MCSE
    methods: tuple[str, ...] = ()
    first: Mapping[str, int] = field(default_factory=dict)
    replicas: int | None = None


@dataclass(frozen=True)
class Suite:
    """Methods to compare on the same tasks.

    on_request: methods that are run only if they are named. replicas: unless --replicas says otherwise. block: how many
    of them are trained as one stack. adapted: gives a method the settings that are fair on a task. shrinks: whether
    budgets are cut to seconds, those of a user's methods too. notes: sentences on the data.
    """

    description: str
    tasks: Mapping[str, Task]
    methods: Mapping[str, UncertaintyMethod]
    replicas: int = 10
    on_request: Mapping[str, UncertaintyMethod] = field(default_factory=dict)
    block: int = 10
    adapted: Callable[[UncertaintyMethod, Task], UncertaintyMethod] = lambda method, task: method
    shrinks: bool = False
    notes: tuple[str, ...] = ()


class Suites(Mapping[str, Suite]):
    """Name -> suite, each built when it is asked for: "all" imports every plugin."""

    def __getitem__(self, name: str) -> Suite:
        return BUILDERS[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(BUILDERS)

    def __len__(self) -> int:
        return len(BUILDERS)


def suites() -> Mapping[str, Suite]:
    """Name -> suite."""
    return Suites()


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
            "gapped_sine": Task(GappedSine(), MLP(), PRECISE),
            "gapped_sine_noisy": Task(GappedSine(n=200, noise_std=0.1), MLP(), PRECISE),
        },
        {
            "anchored_ensemble": AnchoredEnsemble(),
            "cqr": CQR(),
            "deep_ensemble": DeepEnsemble(),
            "evidential": Evidential(),
            "laplace": Laplace(),
            "mc_dropout": MCDropout(),
            "mclmc": MCLMC(),
            "nngp": NNGP(),
            "sgld": SGLD(),
            "sgld_private": private,
            "svi": SVI(),
            "swag": SWAG(),
        },
        on_request={"hmc": HMC(), "mams": MAMS(), "mile": MILE},
    )


def _all() -> Suite:
    """Every method that is found, with its default settings, on the tasks of the default suite."""
    default = _default()
    found = {name: cls() for name, cls in discovered().methods.items()}
    return replace(
        default,
        description="every method that is found, on the tasks of the default suite",
        methods=dict(sorted({**found, **default.methods}.items())),
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


def _without(methods: Mapping[str, UncertaintyMethod], *names: str) -> dict[str, UncertaintyMethod]:
    return {name: method for name, method in methods.items() if name not in names}


def shrunk(method: UncertaintyMethod) -> UncertaintyMethod:
    """The same method with budgets of seconds."""
    small = {"steps": 200, "burn_in": 100, "draws": 20, "thin": 5, "chains": 4, "members": 2, "max_steps": 20}
    return cut(method, small)


def _prior() -> Suite:
    """The default suite's methods on tasks drawn from the prior of a smaller network, on which exact Bayes is
    calibrated everywhere. HMC, which samples it, is the proof, with as many draws as the others."""
    default, tasks = _default(), PriorDraws()
    sgld, swag = default.methods["sgld"], default.methods["swag"]
    assert isinstance(sgld, SGLD) and isinstance(swag, SWAG)
    half = tasks.n // 2  # a batch of all points has no noise, whose law SWAG's is
    return Suite(
        "200 tasks drawn from the prior of a 1-20-20-1, n = 40: on these, exact Bayes is calibrated in the gap too",
        {"prior_draws": Task(tasks, tasks.model)},
        # Not cqr: a third of 40 points cannot calibrate an interval of 95 %.
        {**_without(default.methods, "cqr"), "sgld": replace(sgld, batch=half), "swag": replace(swag, batch=half)},
        replicas=200,
        on_request={"hmc": HMC(burn_in=100, draws=50, thin=4, chains=4), "multi_swag": MultiSWAG(batch=half)},
        block=100,
    )


def _budgets() -> Suite:
    """Methods name@steps of each chain, at growing budgets with 200 draws whatever the budget: SGLD at three step sizes
    and with the noise multiplier of privacy, private SGLD, HMC, MCLMC; and trained methods at a quarter of their own
    steps, at all of them, and at four times as many."""
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
    for steps in (300, 750, 1500, 3000):
        settings_at_budgets[f"mclmc@{steps}"] = MCLMC(burn_in=steps // 30 * 10, thin=steps * 2 // 75)
    for name in ("anchored_ensemble", "deep_ensemble", "laplace", "mc_dropout", "svi", "swag"):
        for times in (0.25, 1, 4):
            trained = scaled(default.methods[name], times)
            settings_at_budgets[f"{name}@{trained.steps}"] = trained  # type: ignore[attr-defined]
    return Suite(
        "what compute buys and privacy costs: distance to the posterior at growing budgets, drawn by `gapbench plot`",
        {"gapped_sine_noisy": default.tasks["gapped_sine_noisy"]},
        settings_at_budgets,
        replicas=5,
    )


def _tuning() -> Suite:
    """The default suite's methods as they are, and tuned by two kinds of split. Not cqr and evidential, which predict
    no mixture of normals."""
    default = _default()
    task = default.tasks["gapped_sine_noisy"]
    rows: dict[str, UncertaintyMethod] = {}
    for name, method in _without(default.methods, "cqr", "evidential").items():
        rows |= searches(name, method, task.model.prior_std, trials=30)
    return Suite(
        "what 30 trials of random search buy: the default, the best on a random fifth of the training points (tuned), "
        "and the best on the points at the edges of the gap (gap_tuned)",
        {"gapped_sine_noisy": task},
        rows,
        replicas=5,
    )


# The SGLD notebook's run: 100 epochs of 63 steps, one model kept after each.
AS_IT_WAS = SGLD(
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


def _of_notebook(hidden: tuple[int, ...], prior_std: float) -> MLP:
    """A network of the notebooks, in torch's own parametrisation. Their loss (y − f)² means a noise variance of 0.5. A
    weight decay of 10⁻⁴ for n points means a prior variance of 10⁴/n on every weight."""
    return MLP(hidden=hidden, prior_std=prior_std, noise_std=math.sqrt(0.5), scale_by_fan_in=False, default_init=True)


def _notebook_sgld() -> Suite:
    """The notebook's SGLD run and what it would be done right."""
    settings = {
        "notebook": AS_IT_WAS,
        "corrected_rates": replace(AS_IT_WAS, sampling=Poisson()),
        "corrected": replace(AS_IT_WAS, sampling=Poisson(), noise_multiplier=1e-3, allow_clipping=False),
    }
    return Suite(
        "the notebook's SGLD run as it was; at sampling rate b/n and divisor b; and also without clipping",
        {
            "gapped_sine_notebook": Task(
                GappedSine(extrapolation=0.0, test_points=100), _of_notebook((100, 100), math.sqrt(10))
            )
        },
        {name: Jittered(method, f_std=0.01) for name, method in settings.items()},
        replicas=20,
    )


def _notebooks() -> Suite:
    """The five notebooks of the series as they were, each beside the same method in the suite's common setting."""
    few, many = (GappedSine(n=n, extrapolation=0.0, test_points=100) for n in (200, 1000))
    decayed = math.sqrt(50)  # weight decay 1e-4 at 200 points
    passes: dict[str, Any] = {"steps": 4000, "lr": 1e-3, "batch": 64, "by_epochs": True}  # 1000 epochs of four batches
    rho = math.log1p(math.exp(-3))  # the std that the notebook's q starts at: softplus(−3)
    flipout = Flipout(**passes, init_scale=rho, kl_weight=200 * 1e-4 / 64, draws=100)
    tasks = {
        "ensemble_notebook": Task(Blocks(dataset=few, blocks=10), _of_notebook((1000, 1000), decayed)),
        "svi_notebook": Task(few, _of_notebook((100, 100), 1.0)),
        "dropout_notebook": Task(few, _of_notebook((1000, 1000, 1000), decayed)),
        "sgld_notebook": Task(many, _of_notebook((100, 100), math.sqrt(10))),
    }
    as_they_were: dict[str, UncertaintyMethod] = {
        "ensemble_notebook": DeepEnsemble(**passes, members=10, own_data=True),
        "svi_notebook": Jittered(flipout, f_std=math.sqrt(5e-5)),
        "dropout_notebook": MCDropout(**passes, rate=0.5, draws=100),
        "sgld_notebook": Jittered(AS_IT_WAS, f_std=0.01),
    }
    common: dict[str, UncertaintyMethod] = {
        "deep_ensemble": DeepEnsemble(),
        "flipout": Flipout(),
        "mc_dropout": MCDropout(),
        "sgld": SGLD(),
    }
    description = "the five notebooks of the series as they were, and the same methods in the suite's common setting"
    if find_spec("gpytorch") is None:
        description += "; without the deep GP, which needs: pip install 'gapbench[gp]'"
    else:
        from gapbench.methods.deep_gp import DeepGP

        # gpytorch's noise variance is softplus of a parameter that starts at 0; so log σ starts at log 0.83, and moves
        # 0.4 for a step of 1.
        tasks["deep_gp_notebook"] = Task(few, MLP(noise_std=LearnedNoise(center=math.sqrt(math.log(2)), spread=0.4)))
        as_they_were["deep_gp_notebook"] = DeepGP(
            width=10,
            hidden=2,
            inducing=128,
            kl_weight=0.01,
            samples=10,
            draws=10,
            steps=200,
            lr=0.01,
            batch=128,
            by_epochs=True,
            average_variances=True,
        )
        common["deep_gp"] = DeepGP()
    return Suite(
        description,
        {
            **{name: replace(task, methods=(name,)) for name, task in tasks.items()},
            "common_200": Task(few, MLP(), methods=tuple(name for name in common if name != "sgld")),
            "common_1000": Task(many, MLP(), methods=("sgld",)),
        },
        {**as_they_were, **common},
        block=2,  # networks of a million parameters: more replicas at once are no faster
    )


def _data_size() -> Suite:
    """Does SGLD need more data than SVI and dropout? The same methods at three numbers of points."""
    default = _default()
    return Suite(
        "sgld, svi, mc_dropout and mclmc on the gapped sine at n = 50, 200 and 1000, with equal gradients",
        {f"n@{n}": knobs_task(n=n) for n in (50, 1000)} | {CENTER: default.tasks["gapped_sine_noisy"]},
        {name: default.methods[name] for name in ("mc_dropout", "mclmc", "sgld", "svi")},
        replicas=5,
        adapted=equal_budget,
    )


def _seeds() -> Suite:
    """How much of a score is chance of the data, and how much of the training? Ten training sets, three trainings of
    each. Of a method without random numbers, nothing is of the training."""
    default = _default()
    noisy = default.tasks[CENTER]
    return Suite(
        "ten training sets of the gapped sine, three trainings of each: `gapbench variance` splits what varies",
        {"gapped_sine_seeds": replace(noisy, dataset=Repeated(dataset=noisy.dataset, seeds=3))},
        _without(default.methods, "nngp"),
        replicas=30,
        block=30,
    )


WHOLE = ("collapsed_svi", "mclmc", "nngp")  # they need all rows at once
LARGE = ("kin8nm", "naval", "power")  # tables of 8,000 rows and more
REFERENCES = 5  # splits of boston of each kind with a certified posterior
# The noise that the MAP learns on the first two gap splits, in stds of y; of another seed, so with other held-out rows.
NOISE = {
    "boston": 0.15,
    "concrete": 0.2,
    "energy": 0.04,
    "kin8nm": 0.3,
    "naval": 0.07,
    "power": 0.2,
    "wine": 0.65,
    "yacht": 0.02,
}


def _uci() -> Suite:
    """The eight tables with their standard splits."""
    return _tables("eight UCI tables, 20 standard splits each; D-50-1, noise learned", "{}", gap=False, replicas=20)


def _uci_gap() -> Suite:
    """The eight tables with their gap splits."""
    words = "eight UCI tables without the middle third of each feature in turn: held-out rows, and those in the gap"
    return _tables(words, "{}_gap", gap=True, replicas=14)


def _uci_reference() -> Suite:
    """Boston on the splits whose posterior is known."""
    boston = {"boston": UCI(table="boston"), "boston_gap": UCI(table="boston", gap=True)}
    return replace(
        _uci(),
        description="boston's first five standard and gap splits with certified posteriors: real data and the true law",
        tasks={name: Task(dataset, dataset.network, replicas=REFERENCES) for name, dataset in boston.items()},
        replicas=REFERENCES,
    )


def _tables(description: str, name: str, gap: bool, replicas: int) -> Suite:
    """Methods on the UCI tables. On the large ones, methods that need all rows at once take five splits."""
    default = _default()
    return Suite(
        description,
        {
            name.format(table): Task(dataset, dataset.network, first=dict.fromkeys(WHOLE, 5) if table in LARGE else {})
            for table in TABLES
            for dataset in [UCI(table=table, gap=gap)]
        },
        {
            **_without(default.methods, "sgld_private"),
            **_trees(),
            "collapsed_svi": CollapsedSVI(),
            "deep_ensemble_variance": DeepEnsemble(mean_variance=True),
            "kronecker_laplace": KroneckerLaplace(),
            "local_conformal": LocalConformal(),
            "mclmc": MCLMC(adam_steps=2000, burn_in=800, thin=60),
            "mixture_density": MixtureDensity(),
            "multi_swag": MultiSWAG(),
            "packed_ensemble": PackedEnsemble(),
            "recalibrated": Recalibrated(),
            "sgld": SGLD(lr=5e-3),
        },
        replicas=replicas,
        adapted=follow_noise,
    )


def _trees() -> dict[str, UncertaintyMethod]:
    """Methods without a network, by which a network is measured on tables; none without scikit-learn."""
    if find_spec("sklearn") is None:
        return {}
    from gapbench.methods.boosted_quantiles import BoostedQuantiles
    from gapbench.methods.quantile_forest import QuantileForest

    return {"boosted_quantiles": BoostedQuantiles(), "quantile_forest": QuantileForest()}


def follow_noise(method: UncertaintyMethod, task: Task) -> UncertaintyMethod:
    """The method with a step of SGD that goes with σ², as the curvature of the log likelihood goes with 1/σ²; MCLMC
    with half as many chains where they are dear. A user's own dataset, whose noise nobody knows, changes nothing."""
    if not isinstance(task.dataset, UCI):
        return method
    if isinstance(method, MCLMC) and task.dataset.table in LARGE:
        return replace(method, chains=method.chains // 2)
    times = (NOISE[task.dataset.table] / AT_CENTER["noise"]) ** 2
    if isinstance(method, SGLD):
        return replace(method, lr=method.lr * times)
    return replace(method, sgd_lr=method.sgd_lr * times) if isinstance(method, SWAG) else method


# Grids of the precision of y that Gal & Ghahramani's code searches, in units of y⁻²; and of the rate of dropout.
PRECISIONS = {
    "boston": (0.1, 0.15, 0.2),
    "concrete": (0.025, 0.05, 0.075),
    "energy": (0.25, 0.5, 0.75),
    "kin8nm": (150.0, 200.0, 250.0),
    "naval": (30_000.0, 40_000.0, 50_000.0),
    "power": (0.05, 0.1, 0.15),
    "wine": (2.5, 3.0, 3.5),
    "yacht": (0.25, 0.5, 0.75),
}
RATES = (0.005, 0.01, 0.05, 0.1)


def _published(table: str, noise_std: float | Noise) -> Task:
    """A table as papers train on it: one hidden layer of 50 in torch's own parametrisation, and almost no prior."""
    dataset = UCI(table=table)
    plain = replace(dataset.network, prior_std=1e3, scale_by_fan_in=False, default_init=True)
    return Task(dataset, replace(plain, noise_std=noise_std))


def _uci_mc_dropout() -> Suite:
    """MC dropout as the code of Gal & Ghahramani 2016 runs it since 2018, at 100 × 40 epochs."""
    return Suite(
        "MC dropout on UCI tables by the protocol of its authors' code (2018): 4000 epochs, a grid for each split",
        {table: _published(table, 1.0) for table in TABLES},
        {"mc_dropout_grid": Validated()},
        replicas=20,
        adapted=dropout_grid,
    )


def dropout_grid(method: UncertaintyMethod, task: Task) -> UncertaintyMethod:
    """The candidates of a table: each rate with each precision τ.

    Their loss is the mean squared error of standardised y plus l²(1 − rate)/(2nτ)·|W|², with l = 0.01. That is the
    posterior with the noise 1/√(τ s²) and the prior variance 2/(s² l² (1 − rate)), s the std of y. (Ours also holds for
    the biases, where it is as good as none.) s is that of the whole table: of a split it differs by a hundredth.
    """
    if not (isinstance(method, Validated) and isinstance(task.dataset, UCI)):
        return method
    table = task.dataset.table
    s, steps = float(read(table)[1].std()), 4000 * math.ceil(round(TABLES[table].rows * 0.9) / 128)
    dropout = MCDropout(inputs=True, steps=steps, lr=1e-3, batch=128, by_epochs=True, draws=1000)
    return Validated(
        tuple(
            Candidate(
                replace(dropout, rate=rate),
                noise_std=1 / (math.sqrt(precision) * s),
                prior_std=math.sqrt(2 / (1 - rate)) / (0.01 * s),
            )
            for rate in RATES
            for precision in PRECISIONS[table]
        )
    )


def _uci_deep_ensemble() -> Suite:
    """Deep ensembles as Lakshminarayanan et al. 2017 ran them: a constant step of 0.1, 40 epochs, the mixture's
    moments."""
    ensemble = DeepEnsemble(
        mean_variance=True, beta=0.0, softplus=True, as_normal=True, lr=0.1, batch=100, by_epochs=True
    )
    return Suite(
        "deep ensembles on UCI tables by the protocol of Lakshminarayanan et al. 2017, adversarial training off and on",
        {table: _published(table, LearnedNoise()) for table in TABLES},
        {
            "ensemble_2017": ensemble,
            "ensemble_2017_adversarial": replace(ensemble, adversarial=0.01),
            # With a tenth of the step that the paper names, its numbers come out (docs/uci.md).
            "ensemble_tenth": replace(ensemble, lr=0.01),
            "ensemble_tenth_adversarial": replace(ensemble, lr=0.01, adversarial=0.01),
        },
        replicas=20,
        adapted=forty_epochs,
    )


def forty_epochs(method: UncertaintyMethod, task: Task) -> UncertaintyMethod:
    """A method that trains by epochs, with 40 of them on the training rows of a standard split."""
    if not (isinstance(method, AdamTrained) and method.by_epochs and isinstance(task.dataset, UCI)):
        return method
    return replace(method, steps=40 * math.ceil(round(TABLES[task.dataset.table].rows * 0.9) / method.batch))


def _uci_gap_all_rows() -> Suite:
    """The gap splits as published, with no row held out but the gap: the methods of DUN's table of baselines."""
    default = _default()
    return Suite(
        "gap splits of UCI tables that train on all rows outside the gap, as published: dropout, ensemble, SVI, MAP",
        {
            f"{table}_gap": Task(dataset, dataset.network)
            for table in TABLES
            for dataset in [UCI(table=table, gap=True, held=0.0)]
        },
        {
            "deep_ensemble": default.methods["deep_ensemble"],
            "map": DeepEnsemble(members=1),
            "mc_dropout": default.methods["mc_dropout"],
            "svi": default.methods["svi"],
        },
        replicas=14,
    )


def _tasks() -> Suite:
    """The default suite's methods on four more tasks whose true posterior is known."""
    default, learned = _default(), PriorDraws(model=MLP(hidden=(20, 20), noise_std=LearnedNoise(center=0.1)))
    return Suite(
        "two clusters, a step, noise that depends on x, prior draws with learned noise: each with its true posterior",
        {
            "two_clusters": Task(TwoClusters(), MLP(features=2)),
            "gapped_step": Task(GappedStep(), MLP()),
            "gapped_heteroscedastic": Task(GappedHeteroscedastic(), MLP(noise_std=HeteroscedasticNoise(center=0.1))),
            "prior_draws_learned_noise": Task(learned, learned.model),
        },
        _without(default.methods, "sgld_private"),
        replicas=5,
        on_request={"mile": MILE},
        adapted=equal_budget,
    )


def _knobs() -> Suite:
    """One factor at a time around gapped_sine_noisy: what the data and the network do to each method's error."""
    default = _default()
    chosen = _without(default.methods, "sgld_private")  # its privacy depends on n, and docs/privacy.md has it
    return Suite(
        "one factor at a time around gapped_sine_noisy: n, noise, width of the gap, width and depth of the network",
        {
            CENTER: default.tasks["gapped_sine_noisy"],
            **{
                f"{knob}@{value:g}": knobs_task(**{knob: value})
                for knob, values in KNOBS.items()
                for value in values
                if value != AT_CENTER[knob]
            },
        },
        {**chosen, "mile": MILE},
        replicas=5,
        adapted=equal_budget,
    )


def knobs_task(
    n: float = AT_CENTER["n"],
    noise: float = AT_CENTER["noise"],
    gap: float = AT_CENTER["gap"],
    width: float = AT_CENTER["width"],
    layers: float = AT_CENTER["layers"],
) -> Task:
    """The gapped sine with these knobs. A gap of another half-width has the same number of points a unit of x."""
    span = GappedSine().span
    length = span[1] - span[0]
    kept = (length - 2 * gap) / (length - 2 * AT_CENTER["gap"])
    dataset = GappedSine(n=2 * round(n * kept / 2), noise_std=noise, gap=(-gap, gap))
    return Task(dataset, MLP(hidden=(int(width),) * int(layers), noise_std=noise))


def equal_budget(method: UncertaintyMethod, task: Task) -> UncertaintyMethod:
    """The method with as many point gradients as on gapped_sine_noisy, whatever n is; steps of SGD go with σ².

    The curvature of the log likelihood goes with 1/σ², so a step that follows σ² is as stable for every known noise. If
    the noise is learned, nobody knows σ beforehand, and the step is that of the center of its prior. Where it depends
    on x, MCLMC's chains start at optima: from some draws of the prior their step size did not settle.
    Collapsed SVI, and methods that are in no such suite, are returned as they are.
    """
    n = task.dataset.problems([0]).x.shape[1]
    share = AT_CENTER["n"] / n
    if isinstance(method, MCLMC):  # a step is a gradient of all n points
        steep = isinstance(task.model.noise_std, HeteroscedasticNoise) and not method.adam_steps
        adam_steps = (TO_OPTIMA if steep else method.adam_steps) * share
        burn_in = 10 * math.ceil(max(1, round(method.burn_in * share)) / 10)
        thin = method.thin * share - (adam_steps / method.draws if steep else 0)
        return replace(method, burn_in=burn_in, thin=max(1, round(thin)), adam_steps=round(adam_steps))
    times = (task.model.expected_noise / AT_CENTER["noise"]) ** 2
    if not isinstance(method, SGLD | SVI | AdamTrained):
        return method
    noisy = isinstance(method, SGLD | SWAG)  # a batch of all points has no noise
    batch = min(method.batch, max(1, n // 2) if noisy else n)
    longer = method.batch / batch
    if isinstance(method, SGLD):
        burn_in, thin = round(method.burn_in * longer), round(method.thin * longer)
        return replace(method, batch=batch, lr=method.lr * times, burn_in=burn_in, thin=thin)
    method = replace(method, batch=batch, steps=round(method.steps * longer))
    if isinstance(method, SWAG):
        burn_in, thin = round(method.burn_in * longer), round(method.thin * longer)
        return replace(method, sgd_lr=method.sgd_lr * times, burn_in=burn_in, thin=thin)
    return method


# The values of `adapted` that a suite may name.
ADAPTERS: Mapping[str, Callable[[UncertaintyMethod, Task], UncertaintyMethod]] = {
    "dropout_grid": dropout_grid,
    "equal_budget": equal_budget,
    "follow_noise": follow_noise,
    "forty_epochs": forty_epochs,
}

BUILDERS: Mapping[str, Callable[[], Suite]] = {
    "default": _default,
    "all": _all,
    "quick": _quick,
    "prior": _prior,
    "tasks": _tasks,
    "knobs": _knobs,
    "budgets": _budgets,
    "tuning": _tuning,
    "notebook_sgld": _notebook_sgld,
    "notebooks": _notebooks,
    "data_size": _data_size,
    "seeds": _seeds,
    "uci": _uci,
    "uci_gap": _uci_gap,
    "uci_reference": _uci_reference,
    "uci_gap_all_rows": _uci_gap_all_rows,
    "uci_mc_dropout": _uci_mc_dropout,
    "uci_deep_ensemble": _uci_deep_ensemble,
}


def discovered() -> Registry:
    """The methods that the registry finds. A method with the name of a control, or of another method of the default
    suite, is not available. A plugin's import changes nothing else in this process."""
    with undisturbed():
        found = registry()
    default = _default()
    named = {name: type(one) for name, one in {**CONTROLS, **default.methods, **default.on_request}.items()}
    for name in [name for name, cls in found.methods.items() if named.get(name, cls) is not cls]:
        found.unavailable[name] = "the name is that of a control or of a method of the default suite; choose another"
        del found.methods[name]
    return found


class Unknown(ValueError):
    """A choice that makes no sense; the message names it and says what was expected."""


@dataclass(frozen=True)
class Selection:
    """The entries and tasks of a run. entries: name -> entry. tasks: name -> task.

    adapted: as in Suite. own: name -> the settings that the user chose, which `adapted` and a budget must not change.
    budget: the CPU seconds a replica that each method should take; None for its own settings.
    """

    entries: Mapping[str, Entry]
    tasks: Mapping[str, Task]
    adapted: Callable[[UncertaintyMethod, Task], UncertaintyMethod] = lambda method, task: method
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    budget: float | None = None

    def within(self, seconds: float) -> Selection:
        """The same run with a budget, which stands in the names of methods. Raises Unknown for an unknown cost."""
        words = f"budget={seconds:g}s]"
        names = {
            name: f"{name.rstrip(']')}{',' if '[' in name else '['}{words}"
            if isinstance(entry, Trained) and has_steps(entry.method)
            else name
            for name, entry in self.entries.items()
        }
        for name, settings in self.own.items():
            sizes = [key for key, value in settings.items() if type(value) is int and key not in COUNTS]
            if sizes:
                raise Unknown(f"--budget: what {name} costs was not measured with another {sizes[0]}: leave out --set")
        entries = {names[name]: entry for name, entry in self.entries.items()}
        own = {names[name]: settings for name, settings in self.own.items()}
        found = replace(self, entries=entries, own=own, budget=seconds)
        with explained("--budget"):
            found.changes()
        return found

    def changes(self) -> list[str]:
        """What the budget changes, a line for each dataset and method."""
        pairs = [
            (of, task, name, entry)
            for of, task in self.tasks.items()
            for name, entry in self.entries.items()
            if isinstance(entry, Trained) and self._has(task, name, entry)
        ]
        before = replace(self, budget=None)
        found = []
        for of, task, name, entry in pairs:
            one, other = (self._on(of, task, name, entry), before._on(of, task, name, entry))
            assert isinstance(one, Trained) and isinstance(other, Trained)
            found.append(f"{of} · {name}: {changes(other.method, one.method) or 'no steps to change'}")
        return found

    def cells(self, replicas: int, seed: int, block: int) -> list[Cell]:
        """All cells. replicas: of each dataset, or as many as it has. block: replicas that are trained as one stack (so
        --replicas 20 reuses the cells of --replicas 10); the last one is smaller if `replicas` is not a multiple of
        it."""
        return [
            Cell(
                of,
                task.dataset,
                task.model,
                name,
                self._on(of, task, name, entry),
                first,
                min(first + block, count),
                seed,
            )
            for of, task in self.tasks.items()
            for there in [min(most for most in (replicas, task.dataset.count, task.replicas) if most is not None)]
            for name, entry in self.entries.items()
            for count in [min(there, task.first.get(name.partition("[")[0], there))]
            if self._has(task, name, entry)
            for first in range(0, count, block)
        ]

    @staticmethod
    def _has(task: Task, name: str, entry: Entry) -> bool:
        """Whether the entry is run on the task. Its row in the suite is its name without what --set and budgets add."""
        return not task.methods or name.partition("[")[0] in task.methods or not isinstance(entry, Trained)

    def _on(self, of: str, task: Task, name: str, entry: Entry) -> Entry:
        if not isinstance(entry, Trained):
            return entry
        method = self.adapted(entry.method, task)
        if self.budget is not None:
            method = budgeted(method, name, of, self.budget)
        return Trained(replace(method, **self.own.get(name, {})))


def select(
    suite: Suite, methods: Sequence[str] = (), datasets: Sequence[str] = (), settings: Sequence[str] = ()
) -> Selection:
    """Entries and tasks of a suite, or those that are named.

    methods, datasets: names, and "path.py:Class" for a user's own; none for all of the suite, those on request left
    out. Controls always run beside. settings: NAME.FIELD=VALUE, of methods that are chosen. Raises Unknown for a word
    that names nothing, or something whose name is taken, and for a setting that makes no sense.
    """
    chosen: dict[str, UncertaintyMethod | Control] = {} if methods else dict(suite.methods)
    for word in methods:
        name, method = method_of(word, suite)
        if type(chosen.setdefault(name, method)) is not type(method):
            raise _taken(word, name, "another class that you named")
    tasks: dict[str, Task] = {} if datasets else dict(suite.tasks)
    for word in datasets:
        name, task = task_of(word, suite)
        if type(tasks.setdefault(name, task).dataset) is not type(task.dataset):
            raise _taken(word, name, "another class that you named")
    for name, task in tasks.items():
        if task.dataset.missing:
            raise Unknown(f"{name}: {task.dataset.missing}")
    chosen, own = with_settings(chosen, settings)
    entries = {name: Trained(one) if isinstance(one, UncertaintyMethod) else one for name, one in chosen.items()}
    controls = {name: one for name, one in CONTROLS.items() if name not in entries}
    return Selection({**entries, **controls}, tasks, suite.adapted, own)


def with_settings(
    chosen: Mapping[str, UncertaintyMethod | Control], settings: Sequence[str]
) -> tuple[dict[str, UncertaintyMethod | Control], dict[str, dict[str, Any]]]:
    """The methods, some with other settings and a name that tells them: mc_dropout[rate=0.2]; and these settings by
    that name. Raises Unknown."""
    changes: dict[str, dict[str, Any]] = {}
    for setting in settings:
        place, equals, text = setting.partition("=")
        name, dot, field_name = map(str.strip, place.rpartition("."))
        if not (dot and equals):
            raise Unknown(f"--set {setting}: expected NAME.FIELD=VALUE, such as mc_dropout.rate=0.2")
        if name not in chosen:
            raise Unknown(f"--set {setting}: this run has no method {name!r}: it has {', '.join(chosen)}")
        method, own = chosen[name], changes.setdefault(name, {})
        if field_name in own:
            raise Unknown(f"--set {setting}: {name}.{field_name} is set twice; run once for each value")
        known = {one.name: getattr(method, one.name) for one in fields(method) if one.init}
        own[field_name] = _read(setting, one_of(f"setting of {name}", field_name, known), text.strip())
    found: dict[str, UncertaintyMethod | Control] = {}
    told: dict[str, dict[str, Any]] = {}
    for name, method in chosen.items():
        own = changes.get(name, {})
        words = ",".join(f"{field_name}={value}" for field_name, value in sorted(own.items()))
        full = f"{name}[{words}]" if own else name
        with explained(f"--set {name}"):
            found[full], told[full] = replace(method, **own), own
    return found, told


def _read(setting: str, old: object, text: str) -> object:
    """A value of the type of the old one. Raises Unknown."""
    kind = type(old)
    if kind is str:
        return text
    if kind not in (bool, int, float, tuple):
        raise Unknown(f"--set {setting}: the setting is a {kind.__name__}, not a number; set it in a file of your own")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        value = None
    value = float(value) if kind is float and type(value) is int else value
    if type(value) is not kind or value in (math.inf, -math.inf):
        raise Unknown(f"--set {setting}: expected a finite {kind.__name__}, as {old!r} is")
    return value


def method_of(word: str, suite: Suite) -> tuple[str, UncertaintyMethod | Control]:
    """The name, and the method or control that a word means.

    A method that the suite does not have is taken with its default settings, cut where the suite cuts budgets.
    Raises Unknown.
    """
    known: dict[str, UncertaintyMethod | Control] = {**suite.methods, **suite.on_request, **CONTROLS}
    if word in known:
        return word, known[word]
    found = discovered()
    if word in found.methods:
        name, cls = word, found.methods[word]
    elif word in found.unavailable:
        raise Unknown(f"{word} is not available: {found.unavailable[word]}")
    elif is_source(word):
        cls = load_class(word, UncertaintyMethod)
        name = method_name(cls)
        if name in {**known, **found.methods, **found.unavailable}:
            raise _taken(word, name, "another method or a control")
    else:
        raise _unknown("method", word, [*known, *(name for name in found.methods if name not in known)])
    made = _made(word, cls)
    return name, shrunk(made) if suite.shrinks else made


def task_of(word: str, suite: Suite) -> tuple[str, Task]:
    """The name and the task that a word means.

    A user's dataset is learned with the network that it asks for, else with the suite's, whose noise is then learned.
    Raises Unknown.
    """
    if word in suite.tasks:
        return word, suite.tasks[word]
    if not is_source(word):
        raise _unknown("dataset", word, suite.tasks)
    cls = load_class(word, Dataset)
    name, dataset = method_name(cls), _made(word, cls)
    if name in suite.tasks:
        raise _taken(word, name, "a dataset of the suite")
    with explained(word):
        features = dataset.problems([0]).x.shape[2]
        network = dataset.network or replace(next(iter(suite.tasks.values())).model, noise_std=LearnedNoise())
        return name, Task(dataset, network.with_features(features))


def _taken(word: str, name: str, by: str) -> Unknown:
    return Unknown(f"{word}: its name {name} is that of {by}: rename the class")


def is_source(word: str) -> bool:
    """True if a word names a class of a file."""
    return ":" in word or word.endswith(".py")


def load_class(word: str, base: type) -> type:
    """The class of "path.py:Class". Raises Unknown."""
    with explained(word):
        return class_from_file(word, base)


def _made(word: str, cls: Callable[[], T]) -> T:
    """An object with default settings. Raises Unknown."""
    with explained(word):
        return cls()


@contextmanager
def explained(word: str) -> Iterator[None]:
    """A guard around code that is not ours: whatever it raises becomes Unknown, in one line."""
    try:
        with undisturbed():
            yield
    except (Exception, SystemExit) as error:
        what = first_line(str(error))
        raise Unknown(what if what.startswith(word) else f"{word}: {type(error).__name__}: {what}") from error


def one_of(kind: str, name: str, known: Mapping[str, T]) -> T:
    """The value of a name. Raises Unknown, with the nearest known name."""
    if name not in known:
        raise _unknown(kind, name, known)
    return known[name]


def _unknown(kind: str, name: str, known: Iterable[str]) -> Unknown:
    return Unknown(f"unknown {kind} {name!r}: {nearest(name, known)}; `gapbench list` shows all")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest to another, as a question; all of them if none is near."""
    lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), lower, 1)
    return f"did you mean {lower[near[0]]}" if near else f"expected one of {', '.join(lower.values())}"
