"""SVI with a normal guide whose covariance is a diagonal plus a low rank (Ong, Nott & Smith 2018,
https://arxiv.org/abs/1701.03208).

    maximise  E_q[(n/b) Σᵢ log p(yᵢ | xᵢ, θ)] − KL(q ‖ p),    q(θ) = N(loc, diag(scale²) + V Vᵀ),    V (P, rank)
    KL = ½ [(‖scale‖² + ‖V‖² + ‖loc‖²)/τ² − P + 2P log τ − 2Σⱼ log scaleⱼ − log det(I + Vᵀ diag(scale⁻²) V)]

τ is prior_std. rank = 0 is the mean field. With rank = P, every covariance is of this form.
Family: variational.
Expected: too narrow in a gap.
Caveat: of a posterior with many correlated directions the guide can hold `rank`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from gapbench.methods.base import Claim
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws


@dataclass(frozen=True)
class LowRankSVI(AdamTrained):
    """SVI whose guide knows `rank` correlated directions. init_scale: initial std of the guide, in prior stds."""

    steps: int = 10_000
    lr: float = 2e-2
    batch: int = 100
    rank: int = 5
    init_scale: float = 0.003
    draws: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 0 or not self.init_scale > 0:
            raise ValueError(
                f"LowRankSVI: rank = {self.rank}, init_scale = {self.init_scale}: expected rank ≥ 0, scale > 0"
            )

    @property
    def exactness(self) -> Claim:
        """The posterior, by as many directions as parameters; the mean field by none."""
        quick = replace(self, steps=2000, lr=0.02, batch=20, by_epochs=False, init_scale=0.3, draws=500)
        if not self.rank:
            return Claim(quick, lambda regression: regression.mean_field)
        return Claim(replace(quick, rank=3), lambda regression: regression.posterior)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        replicas, n = y.shape
        loc = model.init(generator, (replicas,)).requires_grad_()
        start = self.init_scale * model.prior_std
        raw = torch.full_like(loc, math.log(math.expm1(start)), requires_grad=True)  # softplus of it is the scale
        size = (replicas, self.rank, model.size)
        v = torch.randn(size, generator=generator, device=x.device) * start / math.sqrt(max(self.rank, 1))
        v.requires_grad_()

        def drawn(*shape: int) -> Tensor:
            """Draws of θ, (*shape, R, P)."""
            alone = torch.randn((*shape, *loc.shape), generator=generator, device=x.device)
            along = torch.randn((*shape, replicas, 1, self.rank), generator=generator, device=x.device)
            return loc + softplus(raw) * alone + (along @ v).squeeze(-2)

        def loss(index: Tensor) -> Tensor:
            likelihood = model.training_log_likelihood(drawn(), gather_points(x, index), gather_points(y, index))
            return divergence(loc, softplus(raw), v, model.prior_std) - n * likelihood.mean(-1)

        diagnostics = self.move([loc, raw, v], loss, (replicas,), n, generator)
        with torch.no_grad():
            theta = drawn(self.draws).transpose(0, 1)
        return PosteriorDraws(model, theta, diagnostics=diagnostics)


def divergence(loc: Tensor, scale: Tensor, v: Tensor, prior_std: float) -> Tensor:
    """KL(N(loc, diag(scale²) + V Vᵀ) ‖ N(0, prior_std² I)), (R,). loc, scale: (R, P); v: Vᵀ, (R, rank, P)."""
    rank, size = v.shape[-2:]
    trace = scale.square().sum(-1) + v.square().sum((-2, -1)) + loc.square().sum(-1)
    thin = v / scale.unsqueeze(-2)
    inner = torch.eye(rank, dtype=v.dtype, device=v.device) + thin @ thin.mT
    log_det = 2 * scale.log().sum(-1) + torch.linalg.cholesky(inner).diagonal(dim1=-2, dim2=-1).log().sum(-1) * 2
    found: Tensor = 0.5 * (trace / prior_std**2 - size + 2 * size * math.log(prior_std) - log_det)
    return found
