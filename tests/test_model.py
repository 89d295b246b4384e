"""The model: one flat θ against torch.nn, torch.func and torch.distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor, nn
from torch.distributions import Normal

from gapbench.methods.engine.gradients import functional_gradients
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


def sequential(model: MLP, theta: Tensor) -> nn.Sequential:
    """The network of this θ (P,), read by hand: per layer the weights, input by input, and then the biases."""
    widths, modules, at = (model.features, *model.hidden, 1), [], 0
    for m, n in pairwise(widths):
        layer = nn.Linear(m, n, dtype=theta.dtype)
        scale = 1 / math.sqrt(m) if model.scale_by_fan_in else 1
        with torch.no_grad():
            layer.weight.copy_(scale * theta[at : at + m * n].reshape(m, n).T)
            layer.bias.copy_(theta[at + m * n : at + m * n + n])
        at += m * n + n
        modules += [layer, ACTIVATIONS[model.activation]()]
    assert at == len(theta)
    return nn.Sequential(*modules[:-1])


def problem(model: MLP, generator: Generator, lead: tuple[int, ...], n: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """theta (*lead, P), x (*lead, n, D), y (*lead, n) in float64."""
    return (
        torch.randn(*lead, model.size, generator=generator, dtype=torch.float64),
        torch.randn(*lead, n, model.features, generator=generator, dtype=torch.float64),
        torch.randn(*lead, n, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("hidden", [(), (4,), (4, 5, 6)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
@pytest.mark.parametrize("scaled", [True, False])
def test_the_mean_is_torch_nn(
    seeded: Callable[[int], Generator], scaled: bool, activation: str, hidden: tuple[int, ...], features: int
) -> None:
    """Seen to catch: √fan_out for √fan_in, biases scaled too, weights laid out (out, in), an activation after the
    last layer."""
    model = MLP(features=features, hidden=hidden, activation=activation, scale_by_fan_in=scaled)
    theta, x, _ = problem(model, seeded(0), ())
    torch.testing.assert_close(model.mean(theta, x), sequential(model, theta)(x).squeeze(-1))


@pytest.mark.parametrize("hidden", [(), (4, 5)])
def test_leading_dimensions_broadcast(seeded: Callable[[int], Generator], hidden: tuple[int, ...]) -> None:
    """A stack gives what each of its models gives alone. Seen to catch: a stack's leading dimensions flattened in
    the wrong order, the first replica's data for all."""
    model = MLP(features=2, hidden=hidden)
    theta, x, y = problem(model, seeded(0), (3,))
    draws = torch.randn(3, 4, model.size, generator=seeded(1), dtype=torch.float64)

    stack = model.mean(theta, x)  # (R, P), (R, N, D)
    assert stack.shape == (3, 5)
    posterior = model.mean(draws, x.unsqueeze(1))  # (R, S, P), (R, 1, N, D)
    assert posterior.shape == (3, 4, 5)
    shared = model.mean(theta, x[0])  # (R, P), (N, D)
    assert shared.shape == (3, 5)
    several = model.mean(theta[0], x)  # (P,), (R, N, D)
    likelihood, prior = model.log_likelihood(draws, x.unsqueeze(1), y.unsqueeze(1)), model.log_prior(draws)
    assert likelihood.shape == (3, 4, 5) and prior.shape == (3, 4)
    for r in range(3):
        torch.testing.assert_close(stack[r], model.mean(theta[r], x[r]))
        torch.testing.assert_close(shared[r], model.mean(theta[r], x[0]))
        torch.testing.assert_close(several[r], model.mean(theta[0], x[r]))
        for s in range(4):
            torch.testing.assert_close(posterior[r, s], model.mean(draws[r, s], x[r]))
            torch.testing.assert_close(likelihood[r, s], model.log_likelihood(draws[r, s], x[r], y[r]))
            torch.testing.assert_close(prior[r, s], model.log_prior(draws[r, s]))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("hidden", [(), (4,), (6, 5)])
@pytest.mark.parametrize(("activation", "scaled"), [("relu", True), ("tanh", True), ("silu", False)])
@pytest.mark.parametrize(
    ("noise", "outputs"),
    [(0.3, 1), (0.3, 2), (LearnedNoise(0.4, 0.7), 1), (HeteroscedasticNoise(0.4, 0.3), 1), (HeteroscedasticNoise(), 3)],
)
def test_per_sample_gradients_are_autograds(
    seeded: Callable[[int], Generator],
    noise: float | Noise,
    outputs: int,
    activation: str,
    scaled: bool,
    hidden: tuple[int, ...],
    lead: tuple[int, ...],
) -> None:
    """Norms and weighted sums against vmap(grad) of −log_likelihood, one sample at a time. Seen to catch: the scale
    left out of the norm or of the sum, the bias left out of the norm, noise in place of noise², the mean over the
    batch in place of the sum, `out` overwritten; of the noise: its entry left out of the norm, prior_std forgotten,
    the spread forgotten, e² for e²/σ². The default of torch.func, too. The bound of norms exceeds none, and is the
    norm of a single point; seen to catch: the largest layer alone, the noise's entry left out."""
    model = MLP(
        features=2,
        hidden=hidden,
        activation=activation,  # type: ignore[arg-type]
        scale_by_fan_in=scaled,
        noise_std=noise,
        outputs=outputs,
        prior_std=0.8,
    )
    theta, x, y = problem(model, seeded(0), lead, n=7)
    weights = torch.rand(*lead, 7, generator=seeded(1), dtype=torch.float64)

    def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return -model.log_likelihood(theta, x[None], y[None]).sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))  # over the batch
    for _ in lead:
        each = torch.func.vmap(each)
    expected = each(theta, x, y)  # (*lead, B, P)
    for gradients in (model.per_sample_gradients(theta, x, y), functional_gradients(model, theta, x, y)):
        torch.testing.assert_close(gradients.norms, expected.norm(dim=-1), rtol=1e-5, atol=1e-8)
        assert gradients.points == 7 and (gradients.norm_bound >= gradients.norms.amax(-1) * (1 - 1e-9)).all()
        for some in (weights, None):
            out = torch.ones(*lead, model.size, dtype=torch.float64)
            gradients.add_weighted_sum(some, out)
            each_weight = torch.ones_like(weights) if some is None else some
            sums = (each_weight.unsqueeze(-1) * expected).sum(-2)
            torch.testing.assert_close(out, 1 + sums, rtol=1e-5, atol=1e-8)
    for of in (model.per_sample_gradients, lambda *one: functional_gradients(model, *one)):
        one = of(theta, x[..., :1, :], y[..., :1])
        torch.testing.assert_close(one.norm_bound, one.norms[..., 0], rtol=1e-9, atol=1e-12)
    # The log likelihood of a loss, whose backward is the same book-keeping.
    theta.requires_grad_()
    said = model.training_log_likelihood(theta, x, y)
    torch.testing.assert_close(said, model.log_likelihood(theta, x, y), rtol=1e-6, atol=1e-8)
    [gradient] = torch.autograd.grad((weights * said).sum(), theta)
    torch.testing.assert_close(gradient, -(weights.unsqueeze(-1) * expected).sum(-2), rtol=1e-5, atol=1e-8)


def test_densities_are_torch_distributions(seeded: Callable[[int], Generator]) -> None:
    """With their constants, which evidence and comparisons of models need. Seen to catch: log noise left out, the
    prior's constant counted once and not P times."""
    model = MLP(features=2, hidden=(3,), prior_std=0.7, noise_std=0.4)
    theta, x, y = problem(model, seeded(0), (3,))
    torch.testing.assert_close(model.log_likelihood(theta, x, y), Normal(model.mean(theta, x), 0.4).log_prob(y))
    torch.testing.assert_close(model.log_prior(theta), Normal(0.0, 0.7).log_prob(theta).sum(-1))
    assert model.noise(theta, x).broadcast_to(y.shape).unique().item() == 0.4


def test_a_learned_noise_is_in_the_likelihood(seeded: Callable[[int], Generator]) -> None:
    """One σ for all points, the last entry of θ, of log-normal prior; or a σ at each x, from the second output. Seen to
    catch: the first output read for the second, the center not in the exponent's units, prior_std forgotten."""
    one = MLP(features=2, hidden=(3,), prior_std=0.7, noise_std=LearnedNoise(0.3, 0.5))
    theta, x, y = problem(one, seeded(0), (3,))
    sigma = 0.3 * (0.5 * theta[:, -1:] / 0.7).exp()
    expected = Normal(sequential(replace(one, noise_std=0.1), theta[0, :-1])(x[0]).squeeze(-1), sigma[0]).log_prob(y[0])
    torch.testing.assert_close(one.log_likelihood(theta, x, y)[0], expected)
    logs = (one.noise(one.sample_prior(seeded(1), (20_000,)), x[0]) / 0.3).log().flatten().double() / 0.5
    assert stats.kstest(logs.numpy(), "norm").pvalue > 1e-4

    each = MLP(features=2, hidden=(3,), noise_std=HeteroscedasticNoise(0.3, 0.5))
    theta, x, y = problem(each, seeded(0), (3,))
    assert each.size == one.size - 1 + 4 and each.network(theta, x).shape == (3, 5, 2)
    f, g = each.network(theta, x).unbind(-1)
    torch.testing.assert_close(each.log_likelihood(theta, x, y), Normal(f, 0.3 * (g / 2).exp()).log_prob(y))
    torch.testing.assert_close(each.noise(theta, x), 0.3 * (g / 2).exp())


def test_a_method_gets_the_outputs_it_asks_for(seeded: Callable[[int], Generator]) -> None:
    """f is the first of them. The last hidden layer times the last weights is all of them. Seen to catch: outputs not
    counted in the size, f taken from the last, the hidden layer before its activation."""
    model = MLP(features=2, hidden=(4, 3)).with_outputs(3)
    theta, x, _ = problem(model, seeded(0), (2,))
    outputs = model.network(theta, x)
    assert outputs.shape == (2, 5, 3) and torch.equal(model.mean(theta, x), outputs[..., 0])
    weight, bias = model.weights(theta)[-1]
    hidden = model.last_hidden(theta, x)
    assert hidden.shape == (2, 5, 3) and (hidden >= 0).all()
    torch.testing.assert_close(outputs, hidden @ weight / math.sqrt(3) + bias.unsqueeze(-2))
    assert torch.equal(MLP(features=2, hidden=()).last_hidden(theta[..., :3], x), x)


def test_perturb_reaches_each_hidden_layer_once(seeded: Callable[[int], Generator]) -> None:
    """After its activation, with its index, and never the output. Seen to catch: the perturbation before the
    activation, its result thrown away, one more after the last layer."""
    model = MLP(features=2, hidden=(4, 3))
    theta, x, y = problem(model, seeded(0), ())
    seen: list[tuple[int, tuple[int, ...]]] = []

    def double(h: Tensor, layer: int) -> Tensor:
        assert (h >= 0).all()
        seen.append((layer, tuple(h.shape)))
        return h * 2 - 1

    network = sequential(model, theta)
    h = x
    for module in network:
        h = module(h)
        h = h * 2 - 1 if isinstance(module, nn.ReLU) else h
    torch.testing.assert_close(model.mean(theta, x, double), h.squeeze(-1))
    assert seen == [(0, (5, 4)), (1, (5, 3))]
    torch.testing.assert_close(
        model.log_likelihood(theta, x, y, double), Normal(h.squeeze(-1), model.noise_std).log_prob(y)
    )


def test_the_default_init_is_torchs(seeded: Callable[[int], Generator], own_randomness: None) -> None:
    """nn.Linear's distribution, layer by layer: 4,000 numbers and more a part, in a two-sample test. Seen to catch:
    √fan_out for √fan_in, biases at 0, U(0, 1/√fan_in), the prior."""
    model = MLP(features=3, hidden=(10, 7), scale_by_fan_in=False, default_init=True)
    theta = model.init(seeded(0), (2, 2000))
    assert theta.shape == (2, 2000, model.size)
    ours = model.weights(theta)
    for m, n, (weight, bias) in zip((3, 10, 7), (10, 7, 1), ours, strict=True):
        stock = [nn.Linear(m, n) for _ in range(400)]
        for values, references in (
            (weight, [layer.weight for layer in stock]),
            (bias, [layer.bias for layer in stock]),
        ):
            reference = torch.cat([part.detach().flatten() for part in references])
            assert values.abs().max() <= 1 / math.sqrt(m)
            assert stats.ks_2samp(values.flatten().numpy(), reference.numpy()).pvalue > 1e-4


def test_the_prior_is_isotropic(seeded: Callable[[int], Generator]) -> None:
    """N(0, prior_std²) on every number of θ, and where training starts unless told otherwise; 200,000 numbers.
    Seen to catch: prior_std² for prior_std."""
    model = MLP(hidden=(4,), prior_std=0.6)
    draws = model.sample_prior(seeded(0), (200, 1000 // model.size + 1))
    assert stats.kstest(draws.flatten().numpy(), "norm", (0, 0.6)).pvalue > 1e-4
    assert torch.equal(model.init(seeded(0), draws.shape[:2]), draws)
    assert torch.equal(model.init(seeded(0), (2, 3)), model.init(seeded(0), (2, 3)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prior_std", 0.0),
        ("noise_std", -1.0),
        ("noise_std", float("nan")),
        ("outputs", 0),
        ("features", 0),
        ("hidden", (5, 0)),
        ("activation", "gelu"),
        ("default_init", True),
    ],
)
def test_a_bad_field_is_named_with_its_value(field: str, value: object) -> None:
    with pytest.raises(ValueError) as error:
        MLP(**{field: value})  # type: ignore[arg-type]
    assert field in str(error.value) and str(value) in str(error.value)
    with pytest.raises(ValueError, match=r"center = -1"):
        LearnedNoise(-1)
