"""What several test files need, as fixtures: test modules do not import each other (--import-mode=importlib)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.model import MLP

torch.set_num_threads(1)  # the tests' tensors are small: threads would only wait for each other

# What the shared hyperparameters are cut down to, in any method that has them.
BUDGET = {
    "steps": 6,
    "batch": 4,
    "burn_in": 2,
    "draws": 3,
    "thin": 2,
    "chains": 2,
    "members": 2,
    "particles": 2,
    "max_steps": 10,
}


@pytest.fixture
def small() -> Callable[[type[UncertaintyMethod]], UncertaintyMethod]:
    """Method class -> an instance that fits in milliseconds, otherwise with the class's own defaults."""

    def build(cls: type[UncertaintyMethod]) -> UncertaintyMethod:
        return cls(**{field.name: BUDGET[field.name] for field in fields(cls) if field.name in BUDGET})

    return build


@pytest.fixture
def seeded() -> Callable[[int], Generator]:
    """Seed -> a torch generator of its own; nothing here touches the global ones."""
    return lambda seed: torch.Generator().manual_seed(seed)


@pytest.fixture
def own_randomness() -> Iterator[None]:
    """The stock libraries under comparison draw from torch's global stream: fix it, and put it back."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


@dataclass(frozen=True)
class LinearRegression:
    """Bayesian linear regression, whose posterior N(mean, covariance) is known: science by hand, in float64.

    f = x·w/√D + b, so θ = (w, b) and the design matrix is [x/√D, 1].
    """

    model: MLP
    x: Tensor  # (N, D)
    y: Tensor  # (N,)

    @property
    def design(self) -> np.ndarray:  # (N, P)
        x = self.x.double().numpy()
        return np.column_stack([x / np.sqrt(x.shape[1]), np.ones(len(x))])

    @property
    def precision(self) -> np.ndarray:
        """Λ = I/prior_std² + XᵀX/noise_std²."""
        model = self.model
        return np.eye(model.size) / model.prior_std**2 + self.design.T @ self.design / model.noise_std**2

    @property
    def covariance(self) -> np.ndarray:
        return np.linalg.inv(self.precision)

    @property
    def mean(self) -> np.ndarray:
        return self.covariance @ self.design.T @ self.y.double().numpy() / self.model.noise_std**2

    def stack(self, replicas: int) -> tuple[Tensor, Tensor]:
        """Every replica the same data, so that replicas are independent repeats of one experiment."""
        return self.x.expand(replicas, -1, -1).clone(), self.y.expand(replicas, -1).clone()


@pytest.fixture
def linear_regression() -> Callable[..., LinearRegression]:
    """n points in two correlated features, with an intercept far from the prior's 0, and prior and likelihood
    weighing alike: nothing is lost in either's noise."""

    def build(
        *, n: int = 20, noise_std: float = 2.5, prior_std: float = 0.8, correlation: float = 0.5, seed: int = 0
    ) -> LinearRegression:
        rng = np.random.default_rng(seed)
        x = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], n)
        y = 6 + x @ [2, -1] + noise_std * rng.standard_normal(n)
        model = MLP(features=2, hidden=(), prior_std=prior_std, noise_std=noise_std)
        return LinearRegression(model, torch.from_numpy(x).float(), torch.from_numpy(y).float())

    return build
