"""What every method promises, for every method that the registry finds: a new file in methods/ is tested by itself.

Budgets are cut through the shared field names (conftest.py), so no method carries a configuration for tests.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from itertools import islice
from math import sqrt
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Generator, Tensor

from gapbench import methods as package
from gapbench.methods import registry
from gapbench.methods.base import Distribution, Predictive, SingleModelMethod, UncertaintyMethod
from gapbench.methods.model import MLP
from gapbench.runners import cli

Seeded = Callable[[int], Generator]
Small = Callable[[type[UncertaintyMethod]], UncertaintyMethod]
MODEL = MLP(features=2, hidden=(5, 4))
R, N, M = 3, 8, 6
EVERY = pytest.mark.parametrize("cls", [pytest.param(cls, id=name) for name, cls in registry.methods().items()])


def data(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x (R, N, D), y (R, N), x_test (R, M, D)."""
    generator = torch.Generator().manual_seed(seed)
    x, x_test = (torch.randn(R, points, 2, generator=generator) for points in (N, M))
    return x, x.sum(-1).sin(), x_test


def everything(predictive: Predictive, y: Tensor) -> dict[str, Tensor]:
    """All that a prediction says, by name, (R, M) each."""
    said = {"aleatoric std": predictive.aleatoric_std}
    for name in ("f", "y"):
        distribution: Distribution = getattr(predictive, name)
        said |= {f"mean {name}": distribution.mean, f"std {name}": distribution.std}
        said |= {f"median {name}": distribution.quantile(0.5), f"cdf {name}": distribution.cdf(y)}
        said |= {f"crps {name}": distribution.crps(y)}
    return said | {"log density y": predictive.y.log_density(y)}


@EVERY
def test_shapes_types_and_devices(cls: type[UncertaintyMethod], small: Small, seeded: Seeded) -> None:
    """Scores get (R, M) in float64 on the data's device, all finite; diagnostics are (R,). Seen to catch: float32
    distributions, a diagnostic that is one number for all, draws before replicas in the prediction."""
    x, y, x_test = data()
    method = small(cls)
    assert method.skip(MODEL, x) is None
    predictor = method.fit(MODEL, x, y, seeded(0))
    predictive = predictor(x_test)
    for name, value in everything(predictive, torch.zeros(R, M, dtype=torch.float64)).items():
        assert value.shape == (R, M) and value.dtype == torch.float64 and value.device == x.device, name
        assert value.isfinite().all() and not value.requires_grad, name
    assert (predictive.y.std >= predictive.f.std).all() and (predictive.f.std >= 0).all()
    for name, value in predictor.diagnostics.items():
        assert value.shape == (R,) and value.device == x.device and not value.isnan().any(), name
    assert all(0 <= replica < R and reason for replica, reason in predictor.failures.items())
    chained = predictive.chained_f
    if chained is not None:
        replicas, chains, draws, points = chained.shape
        assert (replicas, points) == (R, M) and chains >= 1 and draws >= 1
        torch.testing.assert_close(chained.double().mean((1, 2)), predictive.f.mean)


@EVERY
def test_the_generator_decides_everything(cls: type[UncertaintyMethod], small: Small, seeded: Seeded) -> None:
    """The same seed gives the same bits, whatever the global streams hold; another seed gives others; and the global
    streams are left alone. Seen to catch: a torch.randn without the generator, a numpy draw, torch.manual_seed in fit,
    noise drawn at prediction, a seed fixed in fit."""
    x, y, x_test = data()

    def predict(seed: int) -> Tensor:
        predictor = small(cls).fit(MODEL, x, y, seeded(seed))
        predictions = [torch.stack([p.f.mean, p.f.std]) for p in (predictor(x_test), predictor(x_test))]
        assert torch.equal(*predictions)
        return predictions[0]

    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, another = predict(0), predict(1)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1]) and random.getstate() == states[2]
    with torch.random.fork_rng([]):
        torch.manual_seed(12345)
        assert torch.equal(predict(0), first)
    assert not torch.equal(another, first)


@EVERY
def test_replicas_do_not_see_each_other(cls: type[UncertaintyMethod], small: Small, seeded: Seeded) -> None:
    """Other data in replicas 1 and 2 do not move replica 0 by one bit. Seen to catch: inputs standardised over the
    stack, a gradient norm over the stack, early stopping on the stack's loss."""
    x, y, x_test = data()
    other_x, other_y, _ = data(seed=1)
    other_x[0], other_y[0] = x[0], y[0]
    other_y[1:] *= 5
    one, other = (small(cls).fit(MODEL, *both, seeded(0)) for both in ((x, y), (other_x, other_y)))
    before, after = one(x_test).f, other(x_test).f
    assert torch.equal(before.mean[0], after.mean[0]) and torch.equal(before.std[0], after.std[0])
    assert not torch.equal(before.mean[1:], after.mean[1:])
    for name, value in one.diagnostics.items():
        assert value[0] == other.diagnostics[name][0], name


@EVERY
def test_a_prediction_is_pointwise_in_x(cls: type[UncertaintyMethod], small: Small, seeded: Seeded) -> None:
    """Chunks of x, and points in another order, get what the whole gets, up to rounding. Seen to catch: a prediction
    standardised by its own test points, masks by position."""
    x, y, x_test = data()
    predictor = small(cls).fit(MODEL, x, y, seeded(0))
    target = torch.zeros(R, M, dtype=torch.float64)
    whole = everything(predictor(x_test), target)
    chunks = [everything(predictor(part), target[:, : part.shape[1]]) for part in x_test.split(4, 1)]
    backwards = everything(predictor(x_test.flip(1)), target)
    for name, value in whole.items():
        torch.testing.assert_close(torch.cat([c[name] for c in chunks], 1), value, rtol=1e-4, atol=1e-5, msg=name)
        torch.testing.assert_close(backwards[name].flip(1), value, rtol=1e-4, atol=1e-5, msg=name)


@EVERY
def test_training_data_are_not_touched(cls: type[UncertaintyMethod], small: Small, seeded: Seeded) -> None:
    """Seen to catch: x standardised in place."""
    x, y, x_test = data()
    kept = [part.clone() for part in (x, y, x_test)]
    small(cls).fit(MODEL, x, y, seeded(0))(x_test)
    assert all(torch.equal(*both) for both in zip(kept, (x, y, x_test), strict=True))


def others(cls: type, field: Field[object], value: object) -> Iterator[object]:
    """Other values for this field, some of which the class will accept."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value * 2, max(value - 1, 1))
    elif isinstance(value, float):
        yield from (value * 0.9, value + 0.1)
    elif is_dataclass(value):
        for name, part in ((part.name, part) for part in fields(value)):
            for other in islice(others(type(value), part, getattr(value, name)), 1):
                yield replace(value, **{name: other})
        for base in type(value).__mro__[1:-1]:
            yield from (sub() for sub in base.__subclasses__() if sub is not type(value) and sub.__module__ != __name__)
    else:
        choices = get_args(get_type_hints(cls)[field.name])  # of a Literal, or of X | None
        yield from (choice for choice in choices if choice != value and not isinstance(choice, type))
        yield from (0.1, 1, None)


@EVERY
def test_repr_tells_all_hyperparameters(cls: type[UncertaintyMethod], small: Small) -> None:
    """It is what results are filed under: evaluated, it is the method again, and it differs when any field does. Seen
    to catch: a field with repr=False, a repr that rounds, a field that is not compared."""
    method = small(cls)
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("gapbench.methods.")]
    names = {name: value for module in modules for name, value in vars(module).items()}
    assert eval(repr(method), names) == method
    for field in fields(method):
        for value in others(cls, field, getattr(method, field.name)):
            try:
                other = replace(method, **{field.name: value})
            except (ValueError, TypeError):
                continue  # not a value this field may have
            assert repr(other) != repr(method) and other != method, field.name
            break
        else:
            pytest.fail(f"no other value found for {field.name}")


def test_the_registry_finds_the_methods_and_nothing_else() -> None:
    """Sorted by name; an abstract class is none. Seen to catch: abstract classes listed, names split at every
    capital, the order of the files."""
    found = registry.methods()
    assert list(found) == sorted(found) and {"mc_dropout", "sgld", "svi"} <= set(found)
    assert len(set(found.values())) == len(found)
    assert SingleModelMethod not in found.values() and UncertaintyMethod not in found.values()


def test_a_new_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding a method is adding one file. The folder is a temporary one, put in the place of methods/."""
    name = "dropped_in_for_this_test"
    (tmp_path / f"{name}.py").write_text(
        "from dataclasses import dataclass\n"
        "from gapbench.methods.base import SingleModelMethod, UncertaintyMethod\n"
        "from gapbench.methods.sgld import SGLD\n"
        "@dataclass(frozen=True)\n"
        "class HMCMethod2(SingleModelMethod):\n"
        "    steps: int = 1\n"
        "    def sample(self, model, theta, x, y, generator):\n"
        "        return theta[None]\n"
        "class NotYet(UncertaintyMethod):\n"
        "    pass\n"
    )
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    try:
        assert {row: cls.__name__ for row, cls in registry.methods().items()} == {"hmc_method2": "HMCMethod2"}
    finally:
        sys.modules.pop(f"gapbench.methods.{name}", None)


def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its path, on the command line too, where it is the user's mistake. Seen to catch: exit code 4, "a bug"."""
    (tmp_path / "half_written.py").write_text("class Half(\n")
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    result = CliRunner().invoke(cli.main, ["list"], prog_name="gapbench")
    assert result.exit_code == 2 and result.stderr.startswith(f"Error: {tmp_path / 'half_written.py'}: SyntaxError: ")


@dataclass(frozen=True)
class Langevin(SingleModelMethod):
    """Unadjusted Langevin on all data, written for one model as the contract says."""

    step: float = 0.05
    burn_in: int = 100
    draws: int = 300
    thin: int = 4

    def sample(self, model: MLP, theta: Tensor, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        def potential(theta: Tensor) -> Tensor:
            return -model.log_likelihood(theta, x, y).sum() - model.log_prior(theta)

        kept = []
        for _ in range(self.burn_in + self.draws * self.thin):
            noise = torch.randn(theta.shape, generator=generator)
            theta = theta - self.step * torch.func.grad(potential)(theta) + sqrt(2 * self.step) * noise
            kept.append(theta)
        return torch.stack(kept[self.burn_in + self.thin - 1 :: self.thin])


def test_a_method_for_one_model_gets_its_replicas_by_vmap(
    linear_regression: Callable[..., object], seeded: Seeded
) -> None:
    """(R, S, M), replicas with noise of their own, and Langevin's covariance Σₖ vₖvₖᵀ/(λₖ(1 − ελₖ/2)) within 5 standard
    errors + 5 % of the posterior's scale. Seen to catch: randomness="same" (the replicas' draws correlate), the first
    replica's data for all."""
    regression, replicas = linear_regression(), 32
    x, y = regression.stack(replicas)
    method = Langevin()
    predictor = method.fit(regression.model, x, y, seeded(0))
    assert predictor(x[:, :7]).mean.shape == (replicas, method.draws, 7)
    assert predictor(x).chained_f is None

    values, vectors = np.linalg.eigh(regression.precision)
    law = (vectors / (values * (1 - method.step * values / 2))) @ vectors.T
    draws = predictor.theta.double().numpy() - regression.mean  # (R, S, P)
    covariances = np.einsum("rsi,rsj->rij", draws, draws) / method.draws
    variances = np.diag(regression.covariance)
    allowed = 5 * covariances.std(0) / sqrt(replicas) + 0.05 * np.sqrt(np.outer(variances, variances))
    assert (np.abs(covariances.mean(0) - law) < allowed).all()
    assert (np.abs(draws.mean((0, 1))) < 5 * draws.mean(1).std(0) / sqrt(replicas) + 0.05 * np.sqrt(variances)).all()

    together = np.corrcoef(draws[:, :, 0])[np.triu_indices(replicas, 1)]
    assert np.abs(together).mean() < 0.25

    other = y.clone()
    other[1:] += 10
    moved = replace(method, draws=2).fit(regression.model, x, other, seeded(0)).theta
    still = replace(method, draws=2).fit(regression.model, x, y, seeded(0)).theta
    torch.testing.assert_close(moved[0], still[0])
    assert (moved[1:] - still[1:]).abs().amax((1, 2)).min() > 1


@EVERY
def test_settings_that_make_no_sense_are_refused(cls: type[UncertaintyMethod]) -> None:
    """By the field's name and value, whichever method has it. Seen to catch: SGLD's `__post_init__` without super's,
    ≤ for <."""
    nonsense = {"steps": -1, "burn_in": -1, "batch": 0, "draws": 0, "thin": 0, "chains": 0, "lr": 0.0, "rate": 1.0}
    for name in (field.name for field in fields(cls) if field.init and field.name in nonsense):
        with pytest.raises(ValueError, match=rf"{cls.__name__}: {name} = {nonsense[name]}"):
            replace(cls(), **{name: nonsense[name]})
