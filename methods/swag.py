"""SWAG: stochastic weight averaging, Gaussian (Maddox et al. 2019, https://arxiv.org/abs/1902.02476).

    SGD at a constant step:   θ ← θ − sgd_lr/n (n/b Σᵢ gᵢ + θ/prior_std²),   with a snapshot θₖ every `thin` steps
    θ ~ N(θ̄, ½ diag(Σ̂) + ½ D Dᵀ/(K−1)),   D = [θₖ − θ̄],   Σ̂ = mean of squares − square of the mean,   K snapshots

θ̄ is the mean of all snapshots, and so are the deviations (the paper takes those from the mean so far).
Family: around one mode.
Caveat: the law is SGD's around one mode, and its width goes with sgd_lr, b and n. It is the posterior's by luck alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.exactness import Gaussian, LinearRegression
from gapbench.methods.engine.gradients import energy_gradient
from gapbench.methods.engine.minibatches import FixedSize, gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.engine.stationary_law import stationary_law


@dataclass(frozen=True)
class SWAG(AdamTrained):
    """The normal law of SGD's iterates around the MAP, diagonal plus low rank.

    steps, lr, batch, by_epochs: of Adam, which finds the MAP. sgd_lr: of SGD, with minibatches of the same size.
    burn_in: SGD's steps before the first snapshot. snapshots: K. thin: steps between snapshots.
    """

    steps: int = 12_000
    sgd_lr: float = 3e-3
    burn_in: int = 200
    snapshots: int = 30
    thin: int = 50
    draws: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.snapshots < 2 or not self.sgd_lr > 0:
            raise ValueError(
                f"SWAG: snapshots = {self.snapshots}, sgd_lr = {self.sgd_lr}: expected at least 2 snapshots and a "
                "positive step size"
            )

    @property
    def exactness(self) -> Claim:
        """½ diag Σ + ½ Σ, with Σ the stationary law of SGD, at a large step."""
        quick = replace(
            self, steps=300, lr=0.1, batch=5, by_epochs=False, sgd_lr=3.0, burn_in=50, snapshots=400, thin=10, draws=400
        )

        def law(regression: LinearRegression) -> Gaussian:
            sgd = stationary_law(regression, quick.sgd_lr, quick.batch, FixedSize(), langevin=0.0)
            return Gaussian(sgd.mean, (np.diag(np.diag(sgd.covariance)) + sgd.covariance) / 2)

        return Claim(quick, law)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        (replicas, n), batch = y.shape, min(self.batch, y.shape[1])
        theta, diagnostics = self.train_map(model, x, y, generator)
        kept = theta.new_empty(replicas, self.snapshots, model.size)
        batches = FixedSize().draw((replicas,), batch, n, generator)
        for step in range(1, self.sgd_steps + 1):
            index = next(batches).index
            theta = theta - self.sgd_lr / n * energy_gradient(
                model, theta, gather_points(x, index), gather_points(y, index), n
            )
            past, rest = divmod(step - self.burn_in, self.thin)
            if past > 0 and rest == 0:
                kept[:, past - 1] = theta
        diagnostics["gradient evaluations"] += float(self.sgd_steps * batch)
        return PosteriorDraws(model, self.sampled(kept, generator), diagnostics=diagnostics)

    @property
    def sgd_steps(self) -> int:
        return self.burn_in + self.snapshots * self.thin

    def sampled(self, kept: Tensor, generator: Generator) -> Tensor:
        """Draws of the normal law of the snapshots, (R, draws, P). kept: (R, K, P)."""
        mean = kept.mean(1, keepdim=True)
        deviations = kept - mean
        diagonal = deviations.square().mean(1, keepdim=True).sqrt()
        replicas, snapshots, size = kept.shape
        alone, low_rank = (
            torch.randn((replicas, self.draws, count), generator=generator, device=kept.device)
            for count in (size, snapshots)
        )
        return mean + (diagonal * alone + low_rank @ deviations / math.sqrt(snapshots - 1)) / math.sqrt(2)
