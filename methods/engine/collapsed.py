"""The collapsed posterior: the network's output layer integrated out in closed form.

The network is linear in its output layer w, whose prior and noise are normal. φ(x) = [scale · h(x), 1], with the last
hidden layer h; Φ has the rows φ(xᵢ), (N, H+1); Λ = diag(1/σᵢ²); τ = prior_std; q is all parameters but w:

    A = ΦᵀΛΦ + I/τ²,   m = A⁻¹ΦᵀΛy,   r = y − Φm,   w | q, y ~ N(m, A⁻¹)
    U(q) = −log p(y | q) − log p(q)
         = ½ rᵀΛr + ‖m‖²/(2τ²) + ½ log det A + (H+1) log τ + Σ log σᵢ + (N/2) log 2π − log p(q)
    ∂U/∂Φ = Λ(ΦA⁻¹ − r mᵀ),   ∂U/∂ log σᵢ = 1 − (rᵢ² + φᵢᵀA⁻¹φᵢ)/σᵢ²

If H + 1 > N, the N × N form is smaller: K = τ²ΦΦᵀ + Λ⁻¹, α = K⁻¹y, m = τ²Φᵀα,

    ∂U/∂Φ = τ²(K⁻¹ − ααᵀ)Φ,   ∂U/∂ log σᵢ = σᵢ²(K⁻¹ᵢᵢ − αᵢ²)

The mixture over draws of q of f(x) | q, y ~ N(φᵀm, φᵀA⁻¹φ) is exactly p(f(x) | data).
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gapbench.methods.base import FittedMethod
from gapbench.methods.engine.gradients import backward, forward, product, stacked_layers
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise
from gapbench.methods.engine.precision import widest
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.engine.target import AllParameters, Point, Target, flattened, in_cache

CHUNK = 4096  # test points of a prediction that are computed at once


@dataclass(frozen=True)
class Collapsed(Target):
    """The law of q, the parameters without the output layer, given data.

    q is (..., size): the hidden layers as in θ, then the noise's head (heteroscedastic noise), then the noise's entry
    (learned noise). Raises ValueError for a model that `refusal` refuses.
    """

    model: MLP

    def __post_init__(self) -> None:
        reason = refusal(self.model)
        if reason is not None:
            raise ValueError(reason)

    @property
    def width(self) -> int:
        """The number H + 1 of parameters of the output layer."""
        return self.model.hidden[-1] + 1

    @property
    def size(self) -> int:
        return self.model.size - self.width

    @property
    def _parts(self) -> tuple[int, int, int]:
        """The numbers of entries of the hidden layers, the noise's head and the noise's entry."""
        head = self.width if isinstance(self.model.noise_std, HeteroscedasticNoise) else 0
        entry = 1 if isinstance(self.model.noise_std, LearnedNoise) else 0
        return self.size - head - entry, head, entry

    def part(self, theta: Tensor) -> Tensor:
        hidden, head, entry = self._parts
        inner, last, noise = theta.split([hidden, self.width + head, entry], dim=-1)
        heads = last.unflatten(-1, (self.width, self.model.network_outputs))[..., 1:].flatten(-2)
        return torch.cat([inner, heads, noise], -1)

    def joined(self, q: Tensor, w: Tensor) -> Tensor:
        """The vector θ, (..., P), of q (..., size) and an output layer w (..., H+1)."""
        inner, head, noise = q.split(self._parts, dim=-1)
        if head.shape[-1]:  # the function's weights and the noise's stand side by side
            w = torch.stack([w, head], -1).flatten(-2)
        return torch.cat([inner, w, noise], -1)

    def at(self, q: Tensor, x: Tensor, y: Tensor) -> Point:
        flat, x, y = flattened(q, x, y)
        energy, gradient = -self.log_prior(flat), flat / self.model.prior_std**2
        for block in in_cache(q, y.shape[-1], self.width):
            energy[block] += self._add_gradient(flat[block], x[block], y[block], gradient[block])
        return Point(q, energy.view(q.shape[:-1]), gradient.view(q.shape))

    def log_likelihood(self, q: Tensor, x: Tensor, y: Tensor) -> Tensor:
        flat, x, y = flattened(q, x, y)
        found = flat.new_empty(len(flat), dtype=widest(q.device))
        for block in in_cache(q, y.shape[-1], self.width):
            phi, log_std = self.features(flat[block], x[block])
            found[block] = -Evidence.of(phi, log_std, y[block], self.model.prior_std).energy
        return found.view(q.shape[:-1])

    def _add_gradient(self, q: Tensor, x: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
        """The energy −log p(y | q), (L,). Its gradient is added to `gradient`, (L, size)."""
        layers = stacked_layers(self.model, q, len(self.model.hidden))
        inputs, outputs = forward(self.model, layers, x)
        phi, log_std = self._features(q, inputs[-1])
        evidence = Evidence.of(phi, log_std, y, self.model.prior_std)
        by_phi, by_log_std = (part.to(q.dtype) for part in evidence.gradients())
        head, entry = self._parts[1:]
        if head:
            by_z = (self.model.noise_std.spread * by_log_std).unsqueeze(-1)  # type: ignore[union-attr]
            weights = q.narrow(-1, self._parts[0], head).unsqueeze(-1)
            by_phi.addcmul_(weights, by_z.mT)
            gradient.narrow(-1, self._parts[0], head).add_((phi @ by_z).squeeze(-1))
        elif entry:
            spread = self.model.noise_std.spread / self.model.prior_std  # type: ignore[union-attr]
            gradient.narrow(-1, -1, 1).add_(by_log_std, alpha=spread)
        by_hidden = by_phi.narrow(-2, 0, self.width - 1).mul(self.model.layers[-1][2])
        deltas = backward(self.model, layers, outputs, by_hidden)
        for layer, a, delta, (_, _, by) in zip(
            stacked_layers(self.model, gradient, len(layers)), inputs, deltas, self.model.layers, strict=False
        ):
            layer.add_(product(a, delta.mT), alpha=by)
        return evidence.energy

    def _features(self, q: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """The features φ(x), (L, H+1, N), and log σ, (L, N) or (L, 1). last: φ(x) / scale."""
        phi = last * self.model.layers[-1][2]
        noise, (_, head, entry) = self.model.noise_std, q.split(self._parts, dim=-1)
        if isinstance(noise, HeteroscedasticNoise):
            return phi, math.log(noise.center) + noise.spread * (head.unsqueeze(-2) @ phi).squeeze(-2)
        if isinstance(noise, LearnedNoise):
            return phi, math.log(noise.center) + noise.spread / self.model.prior_std * entry
        assert not isinstance(noise, Noise), f"{noise}: expected one of the kinds in engine/noise.py"
        return phi, phi.new_full((len(phi), 1), math.log(noise))

    def features(self, q: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features φ(x), (L, H+1, N), and log σ, (L, N) or (L, 1). q: (L, size), x: (L, N, D)."""
        layers = stacked_layers(self.model, q, len(self.model.hidden))
        return self._features(q, forward(self.model, layers, x)[0][-1])

    def law(self, q: Tensor, x: Tensor, y: Tensor, x_test: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean and std of f(x_test) | q, and the std of the noise there, (L, M) each.

        q: (L, size); x: (L, N, D) and y: (L, N), the training data; x_test: (L, M, D).
        """
        evidence = Evidence.of(*self.features(q, x), y, self.model.prior_std)
        laws = []
        for chunk in x_test.split(CHUNK, 1):
            phi, log_std = self.features(q, chunk)
            mean, std = evidence.predict(phi)
            laws.append((mean.to(q), std.to(q), log_std.exp().expand(mean.shape)))
        mean, std, noise = (torch.cat(parts, 1) for parts in zip(*laws, strict=True))
        return mean, std, noise

    def fitted(
        self, q: Tensor, x: Tensor, y: Tensor, diagnostics: Mapping[str, Tensor], failures: Mapping[int, str]
    ) -> Components:
        return Components(self, q.flatten(1, 2), x, y, q.shape[1], diagnostics=diagnostics, failures=failures)


@dataclass(frozen=True)
class Components(FittedMethod):
    """The mixture of the laws of f given each of S draws. q: (R, S, size), chain-major; x, y: the training data.

    chains: 0 if the draws are of no chain.
    """

    target: Collapsed
    q: Tensor
    x: Tensor
    y: Tensor
    chains: int

    def __call__(self, x: Tensor) -> MixturePrediction:
        # One component at a time: the memory of a prediction does not grow with S × the network's width.
        laws = [self.target.law(q, self.x, self.y, x) for q in self.q.unbind(1)]
        location, std, noise = (torch.stack(parts, 1) for parts in zip(*laws, strict=True))
        known = not isinstance(self.target.model.noise_std, Noise)
        return MixturePrediction(location, std, noise[:1, :1, :1] if known else noise, self.chains)


def refusal(model: object) -> str | None:
    """The reason why a model's output layer cannot be integrated out; None if it can."""
    if not isinstance(model, MLP):
        return f"{type(model).__name__}: expected an MLP, whose output layer is linear and can be integrated out"
    if not model.hidden:
        return "hidden = (): nothing is left to sample, since the law of θ is closed; expected a hidden layer"
    if model.outputs > 1:
        return f"outputs = {model.outputs}: expected 1, the function itself"
    return None


def cannot_collapse(model: Model, x: Tensor, chains: int, draws: int) -> str | None:
    """The reason why a sampler cannot walk on the collapsed posterior; None if it can. x: (R, N, D).

    Beside `refusal`, the reason may be this machine's memory. draws: those that a chain holds at once.
    """
    reason = refusal(model)
    if reason is not None:
        return reason
    replicas, n, _ = x.shape
    width = model.hidden[-1] + 1
    matrices = 8 * (3 * n * width + 4 * min(n, width) ** 2)  # of one chain at a time, float64
    vectors = 4 * replicas * chains * (draws + 8) * (model.size - width)  # 8: the chains' state and what a step makes
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if matrices + vectors <= memory:
        return None
    gigabytes = f"{(matrices + vectors) / 1e9:.3g} GB, and this machine has {memory / 1e9:.3g} GB"
    return f"hidden = {model.hidden}: {gigabytes}; expected fewer hidden units, chains or draws"


def collapsed_or_whole(model: Model, collapse: bool) -> Target:
    """The posterior with the output layer integrated out, or that of all parameters."""
    return Collapsed(model) if collapse else AllParameters(model)  # type: ignore[arg-type]  # refused by Collapsed


@dataclass(frozen=True)
class Evidence(ABC):
    """Bayesian linear regression of y on Φ: −log p(y | Φ, σ), its gradients, and the law of w.

    A point is a column of `phi`. energy: (...). mean: m, (..., H+1). phi: Φᵀ, (..., H+1, N). log_std: log σ, (..., N),
    or (..., 1) for one that all points share.
    """

    energy: Tensor
    mean: Tensor
    tau: float
    phi: Tensor
    log_std: Tensor

    @staticmethod
    def of(phi: Tensor, log_std: Tensor, y: Tensor, tau: float) -> Evidence:
        """The regression in the widest float: formed in float32, ΦᵀΦ loses what a small noise needs. y: (..., N)."""
        kind = widest(phi.device)
        form = Primal.of if phi.shape[-2] <= phi.shape[-1] else Dual.of
        return form(phi.to(kind), log_std.to(kind), y.to(kind), tau)

    @abstractmethod
    def gradients(self) -> tuple[Tensor, Tensor]:
        """The derivatives by Φᵀ, and by log_std, of the shapes of these."""

    def predict(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and std of φᵀw, (..., M). phi: (..., H+1, M)."""
        phi = phi.to(self.mean)
        return (self.mean.unsqueeze(-2) @ phi).squeeze(-2), self._std(phi)

    @abstractmethod
    def _std(self, phi: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Primal(Evidence):
    """The (H+1) × (H+1) form. factor: the Cholesky factor of A. weighted: [Φ, y]ᵀ/σ, (..., H+2, N). residual: r/σ,
    (..., N)."""

    factor: Tensor
    weighted: Tensor
    residual: Tensor

    @staticmethod
    def of(phi: Tensor, log_std: Tensor, y: Tensor, tau: float) -> Primal:
        width, n = phi.shape[-2:]
        weighted = torch.cat([phi, y.unsqueeze(-2)], -2).mul_(log_std.neg().exp().unsqueeze(-2))
        gram = weighted @ weighted.mT  # one product has all that is needed
        a, b = gram[..., :-1, :-1], gram[..., :-1, -1:]
        a.diagonal(dim1=-2, dim2=-1).add_(1 / tau**2)
        factor = _cholesky(a)
        m = torch.cholesky_solve(b, factor)  # (..., H+1, 1)
        # The minimum over w, so an error of m hardly counts. As a sum of squares: where σ is tiny, yᵀΛy − bᵀm loses all
        # digits, and a chain stays for ever at an energy that is far too low.
        residual = (torch.cat([-m, torch.ones_like(m[..., :1, :])], -2).mT @ weighted).squeeze(-2)
        fit = 0.5 * (residual.square().sum(-1) + m.square().sum((-2, -1)) / tau**2)
        sigmas = log_std.expand(y.shape).sum(-1)
        energy = fit + _log_det(factor) + width * math.log(tau) + sigmas + 0.5 * n * math.log(2 * math.pi)
        return Primal(energy, m.squeeze(-1), tau, phi, log_std, factor, weighted, residual)

    def gradients(self) -> tuple[Tensor, Tensor]:
        inverse, m = torch.cholesky_inverse(self.factor), self.mean.unsqueeze(-1)
        by_phi = torch.cat([inverse + m * m.mT, -m], -1) @ self.weighted
        by_phi.mul_(self.log_std.neg().exp().unsqueeze(-2))  # Λ(ΦA⁻¹ − r mᵀ), transposed
        squares = self.residual.square()
        if self.log_std.shape[-1] == 1:  # Σ φᵢᵀA⁻¹φᵢ/σ² is the trace of A⁻¹(A − I/τ²)
            width, n = self.phi.shape[-2:]
            trace = inverse.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
            return by_phi, n - squares.sum(-1, keepdim=True) - width + trace / self.tau**2
        # By ∂U/∂Φ = Λ(ΦA⁻¹ − r mᵀ), the diagonal of ΛΦA⁻¹Φᵀ is that of ∂U/∂Φ Φᵀ, and Λ r mᵀφ.
        fits = self.weighted[..., -1, :] - self.residual
        return by_phi, 1 - squares - (by_phi * self.phi).sum(-2) - self.residual * fits

    def _std(self, phi: Tensor) -> Tensor:
        half: Tensor = torch.linalg.solve_triangular(self.factor, phi, upper=False)  # (..., H+1, M)
        return half.square().sum(-2).sqrt()


@dataclass(frozen=True)
class Dual(Evidence):
    """The N × N form. factor: the Cholesky factor of K. alpha: α, (..., N, 1)."""

    factor: Tensor
    alpha: Tensor

    @staticmethod
    def of(phi: Tensor, log_std: Tensor, y: Tensor, tau: float) -> Dual:
        k = tau**2 * phi.mT @ phi
        k.diagonal(dim1=-2, dim2=-1).add_((2 * log_std).exp())
        factor = _cholesky(k)
        half = torch.linalg.solve_triangular(factor, y.unsqueeze(-1), upper=False)  # (..., N, 1)
        alpha = torch.linalg.solve_triangular(factor.mT, half, upper=True)
        energy = 0.5 * half.square().sum((-2, -1)) + _log_det(factor) + 0.5 * y.shape[-1] * math.log(2 * math.pi)
        m = tau**2 * (phi @ alpha).squeeze(-1)
        return Dual(energy, m, tau, phi, log_std, factor, alpha)

    def gradients(self) -> tuple[Tensor, Tensor]:
        inner = torch.cholesky_inverse(self.factor) - self.alpha @ self.alpha.mT
        by_log_std = (2 * self.log_std).exp() * inner.diagonal(dim1=-2, dim2=-1)
        return self.tau**2 * self.phi @ inner, by_log_std.sum_to_size(self.log_std.shape)

    def _std(self, phi: Tensor) -> Tensor:
        half: Tensor = torch.linalg.solve_triangular(self.factor, self.phi.mT @ phi, upper=False)  # (..., N, M)
        known = self.tau**4 * half.square().sum(-2)
        return (self.tau**2 * phi.square().sum(-2) - known).clamp(min=0).sqrt()


def _cholesky(matrix: Tensor) -> Tensor:
    """The Cholesky factor; nan for a matrix that has none, without a question to the device."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    sound: Tensor = factor.masked_fill((info > 0)[..., None, None], math.nan)
    return sound


def _log_det(factor: Tensor) -> Tensor:
    """The number ½ log det of the matrix that `factor` is the Cholesky factor of."""
    half: Tensor = torch.linalg.diagonal(factor).log().sum(-1)
    return half
