"""The conformance kit: what every method promises, tried out on small problems, and what it claims, on a problem whose
answer is known. `gapbench check` prints its verdicts; the tests demand them of every shipped method.

A promise is a function of a method that raises Violation where it is broken, and returns what it measured.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from gapbench.methods.base import Distribution, Predictive, Predictor, UncertaintyMethod
from gapbench.methods.exactness import Floats, LinearRegression, example
from gapbench.methods.model import MLP

MODEL = MLP(features=2, hidden=(5, 4))
R, N, M = 3, 8, 6  # replicas, training points, test points of the small problem
REPEATS = 128  # replicas of the linear regression, each an independent repeat

# What the shared hyperparameters are cut to for the small problem, in any method that has them.
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
# Below the least that the shared hyperparameters may be.
NONSENSE = {
    "steps": -1,
    "burn_in": -1,
    "batch": 0,
    "draws": 0,
    "thin": 0,
    "chains": 0,
    "members": 0,
    "lr": 0.0,
    "rate": 1.0,
}


class Violation(Exception):
    """A promise that the method does not keep; the message says what was seen."""


class NoClaim(Exception):
    """There is nothing to hold the method to."""


@dataclass(frozen=True)
class Verdict:
    """On one promise. detail: what was measured, or what is wrong."""

    promise: str
    outcome: Literal["kept", "broken", "no claim"]
    detail: str = ""


def verdicts(method: UncertaintyMethod) -> Iterator[Verdict]:
    """On every promise, as they are tried."""
    for name, promise in (*PROMISES.items(), (EXACT, exact)):
        yield verdict(method, name, promise)


def verdict(method: UncertaintyMethod, name: str, promise: Callable[[UncertaintyMethod], str]) -> Verdict:
    try:
        return Verdict(name, "kept", promise(method))
    except NoClaim as reason:
        return Verdict(name, "no claim", str(reason))
    except Violation as violation:
        return Verdict(name, "broken", str(violation))
    except Exception as error:  # a method's own, whatever it is, is an answer too
        return Verdict(name, "broken", f"{type(error).__name__}: {error}")


def cut(method: UncertaintyMethod, budget: Mapping[str, int]) -> UncertaintyMethod:
    """With those of its fields that `budget` names set to what it says."""
    return replace(method, **{one.name: budget[one.name] for one in fields(method) if one.init and one.name in budget})


def demand(condition: bool | Tensor, what: str) -> None:
    if not condition:
        raise Violation(what)


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x (R, N, D), y (R, N), x_test (R, M, D)."""
    generator = seeded(seed)
    x, x_test = (torch.randn(R, points, MODEL.features, generator=generator) for points in (N, M))
    return x, x.sum(-1).sin(), x_test


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def fitted(method: UncertaintyMethod, x: Tensor, y: Tensor, seed: int = 0) -> Predictor:
    return cut(method, BUDGET).fit(MODEL, x, y, seeded(seed))


def everything(predictive: Predictive, y: Tensor) -> dict[str, Tensor]:
    """All that a prediction says, by name, (R, M) each."""
    said = {"aleatoric std": predictive.aleatoric_std}
    for name in ("f", "y"):
        distribution: Distribution = getattr(predictive, name)
        said |= {f"mean of {name}": distribution.mean, f"std of {name}": distribution.std}
        said |= {f"median of {name}": distribution.quantile(0.5), f"cdf of {name}": distribution.cdf(y)}
        said |= {f"crps of {name}": distribution.crps(y)}
    return said | {"log density of y": predictive.y.log_density(y)}


def moments(predictive: Predictive) -> Tensor:
    """Of f, (2, R, M)."""
    return torch.stack([predictive.f.mean, predictive.f.std])


def shapes(method: UncertaintyMethod) -> str:
    """Scores get (R, M) in float64 on the data's device, finite; diagnostics are (R,); chains divide the draws."""
    x, y, x_test = problem()
    reason = cut(method, BUDGET).skip(MODEL, x)
    demand(reason is None, f"skips a network of two hidden layers and two features: {reason}")
    predictor = fitted(method, x, y)
    predictive = predictor(x_test)
    for name, value in everything(predictive, torch.zeros(R, M, dtype=torch.float64)).items():
        demand(value.shape == (R, M), f"{name}: shape {tuple(value.shape)}, expected (R, M) = {(R, M)}")
        demand(value.dtype == torch.float64, f"{name}: {value.dtype}, expected float64")
        demand(value.device == x.device, f"{name}: on {value.device}, expected {x.device}")
        demand(value.isfinite().all() & (not value.requires_grad), f"{name}: not finite, or still requires a gradient")
    demand((predictive.y.std >= predictive.f.std).all(), "the std of y is below that of f")
    demand((predictive.f.std >= 0).all(), "the std of f is negative")
    for name, value in predictor.diagnostics.items():
        demand(value.shape == (R,), f"diagnostic {name}: shape {tuple(value.shape)}, expected (R,) = {(R,)}")
        demand(value.device == x.device, f"diagnostic {name}: on {value.device}, expected {x.device}")
        demand(~value.isnan().any(), f"diagnostic {name}: nan")
    for replica, why in predictor.failures.items():
        demand(0 <= replica < R and bool(why), f"failures: replica {replica}, reason {why!r}")
    demand(len(predictor.failures) < R, f"every replica failed: {predictor.failures.get(0)}")
    chained = predictive.chained_f
    if chained is not None:
        demand((chained.shape[0], chained.shape[-1]) == (R, M), f"chained_f: shape {tuple(chained.shape)}")
        same = torch.allclose(chained.double().mean((1, 2)), predictive.f.mean, rtol=1e-5, atol=1e-5)
        demand(same, "the mean over chains and draws is not the mean of f")
    return ""


def determinism(method: UncertaintyMethod) -> str:
    """The same generator gives the same bits, another one others; nothing comes from the global streams or moves them.

    A method without random numbers may give the same with every generator, if replicas with the same data agree too.
    """
    x, y, x_test = problem()
    x, y = x[:1].expand_as(x).clone(), y[:1].expand_as(y).clone()
    x_test = x_test[:1].expand_as(x_test)

    def predict(seed: int) -> Tensor:
        predictor = fitted(method, x, y, seed)
        once, again = moments(predictor(x_test)), moments(predictor(x_test))
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


def independence(method: UncertaintyMethod) -> str:
    """Other data in the other replicas do not move a replica by one bit."""
    x, y, x_test = problem()
    other_x, other_y, _ = problem(seed=1)
    other_x[0], other_y[0] = x[0], y[0]
    other_y[1:] *= 5
    one, other = fitted(method, x, y), fitted(method, other_x, other_y)
    before, after = moments(one(x_test)), moments(other(x_test))
    moved = float((before[:, 0] - after[:, 0]).abs().max())
    demand(moved == 0, f"other data in replicas 1 and 2 moved replica 0 by {moved:.3g}")
    demand(not torch.equal(before[:, 1:], after[:, 1:]), "other data did not move the replicas that have them")
    for name, value in one.diagnostics.items():
        demand(value[0] == other.diagnostics[name][0], f"diagnostic {name} of replica 0 depends on the other replicas")
    return ""


def pointwise(method: UncertaintyMethod) -> str:
    """Chunks of x, and points in another order, get what the whole gets, up to rounding."""
    x, y, x_test = problem()
    predictor = fitted(method, x, y)
    target = torch.zeros(R, M, dtype=torch.float64)
    whole = everything(predictor(x_test), target)
    chunks = [everything(predictor(part), target[:, : part.shape[1]]) for part in x_test.split(4, 1)]
    backwards = everything(predictor(x_test.flip(1)), target)
    for name, value in whole.items():
        pieces, turned = torch.cat([chunk[name] for chunk in chunks], 1), backwards[name].flip(1)
        demand(torch.allclose(pieces, value, rtol=1e-4, atol=1e-5), f"{name} is not the same in chunks of x")
        demand(torch.allclose(turned, value, rtol=1e-4, atol=1e-5), f"{name} is not the same in another order of x")
    return ""


def untouched(method: UncertaintyMethod) -> str:
    """What is passed in is left as it was."""
    x, y, x_test = problem()
    kept = [part.clone() for part in (x, y, x_test)]
    fitted(method, x, y)(x_test)
    for name, before, after in zip(("x", "y", "x_test"), kept, (x, y, x_test), strict=True):
        demand(torch.equal(before, after), f"{name} was changed in place")
    return ""


def described(method: UncertaintyMethod) -> str:
    """repr tells every hyperparameter to the last digit: results are filed under it."""
    frozen = is_dataclass(method) and type(method).__dataclass_params__.frozen  # type: ignore[attr-defined]
    demand(frozen, "not a frozen dataclass")
    for one in fields(method):
        for value in others(getattr(method, one.name)):
            with suppress(ValueError):  # not a value that this field may have
                other = replace(method, **{one.name: value})
                demand(repr(other) != repr(method), f"{one.name} = {value!r} does not change repr: {method!r}")
                demand(other != method, f"{one.name} does not count in comparisons")
    return ""


def others(value: object) -> Iterator[object]:
    """Values that are near this one, and not it."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1)
    elif isinstance(value, float):
        yield from (value * 1.001, value * 0.999) if value else (0.001,)
    elif isinstance(value, str):
        yield value + "?"
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            yield from (replace(value, **{one.name: other}) for other in others(getattr(value, one.name)))


def sense(method: UncertaintyMethod) -> str:
    """Settings that make no sense are refused with the field's name and value."""
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


def exact(method: UncertaintyMethod) -> str:
    """On Bayesian linear regression, over replicas that repeat one experiment, mean and variance of f are those of the
    law that it claims, at seven points (which fix the covariance of θ). Allowed, on the posterior's scale: 5 %, and 5
    standard errors, which are a quarter at most. And the spread is within each prediction, not between them."""
    claim = method.exactness
    if claim is None:
        raise NoClaim("what it samples on linear regression is not known")
    demand(type(claim.method) is type(method), f"the claim is of a {type(claim.method).__name__}")
    regression = example()
    x, y = regression.stack(REPEATS)
    points = torch.tensor([[0.0, 0.0], [1, 0], [0, 1], [1, 1], [1, -1], [-2, 0], [0, 2]])
    predictor = claim.method.fit(regression.model, x, y, seeded(0))
    for replica, reason in predictor.failures.items():
        raise Violation(f"replica {replica} failed: {reason}")
    f = predictor(points.expand(REPEATS, -1, -1)).f
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
    """errors: (R, M), in units of the posterior's scale. The largest over points of their means over replicas, as a
    fraction of 5 standard errors + 5 %. nan counts as infinite."""
    scatter = 5 * errors.std(0, ddof=1) / np.sqrt(len(errors))
    demand(
        bool((scatter < 0.25).all()), f"five standard errors are {scatter.max():.2g}: more draws are needed to judge"
    )
    allowed = scatter + 0.05
    share = float((np.abs(errors.mean(0)) / allowed).max())
    return share if np.isfinite(share) else np.inf


EXACT = "mean and covariance on linear regression are as claimed"
PROMISES: Mapping[str, Callable[[UncertaintyMethod], str]] = {
    "shapes, types, finite": shapes,
    "the generator decides everything": determinism,
    "replicas do not see each other": independence,
    "a prediction is pointwise in x": pointwise,
    "what is passed in is left alone": untouched,
    "repr tells all hyperparameters": described,
    "nonsense settings are refused": sense,
}
