"""The Kronecker-factored Laplace approximation, against dense matrices that are made by autograd in float64."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from gapbench.methods.engine.exactness import example
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise
from gapbench.methods.kronecker_laplace import KroneckerLaplace, KroneckerLaw, factors, inverted
from gapbench.methods.laplace import information, jacobian

NOISES: tuple[float | Noise, ...] = (0.3, LearnedNoise(), HeteroscedasticNoise())
NETWORKS = ((), (4,), (5, 4, 3))


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def problem(noise: float | Noise, hidden: tuple[int, ...], n: int) -> tuple[KroneckerLaw, Tensor]:
    """The law around some θ that is no optimum, of two replicas, and its data: the formula holds anywhere."""
    model = MLP(features=2, hidden=hidden, activation="tanh", noise_std=noise, prior_std=1.2)
    x, theta = torch.randn(2, n, 2, generator=seeded(1)), model.sample_prior(seeded(2), (2,))
    return KroneckerLaw(model, theta, [inverted(a, g, 1.2) for a, g in factors(model, theta, x)]), x


def places(model: MLP) -> list[slice]:
    """Where each layer is in θ."""
    ends = np.cumsum([0, *((m + 1) * n for m, n, _ in model.layers)]).tolist()
    return [slice(first, last) for first, last in pairwise(ends)]


def stds(law: KroneckerLaw, x: Tensor, precisions: list[Tensor]) -> Tensor:
    """The std of f that these dense precisions of the layers give, (R, M). precisions: (R, P_l, P_l) each."""
    j = jacobian(law.model, law.theta.double(), x.double())
    each = [
        torch.einsum("rmi,rij,rmj->rm", j[..., place], dense.inverse(), j[..., place])
        for place, dense in zip(places(law.model), precisions, strict=True)
    ]
    return torch.stack(each).sum(0).sqrt()


@pytest.mark.parametrize("hidden", NETWORKS)
@pytest.mark.parametrize("noise", NOISES)
def test_with_one_point_it_is_the_fisher_information_of_each_layer(
    noise: float | Noise, hidden: tuple[int, ...]
) -> None:
    """Without its blocks between layers: one point has one input, so the average of a product is the product of the
    averages, with two outputs too. Autograd's Jacobian is that of `laplace`. Seen to catch: the noise's output left
    out of G, 2 for √2, its spread forgotten, √σ for σ, the prior's precision left out or added to each factor, the
    weights' scale forgotten, 1 in place of 1/scale for the bias, U or V transposed, the slope of log σ in the law of f,
    the last layer alone, stds added in place of variances."""
    law, x = problem(noise, hidden, n=1)
    rows = information(law.model, law.theta.double(), x.double())
    prior = 1 / 1.2**2
    dense = [rows[..., place].mT @ rows[..., place] for place in places(law.model)]
    dense = [part + prior * torch.eye(part.shape[-1]) for part in dense]
    x_test = torch.randn(2, 7, 2, generator=seeded(3))
    assert torch.allclose(law(x_test).scale[:, 0].double(), stds(law, x_test, dense), rtol=1e-4)


@pytest.mark.parametrize("hidden", NETWORKS)
@pytest.mark.parametrize("noise", NOISES)
def test_the_factors_are_the_averages_of_the_paper(noise: float | Noise, hidden: tuple[int, ...]) -> None:
    """With the whole Kronecker product inverted. A and G are read off autograd's Jacobian: the gradient of an output by
    one layer is the matrix a δᵀ, so that its last row, the bias's, is δ, and its columns are multiples of a. Seen to
    catch: G summed, A averaged too, G divided by 2N for two outputs, and what the test above is seen to catch."""
    n = 9
    law, x = problem(noise, hidden, n)
    model, theta, x = law.model, law.theta.double(), x.double()
    weights = [1 / model.noise(theta, x).expand(2, n).square()]
    if isinstance(noise, HeteroscedasticNoise):
        weights.append(torch.full((2, n), 2 * noise.spread**2))
    precisions = []
    for place, (m, k, _) in zip(places(model), model.layers, strict=True):
        each = [
            jacobian(model, theta, x, output)[..., place].unflatten(-1, (m + 1, k)) for output in range(len(weights))
        ]
        delta = [one[:, :, -1] for one in each]
        largest = delta[0].abs().argmax(-1)[..., None, None].expand(2, n, m + 1, 1)
        a = each[0].gather(-1, largest).squeeze(-1)
        a = a / a[..., -1:]
        g = sum(torch.einsum("rn,rni,rnj->rij", w, d, d) for w, d in zip(weights, delta, strict=True)) / n
        kron = torch.stack([torch.kron(*pair) for pair in zip(a.mT @ a, g, strict=True)])
        precisions.append(kron + torch.eye(kron.shape[-1]) / 1.2**2)
    x_test = torch.randn(2, 7, 2, generator=seeded(3))
    assert torch.allclose(law(x_test).scale[:, 0].double(), stds(law, x_test, precisions), rtol=1e-4)


def test_linear_regression_has_its_posterior() -> None:
    """Mean and std of f at new points, where Adam has arrived. Seen to catch: √σ for σ, G summed, A averaged too."""
    regression = example()
    x, y = regression.stack(2)
    x_test = 3 * torch.randn(2, 6, 2, generator=seeded(1))
    claim = KroneckerLaplace().exactness
    found = claim.method.fit(regression.model, x, y, seeded())(x_test)
    features, law = regression.features(x_test), regression.posterior
    std = np.sqrt(np.einsum("rmi,ij,rmj->rm", features, law.covariance, features))
    assert np.allclose(found.scale[:, 0].numpy(), std, rtol=1e-4)  # type: ignore[attr-defined]
    assert np.abs(found.location[:, 0].numpy() - features @ law.mean).max() < 0.02 * std.min()  # type: ignore[attr-defined]


def test_units_that_no_data_reach_keep_the_prior() -> None:
    """Of a layer whose inputs and slopes are all 0: the prior's variance, and no number below 0 by rounding. Seen to
    catch: eigenvalues that are not clamped."""
    rows = torch.randn(1, 2, 40, generator=seeded(1)).double()
    block = inverted(rows.mT @ rows * 1e12, torch.ones(1, 1, 1).double() * 1e6, 2.0)
    assert (block.variances > 0).all() and block.variances.amax().item() == pytest.approx(4, rel=1e-6)


def test_a_network_without_known_layers_is_refused() -> None:
    other = SimpleNamespace()
    assert "SimpleNamespace: expected an MLP" in str(KroneckerLaplace().skip(other, torch.zeros(1, 3, 2)))  # type: ignore[arg-type]
    assert KroneckerLaplace().skip(MLP(hidden=()), torch.zeros(1, 3, 1)) is None
