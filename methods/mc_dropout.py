"""Monte-Carlo dropout (Gal & Ghahramani 2016, https://arxiv.org/abs/1506.02142).

    minimise  −(n/b) Σᵢ log p(yᵢ | xᵢ, θ, mᵢ) − log p(θ),    hⱼ ← mⱼ hⱼ / (1 − rate),    mⱼ ~ Bernoulli(1 − rate)

and predict with the masks still drawn: each draw of m is a draw of f.
Caveat: the spread is that of the masks, and does not shrink as data come in unless the rate is tuned; with one hidden
ReLU layer the variance is convex in x, so it cannot be larger between two clusters than at both (Foong et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim, Mixture, Predictor, UncertaintyMethod
from gapbench.methods.minibatches import FixedSize, take
from gapbench.methods.model import Model
from gapbench.methods.optimise import minimise, negative_log_posterior


@dataclass(frozen=True)
class MCDropout(UncertaintyMethod):
    """Dropout after every hidden layer, in training and in prediction; the prior is the weight decay.

    rate: probability that a unit is dropped. rate = 0 is the MAP estimate, with no uncertainty about f.
    """

    rate: float = 0.05
    steps: int = 10_000
    lr: float = 1e-2
    batch: int = 100
    draws: int = 200

    @property
    def exactness(self) -> Claim:
        """Without hidden layers there is nothing to drop: the mode, and no variance."""
        return Claim(replace(self, steps=1000, lr=0.05, batch=5), lambda regression: regression.point)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Dropout:
        replicas, n = y.shape
        batch = min(self.batch, n)
        batches = FixedSize().draw((replicas,), batch, n, generator)

        def loss(theta: Tensor) -> Tensor:
            index = next(batches).index
            fresh = Masks(self.rate, (replicas, batch), generator)  # a mask for every point of the batch
            likelihood = model.log_likelihood(theta, take(x, index), take(y, index), fresh)
            return negative_log_posterior(likelihood, model.log_prior(theta), n)

        theta = minimise(loss, model.init(generator, (replicas,)), self.steps, self.lr)
        evaluations = torch.full((replicas,), float(self.steps * batch), device=x.device)
        # A mask for every draw, the same at every x, so that a draw is a function.
        masks = [Masks(self.rate, (replicas, 1), generator) for _ in range(self.draws)]
        for mask in masks:
            model.mean(theta, x[:, :1], mask)  # any x: it is the layers' widths that are asked for
        return Dropout(model, theta, masks, diagnostics={"gradient evaluations": evaluations})


@dataclass(frozen=True)
class Masks:
    """Masks for each hidden layer, drawn when a layer first asks and then kept. lead: leading dimensions."""

    rate: float
    lead: Sequence[int]
    generator: Generator
    drawn: list[Tensor] = field(default_factory=list)

    def __call__(self, h: Tensor, layer: int) -> Tensor:
        if self.rate == 0:
            return h
        if layer == len(self.drawn):
            kept = torch.empty((*self.lead, h.shape[-1]), device=h.device, dtype=h.dtype)
            self.drawn.append(kept.bernoulli_(1 - self.rate, generator=self.generator).div_(1 - self.rate))
        return h * self.drawn[layer]


@dataclass(frozen=True)
class Dropout(Predictor):
    """Predicts by the network at one θ (R, P) under S masks."""

    model: Model
    theta: Tensor
    masks: Sequence[Masks]

    def __call__(self, x: Tensor) -> Mixture:
        mean = torch.stack([self.model.mean(self.theta, x, mask) for mask in self.masks], 1)  # (R, S, M)
        noise = self.model.noise(self.theta, x).expand(mean[:, 0].shape).unsqueeze(1)
        return Mixture(mean, mean.new_tensor(self.model.f_std), noise)
