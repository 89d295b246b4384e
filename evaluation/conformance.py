"""The conformance kit: checks of every method's promises on small problems, and of its claim on a solved problem.

`gapbench check` prints the verdicts. In the tests, every shipped method must pass. A promise is a function of a method.
It raises Violation if the promise is broken, and returns its measurement otherwise.
"""

from __future__ import annotations

import inspect
import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import partial
from types import MemberDescriptorType
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from gapbench.datasets.content import Undescribable, describe
from gapbench.evaluation.door import DoorError, admit
from gapbench.evaluation.entries import Run
from gapbench.methods.base import LEAST, FittedMethod, UncertaintyMethod
from gapbench.methods.engine.distributions import Distribution, HasCdf, HasDensity, HasQuantiles
from gapbench.methods.engine.exactness import Floats, LinearRegression, example
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.predictions import Prediction

MODEL = MLP(features=2, hidden=(5, 4))
R, N, M = 3, 70, 6  # replicas, training points (enough for a conformal band), test points of the small problem
REPEATS = 128  # replicas of the linear regression: independent repeats
MANY_REPEATS = 1024  # those of `gapbench check --all`: a third of the standard error

# The values of the shared hyperparameters for the small problem, in any method that has them.
BUDGET = {
    "steps": 6,
    "batch": 4,
    "burn_in": 2,
    "draws": 3,
    "thin": 2,
    "chains": 2,
    "members": 2,
    "particles": 2,
    "max_steps": 10,
}
# Values that the shared hyperparameters must not have.
NONSENSE = {**{name: least - 1 for name, least in LEAST.items()}, "lr": 0.0, "rate": 1.0}


class Violation(Exception):
    """A promise that the method breaks; the message says what was seen."""


class Untried(Violation):
    """A promise that cannot be checked, because the method breaks another promise."""


class NoClaim(Exception):
    """A method without a claim: nothing can be tested."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of checking one promise.

    outcome: "not tried" if the cause is the same as that of an earlier verdict. detail: what was measured, or what is
    wrong. traceback: the traceback of an error that the method's own code raised.
    """

    promise: str
    outcome: Literal["kept", "broken", "no claim", "not tried"]
    detail: str = ""
    traceback: str = ""


def verdicts(method: UncertaintyMethod, repeats: int = REPEATS) -> Iterator[Verdict]:
    """The verdicts on all promises, in the order of the checks. Each cause is reported only once. repeats: of the
    linear regression."""
    causes: dict[str, str] = {}
    promises: dict[str, Callable[[UncertaintyMethod], str]] = {**PROMISES, EXACT: partial(exact, repeats=repeats)}
    for name, promise in promises.items():
        found = verdict(method, name, promise)
        if found.outcome == "not tried" and not causes:
            found = replace(found, outcome="broken")
        elif found.outcome == "broken" and found.detail in causes:
            found = Verdict(name, "not tried", f"same cause as of: {causes[found.detail]}")
        if found.outcome == "broken":
            causes[found.detail] = name
        yield found


def verdict(method: UncertaintyMethod, name: str, promise: Callable[[UncertaintyMethod], str]) -> Verdict:
    try:
        return Verdict(name, "kept", promise(method))
    except NoClaim as reason:
        return Verdict(name, "no claim", str(reason))
    except Untried as reason:
        return Verdict(name, "not tried", str(reason))
    except Violation as violation:
        return Verdict(name, "broken", str(violation))
    except (Exception, SystemExit) as error:  # any error of the method's own code is a verdict
        return Verdict(name, "broken", f"{type(error).__name__}: {error}", own_traceback(error))


def own_traceback(error: BaseException) -> str:
    """The traceback of an error, from the call into the method's code on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def cut(method: UncertaintyMethod, budget: Mapping[str, int]) -> UncertaintyMethod:
    """A copy of `method` with its budget fields replaced, and those of the methods that it wraps."""

    def inside(value: Any) -> Any:
        if isinstance(value, UncertaintyMethod):
            return cut(value, budget)
        if isinstance(value, tuple):
            return tuple(map(inside, value))
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{one.name: inside(getattr(value, one.name)) for one in fields(value) if one.init})
        return value

    values = {one.name: getattr(method, one.name) for one in fields(method) if one.init}
    return replace(
        method, **{name: budget[name] if name in budget else inside(value) for name, value in values.items()}
    )


def demand(condition: bool | Tensor, what: str) -> None:
    if not condition:
        raise Violation(what)


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The small problem: x (R, N, D), y (R, N), x_test (R, M, D)."""
    generator = seeded(seed)
    x, x_test = (torch.randn(R, points, MODEL.features, generator=generator) for points in (N, M))
    return x, x.sum(-1).sin(), x_test


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def fitted(method: UncertaintyMethod, x: Tensor, y: Tensor, seed: int = 0) -> FittedMethod:
    made = cut(method, BUDGET).fit(MODEL, x, y, seeded(seed))
    demand(isinstance(made, FittedMethod), f"fit returned a {type(made).__name__}: expected a FittedMethod")
    return made


def predicted(fit: FittedMethod, x: Tensor) -> Run:
    """The run after the door's check, as in every benchmark. Raises Violation if the door refuses it."""
    try:
        return admit(Run(fit(x), fit.diagnostics, fit.failures), R, x.shape[1])
    except DoorError as error:
        raise Violation(str(error)) from error


def everything(prediction: Prediction, t: Tensor) -> dict[str, Tensor]:
    """Every number that a prediction gives, by name, (R, M) each. t: (R, M), where cdf, CRPS and density are taken."""
    said = {} if prediction.aleatoric_std is None else {"aleatoric std": prediction.aleatoric_std}
    for name, distribution in (("f", prediction.f), ("y", prediction.y)):
        said |= {} if distribution is None else of_distribution(name, distribution, t)
    density = prediction.y
    return said | ({"log density of y": density.log_density(t)} if isinstance(density, HasDensity) else {})


def of_distribution(name: str, distribution: Distribution, t: Tensor) -> dict[str, Tensor]:
    said = {f"mean of {name}": distribution.mean, f"std of {name}": distribution.std}
    if isinstance(distribution, HasQuantiles):
        for level in (0.05, 0.5, 0.95):
            quantile = distribution.quantiles([level])[:, 0]
            if not quantile.isnan().all():  # a band knows some levels only
                said[f"{level:.0%} quantile of {name}"] = quantile
    if isinstance(distribution, HasCdf):
        said |= {f"cdf of {name}": distribution.cdf(t), f"crps of {name}": distribution.crps(t)}
    return said


def moments(fit: FittedMethod, x: Tensor) -> Tensor:
    """Mean and std of y, and of f if the method has an f, (2 or 4, R, M)."""
    prediction = predicted(fit, x).prediction
    known = [one for one in (prediction.y, prediction.f) if one is not None]
    # nan must equal nan here: a replica that reports a failure may be nan each time.
    return torch.stack([part for one in known for part in (one.mean, one.std)]).nan_to_num(nan=-1e300)


def check_shapes(method: UncertaintyMethod) -> str:
    """Check that the predictions pass the door of every benchmark: shapes, types, finite numbers, names.

    Their distributions give (R, M) numbers in float64. The mean over chains and draws is the mean of f.
    """
    x, y, x_test = problem()
    reason = cut(method, BUDGET).skip(MODEL, x)
    demand(reason is None, f"skips a network of two hidden layers and two features: {reason}")
    fit = fitted(method, x, y)
    run = predicted(fit, x_test)
    for replica, why in run.failures.items():
        demand(replica in fit.failures, f"replica {replica}: {why}")
    demand(len(run.failures) < R, f"every replica failed: {run.failures.get(0)}")
    sound = [r for r in range(R) if r not in run.failures]
    said = everything(run.prediction, torch.zeros(R, M, dtype=torch.float64))
    for name, value in said.items():
        demand(value.shape == (R, M), f"{name}: shape {tuple(value.shape)}, expected (R, M) = {(R, M)}")
        demand(value.dtype == torch.float64, f"{name}: {value.dtype}, expected float64")
        finite = value[sound].isfinite().all() or name.startswith("std")  # a heavy tail may have no finite std
        demand(finite, f"{name}: not finite")
    if "std of f" in said:
        narrower = said["std of y"] < said["std of f"] * (1 - 1e-9)
        demand(~narrower[sound].any(), "the std of y is below that of f")
    for name, value in run.diagnostics.items():
        demand(~value.isnan().any(), f"diagnostic {name}: nan")
    f, chained = run.prediction.f, run.prediction.chained_f
    if chained is not None:
        demand((chained.shape[0], chained.shape[-1]) == (R, M), f"chained_f: shape {tuple(chained.shape)}")
        same = f is not None and torch.allclose(chained.double().mean((1, 2)), f.mean, rtol=1e-5, atol=1e-5)
        demand(same, "the mean over chains and draws is not the mean of f")
    return ""


def check_determinism(method: UncertaintyMethod) -> str:
    """Check that the same generator gives the same bits, and another generator other bits.

    The method must not use or move the global random streams. A method without random numbers may give the same bits
    with every generator, if replicas with the same data agree too.
    """
    x, y, x_test = problem()
    x, y = x[:1].expand_as(x).clone(), y[:1].expand_as(y).clone()
    x_test = x_test[:1].expand_as(x_test)

    def predict(seed: int) -> Tensor:
        fit = fitted(method, x, y, seed)
        once, again = moments(fit, x_test), moments(fit, x_test)
        demand(torch.equal(once, again), "two predictions of one fit differ")
        return once

    def streams() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), np.random.get_state(legacy=False), random.getstate()

    before = repr(streams())
    first, another = predict(0), predict(1)
    after = repr(streams())
    with torch.random.fork_rng([]):
        torch.manual_seed(12345)
        again = predict(0)
    demand(torch.equal(again, first), "the same generator gave other numbers: some come from elsewhere")
    demand(before == after, "a global stream of random numbers was moved")
    seeds = not torch.equal(first, another)
    replicas = all(not torch.equal(first[:, r], first[:, r - 1]) for r in range(R))
    demand(seeds or not replicas, "another generator gave the same numbers: they do not come from it")
    demand(replicas or not seeds, "replicas with the same data got the same random numbers")
    return ""


def demand_repeats(method: UncertaintyMethod, fits: int) -> None:
    """Raise Untried if the same data and generator give other numbers: then chance and a fault look alike."""
    x, y, x_test = problem()
    made = [fitted(method, x, y) for _ in range(fits)]
    once, again = moments(made[0], x_test), moments(made[-1], x_test)
    if not torch.equal(once, again):
        raise Untried("the same data and generator give other numbers each time")


def check_independence(method: UncertaintyMethod) -> str:
    """Check that other data in the other replicas do not change a replica by one bit."""
    demand_repeats(method, 2)
    x, y, x_test = problem()
    other_x, other_y, _ = problem(seed=1)
    other_x[0], other_y[0] = x[0], y[0]
    other_y[1:] *= 5
    one, other = fitted(method, x, y), fitted(method, other_x, other_y)
    before, after = moments(one, x_test), moments(other, x_test)
    moved = float((before[:, 0] - after[:, 0]).abs().max())
    demand(moved == 0, f"other data in replicas 1 and 2 moved replica 0 by {moved:.3g}")
    demand(not torch.equal(before[:, 1:], after[:, 1:]), "other data did not move the replicas that have them")
    for name, value in one.diagnostics.items():
        same = name in other.diagnostics and value[0] == other.diagnostics[name][0]
        demand(same, f"diagnostic {name} of replica 0 depends on the other replicas")
    return ""


def check_pointwise(method: UncertaintyMethod) -> str:
    """Check that chunks of x, and points in another order, get the same predictions as the whole, up to rounding."""
    demand_repeats(method, 1)
    x, y, x_test = problem()
    fit = fitted(method, x, y)
    target = torch.zeros(R, M, dtype=torch.float64)

    def said(x: Tensor) -> dict[str, Tensor]:
        return everything(predicted(fit, x).prediction, target[:, : x.shape[1]])

    whole, chunks, backwards = said(x_test), [said(part) for part in x_test.split(4, 1)], said(x_test.flip(1))
    for name, value in whole.items():
        pieces, turned = torch.cat([chunk[name] for chunk in chunks], 1), backwards[name].flip(1)
        demand(
            torch.allclose(pieces, value, rtol=1e-4, atol=1e-5, equal_nan=True),
            f"{name} is not the same in chunks of x",
        )
        demand(
            torch.allclose(turned, value, rtol=1e-4, atol=1e-5, equal_nan=True),
            f"{name} is not the same in another order of x",
        )
    return ""


def check_inputs(method: UncertaintyMethod) -> str:
    """Check that `fit` and the prediction leave their inputs unchanged."""
    x, y, x_test = problem()
    kept = [part.clone() for part in (x, y, x_test)]
    fitted(method, x, y)(x_test)
    for name, before, after in zip(("x", "y", "x_test"), kept, (x, y, x_test), strict=True):
        demand(torch.equal(before, after), f"{name} was changed in place")
    return ""


def check_content(method: UncertaintyMethod) -> str:
    """Check that the fields describe every hyperparameter in full: results are filed under their content."""
    cls, declared = type(method), {one.name for one in fields(method)}
    decorate = f"put @dataclass(frozen=True) above the class {cls.__name__}"
    for base in cls.__mro__:
        named = {name for name, kind in inspect.get_annotations(base).items() if "ClassVar" not in str(kind)}
        lost = sorted(named - declared)
        demand(not lost, f"{', '.join(lost)}: in the class's body, and no field; {decorate}")
    demand(cls.__dataclass_params__.frozen, f"not frozen: {decorate}")  # type: ignore[attr-defined]
    for one in fields(method):
        default = MISSING if one.default_factory is not MISSING else one.default
        body = next((vars(base)[one.name] for base in cls.__mro__ if one.name in vars(base)), default)
        demand(
            body is default or isinstance(body, MemberDescriptorType) or _alike(body, default),
            f"{one.name} = {body!r} in the class's body is not the field's default: annotate it, and {decorate}",
        )
    hidden = {name for name in vars(method) if name not in declared and name not in dir(cls)}
    demand(not hidden, f"{', '.join(sorted(hidden))}: set on the object, and no field")
    try:
        content = describe(method, cls.__name__)
    except Undescribable as error:
        raise Violation(str(error)) from error
    for one in fields(method):
        for value in _others(getattr(method, one.name)):
            with suppress(ValueError):  # not a value that this field may have
                other = replace(method, **{one.name: value})
                untold = f"{one.name} = {value!r} does not change"
                demand(describe(other) != content, f"{untold} what results are filed under")
                demand(repr(other) != repr(method), f"{untold} repr: {method!r}")
                demand(other != method, f"{one.name} does not count in comparisons")
    return ""


def _alike(value: object, default: object) -> bool:
    try:
        return bool(describe(value) == describe(default))
    except Undescribable:
        return False


def _others(value: object) -> Iterator[object]:
    """Values near this value, but different from it."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1)
    elif isinstance(value, float):
        yield from (value * 1.001, value * 0.999) if value else (0.001,)
    elif isinstance(value, str):
        yield value + "?"
    elif isinstance(value, tuple):
        yield from ((*value[:at], other, *value[at + 1 :]) for at in range(len(value)) for other in _others(value[at]))
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            for other in _others(getattr(value, one.name)):
                with suppress(ValueError):  # not a value that this field may have
                    yield replace(value, **{one.name: other})


def check_nonsense(method: UncertaintyMethod) -> str:
    """Check that invalid settings are refused with the field's name and value."""
    for one in fields(method):
        if one.init and one.name in NONSENSE:
            value = NONSENSE[one.name]
            try:
                replace(method, **{one.name: value})
            except ValueError as error:
                said = str(error)
                demand(f"{one.name} = {value}" in said, f"{one.name} = {value} is refused without saying so: {said}")
            else:
                raise Violation(f"{one.name} = {value} is accepted; does __post_init__ call super's?")
    return ""


def exact(method: UncertaintyMethod, repeats: int = REPEATS) -> str:
    """Check that, on Bayesian linear regression, mean and variance of f are those of the law that the method claims.

    Replicas repeat one experiment. Mean and variance are compared at seven points, which fix the covariance of θ. The
    allowed error, on the posterior's scale, is 5 % plus 5 standard errors; these must be below 25 %. The variance must
    lie within each prediction, not between predictions: each has, on average, more than half of the law's variance.
    """
    claim = method.exactness
    if claim is None:
        raise NoClaim("what it samples on linear regression is not known")
    demand(type(claim.method) is type(method), f"the claim is of a {type(claim.method).__name__}")
    regression = example()
    x, y = regression.stack(repeats)
    points = torch.tensor([[0.0, 0.0], [1, 0], [0, 1], [1, 1], [1, -1], [-2, 0], [0, 2]])
    fit = claim.method.fit(regression.model, x, y, seeded(0))
    for replica, reason in fit.failures.items():
        raise Violation(f"replica {replica} failed: {reason}")
    f = fit(points.expand(repeats, -1, -1)).f
    if f is None:
        raise Violation("claims a law of θ, and predicts no f")
    means, variances = f.mean.numpy(), f.std.square().numpy()  # (R, M)

    features, law = LinearRegression.features(points), claim.law(regression)
    mean, variance = features @ law.mean, np.einsum("mi,ij,mj->m", features, law.covariance, features)
    scale = np.einsum("mi,ij,mj->m", features, regression.posterior.covariance, features)
    if not law.covariance.any():
        worst = float((variances / scale).max())
        demand(worst < 1e-4, f"claims no variance, has {worst:.3g} of the posterior's")
    else:
        least = float((variances.mean(0) / variance).min())
        demand(least > 0.5, f"a prediction's own variance is {least:.3g} of the law's")
    used = {
        "mean": share_of_allowance((means - mean) / np.sqrt(scale)),
        "variance": share_of_allowance((variances + (means - mean) ** 2 - variance) / scale),
    }
    measured = ", ".join(f"{name} off by {share:.2f} of what is allowed" for name, share in used.items())
    demand(max(used.values()) < 1, measured)
    return measured


def share_of_allowance(errors: Floats) -> float:
    """The largest mean error over points, as a fraction of the allowance (5 standard errors + 5 %). nan counts as inf.

    errors: (R, M), in units of the posterior's scale; the mean is over replicas. Raises Violation if 5 standard errors
    are 25 % or more.
    """
    scatter = 5 * errors.std(0, ddof=1) / np.sqrt(len(errors))
    demand(
        bool((scatter < 0.25).all()), f"five standard errors are {scatter.max():.2g}: more draws are needed to judge"
    )
    allowed = scatter + 0.05
    share = float((np.abs(errors.mean(0)) / allowed).max())
    return share if np.isfinite(share) else np.inf


EXACT = "mean and covariance on linear regression are as claimed"
PROMISES: Mapping[str, Callable[[UncertaintyMethod], str]] = {
    "the fields tell all hyperparameters": check_content,
    "shapes, types, finite": check_shapes,
    "the generator decides everything": check_determinism,
    "replicas do not see each other": check_independence,
    "a prediction is pointwise in x": check_pointwise,
    "what is passed in is left alone": check_inputs,
    "nonsense settings are refused": check_nonsense,
}
