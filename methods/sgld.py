"""Stochastic gradient Langevin dynamics (Welling & Teh 2011) run by Opacus's DP-SGD (Abadi et al. 2016).

    SGLD     θ ← θ − ε ∇Û(θ) + √(2ε) ξ,    U(θ) = −log p(θ) − Σₙ log p(yₙ | xₙ, θ)
    DP-SGD   θ ← θ − η [ (1/b) (Σᵢ clip_C(gᵢ) + σ C ξ) + λ θ ]

are one step when  ε = η/n,  σC = b √(2/(ηn)),  λ = 1/(n·prior_std²)  and no clip is active.

During burn-in the likelihood is tempered, U(θ) = −log p(θ) − (1/T) Σₙ log p(yₙ | xₙ, θ), with T falling to 1 and steps
εT, as large as the flatter U allows: the same data step, and T times the prior's and √T times the noise.

https://www.stats.ox.ac.uk/~teh/research/compstats/WelTeh2011a.pdf, https://arxiv.org/abs/1607.00133
Caveat: the noise fixes σC alone, so a small σ means no clipping and the true posterior (as the step goes to 0 and
the chain gets there); a large σ means privacy, clipping and a biased sampler.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.optimizers import DPOptimizer
from torch import Generator, Tensor

from gapbench.methods.base import Claim, PosteriorDraws, UncertaintyMethod
from gapbench.methods.exactness import Law, LinearRegression
from gapbench.methods.minibatches import FixedSize, Minibatches, OpacusLoader, Poisson, take
from gapbench.methods.model import Model, PerSampleGradients

NO_GUARANTEE = 50.0  # an ε of which e^ε is beyond any meaning; the PRV accountant would take minutes to refine it


@dataclass(frozen=True)
class SGLD(UncertaintyMethod):
    """Langevin chains whose noise, scaling and privacy accounting are Opacus's.

    lr: η; the Langevin step is ε = η/n. batch: b. noise_multiplier: σ, and with it C = b√2 / (σ√(ηn)).
    temperature: T at the start; it is halved in equal parts of burn_in, the last of them at 1. 1: no tempering.
    allow_clipping: False fails a replica in which a clip was ever active, since it sampled something else.
    burn_in, thin: in steps. draws: kept from each chain. delta: the δ at which ε(δ) is reported.
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
        """T at this step, counted from 1."""
        if step > self.burn_in:
            return 1.0
        halvings = math.ceil(math.log2(self.temperature))
        past = (step - 1) * (halvings + 1) // self.burn_in  # of them
        return max(1.0, math.ldexp(self.temperature, -past))

    def max_grad_norm(self, n: int) -> float:
        """C, from the equivalence."""
        return self.batch * math.sqrt(2 / (self.lr * n)) / self.noise_multiplier

    def temperatures(self, n: int) -> tuple[float, float]:
        """(of the likelihood, of the prior) that the chain samples at, were no clip active."""
        rate, divisor = self.sampling.rate(self.batch, n), self.sampling.divisor(self.batch, n)
        return self.batch**2 / (n * rate * divisor), self.batch**2 / divisor**2

    def epsilon(self, n: int) -> float:
        """ε(δ) of releasing every iterate of every chain of one replica, for adding or removing one point."""
        if not isinstance(self.sampling, Poisson | OpacusLoader):
            return math.inf  # the accountants' amplification by subsampling is that of Poisson sampling
        steps = Counter(self.tempering(step) for step in range(1, self.steps + 1))
        history = [
            (self.noise_multiplier * math.sqrt(t), self.sampling.rate(self.batch, n), number * self.chains)
            for t, number in steps.items()
        ]
        bound, accountant = RDPAccountant(), PRVAccountant()
        bound.history, accountant.history = history, history
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a wider range of orders would tighten the bound
            loose = bound.get_epsilon(self.delta, alphas=list(range(2, 64)))
            return accountant.get_epsilon(self.delta) if loose < NO_GUARANTEE else math.inf

    @property
    def exactness(self) -> Claim | None:
        """The law that its chains keep at a step so large (ελ/2 up to 0.4) that it is far from the posterior."""
        if self.allow_clipping:
            return None
        unclipped = replace(self, lr=3.0, batch=5, noise_multiplier=1e-3)
        quick = replace(unclipped, temperature=4.0, burn_in=200, draws=600, thin=5, chains=1)
        return Claim(quick, quick.stationary_law)

    def stationary_law(self, regression: LinearRegression) -> Law:
        """Mean and covariance that the chains keep on linear regression, to the last term in ε; no clip active.

        One step, with d the divisor, q the rate, gᵢ = xᵢ(xᵢᵀw − yᵢ)/s²:
        w ← w − ε (w/prior_std² + (n/d) Σ_{i ∈ B} gᵢ) + √(2ε)(b/d) ξ. The drift is linear in w, of matrix D, and with
        A = I − εD  the covariance solves  Σ = A Σ Aᵀ + 2ε (b/d)² I + ε² E_w[Cov_B((n/d) Σ_B gᵢ)].  Cov_B is
        (n/d)² q(1−q) Σᵢ gᵢgᵢᵀ for Poisson batches, and n/(n−1) of that with gᵢ − ḡ for gᵢ for b of n without
        replacement: quadratic in w, so its expectation needs only mean and Σ, and Σ solves a linear system.
        """
        design, noise = regression.design, regression.model.noise_std
        n, size = design.shape
        step, rate, divisor = self.lr / n, self.sampling.rate(self.batch, n), self.sampling.divisor(self.batch, n)
        likelihood = n * rate / divisor / noise**2
        drift = np.eye(size) / regression.model.prior_std**2 + likelihood * design.T @ design
        mean = np.linalg.solve(drift, likelihood * design.T @ regression.targets)

        # gᵢ = Gᵢ w − cᵢ, so vec E[gᵢgᵢᵀ] = vec(g̃ᵢg̃ᵢᵀ) + (Gᵢ ⊗ Gᵢ) vec Σ with g̃ᵢ = gᵢ at the mean.
        each = np.einsum("ni,nj->nij", design, design) / noise**2  # G, (N, P, P)
        at_mean = design * (design @ mean - regression.targets)[:, None] / noise**2  # g̃, (N, P)
        weight = (n / divisor) ** 2 * rate * (1 - rate)
        if isinstance(self.sampling, FixedSize):
            each, at_mean, weight = each - each.mean(0), at_mean - at_mean.mean(0), weight * n / max(n - 1, 1)
        batches = weight * np.einsum("nij,nkl->ikjl", each, each).reshape(size**2, size**2)

        kept = np.eye(size) - step * drift
        system = np.eye(size**2) - np.kron(kept, kept) - step**2 * batches
        added = 2 * step * (self.batch / divisor) ** 2 * np.eye(size) + step**2 * weight * at_mean.T @ at_mean
        return Law(mean, np.linalg.solve(system, added.ravel()).reshape(size, size))

    def skip(self, model: Model, x: Tensor) -> str | None:
        n = x.shape[1]
        return f"batch = {self.batch} is larger than the {n} training points" if self.batch > n else None

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        replicas, n = y.shape
        theta = model.init(generator, (replicas, self.chains)).requires_grad_()  # (R, chains, P)
        weight_decay = 1 / (n * model.prior_std**2)
        optimizer = StackedDPOptimizer(
            torch.optim.SGD([theta], lr=self.lr, weight_decay=weight_decay, fused=True),
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm(n),
            expected_batch_size=self.sampling.divisor(self.batch, n),
            generator=generator,
        )
        kept = theta.new_empty(replicas, self.chains, self.draws, theta.shape[-1])
        batches = self.sampling.draw((replicas, self.chains), self.batch, n, generator)
        for step in range(1, self.steps + 1):
            optimizer.heat(self.noise_multiplier, weight_decay, self.tempering(step))
            batch = next(batches)
            gradients = model.per_sample_gradients(theta.detach(), take(x, batch.index), take(y, batch.index))
            optimizer.descend(gradients, batch.present)
            past, rest = divmod(step - self.burn_in, self.thin)
            if past > 0 and rest == 0:
                kept[:, :, past - 1] = theta.detach()

        clipped = optimizer.clipped_fraction.mean(1)  # (R,)
        likelihood, prior = self.temperatures(n)
        reason = "a gradient norm reached C = {:.4g}: {:.2g} of the per-sample gradients were clipped"
        forbidden = [] if self.allow_clipping else clipped.nonzero().flatten().tolist()
        return PosteriorDraws(
            model,
            kept.flatten(1, 2),
            self.chains,
            diagnostics={
                "clipped fraction": clipped,
                "likelihood temperature": torch.full_like(clipped, likelihood),
                "prior temperature": torch.full_like(clipped, prior),
                "epsilon": torch.full_like(clipped, self.epsilon(n)),
                "steps": torch.full_like(clipped, self.steps),
                "gradient evaluations": optimizer.seen.sum(1),
            },
            failures={r: reason.format(self.max_grad_norm(n), float(clipped[r])) for r in forbidden},
        )


class StackedDPOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimiser on a stack θ (R, chains, P): a sample's norm is taken over the last dimension, per replica
    and chain, where the stock one takes it over everything. Noise, scaling and step stay Opacus's."""

    def __init__(self, optimizer: torch.optim.Optimizer, **settings: Any) -> None:
        super().__init__(optimizer, **settings)
        lead, device = self.params[0].shape[:-1], self.params[0].device
        self.seen = torch.zeros(lead, device=device, dtype=torch.float64)  # per-sample gradients so far, (R, chains)
        self._clipped = torch.zeros_like(self.seen)

    @property
    def clipped_fraction(self) -> Tensor:
        """(R, chains): of all per-sample gradients so far, those longer than C."""
        return self._clipped / self.seen.clamp(min=1)

    def heat(self, noise_multiplier: float, weight_decay: float, temperature: float) -> None:
        """Give the next steps √T times this noise and T times this weight decay."""
        self.noise_multiplier = noise_multiplier * math.sqrt(temperature)
        self.param_groups[0]["weight_decay"] = weight_decay * temperature

    def descend(self, gradients: PerSampleGradients, present: Tensor | None) -> None:
        """One step. present: (R, chains, B), 0 for padding; None if there is none."""
        self._gradients, self._present = gradients, present
        self.step()

    @property
    def grad_samples(self) -> list[PerSampleGradients]:
        return [self._gradients]

    @property
    def accumulated_iterations(self) -> int:
        return 1

    def clip_and_accumulate(self) -> None:
        norms = self._gradients.norms  # (R, chains, B)
        clipped, self._factors = norms > self.max_grad_norm, (self.max_grad_norm / (norms + 1e-6)).clamp_(max=1.0)
        if self._present is None:
            self.seen += norms.shape[-1]
        else:
            self.seen += self._present.sum(-1)
            clipped, self._factors = clipped * self._present, self._factors * self._present
        self._clipped += clipped.sum(-1)

    def add_noise(self) -> None:
        """The numbers of Opacus's own `add_noise`, drawn and summed in place: on a stack, fresh memory for θ-sized
        tensors costs more than the arithmetic on them."""
        theta = self.params[0]
        theta.grad = torch.empty_like(theta) if theta.grad is None else theta.grad
        theta.grad.normal_(0, self.noise_multiplier * self.max_grad_norm, generator=self.generator)
        self._gradients.add_weighted_sum(self._factors, theta.grad)
