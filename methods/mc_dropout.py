"""Monte-Carlo dropout (Gal & Ghahramani 2016, https://arxiv.org/abs/1506.02142).

    minimise  −(n/b) Σᵢ log p(yᵢ | xᵢ, θ, mᵢ) − log p(θ),    hⱼ ← mⱼ hⱼ / (1 − rate),    mⱼ ~ Bernoulli(1 − rate)

and predict with the masks still drawn: each draw of m is a draw of f.
Family: dropout.
Expected: too narrow in a gap.
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

Masks = Sequence[Tensor]


@dataclass(frozen=True)
class MCDropout(AdamTrained):
    """Dropout after every hidden layer, in training and in prediction; the prior is the weight decay.

    rate: probability that a unit is dropped. rate = 0 is the MAP estimate, with no uncertainty about f. inputs: also
    drop inputs, h₀ = x. On a linear model that is ridge regression with the penalty rate/(1 − rate)·Σᵢ xᵢⱼ² of weight
    j, and the variance of f is rate/(1 − rate)·Σⱼ wⱼ² xⱼ² (Wager et al. 2013, https://arxiv.org/abs/1307.1493).
    """

    rate: float = 0.05
    inputs: bool = False
    steps: int = 20_000
    lr: float = 3e-2
    batch: int = 100
    draws: int = 200

    @property
    def exactness(self) -> Claim | None:
        """The posterior's mode without variance: a network without hidden layers has no unit to drop, but inputs."""
        if self.inputs:
            return None
        return Claim(replace(self, steps=1000, lr=0.05, batch=5), lambda regression: regression.point)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Dropout:
        replicas, n = y.shape

        def loss(theta: Tensor, index: Tensor) -> Tensor:
            points, hidden = self.dropped(gather_points(x, index), self.draw(model, index.shape, generator))
            likelihood = model.log_likelihood(theta, points, gather_points(y, index), hidden)
            return negative_log_posterior(likelihood, model.log_prior(theta), n)

        theta, diagnostics = self.train(loss, model.init(generator, (replicas,)), n, generator)
        # One mask for each draw, the same at every x, so that a draw is a function.
        masks = [self.draw(model, (replicas, 1), generator) for _ in range(self.draws)]
        return Dropout(model, theta, self, masks, diagnostics=diagnostics)

    def draw(self, model: Model, lead: Sequence[int], generator: Generator) -> Masks:
        """The masks m / (1 − rate) of each layer that drops, (*lead, width); an empty list if rate = 0."""
        widths = [*([model.features] if self.inputs else []), *model.hidden] if self.rate else []
        empty = [torch.empty((*lead, width), device=generator.device, dtype=torch.float32) for width in widths]
        return [mask.bernoulli_(1 - self.rate, generator=generator).div_(1 - self.rate) for mask in empty]

    def dropped(self, x: Tensor, masks: Masks) -> tuple[Tensor, Perturb | None]:
        """The inputs after their mask, and the function h ← m h / (1 − rate) of hidden layers; None without masks."""
        if not masks:
            return x, None
        hidden = masks[1:] if self.inputs else masks
        return (x * masks[0] if self.inputs else x), lambda h, layer: h * hidden[layer]


@dataclass(frozen=True)
class Dropout(FittedMethod):
    """The network at one θ (R, P) under S masks, each with a tensor (R, 1, width) for each layer that drops."""

    model: Model
    theta: Tensor
    method: MCDropout
    masks: Sequence[Masks]

    def __call__(self, x: Tensor) -> MixturePrediction:
        dropped = (self.method.dropped(x, masks) for masks in self.masks)
        return mixture(self.model.mean_and_noise(self.theta, *one) for one in dropped)
