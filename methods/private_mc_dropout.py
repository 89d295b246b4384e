"""MC dropout trained with differential privacy (Abadi et al. 2016, https://arxiv.org/abs/1607.00133; Gal & Ghahramani
2016, https://arxiv.org/abs/1506.02142).

    gᵢ = −∇ log p(yᵢ | xᵢ, θ, mᵢ),    Adam on  (1/b) (Σᵢ clip_C(gᵢ) + σ C ξ) − (1/n) ∇ log p(θ)

mᵢ: the masks of `mc_dropout`, each point's own. Predictions draw masks, and so see no data.
Family: dropout.
Expected: too narrow in a gap.
Caveat: that of `mc_dropout`. Clipped gradients weigh the data less than the prior, so the fit is smoother as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Generator, Tensor

from gapbench.methods.base import Claim
from gapbench.methods.engine.dp_trained import PrivatelyTrained
from gapbench.methods.engine.gradients import FullGradients, pointwise_gradients
from gapbench.methods.engine.minibatches import gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.mc_dropout import Dropout, MCDropout


@dataclass(frozen=True)
class PrivateMCDropout(PrivatelyTrained):
    """Dropout after every hidden layer. rate: probability that a unit is dropped."""

    max_grad_norm: float = 1.0
    rate: float = 0.05
    draws: int = 200

    @property
    def exactness(self) -> Claim:
        """The posterior's mode without variance, where no clip is active and the noise is next to nothing."""
        quick = replace(self, steps=400, lr=0.1, batch=20, noise_multiplier=1e-9, max_grad_norm=1e6)
        return Claim(quick, lambda regression: regression.point)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Dropout:
        dropout = MCDropout(rate=self.rate)

        def loss(theta: Tensor, x: Tensor, y: Tensor, *masks: Tensor) -> Tensor:
            points, hidden = dropout.dropped(x, masks)
            return -model.log_likelihood(theta, points, y, hidden).sum()

        def gradients(theta: Tensor, index: Tensor) -> FullGradients:
            masks = dropout.draw(model, index.shape, generator)
            return pointwise_gradients(loss, theta, gather_points(x, index), gather_points(y, index), *masks)

        start, n = model.init(generator, (len(y),)), y.shape[1]
        theta, diagnostics = self.train(start, gradients, lambda theta: theta / model.prior_std**2, n, generator)
        masks = [dropout.draw(model, (len(y), 1), generator) for _ in range(self.draws)]
        return Dropout(model, theta, dropout, masks, diagnostics=diagnostics)
