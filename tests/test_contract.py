"""What every method promises, for every row of the default suite: a new file in methods/ is tested by itself; and how
methods are found.

Budgets are cut through the shared field names (evaluation/conformance.py): no method carries a configuration for tests.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Generator, Tensor

from gapbench import methods as package
from gapbench.evaluation import conformance
from gapbench.methods import registry
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.exactness import example
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.single_model import SingleModelMethod
from gapbench.runners import cli
from gapbench.runners.suites import suites

Seeded = Callable[[int], Generator]
ROWS = {**suites()["default"].methods, **suites()["default"].on_request}


@pytest.mark.parametrize("promise", conformance.PROMISES)
@pytest.mark.parametrize("row", ROWS)
def test_every_method_keeps_every_promise(row: str, promise: str) -> None:
    """What each promise is seen to catch stands in test_conformance.py."""
    found = conformance.verdict(ROWS[row], promise, conformance.PROMISES[promise])
    assert found.outcome == "kept", found.detail


@pytest.mark.parametrize("row", [row for row, method in ROWS.items() if method.exactness is not None])
def test_every_method_has_the_law_it_claims(row: str) -> None:
    """On Bayesian linear regression, where it is known."""
    found = conformance.verdict(ROWS[row], conformance.EXACT, conformance.exact)
    assert found.outcome == "kept", found.detail


def test_the_shipped_methods_claim_a_law() -> None:
    """All but private SGLD, whose clips bias it in no known way."""
    assert all(ROWS[row].exactness is not None for row in ("hmc", "mc_dropout", "sgld", "svi"))
    assert ROWS["sgld_private"].exactness is None


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


def test_a_method_for_one_model_gets_its_replicas_by_vmap(seeded: Seeded) -> None:
    """(R, S, M), replicas with noise of their own, and Langevin's covariance Σₖ vₖvₖᵀ/(λₖ(1 − ελₖ/2)) within 5 standard
    errors + 5 % of the posterior's scale. Seen to catch: randomness="same" (the replicas' draws correlate), the first
    replica's data for all."""
    regression, replicas = example(), 32
    x, y = regression.stack(replicas)
    method = Langevin()
    predictor = method.fit(regression.model, x, y, seeded(0))
    assert predictor(x[:, :7]).mean.shape == (replicas, method.draws, 7)
    assert predictor(x).chained_f is None

    values, vectors = np.linalg.eigh(regression.precision)
    law = (vectors / (values * (1 - method.step * values / 2))) @ vectors.T
    draws = predictor.theta.double().numpy() - regression.posterior.mean  # (R, S, P)
    covariances = np.einsum("rsi,rsj->rij", draws, draws) / method.draws
    variances = np.diag(regression.posterior.covariance)
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
