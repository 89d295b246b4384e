"""Concrete dropout (Gal, Hron & Kendall 2017, https://arxiv.org/abs/1705.07832): MC dropout that learns its rates.

    minimise  −(n/b) Σᵢ log p(yᵢ | xᵢ, θ, mᵢ) + Σₗ [‖Wₗ‖²/(2τ²(1 − pₗ)) − Kₗ H(pₗ)] + (the other weights)²/(2τ²)
    h ← m h/(1 − pₗ),   m = 1 − sigmoid((logit pₗ + logit u)/temperature),   u uniform in (0, 1)
    H(p) = −p log p − (1 − p) log(1 − p)

Layer l drops each of its Kₗ hidden units with probability pₗ; Wₗ are the weights that these units go into; τ is
prior_std. m is a mask that can be differentiated by pₗ. Predictions draw m from {0, 1}.
Family: dropout.
Expected: too narrow in a gap.
Caveat: that of `mc_dropout`, but for the rate, which falls as data come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from gapbench.methods.base import Claim
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.optimise import negative_log_posterior
from gapbench.methods.mc_dropout import Dropout, MCDropout


@dataclass(frozen=True)
class ConcreteDropout(AdamTrained):
    """Dropout after every hidden layer, each with a rate that is learned.

    rate: the rates at the start. temperature: of the masks in training; towards 0 they become those of the prediction.
    draws: of the prediction.
    """

    rate: float = 0.1
    temperature: float = 0.1
    steps: int = 10_000
    lr: float = 3e-2
    batch: int = 50
    draws: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.rate > 0 and self.temperature > 0):
            raise ValueError(
                f"ConcreteDropout: rate = {self.rate}, temperature = {self.temperature}: expected positive numbers"
            )

    @property
    def exactness(self) -> Claim:
        """The posterior's mode without variance: a network without hidden layers has no unit to drop."""
        return Claim(replace(self, steps=1000, lr=0.05, batch=5), lambda regression: regression.point)

    def skip(self, model: Model, x: Tensor) -> str | None:
        return None if isinstance(model, MLP) else f"{type(model).__name__}: expected an MLP, whose layers drop units"

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Dropout:
        assert isinstance(model, MLP)
        layers = len(model.hidden)

        def loss(both: Tensor, index: Tensor) -> Tensor:
            theta, logits = both[..., : model.size], both[..., model.size :]
            masks = self.soft_masks(model, logits, index.shape, generator)
            likelihood = model.log_likelihood(
                theta, gather_points(x, index), gather_points(y, index), lambda h, layer: h * masks[layer]
            )
            return negative_log_posterior(likelihood, log_prior(model, theta, logits), y.shape[1])

        start = model.init(generator, (len(y),))
        logits = torch.full((len(y), layers), self.rate, device=x.device).logit()
        both, diagnostics = self.train(loss, torch.cat([start, logits], -1), y.shape[1], generator)
        rates = both[:, model.size :].sigmoid()
        masks = [hard_masks(model, rates, generator) for _ in range(self.draws)]
        found = {"dropout rate": rates.mean(-1)} if layers else {}
        return Dropout(model, both[:, : model.size], MCDropout(), masks, diagnostics={**diagnostics, **found})

    def soft_masks(self, model: MLP, logits: Tensor, lead: Sequence[int], generator: Generator) -> list[Tensor]:
        """The masks m/(1 − p) of each hidden layer, (*lead, width). logits: logit p, (R, layers)."""
        masks = []
        for layer, width in enumerate(model.hidden):
            u = torch.rand((*lead, width), generator=generator, device=logits.device).clamp(1e-7, 1 - 1e-7)
            own = logits[:, layer].view(-1, *(1 for _ in lead))
            masks.append((-(own + u.logit()) / self.temperature).sigmoid() / (-own).sigmoid())
        return masks


def hard_masks(model: MLP, rates: Tensor, generator: Generator) -> list[Tensor]:
    """The masks m/(1 − p) of a draw, (R, 1, width) for each hidden layer. rates: p, (R, layers)."""
    masks = []
    for layer, width in enumerate(model.hidden):
        kept = 1 - rates[:, layer].view(-1, 1, 1)
        u = torch.rand((len(rates), 1, width), generator=generator, device=rates.device)
        masks.append((u < kept) / kept)
    return masks


def log_prior(model: MLP, theta: Tensor, logits: Tensor) -> Tensor:
    """−KL(q ‖ p) up to a constant, (R,): what stands for the log prior of θ, (R, P). logits: logit p, (R, layers)."""
    total = model.log_prior(theta)
    for layer, width in enumerate(model.hidden):
        weights = model.weights(theta)[layer + 1][0]
        p, logit = logits[:, layer].sigmoid(), logits[:, layer]
        # log_prior has ‖W‖²/(2τ²); 1/(1 − p) − 1 = p/(1 − p) times as much is missing.
        total = total - weights.square().sum((-2, -1)) * logit.exp() / (2 * model.prior_std**2)
        total = total - width * (p * logsigmoid(logit) + (1 - p) * logsigmoid(-logit))
    return total
