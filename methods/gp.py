"""Gaussian-process regression (Rasmussen & Williams 2006, http://gaussianprocess.org/gpml), by gpytorch.

    f ~ GP(c, k),   y = f(x) + σε,   c and the parameters of k maximise the marginal likelihood log p(y)

Exact up to 5,000 points, and a sparse variational process above. The kernel has an amplitude and a length scale for
each feature. A noise that is learned has the suite's prior.
Family: Gaussian process.
Caveat: its prior is its own, learned from the data, and not the one of the suite's network; only the noise is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from torch import Generator, Tensor, nn

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.deep_gp import DeepGP
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.precision import widest
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.engine.sparse_gp import KERNELS, NoiseStd, exact_arithmetic, kernel_of, needs_constant_noise

CHUNK = 512  # test points at once
MOST_STEPS = 500  # of L-BFGS; it stops earlier, where nothing more is gained


@dataclass(frozen=True)
class GP(UncertaintyMethod):
    """One Gaussian process.

    most_points: more than these make it sparse, with `inducing` points, by `steps` of Adam on minibatches of `batch`.
    The exact one needs no settings: L-BFGS runs until the marginal likelihood stands still.
    """

    kernel: str = "rbf"
    most_points: int = 5000
    inducing: int = 256
    steps: int = 2000
    lr: float = 0.03
    batch: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel not in KERNELS:
            raise ValueError(f"GP: kernel = {self.kernel!r}: expected one of {', '.join(KERNELS)}")

    def skip(self, model: Model, x: Tensor) -> str | None:
        return self.sparse.skip(model, x) if x.shape[1] > self.most_points else needs_constant_noise(model)

    @property
    def sparse(self) -> DeepGP:
        """The sparse process: a deep one without hidden layers."""
        return DeepGP(
            hidden=0, inducing=self.inducing, kernel=self.kernel, steps=self.steps, lr=self.lr, batch=self.batch
        )

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        if x.shape[1] > self.most_points:
            return self.sparse.fit(model, x, y, generator)
        wide = widest(x.device)
        x, y = x.to(wide), y.to(wide)
        with exact_arithmetic():
            found = [self.likeliest(model, *each) for each in zip(x.split(1), y.split(1), strict=True)]
            processes, noises, evaluations = zip(*found, strict=True)
            process = stacked(processes, Process(self.kernel, len(y), x.shape[2]).to(x))
            noise = torch.cat(noises)
            with torch.no_grad():
                factor = torch.linalg.cholesky(process.of_y(x, noise).covariance_matrix)
        diagnostics = {"gradient evaluations": torch.tensor(evaluations, device=x.device) * float(y.shape[1])}
        return GPFit(process, x, y, factor, noise, diagnostics=diagnostics)

    def likeliest(self, model: Model, x: Tensor, y: Tensor) -> tuple[Process, Tensor, int]:
        """The process of the highest marginal likelihood, its noise, and the number of its gradients. R = 1."""
        process, noise = Process(self.kernel, 1, x.shape[2]).to(x), NoiseStd(model, 1).to(x)
        parameters = [p for p in (*process.parameters(), *noise.parameters()) if p.requires_grad]
        optimizer = torch.optim.LBFGS(parameters, max_iter=MOST_STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = -(process.of_y(x, noise()).log_prob(y) + noise.log_prior()).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return process, noise().detach(), optimizer.state[parameters[0]]["func_evals"]


class Process(gpytorch.Module):  # type: ignore[misc]
    """The prior of f, a stack of R."""

    def __init__(self, kernel: str, replicas: int, features: int) -> None:
        super().__init__()
        shape = torch.Size([replicas])
        self.mean = gpytorch.means.ConstantMean(batch_shape=shape)
        self.kernel = kernel_of(kernel, features, shape)

    def of_y(self, x: Tensor, noise: Tensor) -> MultivariateNormal:
        """The prior law of y at x (R, N, D), for a noise std (R, 1)."""
        covariance = self.kernel(x).to_dense()
        return MultivariateNormal(self.mean(x), covariance + torch.diag_embed(noise.square().expand(x.shape[:2])))


def stacked(each: Sequence[nn.Module], stack: Process) -> Process:
    """The processes as one, whose parameters have R in front."""
    with torch.no_grad():
        for name, parameter in stack.named_parameters():
            parameter.copy_(torch.cat([one.get_parameter(name) for one in each]))
    return stack


@dataclass(frozen=True)
class GPFit(FittedMethod):
    """The law of f given x (R, N, D) and y (R, N). factor: Cholesky, of the covariance of y; noise: (R, 1)."""

    process: Process
    x: Tensor
    y: Tensor
    factor: Tensor
    noise: Tensor

    @torch.no_grad()
    def __call__(self, x: Tensor) -> MixturePrediction:
        with exact_arithmetic():
            laws = [self._law(part.to(self.x)) for part in x.split(CHUNK, 1)]
        mean, std = (torch.cat(parts, 1).to(x).unsqueeze(1) for parts in zip(*laws, strict=True))
        return MixturePrediction(mean, std, self.noise.to(x).unsqueeze(1))

    def _law(self, x: Tensor) -> tuple[Tensor, Tensor]:
        residual = (self.y - self.process.mean(self.x)).unsqueeze(-1)
        half = torch.linalg.solve_triangular(self.factor, self.process.kernel(self.x, x).to_dense(), upper=False)
        rest = torch.linalg.solve_triangular(self.factor, residual, upper=False)
        variance = self.process.kernel(x, diag=True) - half.square().sum(1)
        return self.process.mean(x) + (half.mT @ rest).squeeze(-1), variance.clamp(min=0).sqrt()
