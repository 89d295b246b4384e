"""Stochastic gradient Langevin dynamics (Welling & Teh 2011) run by Opacus's DP-SGD (Abadi et al. 2016).

    SGLD     θ ← θ − ε ∇Û(θ) + √(2ε) ξ,    U(θ) = −log p(θ) − Σₙ log p(yₙ | xₙ, θ)
    DP-SGD   θ ← θ − η [ (1/b) (Σᵢ clip_C(gᵢ) + σ C ξ) + λ θ ]

are one step when  ε = η/n,  σC = b √(2/(ηn)),  λ = 1/(n·prior_std²)  and no clip is active.

During burn-in the likelihood is tempered: U(θ) = −log p(θ) − (1/T) Σₙ log p(yₙ | xₙ, θ), with T falling to 1. The step
is εT, as large as the flatter U allows. So the data term of a step is unchanged, the prior term is T times as large,
and the noise is √T times as large.

https://www.stats.ox.ac.uk/~teh/research/compstats/WelTeh2011a.pdf, https://arxiv.org/abs/1607.00133
Family: Markov chain.
Caveat: the noise fixes only the product σC. A small σ means no clipping and the true posterior (as the step goes to 0
and the chain converges). A large σ means privacy, clipping and a biased sampler.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim, UncertaintyMethod
from gapbench.methods.engine.minibatches import (
    FixedSize,
    Minibatches,
    OpacusLoader,
    Poisson,
    gather_points,
    too_few_points,
)
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.engine.stationary_law import stationary_law

if TYPE_CHECKING:  # where Opacus is used, it is imported: that takes two seconds, which most commands need not wait
    from gapbench.methods.engine.dp_sgd import StackedDPOptimizer


@dataclass(frozen=True)
class SGLD(UncertaintyMethod):
    """Langevin chains with the noise, scaling and privacy accounting of Opacus.

    lr: η; the Langevin step is ε = η/n. batch: b. noise_multiplier: σ, which also decides C = b√2 / (σ√(ηn)).
    temperature: T at the start; T is halved after equal parts of burn_in, and is 1 in the last part. 1: no tempering.
    allow_clipping: False: a replica fails if a clip was ever active, since it did not sample the posterior.
    burn_in, thin: numbers of steps. draws: kept from each chain. delta: the δ at which ε(δ) is reported.
    """

    lr: float = 6e-4
    batch: int = 64
    noise_multiplier: float = 1e-3
    temperature: float = 256.0
    allow_clipping: bool = False
    burn_in: int = 7_000
    draws: int = 10
    thin: int = 280
    chains: int = 20
    delta: float = 1e-5
    sampling: Minibatches = field(default_factory=FixedSize)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.noise_multiplier > 0 and 1 <= self.temperature < math.inf and 0 < self.delta < 1):
            raise ValueError(
                f"SGLD: noise_multiplier = {self.noise_multiplier}, temperature = {self.temperature}, "
                f"delta = {self.delta}: expected noise_multiplier > 0, temperature ≥ 1 and delta between 0 and 1"
            )

    @property
    def steps(self) -> int:
        return self.burn_in + self.draws * self.thin

    def tempering(self, step: int) -> float:
        """The temperature T at this step; steps are counted from 1."""
        if step > self.burn_in:
            return 1.0
        halvings = math.ceil(math.log2(self.temperature))
        past = (step - 1) * (halvings + 1) // self.burn_in  # number of halvings done
        return max(1.0, math.ldexp(self.temperature, -past))

    def max_grad_norm(self, n: int) -> float:
        """The clipping norm C at which DP-SGD and SGLD are equivalent."""
        return self.batch * math.sqrt(2 / (self.lr * n)) / self.noise_multiplier

    def temperatures(self, n: int) -> tuple[float, float]:
        """The temperatures of likelihood and prior at which the chain samples, if no clip is active."""
        rate, divisor = self.sampling.rate(self.batch, n), self.sampling.divisor(self.batch, n)
        return self.batch**2 / (n * rate * divisor), self.batch**2 / divisor**2

    def epsilon(self, n: int) -> float:
        """The privacy loss ε(δ) of releasing all iterates of a replica's chains, for adding or removing one point.

        inf if the sampling has no accountant, or if nothing is promised.
        """
        if not isinstance(self.sampling, Poisson | OpacusLoader):
            return math.inf  # the accountants assume Poisson sampling
        from gapbench.methods.engine.dp_sgd import privacy_loss

        steps = Counter(self.tempering(step) for step in range(1, self.steps + 1))
        rate = self.sampling.rate(self.batch, n)
        parts = ((self.noise_multiplier * math.sqrt(t), rate, number * self.chains) for t, number in steps.items())
        return privacy_loss(tuple(parts), self.delta)

    @property
    def exactness(self) -> Claim | None:
        """The stationary law at a large step (ελ/2 up to 0.4), which is far from the posterior; None with clipping."""
        if self.allow_clipping:
            return None
        unclipped = replace(self, lr=3.0, batch=5, noise_multiplier=1e-3)
        quick = replace(unclipped, temperature=4.0, burn_in=200, draws=600, thin=5, chains=1)
        return Claim(quick, lambda regression: stationary_law(regression, quick.lr, quick.batch, quick.sampling))

    def skip(self, model: Model, x: Tensor) -> str | None:
        return too_few_points(self.batch, x.shape[1])

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        from gapbench.methods.engine.dp_sgd import StackedDPOptimizer

        replicas, n = y.shape
        theta = model.init(generator, (replicas, self.chains)).requires_grad_()  # (R, chains, P)
        optimizer = StackedDPOptimizer(
            # The weight decay λ comes from the model's prior. Fused: one pass over θ in each step.
            torch.optim.SGD([theta], lr=self.lr, weight_decay=1 / (n * model.prior_std**2), fused=True),
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm(n),
            expected_batch_size=self.sampling.divisor(self.batch, n),
            generator=generator,
        )
        kept = theta.new_empty(replicas, self.chains, self.draws, theta.shape[-1])
        batches = self.sampling.draw((replicas, self.chains), self.batch, n, generator)
        for step in range(1, self.steps + 1):
            optimizer.set_temperature(self.tempering(step))
            batch = next(batches)
            points = gather_points(x, batch.index), gather_points(y, batch.index)
            optimizer.step(model.per_sample_gradients(theta.detach(), *points), batch.present)
            past, rest = divmod(step - self.burn_in, self.thin)
            if past > 0 and rest == 0:
                kept[:, :, past - 1] = theta.detach()
        return PosteriorDraws(
            model,
            kept.flatten(1, 2),
            self.chains,
            diagnostics=self.diagnostics(optimizer, n),
            failures={} if self.allow_clipping else clipped_replicas(optimizer),
        )

    def diagnostics(self, optimizer: StackedDPOptimizer, n: int) -> dict[str, Tensor]:
        """The diagnostics of the run, (R,) each."""
        clipped, (likelihood, prior) = optimizer.clipped_fraction, self.temperatures(n)
        return {
            "clipped fraction": clipped,
            "likelihood temperature": torch.full_like(clipped, likelihood),
            "prior temperature": torch.full_like(clipped, prior),
            "epsilon": torch.full_like(clipped, self.epsilon(n)),
            "noise multiplier": torch.full_like(clipped, self.noise_multiplier),
            "clipping norm": torch.full_like(clipped, self.max_grad_norm(n)),
            "steps": torch.full_like(clipped, self.steps),
            "gradient evaluations": optimizer.seen.sum(1),
        }


def clipped_replicas(optimizer: StackedDPOptimizer) -> dict[int, str]:
    """The replicas in which a gradient was clipped, each with the reason why it did not sample the posterior."""
    reason = "a gradient norm reached C = {:.4g}: {:.2g} of the per-sample gradients were clipped"
    fractions = enumerate(optimizer.clipped_fraction.tolist())
    return {r: reason.format(optimizer.max_grad_norm, fraction) for r, fraction in fractions if fraction > 0}
