"""Last-layer Bayes (MacKay 1992; Snoek et al. 2015): features of the MAP network, and exact Bayes for its output layer.

    θ* = argmin −Σₙ log p(yₙ | xₙ, θ) − log p(θ),   w | θ*, y ~ N(m, A⁻¹),   A = ΦᵀΦ/σ² + I/prior_std²,   m = A⁻¹Φᵀy/σ²

Φ has the last hidden layer of θ* at the data. https://arxiv.org/abs/1502.05700
Family: around one mode.
Expected: too narrow in a gap.
Caveat: the features do not know that others would fit as well. So the std grows in a gap no faster than linear
regression on these features lets it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.collapsed import Collapsed, Components, cannot_collapse
from gapbench.methods.engine.model import Model


@dataclass(frozen=True)
class LastLayer(AdamTrained):
    """Bayesian linear regression on the features of one trained network."""

    steps: int = 12_000

    def skip(self, model: Model, x: Tensor) -> str | None:
        return cannot_collapse(model, x, chains=1, draws=1)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        target = Collapsed(model)  # type: ignore[arg-type]  # `skip` refuses what is no MLP
        theta, diagnostics = self.train_map(model, x, y, generator)
        return Components(target, target.part(theta).unsqueeze(1), x, y, 0, diagnostics=diagnostics)
