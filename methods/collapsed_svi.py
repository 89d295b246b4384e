"""Collapsed SVI: independent normals for the hidden layers, and the exact law of the output layer given these.

    maximise  E_q[log p(y | h)] − KL(q ‖ p),    q(h) = Πⱼ N(locⱼ, scaleⱼ²),    h: all parameters but the output layer's
    f(x) | h, y ~ N(φ(x)ᵀm, φ(x)ᵀA⁻¹φ(x)),      as in engine/collapsed.py

p(y | h) has the output layer w integrated out, so q(h) p(w | h, y) stands for the posterior: of all laws with
this q, the one nearest to it in KL (such bounds: Hensman, Rattray & Lawrence 2012, https://arxiv.org/abs/1206.5162).
Family: variational.
Caveat: hidden units are still independent of each other. All data are in every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.collapsed import Collapsed, Components, cannot_collapse
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.optimise import adam, arrival, with_gradient


@dataclass(frozen=True)
class CollapsedSVI(UncertaintyMethod):
    """Mean-field SVI of the hidden layers alone, on all data.

    init_scale: initial std of the guide, in prior stds. draws: of h in the prediction.
    """

    steps: int = 2_000
    lr: float = 3e-2
    init_scale: float = 0.01
    draws: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.init_scale > 0:
            raise ValueError(f"CollapsedSVI: init_scale = {self.init_scale}: expected a positive number")

    def skip(self, model: Model, x: Tensor) -> str | None:
        return cannot_collapse(model, x, chains=1, draws=self.draws)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Components:
        (replicas, n), target = y.shape, Collapsed(model)  # type: ignore[arg-type]  # `skip` refuses what is no MLP
        loc = target.part(model.init(generator, (replicas,))).contiguous().requires_grad_()
        start = math.log(math.expm1(self.init_scale * model.prior_std))  # softplus of it is the scale
        raw = torch.full_like(loc, start, requires_grad=True)

        def drawn() -> Tensor:
            return loc + softplus(raw) * torch.randn(loc.shape, generator=generator, device=loc.device)

        def loss() -> Tensor:
            """−log p(y | h) − log p(h) + log q(h) on average over q, up to a constant."""
            h = drawn()
            at = target.at(h.detach(), x, y)
            return with_gradient(at.energy, h, at.gradient) - softplus(raw).log().sum(-1)

        losses = adam(loss, [loc, raw], self.steps, self.lr)
        with torch.no_grad():
            h = torch.stack([drawn() for _ in range(self.draws)], 1)
        evaluations = torch.full((replicas,), float(self.steps * n), device=x.device)
        return Components(target, h, x, y, 0, diagnostics={"gradient evaluations": evaluations, **arrival(losses, n)})
