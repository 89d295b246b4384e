"""Bayesian linear regression, for which every law is known: the test of a method's claim.

y = Xw + N(0, s²),  w ~ N(0, prior_std² I):   Λ = I/prior_std² + XᵀX/s²,   posterior N(Λ⁻¹ Xᵀy/s², Λ⁻¹)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import Noise

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution of θ: mean (P,) and covariance (P, P)."""

    mean: Floats
    covariance: Floats


@dataclass(frozen=True)
class LinearRegression:
    """A data set under an MLP without hidden layers: f = x·w/√D + b, so θ = (w, b) and the design is [x/√D, 1].

    x: (N, D), y: (N,). All properties are float64.
    """

    model: MLP
    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if self.model.hidden or not self.model.scale_by_fan_in or isinstance(self.model.noise_std, Noise):
            raise ValueError(f"{self.model}: expected hidden = (), scale_by_fan_in = True and a known noise_std")

    @property
    def noise_std(self) -> float:
        """The std of the noise, s."""
        assert not isinstance(self.model.noise_std, Noise)
        return self.model.noise_std

    @property
    def design(self) -> Floats:
        """The design X, (N, P)."""
        return self.features(self.x)

    @property
    def targets(self) -> Floats:
        """The targets y, (N,)."""
        return self.y.double().numpy()

    @property
    def precision(self) -> Floats:
        """The posterior precision Λ, (P, P)."""
        model, design = self.model, self.design
        return np.asarray(np.eye(model.size) / model.prior_std**2 + design.T @ design / self.noise_std**2)

    @property
    def posterior(self) -> Gaussian:
        covariance = np.asarray(np.linalg.inv(self.precision))
        return Gaussian(covariance @ self.design.T @ self.targets / self.noise_std**2, covariance)

    @property
    def mean_field(self) -> Gaussian:
        """The independent normals nearest to the posterior in KL(q ‖ p): the posterior's mean, and variances 1/Λⱼⱼ."""
        return Gaussian(self.posterior.mean, np.asarray(np.diag(1 / np.diag(self.precision))))

    @property
    def point(self) -> Gaussian:
        """The posterior's mean, which is also its mode, without variance."""
        return Gaussian(self.posterior.mean, np.zeros_like(self.precision))

    @staticmethod
    def features(x: Tensor) -> Floats:
        """The features that θ is multiplied by, [x/√D, 1], (..., P). x: (..., D)."""
        values = x.double().numpy()
        return np.concatenate([values / np.sqrt(values.shape[-1]), np.ones_like(values[..., :1])], -1)

    def stack(self, replicas: int) -> tuple[Tensor, Tensor]:
        """The data x (R, N, D) and y (R, N), equal for all replicas: replicas are then independent repeats of a fit."""
        return self.x.expand(replicas, -1, -1).clone(), self.y.expand(replicas, -1).clone()


def example(
    *, n: int = 20, noise_std: float = 2.5, prior_std: float = 0.8, correlation: float = 0.5, seed: int = 0
) -> LinearRegression:
    """A regression of n points with two correlated features, and an intercept far from the prior's mean 0.

    Prior and likelihood have similar weight, so an error in one of them is not hidden by the other.
    """
    rng = np.random.default_rng(seed)
    x = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], n)
    y = 6 + x @ [2, -1] + noise_std * rng.standard_normal(n)
    model = MLP(features=2, hidden=(), prior_std=prior_std, noise_std=noise_std)
    return LinearRegression(model, torch.from_numpy(x).float(), torch.from_numpy(y).float())
