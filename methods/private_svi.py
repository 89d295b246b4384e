"""Mean-field variational inference with differential privacy (Jälkö, Dikmen & Honkela 2017,
https://arxiv.org/abs/1610.08749).

    q(θ) = Πⱼ N(locⱼ, scaleⱼ²),   scale = softplus(raw),   λ = (loc, raw),   θᵢ = loc + scale ∘ ξᵢ,   ξᵢ ~ N(0, I)
    gᵢ = −∇λ log p(yᵢ | xᵢ, θᵢ),    Adam on  (1/b) (Σᵢ clip_C(gᵢ) + σ C ξ) + (1/n) ∇λ KL(q ‖ p)

Every point of a batch has its own draw θᵢ.
Family: variational.
Expected: too narrow in a gap.
Caveat: that of `svi`. Clipped gradients weigh the data less than the KL, so the error bars are too wide among the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from gapbench.methods.base import Claim
from gapbench.methods.engine.dp_trained import PrivatelyTrained
from gapbench.methods.engine.gradients import FullGradients
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws


@dataclass(frozen=True)
class PrivateSVI(PrivatelyTrained):
    """Mean-field normal q. init_scale: initial std of q, in prior stds."""

    init_scale: float = 0.01
    draws: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.init_scale < math.inf:
            raise ValueError(f"PrivateSVI: init_scale = {self.init_scale}: expected a positive number")

    @property
    def exactness(self) -> Claim:
        """The mean field of the posterior, where no clip is active and the noise is next to nothing."""
        private = {"noise_multiplier": 1e-9, "max_grad_norm": 1e6}
        quick = replace(self, steps=400, lr=0.1, batch=20, init_scale=0.3, draws=300, **private)
        return Claim(quick, lambda regression: regression.mean_field)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        def gradients(both: Tensor, index: Tensor) -> FullGradients:
            loc, raw = both.unsqueeze(-2).chunk(2, -1)
            xi = torch.randn((*index.shape, model.size), generator=generator, device=x.device)
            theta = loc + softplus(raw) * xi  # (R, 1, B, P)
            points = gather_points(x, index).unsqueeze(-2), gather_points(y, index).unsqueeze(-1)
            by_theta = torch.zeros_like(theta)  # the sum over the one point that each θᵢ has
            model.per_sample_gradients(theta, *points).add_weighted_sum(None, by_theta)
            return FullGradients(torch.cat([by_theta, by_theta * xi * raw.sigmoid()], -1))

        def of_divergence(both: Tensor) -> Tensor:
            loc, raw = both.chunk(2, -1)
            scale = softplus(raw)
            return torch.cat([loc / model.prior_std**2, (scale / model.prior_std**2 - 1 / scale) * raw.sigmoid()], -1)

        loc = model.init(generator, (len(y),))
        raw = torch.full_like(loc, math.log(math.expm1(self.init_scale * model.prior_std)))  # its softplus is the scale
        both, diagnostics = self.train(torch.cat([loc, raw], -1), gradients, of_divergence, y.shape[1], generator)
        loc, raw = both.unsqueeze(1).chunk(2, -1)
        noise = torch.randn((len(y), self.draws, model.size), generator=generator, device=x.device)
        return PosteriorDraws(model, loc + softplus(raw) * noise, diagnostics=diagnostics)
