"""Monte-Carlo dropout (Gal & Ghahramani 2016, https://arxiv.org/abs/1506.02142).

    minimise  −(n/b) Σᵢ log p(yᵢ | xᵢ, θ, mᵢ) − log p(θ),    hⱼ ← mⱼ hⱼ / (1 − rate),    mⱼ ~ Bernoulli(1 − rate)

and predict with the masks still drawn: each draw of m is a draw of f.
Caveat: the spread of f comes from the masks. The spread does not shrink with more data unless the rate is tuned. With
one hidden ReLU layer the variance is convex in x, so it cannot be larger between two clusters than at both of them
(Foong et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim, FittedMethod
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model, Perturb
from gapbench.methods.engine.optimise import negative_log_posterior
from gapbench.methods.engine.posterior_draws import mixture
from gapbench.methods.engine.predictions import MixturePrediction


@dataclass(frozen=True)
class MCDropout(AdamTrained):
    """Dropout after every hidden layer, in training and in prediction; the prior is the weight decay.

    rate: probability that a unit is dropped. rate = 0 is the MAP estimate, with no uncertainty about f.
    """

    rate: float = 0.05
    steps: int = 20_000
    lr: float = 3e-2
    batch: int = 100
    draws: int = 200

    @property
    def exactness(self) -> Claim:
        """The posterior's mode without variance: a network without hidden layers has no unit to drop."""
        return Claim(replace(self, steps=1000, lr=0.05, batch=5), lambda regression: regression.point)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Dropout:
        replicas, n = y.shape

        def loss(theta: Tensor, index: Tensor) -> Tensor:
            drop = dropout(draw_masks(model, self.rate, index.shape, generator))  # each point has its own mask
            likelihood = model.log_likelihood(theta, gather_points(x, index), gather_points(y, index), drop)
            return negative_log_posterior(likelihood, model.log_prior(theta), n)

        theta, diagnostics = self.train(loss, model.init(generator, (replicas,)), n, generator)
        # One mask for each draw, the same at every x, so that a draw is a function.
        masks = [draw_masks(model, self.rate, (replicas, 1), generator) for _ in range(self.draws)]
        return Dropout(model, theta, masks, diagnostics=diagnostics)


@dataclass(frozen=True)
class Dropout(FittedMethod):
    """The network at one θ (R, P) under S masks, each with a tensor (R, 1, width) for each hidden layer."""

    model: Model
    theta: Tensor
    masks: Sequence[Sequence[Tensor]]

    def __call__(self, x: Tensor) -> MixturePrediction:
        return mixture(self.model.mean_and_noise(self.theta, x, dropout(mask)) for mask in self.masks)


def draw_masks(model: Model, rate: float, lead: Sequence[int], generator: Generator) -> list[Tensor]:
    """The masks m / (1 − rate) of each hidden layer, (*lead, width); an empty list if rate = 0."""
    device = generator.device
    empty = [torch.empty((*lead, width), device=device, dtype=torch.float32) for width in model.hidden if rate]
    return [mask.bernoulli_(1 - rate, generator=generator).div_(1 - rate) for mask in empty]


def dropout(masks: Sequence[Tensor]) -> Perturb | None:
    """The function h ← m h / (1 − rate) of each layer; None without masks."""
    return (lambda h, layer: h * masks[layer]) if masks else None
