"""Variational inference with Flipout (Wen et al. 2018, https://arxiv.org/abs/1803.04386).

    q(θ) = Πⱼ N(locⱼ, scaleⱼ²);   point i of a batch sees  W̄ + ΔW ∘ rᵢsᵢᵀ,   ΔW ~ N(0, scale²),   rᵢ, sᵢ random signs
    minimise  −E_q[(n/b) Σᵢ log p(yᵢ | xᵢ, θ)] + kl_weight · KL(q ‖ p)

The signs make the perturbations of two points of a batch uncorrelated, at the price of one draw of ΔW, so the gradient
has less noise than that of `svi`. Both have the same optimum. Biases have no signs: their draw is shared.
Family: variational.
Expected: too narrow in a gap.
Caveat: that of `svi`. A kl_weight below 1 makes the error bars smaller still.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from gapbench.methods.base import Claim
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import ACTIVATIONS, MLP, Model, linear, log_density
from gapbench.methods.engine.posterior_draws import PosteriorDraws


@dataclass(frozen=True)
class Flipout(AdamTrained):
    """Mean-field normal q, trained with Flipout.

    init_scale: initial std of q, in prior stds. kl_weight: 1 is the ELBO.
    """

    steps: int = 20_000
    lr: float = 3e-2
    batch: int = 100
    init_scale: float = 0.01
    kl_weight: float = 1.0
    draws: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.init_scale < math.inf and 0 <= self.kl_weight < math.inf):
            raise ValueError(
                f"Flipout: init_scale = {self.init_scale}, kl_weight = {self.kl_weight}: expected init_scale > 0 and "
                "kl_weight ≥ 0"
            )

    @property
    def exactness(self) -> Claim:
        quick = replace(self, steps=1500, lr=0.05, batch=10, init_scale=0.3, kl_weight=1.0, draws=500)
        return Claim(quick, lambda regression: regression.mean_field)

    def skip(self, model: Model, x: Tensor) -> str | None:
        return None if isinstance(model, MLP) else f"{type(model).__name__}: expected an MLP, whose layers get signs"

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        assert isinstance(model, MLP)
        replicas, n = y.shape
        loc = model.init(generator, (replicas,))
        start = math.log(math.expm1(self.init_scale * model.prior_std))  # softplus of it is the scale

        def loss(both: Tensor, index: Tensor) -> Tensor:
            loc, raw = both.chunk(2, -1)
            scale = softplus(raw)
            change = scale * torch.randn(scale.shape, generator=generator, device=scale.device)
            outputs = perturbed(model, loc, change, gather_points(x, index), generator)
            noise = model.noise_of(loc + change, outputs)
            likelihood = log_density(gather_points(y, index), outputs.select(-1, 0), noise)
            return self.kl_weight * divergence(loc, scale, model.prior_std) - n * likelihood.mean(-1)

        both, diagnostics = self.train(loss, torch.cat([loc, torch.full_like(loc, start)], -1), n, generator)
        loc, raw = both.chunk(2, -1)
        noise = torch.randn((replicas, self.draws, model.size), generator=generator, device=x.device)
        draws = loc.unsqueeze(1) + softplus(raw).unsqueeze(1) * noise
        return PosteriorDraws(model, draws, diagnostics=diagnostics)


def divergence(loc: Tensor, scale: Tensor, prior_std: float) -> Tensor:
    """The divergence KL(N(loc, scale²) ‖ N(0, prior_std²)), summed over θ, (R,)."""
    share = scale / prior_std
    return (0.5 * (share.square() + (loc / prior_std).square() - 1) - share.log()).sum(-1)


def perturbed(model: MLP, loc: Tensor, change: Tensor, x: Tensor, generator: Generator) -> Tensor:
    """All outputs of the network at loc with the change's weights under each point's own signs. x: (R, B, D)."""
    activation, h = ACTIVATIONS[model.activation], x
    changes = model.weights(change)
    widths = [width for by, _ in changes for width in by.shape[-2:]]
    drawn = iter(signs(x.shape[:-1], sum(widths), generator).split(widths, -1))
    for number, ((_, _, scale), (weight, bias), (by, by_bias)) in enumerate(
        zip(model.layers, model.weights(loc), changes, strict=True)
    ):
        h = activation(h) if number else h
        own = linear(h * next(drawn), by, torch.zeros_like(by_bias), scale) * next(drawn)
        h = linear(h, weight, bias + by_bias, scale) + own
    return h


def signs(lead: Sequence[int], count: int, generator: Generator) -> Tensor:
    """Random signs, −1.0 or 1.0, (*lead, count): each is a bit of a random word of 32, which costs a tenth of a number
    of its own."""
    device = generator.device
    words = torch.randint(-(2**31), 2**31, (*lead, math.ceil(count / 32), 1), generator=generator, device=device)
    moved = words.int() << torch.arange(32, dtype=torch.int32, device=device)  # to the highest bit, which is the sign
    return (moved >> 31).bitwise_or_(1).float().flatten(-2)[..., :count]  # −1 stays, and 0 becomes 1
