"""Monte-Carlo dropout and concrete dropout: limits, and the variance that masks make, in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from gapbench.methods.concrete_dropout import ConcreteDropout, hard_masks, log_prior
from gapbench.methods.engine.exactness import example
from gapbench.methods.engine.minibatches import FixedSize, gather_points
from gapbench.methods.engine.model import ACTIVATIONS, MLP
from gapbench.methods.engine.optimise import minimise, negative_log_posterior
from gapbench.methods.mc_dropout import Dropout, MCDropout

Seeded = Callable[[int], Generator]
BRIEF = MCDropout(rate=0.3, steps=5, batch=8, draws=3000)  # barely trained: the masks' law holds at any θ


def data(generator: Generator, replicas: int = 16, n: int = 20) -> tuple[Tensor, Tensor]:
    x = 8 * torch.rand(replicas, n, 1, generator=generator) - 4
    return x, x[..., 0].sin()


def grid(replicas: int, points: int = 41) -> Tensor:  # (R, M, 1)
    return torch.linspace(-4, 4, points).view(1, -1, 1).expand(replicas, -1, -1)


def mask_variance(model: MLP, theta: Tensor, x: Tensor, rate: float) -> Tensor:
    """Var f(x) over the masks of one hidden layer: Σⱼ (wⱼ hⱼ)² rate/(1 − rate), (R, M)."""
    (inner, bias), (outer, _) = model.weights(theta.double())
    h = ACTIVATIONS[model.activation](x.double() @ inner + bias.unsqueeze(-2))
    terms = h * outer.squeeze(-1).unsqueeze(-2) / np.sqrt(model.hidden[0])  # (R, M, width)
    return terms.square().sum(-1) * rate / (1 - rate)


def test_on_linear_regression_it_is_the_posterior_mean(seeded: Seeded) -> None:
    """No hidden layer, no mask: MAP, which is the posterior's mean, with no spread at all. On all data to 1 % of a
    posterior std; on minibatches, which leave each of 16 repeats a scatter below 16 %, to 5 % and 4 standard errors.

    Seen to catch: likelihood not rescaled, prior forgotten or counted n times, a step that is not annealed.
    """
    regression = example()
    x, y = regression.stack(16)
    for batch in (20, 5):
        method = MCDropout(rate=0.5, steps=1000, lr=0.1, batch=batch, draws=4)
        predictor = method.fit(regression.model, x, y, seeded(0))
        errors = predictor.theta.double().numpy() - regression.posterior.mean
        errors /= np.sqrt(np.diag(regression.posterior.covariance))
        if batch == 20:
            assert np.abs(errors).max() < 0.01
        assert (errors.std(0) < 0.16).all() and (np.abs(errors.mean(0)) < 0.05 + errors.std(0)).all()
        assert predictor(x).f.std.max() == 0


def test_a_rate_of_zero_is_map(seeded: Seeded) -> None:
    """Bit for bit what `minimise` finds of the negative log posterior on the same batches, and no spread. Seen to
    catch: masks at rate 0 all the same, with units dropped or without (the stream moves)."""
    model = MLP(hidden=(6, 5))
    x, y = data(seeded(0), 2)
    method = MCDropout(rate=0.0, steps=100, batch=8, draws=3)
    predictor = method.fit(model, x, y, seeded(1))

    generator = seeded(1)
    batches = FixedSize().draw((2,), 8, 20, generator)

    def loss(theta: Tensor) -> Tensor:
        index = next(batches).index
        likelihood = model.log_likelihood(theta, gather_points(x, index), gather_points(y, index))
        return negative_log_posterior(likelihood, model.log_prior(theta), 20)

    theta, _ = minimise(loss, model.init(generator, (2,)), 100, method.lr)
    assert torch.equal(predictor.theta, theta)
    assert predictor(x).f.std.max() == 0
    torch.testing.assert_close(predictor(x).f.mean, model.mean(theta, x).double())


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.8])
def test_the_variance_over_masks_has_a_closed_form(seeded: Seeded, rate: float) -> None:
    """One hidden layer: Var f = Σⱼ (wⱼ hⱼ)² rate/(1 − rate) and the mean is the network's own, at every x. 16 networks
    repeat the experiment: 5 standard errors of their ratios (means: of the draws) are allowed.

    Seen to catch: masks not divided by 1 − rate, rate taken for the probability of keeping, the input masked too, one
    mask for a whole layer, the same masks in every draw.
    """
    model = MLP(hidden=(30,))
    x, y = data(seeded(0))
    predictor = replace(BRIEF, rate=rate).fit(model, x, y, seeded(1))
    points = grid(16, 9)
    f = predictor(points).f
    expected = mask_variance(model, predictor.theta, points, rate)
    ratio = (f.std.square() / expected).mean(1)  # (R,)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / 4 and ratio.std() < 0.2
    z = (f.mean - model.mean(predictor.theta, points)) / (expected / BRIEF.draws).sqrt()
    assert z.abs().max() < 5 and 0.1 < z.square().mean() < 3  # 16 independent curves


def test_masks_of_draws_and_units_are_independent(seeded: Seeded) -> None:
    """Fractions kept, and no correlation between draws, units or replicas. Seen to catch: one mask for all replicas,
    for all units or for all draws."""
    x, y = data(seeded(0), 2)
    predictor = replace(BRIEF, draws=2000).fit(MLP(hidden=(6, 5)), x, y, seeded(1))
    for layer, width in enumerate((6, 5)):
        kept = torch.stack([masks[layer][:, 0] for masks in predictor.masks]).double()  # (S, R, width)
        assert kept.shape == (2000, 2, width)
        assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7])
        columns = (kept.flatten(1) > 0).double()
        assert (columns.mean(0) - 0.7).abs().max() < 5 * np.sqrt(0.3 * 0.7 / 2000)
        pairs = np.corrcoef(columns.T.numpy())[np.triu_indices(2 * width, 1)]
        assert np.abs(pairs).max() < 5 / np.sqrt(2000)


def convex(predictor: Dropout, rate: float) -> tuple[bool, bool]:
    """Whether Var f is convex in x: by the closed form on a grid, and by the draws at −3, 0 and 3, within 5 standard
    errors (a sampled variance is off by about √(2/S) of itself)."""
    exact = mask_variance(predictor.model, predictor.theta, grid(len(predictor.theta)), rate)
    second = exact[:, :-2] - 2 * exact[:, 1:-1] + exact[:, 2:]
    ends = torch.tensor([-3.0, 0.0, 3.0]).view(1, 3, 1).expand(len(predictor.theta), 3, 1)
    left, middle, right = predictor(ends).f.std.square().unbind(1)
    above = middle - (left + right) / 2
    allowed = 5 * np.sqrt(2 / len(predictor.masks)) * (middle.square() + (left.square() + right.square()) / 4).sqrt()
    return bool((second > -1e-9 * exact.max()).all()), bool((above < allowed).all())


def test_one_relu_layer_cannot_show_a_bump(seeded: Seeded) -> None:
    """Its variance is convex in x (Foong et al. 2020): in a gap it lies below the chord between the gap's ends. Two
    tanh units that cross 0 at the ends are the control, which has a bump and fails both checks. Seen to catch: the
    input masked too, one mask for the whole layer, an added noise that peaks at 0."""
    x, y = data(seeded(0))
    assert convex(BRIEF.fit(MLP(hidden=(30,)), x, y, seeded(1)), 0.3) == (True, True)

    model = MLP(hidden=(2,), activation="tanh")
    predictor = BRIEF.fit(model, x, y, seeded(1))
    bump = torch.tensor([2.0, 2.0, 6.0, -6.0, 1.0, 1.0, 0.0]).expand(16, -1)  # tanh(2(x + 3)), tanh(2(x − 3))
    assert convex(replace(predictor, theta=bump), 0.3) == (False, False)


def test_a_draw_is_a_function(seeded: Seeded) -> None:
    """The same masks at every x: chunks of x give the same draws. Seen to catch: masks drawn at prediction, a mask
    for every point."""
    model = MLP(hidden=(6, 5))
    x, y = data(seeded(0), 2)
    predictor = replace(BRIEF, draws=20).fit(model, x, y, seeded(1))
    points = grid(2)
    whole = predictor(points).location
    parts = torch.cat([predictor(part).location for part in points.split(7, 1)], 2)
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-5)
    assert torch.equal(whole, predictor(points).location)
    steps = (whole[:, :, 1:] - whole[:, :, :-1]).abs().amax()
    assert steps < 1.5  # continuous on a grid of step 0.2: a mask for every point jumps by several


def test_inputs_that_are_dropped_are_a_ridge(seeded: Seeded) -> None:
    """On a linear model: w = (XᵀX + rate/(1 − rate)·diag XᵀX + σ²Λ)⁻¹Xᵀy, and Var f = rate/(1 − rate)·Σ w² x². Sixteen
    repeats, to 4 standard errors and 1 %. Seen to catch: inputs dropped in prediction alone, the bias dropped, a mask
    for a whole batch that is not divided by 1 − rate."""
    model, rate = MLP(features=3, hidden=(), noise_std=0.5, scale_by_fan_in=False), 0.2
    x = torch.randn(1, 40, 3, generator=seeded(3)).repeat(16, 1, 1) * torch.tensor([1.0, 2.0, 0.5])
    y = x @ torch.tensor([1.0, -1.0, 2.0]) + 0.5
    method = MCDropout(rate=rate, inputs=True, steps=3000, lr=0.05, batch=40, draws=4000)
    fitted = method.fit(model, x, y, seeded(4))
    design = torch.cat([x[0], torch.ones(40, 1)], 1).double()
    gram = design.T @ design
    penalty = rate / (1 - rate) * gram.diagonal() * torch.tensor([1, 1, 1, 0])
    ridge = torch.linalg.solve(gram + torch.diag(penalty + 0.25 / model.prior_std**2), design.T @ y[0].double())
    theta = fitted.theta.double()
    assert ((theta.mean(0) - ridge).abs() < 0.01 + 4 * theta.std(0) / 4).all() and theta.std(0).max() < 0.1
    points = x[:, :5]
    exact = rate / (1 - rate) * (theta[:, None, :3] * points).square().sum(-1)
    assert torch.allclose(fitted(points).f.std.square(), exact, rtol=0.15)
    assert method.exactness is None and replace(method, inputs=False).exactness is not None


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_a_bad_rate_is_named(rate: float) -> None:
    with pytest.raises(ValueError, match="rate") as error:
        MCDropout(rate=rate)
    assert str(rate) in str(error.value)


def test_the_price_of_a_rate_is_that_of_the_paper(seeded: Seeded) -> None:
    """Σₗ [‖Wₗ‖²/(2τ²(1 − pₗ)) − Kₗ H(pₗ)] + the other weights' ‖·‖²/(2τ²), in plain numbers. Seen to catch: weights
    before a layer in place of those behind it, no 1/(1 − p), the entropy of one unit for a layer, its sign."""
    model, p = MLP(features=2, hidden=(4, 3)), np.array([0.2, 0.7])
    theta = model.sample_prior(seeded(0), (1,)).double()
    (first, second, third), biases = zip(*model.weights(theta), strict=True)
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    other = first.square().sum() + sum(bias.square().sum() for bias in biases)
    own = second.square().sum() / (1 - p[0]) + third.square().sum() / (1 - p[1])
    expected = -(other + own) / (2 * model.prior_std**2) + 4 * entropy[0] + 3 * entropy[1]
    logits = torch.tensor(p).logit().unsqueeze(0)
    constant = log_prior(MLP(features=2, hidden=()), torch.zeros(1, 3, dtype=torch.float64), torch.zeros(1, 0)) / 3
    found = log_prior(model, theta, logits) - constant * model.size
    torch.testing.assert_close(found, expected.view(1), rtol=1e-6, atol=1e-6)


def test_a_layer_that_the_data_do_not_use_drops_half_of_its_units(seeded: Seeded) -> None:
    """Without data the prior shrinks weights to 0, and the entropy is largest at 1/2. Seen to catch: rates that are not
    trained, an entropy with the other sign, a mask without 1/(1 − p)."""
    model = MLP(hidden=(10, 10), noise_std=1e4)
    x, y = data(seeded(0), 2)
    fit = ConcreteDropout(steps=800, lr=0.1, batch=20, draws=2).fit(model, x, y, seeded(1))
    assert (fit.diagnostics["dropout rate"] - 0.5).abs().max() < 0.01
    assert fit.theta.abs().max() < 0.1


def test_soft_masks_become_hard_ones(seeded: Seeded) -> None:
    """At a low temperature a unit is kept with probability 1 − p, and has 1/(1 − p) then; so it is in predictions. Seen
    to catch: p for 1 − p, masks that are not divided, one mask for all units, rates of another replica or layer."""
    model, p = MLP(hidden=(6, 5)), torch.tensor([[0.2, 0.6], [0.4, 0.1]])
    soft = ConcreteDropout(temperature=1e-4).soft_masks(model, p.logit(), (2, 4000), seeded(0))
    hard = [torch.cat(masks, 1) for masks in zip(*[hard_masks(model, p, seeded(s)) for s in range(4000)], strict=True)]
    for masks in (soft, hard):
        for layer, width in enumerate((6, 5)):
            assert masks[layer].shape == (2, 4000, width)
            for r in range(2):
                kept = masks[layer][r] > 0.5
                off = (masks[layer][r][kept] - 1 / (1 - p[r, layer])).abs()
                assert off.quantile(0.99) < 1e-3  # one soft mask in a thousand is neither
                allowed = 5 * float((p[r, layer] * (1 - p[r, layer]) / 4000).sqrt())
                assert ((kept.float().mean(0) - (1 - p[r, layer])).abs() < allowed).all()
                assert np.abs(np.corrcoef(kept.T.numpy())[np.triu_indices(width, 1)]).max() < 5 / np.sqrt(4000)
