"""Mean-variance network (Nix & Weigend 1994) with the β-NLL loss (Seitzer et al. 2022).

    minimise  −Σₙ ⌊σ(xₙ)/c⌋^2β log N(yₙ; f(xₙ), σ(xₙ)²) − log p(θ),    ⌊·⌋: no gradient

https://doi.org/10.1109/ICNN.1994.374138, https://arxiv.org/abs/2203.09168
β = 0 is the likelihood. At β = 1 the gradient of the mean is that of the squared error. c is the noise that the prior
expects, so that the weight of data against prior does not depend on the units of y.
Family: learned noise.
Expected: too narrow in a gap.
Caveat: one network has one f. Its variance is that of y given x and is learned where the data are; in a gap it is
whatever the network extrapolates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Generator, Tensor
from torch.nn import functional

from gapbench.methods.engine.adam_trained import AdamTrained, Likelihood, map_loss
from gapbench.methods.engine.model import Model, log_density
from gapbench.methods.engine.noise import HeteroscedasticNoise
from gapbench.methods.engine.posterior_draws import PosteriorDraws


@dataclass(frozen=True)
class MeanVariance(AdamTrained):
    """One network with the outputs f and log σ, whatever noise the model knows.

    beta: β, in [0, 1].
    """

    beta: float = 0.5
    steps: int = 16_000
    lr: float = 3e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise ValueError(f"MeanVariance: beta = {self.beta}: expected a number in [0, 1]")

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        model = with_variance(model)
        start = model.init(generator, (len(y), 1))
        loss = map_loss(model, x, y, y.shape[1], beta_likelihood(model, self.beta))
        theta, diagnostics = self.train(loss, start, y.shape[1], generator)
        return PosteriorDraws(model, theta, diagnostics=diagnostics)


@dataclass(frozen=True)
class SoftplusNoise(HeteroscedasticNoise):
    """The noise of Lakshminarayanan et al. 2017, σ² = log(1 + e^z) + 1e-6, which grows slowly. It has no center and no
    spread, so it is for autograd alone: gradients by hand know the exponential."""

    def std(self, z: Tensor) -> Tensor:
        return (functional.softplus(z) + 1e-6).sqrt()


def with_variance(model: Model, softplus: bool = False) -> Model:
    """The same network with a noise that depends on x, around the noise that the model knows or expects."""
    if softplus:
        return replace(model, noise_std=SoftplusNoise())
    if isinstance(model.noise_std, HeteroscedasticNoise):
        return model
    return replace(model, noise_std=HeteroscedasticNoise(center=model.expected_noise))


def beta_likelihood(model: Model, beta: float) -> Likelihood:
    """Minus the β-NLL of each point, of a model whose noise depends on x."""
    assert isinstance(model.noise_std, HeteroscedasticNoise)
    center = model.noise_std.center

    def likelihood(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        mean, noise = model.mean_and_noise(theta, x)
        weight = (noise.detach() / center) ** (2 * beta)
        return weight * log_density(y, mean, noise)

    return likelihood
