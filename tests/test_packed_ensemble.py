"""Packed ensembles: the limits (the deep ensemble and the MAP), the size, and the training of one grouped network in
stock torch."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from gapbench.methods.deep_ensemble import DeepEnsemble
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.packed_ensemble import PackedEnsemble


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def data(n: int = 24, features: int = 2) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, n, features, generator=seeded(1))
    return x, x.sum(-1).sin()


def fitted(method: DeepEnsemble, model: MLP, x: Tensor, y: Tensor) -> PosteriorDraws:
    fit = method.fit(model, x, y, seeded())
    assert isinstance(fit, PosteriorDraws)
    return fit


@pytest.mark.parametrize("noise", [0.3, LearnedNoise(), HeteroscedasticNoise()])
@pytest.mark.parametrize("more", [{}, {"own_data": True}, {"mean_variance": True}, {"by_epochs": True}])
def test_as_wide_as_its_members_it_is_the_deep_ensemble(noise: float | Noise, more: dict[str, Any]) -> None:
    """To the bit, with alpha = members. Seen to catch: a share for one member less, alpha left out, alpha squared, a
    setting that is not passed on, prior_std divided by √members."""
    model, (x, y) = MLP(features=2, hidden=(7, 4), noise_std=noise), data()
    settings = {"members": 3, "steps": 12, "lr": 0.02, "batch": 6} | more
    packed, deep = (
        fitted(PackedEnsemble(alpha=3, **settings), model, x, y),
        fitted(DeepEnsemble(**settings), model, x, y),
    )
    assert packed.model == deep.model and torch.equal(packed.theta, deep.theta)
    assert packed.diagnostics.keys() == deep.diagnostics.keys()
    assert all(torch.equal(packed.diagnostics[name], deep.diagnostics[name]) for name in deep.diagnostics)


def test_one_member_of_the_models_width_is_the_map() -> None:
    """To the bit, from the same stream. Seen to catch: a unit more, or less, in each hidden layer."""
    model, (x, y) = MLP(features=2, hidden=(7, 4), noise_std=0.3), data()
    method = PackedEnsemble(members=1, alpha=1.0, steps=30, lr=0.03, batch=6)
    theta, _ = method.train_map(model, x, y, seeded())
    assert torch.equal(fitted(method, model, x, y).theta[:, 0], theta)


@pytest.mark.parametrize(
    ("members", "alpha", "hidden", "widths"),
    [
        (4, 2.0, (50, 50), (25, 25)),
        (4, 1, (20, 12, 8), (5, 3, 2)),
        (3, 1.5, (50,), (25,)),
        (4, 1.5, (50, 6), (19, 3)),  # 18.75 and 2.25, rounded up
        (5, 1.1, (50, 50), (11, 11)),  # in floats 1.1 · 50 > 55, and 11.000000000000002 would be rounded up
        (8, 1.0, (3, 1), (1, 1)),
    ],
)
def test_the_size_is_the_formulas(members: int, alpha: float, hidden: tuple[int, ...], widths: tuple[int, ...]) -> None:
    """Members × the parameters of a network of these widths. Where nothing is rounded, all weights between two hidden
    layers are alpha²/members times the model's, and those of the first and last layer alpha times. Seen to catch:
    rounding down, to the nearest, of floats; √(alpha / members) for the share; only the first layer narrower."""
    x, y = data()
    fit = fitted(PackedEnsemble(members=members, alpha=alpha, steps=0), MLP(features=2, hidden=hidden), x, y)
    each = 2 * widths[0] + sum(one * other for one, other in zip(widths, (*widths[1:], 1), strict=True))
    assert fit.theta.shape == (2, members, each + sum(widths) + 1)
    if all(width * members == alpha * whole for width, whole in zip(widths, hidden, strict=True)):
        inner = sum(one * other for one, other in pairwise(hidden))
        assert members * each == pytest.approx(alpha**2 / members * inner + alpha * (2 * hidden[0] + hidden[-1]))


def grouped(model: MLP, theta: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """The functions of M members, (M, N), by stock torch as one network of grouped layers. theta: (M·n, m, 1) and
    (M·n,) for each layer from m to n units. x: (N, D)."""
    members = len(theta[-1][1])
    h = x.mT.repeat(members, 1).unsqueeze(0)  # (1, M·D, N)
    for (weight, bias), (fan_in, _, _) in zip(theta, model.layers, strict=True):
        h = functional.conv1d(h, weight / math.sqrt(fan_in), bias, groups=members)
        h = torch.relu(h) if weight is not theta[-1][0] else h
    return h[0]


def test_it_trains_as_one_network_of_grouped_layers() -> None:
    """By stock Adam on all parameters of that network, on all points, from the same start; and its prediction is the
    mixture of that network's groups with equal weights. Seen to catch: the likelihood or the prior averaged over
    members, the prior std of the wide network's layers, members that all start alike."""
    model, (x, y) = MLP(features=2, hidden=(9, 6), noise_std=0.3, prior_std=1.3), data()
    method = PackedEnsemble(members=3, alpha=1.5, steps=40, lr=0.02, batch=24)
    start = fitted(PackedEnsemble(members=3, alpha=1.5, steps=0), model, x, y)
    assert len(start.theta.flatten(0, 1).unique(dim=0)) == 6  # every member of each replica has its own start
    found = fitted(method, model, x, y)(x)
    small = MLP(features=2, hidden=(5, 3), noise_std=0.3, prior_std=1.3)
    for replica in range(2):
        layers = [
            (weight.mT.flatten(0, 1).unsqueeze(-1).requires_grad_(), bias.flatten().requires_grad_())
            for weight, bias in small.weights(start.theta[replica].clone())
        ]
        leaves = [part for layer in layers for part in layer]
        optimizer = torch.optim.Adam(leaves, lr=0.02)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        for _ in range(40):
            optimizer.zero_grad()
            error = (grouped(small, layers, x[replica]) - y[replica]).square().sum() / (2 * 0.3**2)
            (error + sum(leaf.square().sum() for leaf in leaves) / (2 * 1.3**2)).backward()
            optimizer.step()
            schedule.step()
        f = grouped(small, layers, x[replica]).detach()
        assert torch.allclose(found.location[replica], f, atol=1e-4)
        assert torch.allclose(found.f.mean[replica], f.mean(0).double(), atol=1e-4)
    assert found.noise_std.item() == pytest.approx(0.3)


def test_each_member_has_minibatches_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one start, members part where a batch is not all of the data. Seen to catch: one index for all members."""
    model, (x, y) = MLP(features=2, hidden=(6,), noise_std=0.3), data()
    init = MLP.init
    monkeypatch.setattr(
        MLP, "init", lambda self, stream, shape: init(self, stream, shape)[:, :1].repeat(1, shape[1], 1)
    )
    for batch, alike in ((24, True), (6, False)):
        theta = fitted(PackedEnsemble(members=2, steps=5, lr=0.02, batch=batch), model, x, y).theta
        assert torch.allclose(theta[:, 0], theta[:, 1], atol=1e-4) == alike


@pytest.mark.parametrize("alpha", [0.99, 0.0, -2.0, math.nan, math.inf])
def test_members_narrower_than_a_share_are_refused(alpha: float) -> None:
    """Seen to catch: nan and inf let through."""
    with pytest.raises(ValueError, match=f"PackedEnsemble: alpha = {alpha}: expected a finite number of at least 1"):
        PackedEnsemble(alpha=alpha)


def test_a_network_without_hidden_layers_is_skipped() -> None:
    """And what is no MLP; what DeepEnsemble skips, too. Seen to catch: each of the three left out."""
    x, other = torch.zeros(1, 6, 1), SimpleNamespace(hidden=(5,))
    assert "SimpleNamespace: expected an MLP" in str(PackedEnsemble().skip(other, x))  # type: ignore[arg-type]
    assert "hidden = (): expected at least one" in str(PackedEnsemble().skip(MLP(hidden=()), x))
    assert "shared equally by 4 members" in str(PackedEnsemble(own_data=True).skip(MLP(), x))
    assert PackedEnsemble().skip(MLP(hidden=(1,)), x) is None
