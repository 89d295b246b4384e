"""Flipout: decorrelated perturbations and the KL. Its optimum on linear regression is tested in test_contract.py."""

from __future__ import annotations

import torch
from torch import Generator

from gapbench.methods.engine.model import MLP
from gapbench.methods.flipout import divergence, perturbed, signs


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def test_points_of_a_batch_are_perturbed_without_correlation() -> None:
    """Two equal points, 20,000 draws of ΔW with signs: f varies as without signs, and the two are uncorrelated; with
    equal ΔW and no signs they would be equal. Seen to catch: one sign for the batch, signs on the mean weight."""
    model, draws = MLP(features=2, hidden=(4,), activation="tanh", prior_std=0.5), 20_000
    loc = model.sample_prior(seeded(1), (1,)).expand(draws, -1).contiguous()
    no_bias = torch.ones(model.size)
    for (m, n, _), start in zip(model.layers, (0, 3 * 4), strict=True):
        no_bias[start + m * n : start + (m + 1) * n] = 0  # a bias has no signs, so its draw is shared
    change = 0.05 * torch.randn(draws, model.size, generator=seeded(2)) * no_bias
    x = torch.tensor([[0.7, -1.2], [0.7, -1.2]]).expand(draws, -1, -1)
    f = perturbed(model, loc, change, x, seeded(3)).squeeze(-1).double()
    plain = model.mean(loc + change, x)[:, 0].double()
    correlation = float(torch.corrcoef(f.T)[0, 1])
    assert abs(correlation) < 5 / draws**0.5
    assert abs(float(f[:, 0].std() / plain.std()) - 1) < 0.03
    assert abs(float((f[:, 0].mean() - plain.mean()) / plain.std())) < 0.05


def test_inputs_and_outputs_have_signs_of_their_own() -> None:
    """Of one ΔW, over signs: output j varies by Σₖ (xₖ ΔWₖⱼ)², and two outputs are uncorrelated. Seen to catch: no
    signs of the inputs (whose variance is (Σₖ xₖ ΔWₖⱼ)²), no signs of the outputs (which then move together)."""
    model, draws = MLP(features=2, hidden=(), outputs=2), 20_000
    loc, change = torch.zeros(draws, model.size), torch.tensor([0.3, -0.5, 0.8, 0.4, 0.0, 0.0]).expand(draws, -1)
    x = torch.tensor([[0.7, -1.2]])
    f = perturbed(model, loc, change, x.expand(draws, 1, -1), seeded(4)).squeeze(1).double()
    scale = model.layers[0][2]
    variance = ((scale * x.T * model.weights(change[0])[0][0]) ** 2).sum(0).double()
    assert torch.allclose(f.var(0), variance, rtol=0.05)
    assert abs(float(torch.corrcoef(f.T)[0, 1])) < 5 / draws**0.5


def test_the_divergence_is_torchs() -> None:
    loc, scale = torch.randn(3, 5, generator=seeded(1)), torch.rand(3, 5, generator=seeded(2)) + 0.1
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(loc, scale), torch.distributions.Normal(torch.zeros(3, 5), 1.7)
    ).sum(-1)
    assert torch.allclose(divergence(loc, scale, 1.7), expected, rtol=1e-5)


def test_signs_are_plus_and_minus_one_and_uncorrelated() -> None:
    """Each sign is 1 in half of the draws, and equal to any other in half of them, in the same word of 32 or not. Seen
    to catch: one bit for all signs of a word, the last bit left out (a sign that is always 1), words of 31 bits."""
    draws, count = 20_000, 70
    found = signs((draws,), count, seeded())
    assert found.shape == (draws, count) and set(found.unique().tolist()) == {-1.0, 1.0}
    together = found.T @ found / draws - torch.eye(count)
    assert float(found.mean(0).abs().max()) < 5 / draws**0.5
    assert float(together.abs().max()) < 5 / draws**0.5
