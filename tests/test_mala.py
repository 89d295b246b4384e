"""MALA, the sampler that is written for one chain of one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator

from gapbench.methods.engine.exactness import example
from gapbench.methods.engine.model import MLP
from gapbench.methods.mala import MALA

Seeded = Callable[[int], Generator]


def test_acceptance_makes_a_large_step_exact(seeded: Seeded) -> None:
    """At a step so large that half of the proposals are refused, the variance of the intercept is the posterior's, to
    3 %. (`gapbench check mala` tests the whole law.) Seen to catch: everything accepted, q(θ | θ′) left out of the
    ratio, the slope at θ used for the way back, the prior left out of U."""
    regression = example()
    x, y = regression.stack(64)
    method = MALA(lr=0.05, burn_in=200, draws=400, thin=2, chains=2)
    theta = method.fit(regression.model, x, y, seeded(0)).theta.double()
    exact = regression.posterior
    moved = (theta[:, 1:] != theta[:, :-1]).any(-1).double().mean()
    assert 0.5 < float(moved) < 0.95  # two steps between draws
    mean, variance = exact.mean[-1], exact.covariance[-1, -1]
    ratio = (theta[..., -1] - mean).square().mean(1) / variance
    assert abs(float(ratio.mean()) - 1) < 0.03 + 5 * float(ratio.std()) / 8


def test_chains_of_the_stack_are_the_chains_alone(seeded: Seeded) -> None:
    """With the noise off and everything accepted a chain is gradient descent on U. Seen to catch: the data of one
    replica used for all, the chains of a replica alike."""
    regression = example()
    x, y = regression.stack(3)
    x[1] *= 2
    method = replace(MALA(), burn_in=0, draws=3, thin=1, chains=2, lr=1e-9)
    theta = method.fit(regression.model, x, y, seeded(0)).theta  # (R, chains × draws, P)
    start = regression.model.init(seeded(0), (3, 2))
    torch.testing.assert_close(theta.unflatten(1, (2, 3))[:, :, 0], start, rtol=0, atol=1e-3)


def test_it_runs_on_a_network(seeded: Seeded) -> None:
    """Draws of 2 replicas × 2 chains × 3 draws, all finite. Seen to catch: draws of the chains in the wrong order."""
    x = torch.randn(2, 12, 1, generator=seeded(0))
    fitted = MALA(burn_in=5, draws=3, thin=2, chains=2).fit(MLP(hidden=(4,)), x, x.squeeze(-1).sin(), seeded(1))
    assert fitted(x).location.shape == (2, 6, 12) and fitted.theta.isfinite().all()
    assert fitted(x).chains == 2
