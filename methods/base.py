"""The contract: what a method is given, and what it gives back.

    fit(model, x, y, generator) -> Predictor,    Predictor(x_test) -> Predictive

Letters: R replicas, N training points, M test points, D features, P parameters, S posterior draws.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
import scoringrules
import torch
from torch import Generator, Tensor

from gapbench.methods.exactness import Law, LinearRegression
from gapbench.methods.model import Model


class Distribution(ABC):
    """One univariate distribution for each replica and test point. Every tensor here is (R, M), float64."""

    @property
    @abstractmethod
    def mean(self) -> Tensor: ...

    @property
    @abstractmethod
    def std(self) -> Tensor: ...

    @abstractmethod
    def cdf(self, t: Tensor) -> Tensor:
        """P(X ≤ t)."""

    @abstractmethod
    def cdf_below(self, t: Tensor) -> Tensor:
        """P(X < t), which differs from `cdf` where the distribution has an atom at t."""

    @abstractmethod
    def quantile(self, p: float) -> Tensor:
        """inf {t : P(X ≤ t) ≥ p} for 0 < p < 1, so a draw wherever the distribution is one of draws."""

    @abstractmethod
    def log_density(self, t: Tensor) -> Tensor:
        """log p(t). Raises ValueError if the distribution has atoms."""

    @abstractmethod
    def crps(self, t: Tensor) -> Tensor:
        """∫ (P(X ≤ z) − 1{t ≤ z})² dz, in the units of t (Matheson & Winkler 1976)."""


@dataclass(frozen=True)
class NormalMixture(Distribution):
    """1/S Σₛ N(locationₛ, scaleₛ²); a component of scale 0 is an atom.

    location: (R, S, M). scale: broadcasts to it, ≥ 0.
    """

    location: Tensor
    scale: Tensor

    @cached_property
    def _scale(self) -> Tensor:
        return self.scale.expand(self.location.shape)

    @cached_property
    def _sorted(self) -> Tensor:
        return self.location.sort(1).values

    @property
    def mean(self) -> Tensor:
        return self.location.mean(1)

    @property
    def std(self) -> Tensor:
        """The mixture's own: the spread of the components' means counts, and with weight 1/S each."""
        return (self.location.var(1, correction=0) + self._scale.square().mean(1)).sqrt()

    def cdf(self, t: Tensor) -> Tensor:
        return self._cdf(t, torch.ge)

    def cdf_below(self, t: Tensor) -> Tensor:
        return self._cdf(t, torch.gt)

    def _cdf(self, t: Tensor, reaches: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        t = t.unsqueeze(1)
        smooth = torch.special.ndtr((t - self.location) / self._scale)
        steps = reaches(t, self.location).to(self.location.dtype)
        each: Tensor = torch.where(self._scale > 0, smooth, steps)
        return each.mean(1)

    def quantile(self, p: float) -> Tensor:
        if not 0 < p < 1:
            raise ValueError(f"quantile level p = {p}: expected 0 < p < 1")
        if not self.scale.any():
            # The S draws jump by 1/S each; rounding must not push p·S = 10 up to the eleventh draw.
            rank = max(1, math.ceil(p * self.location.shape[1] - 1e-9))
            return self._sorted[:, rank - 1]
        z = torch.special.ndtri(torch.tensor(p, dtype=self.location.dtype))
        each: Tensor = self.location + z * self._scale
        # The components' quantiles bracket the mixture's. Halving keeps F(low) < p ≤ F(high), so `high`
        # comes down on the left-continuous inverse whether F is continuous there or jumps.
        low, high = each.amin(1), each.amax(1)
        low = low - 1e-9 * (1 + low.abs())
        for _ in range(50):
            middle = (low + high) / 2
            above = self.cdf(middle) >= p
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return high

    def log_density(self, t: Tensor) -> Tensor:
        if not (self._scale > 0).all():
            raise ValueError("a mixture with a component of scale 0 has no density; score it with the CRPS")
        z = (t.unsqueeze(1) - self.location) / self._scale
        each: Tensor = -0.5 * z.square() - self._scale.log() - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(each, 1) - math.log(each.shape[1])

    def crps(self, t: Tensor) -> Tensor:
        location = self.location.movedim(1, -1).reshape(-1, self.location.shape[1]).cpu().numpy()
        scale = self._scale.movedim(1, -1).reshape(location.shape).cpu().numpy()
        target = t.reshape(-1).cpu().numpy()
        if not scale.any():
            # "qd" is the CRPS of the S draws as a distribution (the biased estimator of the CRPS of what
            # they were drawn from), the same quantity as the mixture's at scale 0.
            values = scoringrules.crps_ensemble(target, location, estimator="qd", backend="numpy")
        else:
            # A scale of exactly 0 makes the closed form 0/0; 1e-100 is its limit to the last bit, and has a square.
            scale = np.maximum(scale, 1e-100)
            points = max(1, 2**18 // location.shape[1] ** 2)  # S² numbers a point; small enough for a cache
            values = np.concatenate(
                [
                    scoringrules.crps_mixnorm(target[i], location[i], scale[i], backend="numpy")
                    for i in (slice(k, k + points) for k in range(0, len(target), points))
                ]
            )
        return torch.from_numpy(values).to(t).reshape(t.shape)


class Predictive(ABC):
    """What is believed at the test points: f, the function without noise, and y, an observation of it."""

    @property
    @abstractmethod
    def f(self) -> Distribution:
        """p(f(x) | x, data): epistemic uncertainty only."""

    @property
    @abstractmethod
    def y(self) -> Distribution:
        """p(y | x, data): epistemic and aleatoric uncertainty."""

    @property
    @abstractmethod
    def aleatoric_std(self) -> Tensor:
        """(R, M): root of the expected noise variance."""

    @property
    @abstractmethod
    def chained_f(self) -> Tensor | None:
        """(R, chains, draws, M): f along Markov chains, for R-hat; None if the draws are no chain."""


@dataclass(frozen=True)
class Mixture(Predictive):
    """p(f | x, data) = 1/S Σ N(mean, std²)  and  p(y | x, data) = 1/S Σ N(mean, std² + noise²).

    mean: (R, S, M). std: broadcasts to it; 0 for draws, > 0 for closed forms. noise: broadcasts to it; the
    likelihood's. chains: S = chains × draws, chain-major; 0 if the draws are no chain.
    Scores are computed in float64 whatever the method computed in.
    """

    mean: Tensor
    std: Tensor
    noise: Tensor
    chains: int = 0

    @cached_property
    def f(self) -> NormalMixture:
        return NormalMixture(self.mean.double(), self.std.double())

    @cached_property
    def y(self) -> NormalMixture:
        return NormalMixture(self.mean.double(), torch.hypot(self.std.double(), self.noise.double()))

    @property
    def aleatoric_std(self) -> Tensor:
        return self.noise.double().expand_as(self.mean).square().mean(1).sqrt()

    @property
    def chained_f(self) -> Tensor | None:
        if not self.chains:
            return None
        replicas, draws, points = self.mean.shape
        return self.mean.reshape(replicas, self.chains, draws // self.chains, points)


@dataclass(frozen=True, kw_only=True)
class Predictor(ABC):
    """A fitted method. Calling it is pure, and pointwise in x, so a caller may cut x into chunks.

    diagnostics: (R,) each: what the method can say of its own run (gradient evaluations, acceptance, …).
    failures: replica -> why its result must not be used. Non-finite predictions need not be listed.
    """

    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)

    @abstractmethod
    def __call__(self, x: Tensor) -> Predictive:
        """x: (R, M, D)."""


@dataclass(frozen=True)
class Claim:
    """That `method` has this law of θ on Bayesian linear regression: its settings, and what can be proved of them."""

    method: UncertaintyMethod
    law: Callable[[LinearRegression], Law]


@dataclass(frozen=True)
class UncertaintyMethod(ABC):
    """A way to learn p(y | x), described completely by its hyperparameters: they are the fields, and
    `repr` is what the results are filed under.

    Fields that mean the same are called the same: steps, lr, batch, burn_in, draws, thin, chains, members,
    rate. Raises ValueError if one of them makes no sense.
    """

    def __post_init__(self) -> None:
        least = {"steps": 0, "burn_in": 0, "batch": 1, "draws": 1, "thin": 1, "chains": 1, "members": 1}
        for one in fields(self):
            value, name = getattr(self, one.name), f"{type(self).__name__}: {one.name}"
            if one.name in least and value < least[one.name]:
                raise ValueError(f"{name} = {value}: expected at least {least[one.name]}")
            if one.name == "lr" and not value > 0:
                raise ValueError(f"{name} = {value}: expected a positive step size")
            if one.name == "rate" and not 0 <= value < 1:
                raise ValueError(f"{name} = {value}: expected a probability in [0, 1)")

    @abstractmethod
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Predictor:
        """Train all replicas at once. x: (R, N, D), y: (R, N), all on the generator's device.

        Every random number comes from `generator`; replicas must not see each other.
        """

    @property
    def exactness(self) -> Claim | None:
        """What this class claims on `exactness.example()`, 20 points and a posterior of std about 0.5, with settings
        that get there in seconds (and otherwise those of this instance); None if it claims nothing."""
        return None

    def skip(self, model: Model, x: Tensor) -> str | None:
        """Why this method cannot do this problem, in one sentence; None if it can. x: (R, N, D)."""
        return None


@dataclass(frozen=True)
class PosteriorDraws(Predictor):
    """Predicts by the network at S draws of θ. theta: (R, S, P), chain-major if there are chains."""

    model: Model
    theta: Tensor
    chains: int = 0

    def __call__(self, x: Tensor) -> Mixture:
        # One draw at a time: the memory of a prediction does not grow with S × the network's width.
        mean = torch.stack([self.model.mean(theta, x) for theta in self.theta.unbind(1)], 1)  # (R, S, M)
        noise = self.model.noise(self.theta, x.unsqueeze(1))
        return Mixture(mean, mean.new_tensor(self.model.f_std), noise, self.chains)


@dataclass(frozen=True)
class SingleModelMethod(UncertaintyMethod):
    """A sampler written for ONE model; `torch.func.vmap` makes the replicas.

    Inside `sample`, draw with `torch.randn(..., generator=generator)` and accept or reject with
    `torch.where`: vmap forbids `.item()`, `if tensor`, in-place random fills, boolean indexing and
    `torch.optim`. Dearer than broadcasting by hand (1.2 to 1.8 ×), far cheaper than a loop.
    """

    @abstractmethod
    def sample(self, model: Model, theta: Tensor, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """theta (P,): an initial draw. x (N, D), y (N,). Returns draws of θ, (S, P)."""

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        def sample(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self.sample(model, theta, x, y, generator)

        theta = model.init(generator, (len(x),))
        return PosteriorDraws(model, torch.func.vmap(sample, randomness="different")(theta, x, y))
