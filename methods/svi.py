"""Stochastic variational inference with a mean-field normal guide, in Pyro (Hoffman et al. 2013; Blundell et al. 2015).

    maximise  ELBO = E_q[(n/b) Σᵢ log p(yᵢ | xᵢ, θ)] − KL(q ‖ p),    q(θ) = Πⱼ N(locⱼ, scaleⱼ²)

https://arxiv.org/abs/1505.05424, https://docs.pyro.ai
Family: variational.
Expected: too narrow in a gap.
Caveat: on a Gaussian posterior of precision Λ, minimising KL(q ‖ p) over independent factors gives scaleⱼ² = 1/Λⱼⱼ.
So the uncertainty along correlated directions is too small; this is the uncertainty in a gap (Foong et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Generator, Tensor
from torch.distributions import kl_divergence
from torch.nn.functional import softplus

from gapbench.methods.base import Claim, UncertaintyMethod
from gapbench.methods.engine.minibatches import FixedSize, gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.optimise import adam, arrival
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.engine.streams import own_streams


@dataclass(frozen=True)
class SVI(UncertaintyMethod):
    """Mean-field SVI of all replicas in one Pyro program: a plate of replicas that holds θ and a plate of data.

    Each replica has its own minibatch. particles: draws of θ per step. init_scale: initial std of the guide, in prior
    stds.
    """

    steps: int = 40_000
    lr: float = 3e-2
    batch: int = 100
    particles: int = 1
    init_scale: float = 0.01
    draws: int = 200

    @property
    def exactness(self) -> Claim:
        quick = replace(self, steps=1000, lr=0.05, batch=5, particles=4, init_scale=0.3, draws=500)
        return Claim(quick, lambda regression: regression.mean_field)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        replicas, n = y.shape
        batch = min(self.batch, n)
        batches = FixedSize().draw((replicas,), batch, n, generator)
        # The model's prior as a Pyro distribution: its KL to the guide has a closed form.
        prior = dist.Normal(torch.zeros(replicas, 1, model.size, device=x.device), model.prior_std).to_event(1)
        everyone = torch.arange(batch, device=x.device)

        def program(x: Tensor, y: Tensor) -> None:  # x (R, b, D), y (R, b)
            with pyro.plate("replicas", replicas, dim=-2):
                theta = pyro.sample("theta", prior).squeeze(-2)  # (..., R, P)
                # A plate of n points, b of them seen: Pyro scales the likelihood by n/b.
                with pyro.plate("data", n, subsample=everyone, dim=-1):
                    lead = theta.shape[:-1]
                    points = x.expand(*lead, *x.shape[-2:]), y.expand(*lead, y.shape[-1])
                    pyro.factor("y", model.training_log_likelihood(theta, *points))

        loc = model.init(generator, (replicas,)).unsqueeze(1).requires_grad_()
        start = math.log(math.expm1(self.init_scale * model.prior_std))  # softplus of it is the scale
        raw = torch.full_like(loc, start, requires_grad=True)

        # AutoNormal has the same law, and its bookkeeping takes a tenth of a step.
        def guide(x: Tensor, y: Tensor) -> None:
            with pyro.plate("replicas", replicas, dim=-2):
                pyro.sample("theta", dist.Normal(loc, softplus(raw)).to_event(1))

        with pyro_sandbox(generator):

            def loss(index: Tensor) -> Tensor:
                return negative_elbo(program, guide, gather_points(x, index), gather_points(y, index), self.particles)

            losses = adam(loss, [loc, raw], self.steps, self.lr, (batch.index for batch in batches))

        noise = torch.randn((replicas, self.draws, model.size), generator=generator, device=x.device)
        evaluations = torch.full((replicas,), float(self.steps * batch * self.particles), device=x.device)
        diagnostics = {"gradient evaluations": evaluations, **arrival(losses, n)}
        draws = loc.detach() + softplus(raw.detach()) * noise
        return PosteriorDraws(model, draws, diagnostics=diagnostics)


def negative_elbo(
    program: Callable[..., None], guide: Callable[..., None], x: Tensor, y: Tensor, particles: int
) -> Tensor:
    """The negative ELBO of each replica, (R,), with the KL in closed form.

    Pyro's TraceMeanField_ELBO estimates the sum of these. Its copies to the host and its dictionary of parameters cost
    half of a step; this function has neither.
    """
    with pyro.plate("particles", particles, dim=-3):
        drawn = poutine.trace(guide).get_trace(x, y)
        seen = poutine.trace(poutine.replay(program, trace=drawn)).get_trace(x, y)
    seen.compute_log_prob(lambda name, site: site["is_observed"])
    divergence = kl_divergence(drawn.nodes["theta"]["fn"], seen.nodes["theta"]["fn"])  # (particles, R, 1)
    likelihood = seen.nodes["y"]["log_prob"]  # (particles, R, b)
    loss: Tensor = (divergence.sum((0, 2)) - likelihood.sum((0, 2))) / particles
    return loss


@contextmanager
def pyro_sandbox(generator: Generator) -> Iterator[None]:
    """Run Pyro with random streams of its own, which it keeps globally, and without its checks."""
    with own_streams(generator), pyro.validation_enabled(False):
        yield
