"""Sparse variational Gaussian processes in a stack, by gpytorch (Hensman, Matthews & Ghahramani 2015,
https://arxiv.org/abs/1411.2005), and what exact and sparse ones share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import Kernel, MaternKernel, RBFKernel, ScaleKernel
from gpytorch.means import ConstantMean, LinearMean, Mean
from gpytorch.variational import CholeskyVariationalDistribution, VariationalStrategy
from torch import Tensor, nn

from gapbench.methods.engine.model import Model
from gapbench.methods.engine.noise import HeteroscedasticNoise, Noise

KERNELS = ("rbf", "matern32", "matern52")


def kernel_of(name: str, features: int, batch_shape: torch.Size) -> Kernel:
    """A kernel of this name, with an amplitude and a length scale for each feature."""
    if name == "rbf":
        base: Kernel = RBFKernel(ard_num_dims=features, batch_shape=batch_shape)
    else:
        base = MaternKernel({"matern32": 1.5, "matern52": 2.5}[name], ard_num_dims=features, batch_shape=batch_shape)
    return ScaleKernel(base, batch_shape=batch_shape)


class SparseGP(gpytorch.models.ApproximateGP):  # type: ignore[misc]
    """A layer of H independent processes for each replica. inducing: (R, H, I, D), where the inducing points start."""

    def __init__(self, inducing: Tensor, kernel: str, linear_mean: bool = False) -> None:
        *batch, points, features = inducing.shape
        shape = torch.Size(batch)
        law = CholeskyVariationalDistribution(points, batch_shape=shape, mean_init_std=0.0)
        super().__init__(VariationalStrategy(self, inducing, law))
        # The processes share a linear mean, as in gpytorch's own example: with one each, wide layers learned nothing.
        shared = torch.Size([batch[0], 1])
        self.mean: Mean = LinearMean(features, shared) if linear_mean else ConstantMean(batch_shape=shape)
        self.kernel = kernel_of(kernel, features, shape)

    def forward(self, x: Tensor) -> MultivariateNormal:
        return MultivariateNormal(self.mean(x), self.kernel(x))

    def law(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the std of each process at each point, (..., R, N, H) each. x: (..., R, N, D)."""
        x = x.unsqueeze(-3)
        q = self(x.expand(*x.shape[:-3], self.variational_strategy.inducing_points.shape[1], *x.shape[-2:]))
        return q.mean.mT, q.variance.sqrt().mT

    def divergence(self) -> Tensor:
        """KL(q(u) ‖ p(u)) of the layer, (R,)."""
        kl: Tensor = self.variational_strategy.kl_divergence()
        return kl.sum(-1)


class NoiseStd(nn.Module):
    """The std of the noise of each replica, (R, 1): known, or learned with the log prior that the model gives it."""

    def __init__(self, model: Model, replicas: int) -> None:
        super().__init__()
        assert not isinstance(model.noise_std, HeteroscedasticNoise)
        self.noise = model.noise_std
        self.z = nn.Parameter(torch.zeros(replicas, 1), requires_grad=isinstance(self.noise, Noise))

    def forward(self) -> Tensor:
        return self.noise.std(self.z) if isinstance(self.noise, Noise) else torch.full_like(self.z, self.noise)

    def log_prior(self) -> Tensor:
        """The log prior density of each replica's z up to a constant, (R,)."""
        return -self.z.square().sum(-1) / 2


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Cholesky factors of any size in place of iterations and random probes, and no warnings of what is meant so."""
    with ExitStack() as stack:
        for setting in (
            gpytorch.settings.fast_computations(False, False, False),
            gpytorch.settings.max_cholesky_size(10**6),
            gpytorch.settings.debug(False),
        ):
            stack.enter_context(setting)
        yield


def needs_constant_noise(model: Model) -> str | None:
    """The reason why a process cannot have the model's noise; None if it can."""
    if isinstance(model.noise_std, HeteroscedasticNoise):
        return "the noise depends on x: expected a constant one"
    return None
