"""What every method promises, for every method that is found: a new file in methods/ is tested by itself.

Budgets are cut through the shared field names (evaluation/conformance.py): no method carries a configuration for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from gapbench.evaluation import conformance
from gapbench.methods.engine.exactness import example
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.single_model import SingleModelMethod
from gapbench.runners.suites import suites

Seeded = Callable[[int], Generator]
METHODS = suites()["all"].methods


@pytest.mark.one_file
@pytest.mark.parametrize("promise", conformance.PROMISES)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_every_promise(name: str, promise: str) -> None:
    """What each promise is seen to catch stands in test_conformance.py."""
    found = conformance.verdict(METHODS[name], promise, conformance.PROMISES[promise])
    assert found.outcome == "kept", found.detail + found.traceback


@pytest.mark.one_file
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.exactness is not None])
def test_every_method_has_the_law_it_claims(name: str) -> None:
    """On Bayesian linear regression, where it is known."""
    found = conformance.verdict(METHODS[name], conformance.EXACT, conformance.exact)
    assert found.outcome == "kept", found.detail + found.traceback


def test_the_shipped_methods_claim_a_law() -> None:
    """All but private SGLD, whose clips bias it in no known way."""
    assert all(METHODS[name].exactness is not None for name in ("hmc", "mala", "mc_dropout", "sgld", "svi"))
    assert METHODS["sgld_private"].exactness is None


@dataclass(frozen=True)
class Langevin(SingleModelMethod):
    """Unadjusted Langevin on all data, written for one model as the contract says."""

    step: float = 0.05
    burn_in: int = 100
    draws: int = 300
    thin: int = 4

    def sample(self, model: Model, theta: Tensor, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        def potential(theta: Tensor) -> Tensor:
            return -model.log_likelihood(theta, x, y).sum() - model.log_prior(theta)

        kept = []
        for _ in range(self.burn_in + self.draws * self.thin):
            noise = torch.randn(theta.shape, generator=generator)
            theta = theta - self.step * torch.func.grad(potential)(theta) + sqrt(2 * self.step) * noise
            kept.append(theta)
        return torch.stack(kept[self.burn_in + self.thin - 1 :: self.thin])


def test_a_method_for_one_model_gets_its_replicas_by_vmap(seeded: Seeded) -> None:
    """(R, S, M), chain by chain, replicas with noise of their own, and Langevin's covariance within 5 standard
    errors + 5 % of the posterior's scale. Seen to catch: randomness="same" (the replicas' draws correlate), the first
    replica's data for all."""
    regression, replicas = example(), 32
    x, y = regression.stack(replicas)
    method = Langevin()
    fitted = method.fit(regression.model, x, y, seeded(0))
    assert fitted(x[:, :7]).location.shape == (replicas, method.draws, 7)
    chained = replace(method, burn_in=0, draws=2, chains=3).fit(regression.model, x, y, seeded(0))(x[:, :7]).chained_f
    assert chained is not None and chained.shape == (replicas, 3, 2, 7)

    values, vectors = np.linalg.eigh(regression.precision)
    law = (vectors / (values * (1 - method.step * values / 2))) @ vectors.T
    draws = fitted.theta.double().numpy() - regression.posterior.mean  # (R, S, P)
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
