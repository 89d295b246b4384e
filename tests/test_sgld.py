"""SGLD: step for step against stock Opacus, its accounting, its exact stationary law, independence, and limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from opacus.accountants import PRVAccountant
from torch import Generator, Tensor, nn
from torch.distributions import Normal
from torch.utils.data import DataLoader, TensorDataset

from gapbench.evaluation.conformance import exact
from gapbench.methods.engine.exactness import Gaussian, LinearRegression, example
from gapbench.methods.engine.gradients import MLPGradients
from gapbench.methods.engine.minibatches import Batch, FixedSize, Minibatches, OpacusLoader, Poisson
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.engine.stationary_law import stationary_law
from gapbench.methods.sgld import SGLD

Seeded = Callable[[int], Generator]


@dataclass(frozen=True)
class Replay(Minibatches):
    """Batches that were recorded elsewhere, with the rate and divisor of the scheme that drew them."""

    like: Minibatches
    batches: tuple[Batch, ...]

    def rate(self, batch: int, n: int) -> float:
        return self.like.rate(batch, n)

    def divisor(self, batch: int, n: int) -> int:
        return self.like.divisor(batch, n)

    def draw(self, shape: Sequence[int], batch: int, n: int, generator: Generator) -> Iterator[Batch]:
        return iter(self.batches)


def langevin_noise(method: SGLD, n: int, model: MLP, replicas: int, steps: int, generator: Generator) -> Tensor:
    """(steps, R, chains, P) of std 1: what `fit` draws from this generator's numbers after the initial θ, if its
    batches need none (replayed, or everything): Opacus's N(0, (σC)²), a stack at a time."""
    model.init(generator, (replicas, method.chains))
    std = method.noise_multiplier * method.max_grad_norm(n)
    shape = (replicas, method.chains, model.size)
    return torch.stack([torch.normal(0, std, shape, generator=generator) / std for _ in range(steps)])


def sine(generator: Generator, replicas: int, n: int) -> tuple[Tensor, Tensor]:
    x = 8 * torch.rand(replicas, n, 1, generator=generator) - 4
    return x, x[..., 0].sin()


# 1. Step for step against the stock library


@dataclass
class StockRun:
    batches: list[Tensor]  # positions, one tensor a step
    theta: Tensor  # (steps, P) in our order
    norms: Tensor  # of every per-sample gradient that was taken
    noise_std: float


def flat(network: nn.Module) -> Tensor:
    """Our θ: per layer the weight, input by input, and then the bias. nn.Linear's weight is the transpose."""
    return torch.cat([(part.mT if part.ndim == 2 else part).detach().flatten() for part in network.parameters()])


def served(noise: Tensor, stds: list[float]) -> Callable[..., Tensor]:
    """Opacus's _generate_noise from noise (steps, P) of std 1, for an optimiser that asks parameter by parameter."""
    at = 0

    def generate_noise(std: float, reference: Tensor, generator: object = None, secure_mode: bool = False) -> Tensor:
        nonlocal at
        part = noise.flatten()[at : at + reference.numel()]
        at += reference.numel()
        stds.append(std)
        return std * (part.view(reference.shape[::-1]).T if reference.ndim == 2 else part)

    return generate_noise


def stock_run(
    model: MLP, method: SGLD, theta: Tensor, x: Tensor, y: Tensor, noise: Tensor, monkeypatch: pytest.MonkeyPatch
) -> StockRun:
    """The notebook's loop: MSE, SGD with weight decay, PrivacyEngine.make_private. x (N, 1), y (N,)."""
    n, widths, modules = len(y), (1, *model.hidden, 1), []
    for m, k, (weight, bias) in zip(widths, widths[1:], model.weights(theta), strict=False):
        layer = nn.Linear(m, k)
        layer.load_state_dict({"weight": weight.T, "bias": bias})
        modules += [layer, nn.ReLU()]
    network = nn.Sequential(*modules[:-1])
    loader = DataLoader(TensorDataset(x, y.unsqueeze(-1), torch.arange(n)), batch_size=method.batch)
    network, optimizer, loader = PrivacyEngine().make_private(
        module=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=method.lr, weight_decay=1 / (n * model.prior_std**2)),
        data_loader=loader,
        noise_multiplier=method.noise_multiplier,
        max_grad_norm=method.max_grad_norm(n),
        poisson_sampling=True,
    )
    stds: list[float] = []
    monkeypatch.setattr("opacus.optimizers.optimizer._generate_noise", served(noise, stds))
    batches, thetas, norms = [], [], []
    while len(thetas) < len(noise):
        for inputs, targets, positions in islice(loader, len(noise) - len(thetas)):
            optimizer.zero_grad()
            nn.functional.mse_loss(network(inputs), targets).backward()
            samples = torch.cat([part.flatten(1) for part in optimizer.grad_samples], 1)
            norms.append(samples.norm(dim=1))
            optimizer.step()
            batches.append(positions)
            thetas.append(flat(network))
    (std,) = set(stds)
    return StockRun(batches, torch.stack(thetas), torch.cat(norms), std)


def padded(batches: list[Tensor]) -> tuple[Batch, ...]:
    """As one replica and one chain draws them."""
    widest = max(len(batch) for batch in batches)
    index = [torch.cat([batch, batch.new_zeros(widest - len(batch))]) for batch in batches]
    present = [(torch.arange(widest) < len(batch)).float() for batch in batches]
    return tuple(Batch(i.view(1, 1, -1), p.view(1, 1, -1)) for i, p in zip(index, present, strict=True))


@pytest.mark.filterwarnings("ignore:Secure RNG turned off:UserWarning")
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize(
    ("n", "batch", "lr", "noise_multiplier"),
    [
        pytest.param(1000, 16, 1e-2, 1.0, id="the notebook's"),
        pytest.param(8, 2, 1e-3, 3.0, id="with empty batches"),
    ],
)
def test_every_step_is_stock_opacus_step(
    n: int,
    batch: int,
    lr: float,
    noise_multiplier: float,
    seeded: Seeded,
    own_randomness: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """θ after each of 126 steps, on the stock loader's batches and the same noise, with clips active: to 1e-5, with
    the same number of clips and the same noise std.

    Seen to catch: division by n or by the batch's own size, weight decay 1/prior_std² or 1/(n·prior_std) or none,
    padding not masked, no clip, noise of std C, noise 1 % too large or none, drift doubled.
    """
    model = MLP(
        hidden=(100, 100),
        scale_by_fan_in=False,
        default_init=True,
        prior_std=math.sqrt(10),
        noise_std=math.sqrt(0.5),  # so that −log p(y | x, θ) is (y − f)² + a constant, the notebook's loss
    )
    x, y = sine(seeded(1), 1, n)
    method = SGLD(
        lr=lr,
        batch=batch,
        noise_multiplier=noise_multiplier,
        allow_clipping=True,
        burn_in=0,
        draws=126,
        thin=1,
        chains=1,
        sampling=OpacusLoader(),
    )
    noise = langevin_noise(method, n, model, 1, 126, seeded(0))[:, 0, 0]
    stock = stock_run(model, method, model.init(seeded(0), (1, 1))[0, 0], x[0], y[0], noise, monkeypatch)
    assert (min(len(positions) for positions in stock.batches) == 0) == (n == 8)

    ours = replace(method, sampling=Replay(OpacusLoader(), padded(stock.batches))).fit(model, x, y, seeded(0))

    torch.testing.assert_close(ours.theta[0], stock.theta, rtol=0, atol=1e-5)
    assert (stock.theta[-1] - stock.theta[0]).abs().max() > 0.1
    clipped = (stock.norms > method.max_grad_norm(n)).float().mean()
    assert 0.1 < clipped < 0.9
    torch.testing.assert_close(ours.diagnostics["clipped fraction"][0], clipped.double())
    assert stock.noise_std == method.noise_multiplier * method.max_grad_norm(n)


# 2. Accounting


def notebook(**changes: object) -> SGLD:
    """100 epochs of 63 batches, one model kept after each."""
    settings = {"lr": 0.01, "batch": 16, "noise_multiplier": 1.0, "sampling": OpacusLoader()}
    return SGLD(**{**settings, "temperature": 1.0, "burn_in": 0, "draws": 100, "thin": 63, "chains": 1, **changes})


def test_the_notebooks_accounting() -> None:
    """ε: the notebook printed 8.18112861. C, temperatures: arithmetic from b = 16, q = 1/63, ⌊nq⌋ = 15.

    Seen to catch: q = b/n, draws counted for steps, burn-in not counted, C from the divisor, σC for σ, the temperatures
    swapped, a likelihood temperature that ignores the rate.
    """
    method = notebook()
    assert method.steps == 6300
    assert method.epsilon(1000) == pytest.approx(8.18112861, abs=1e-3)
    assert method.max_grad_norm(1000) == pytest.approx(16 * math.sqrt(2) / math.sqrt(0.01 * 1000))
    assert method.max_grad_norm(1000) == pytest.approx(7.1554, abs=1e-4)
    assert method.temperatures(1000) == pytest.approx((1.0752, 1.1378), abs=1e-4)
    assert notebook(burn_in=3150, draws=50).epsilon(1000) == method.epsilon(1000)


def test_the_rule_here_has_temperature_one() -> None:
    """Sample at b/n, divide by b. Seen to catch: Poisson's divisor ⌊0.95 b⌋."""
    for sampling in (Poisson(), FixedSize()):
        assert notebook(sampling=sampling).temperatures(1000) == pytest.approx((1, 1))
    assert notebook(sampling=Poisson()).epsilon(1000) == pytest.approx(8.2586, abs=1e-3)


def test_epsilon_is_what_the_accountant_says_step_by_step() -> None:
    """Driven through .step(), as PrivacyEngine drives it. Seen to catch: σC for σ, q = b/n, δ fixed at 1e-5."""
    accountant = PRVAccountant()
    for _ in range(6300):
        accountant.step(noise_multiplier=1.0, sample_rate=1 / 63)
    assert notebook().epsilon(1000) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    assert notebook(delta=1e-3).epsilon(1000) == pytest.approx(accountant.get_epsilon(1e-3), rel=1e-9)


def test_epsilon_composes_over_chains() -> None:
    """Four chains look at the same data. Seen to catch: chains not counted."""
    assert notebook(chains=4).epsilon(1000) == pytest.approx(19, abs=0.5)


def test_hotter_steps_spend_less() -> None:
    """At temperature T the noise is √T times larger, and the accountant is told so. Seen to catch: σ for σ√T, T for √T,
    a stage left out."""
    accountant, method = PRVAccountant(), notebook(temperature=4.0, burn_in=3000, draws=50, sampling=Poisson())
    for t, steps in ((4, 1000), (2, 1000), (1, 1000 + 50 * 63)):
        for _ in range(steps):
            accountant.step(noise_multiplier=math.sqrt(t), sample_rate=16 / 1000)
    assert method.epsilon(1000) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-6)
    assert method.epsilon(1000) < 0.95 * replace(method, temperature=1.0).epsilon(1000)


def test_no_guarantee_is_infinite() -> None:
    """Where batches are not Poisson's, and where ε is beyond any meaning: the PRV accountant, which would not come
    back for minutes, must not even be asked. Seen to catch: ε of any sampling, the RDP bound left out."""
    assert notebook(sampling=FixedSize()).epsilon(1000) == math.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PRVAccountant, "get_epsilon", lambda *_: pytest.fail("asked the PRV accountant"))
        for sampling in (Poisson(), OpacusLoader()):
            assert notebook(sampling=sampling, noise_multiplier=0.01).epsilon(1000) == math.inf
            assert notebook(sampling=sampling, noise_multiplier=0.3, draws=20_000).epsilon(1000) == math.inf


# 3. The exact stationary law on linear regression


def law_of(method: SGLD, regression: LinearRegression) -> Gaussian:
    return stationary_law(regression, method.lr, method.batch, method.sampling)


def test_on_all_data_the_law_is_that_of_unadjusted_langevin() -> None:
    """The posterior's mean, and Σₖ vₖvₖᵀ / (λₖ(1 − ελₖ/2)) over the eigenpairs of Λ; and the posterior's as ε goes to
    0. Seen to catch: ε for ε/2, the noise of batches added at b = n."""
    regression = example()
    values, vectors = np.linalg.eigh(regression.precision)
    for sampling in (FixedSize(), Poisson(), OpacusLoader()):
        law = law_of(SGLD(lr=3.0, batch=20, sampling=sampling), regression)
        np.testing.assert_allclose(law.mean, regression.posterior.mean, rtol=1e-9)
        langevin = (vectors / (values * (1 - 0.15 * values / 2))) @ vectors.T
        np.testing.assert_allclose(law.covariance, langevin, rtol=1e-7, atol=1e-9)
    near = law_of(SGLD(lr=1e-6, batch=5), regression).covariance
    np.testing.assert_allclose(near, regression.posterior.covariance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sampling", [FixedSize(), Poisson(), OpacusLoader()], ids=repr)
def test_the_law_is_kept_by_a_step_over_every_batch(sampling: Minibatches) -> None:
    """Mean and covariance after one step from the law itself, summed over all batches that there are with their
    probabilities, are the law's. Seen to catch: n/(n − 1) left out, Poisson's for batches of a fixed size, the divisor
    b for OpacusLoader's."""
    regression = example(n=6)
    design, targets, noise = regression.design, regression.targets, regression.noise_std
    method = SGLD(lr=0.9, batch=4, sampling=sampling)  # ε = 0.15
    law, step, rate, divisor = law_of(method, regression), 0.15, sampling.rate(4, 6), sampling.divisor(4, 6)
    mean, covariance, total = np.zeros(3), 2 * step * (4 / divisor) ** 2 * np.eye(3), 0.0
    for chosen in product([0, 1], repeat=6):
        size = sum(chosen)
        fixed = (size == 4) / math.comb(6, 4)
        probability = fixed if isinstance(sampling, FixedSize) else rate**size * (1 - rate) ** (6 - size)
        weights = np.array(chosen) * 6 / divisor / noise**2
        drift = np.eye(3) / regression.model.prior_std**2 + design.T @ (weights[:, None] * design)
        kept = np.eye(3) - step * drift
        after = kept @ law.mean + step * design.T @ (weights * targets)
        total, mean = total + probability, mean + probability * after
        covariance += probability * (kept @ law.covariance @ kept.T + np.outer(after - law.mean, after - law.mean))
    assert total == pytest.approx(1)
    np.testing.assert_allclose(mean, law.mean, rtol=1e-9)
    np.testing.assert_allclose(covariance, law.covariance, rtol=1e-9, atol=1e-12)


def test_what_it_claims_is_unclipped() -> None:
    """Also for an instance whose σ would clip everything there. Seen to catch: the instance's own σ."""
    exact(SGLD(noise_multiplier=10.0))


@pytest.mark.parametrize(
    ("sampling", "batch"), [(FixedSize(), 20), (FixedSize(), 5), (Poisson(), 5), (OpacusLoader(), 6)]
)
def test_the_stationary_law_is_exact(seeded: Seeded, sampling: Minibatches, batch: int) -> None:
    """Mean and covariance of θ at a step so large (ε λ_max / 2 = 0.38) that they are far from the posterior's.

    128 replicas repeat the experiment; allowed: 5·std across replicas/√R + 5 % of the posterior's own scale. A
    right sampler uses about 0.15 of that. Plain posterior and the other sampling's law are asserted to lie outside.

    Seen to catch, each in all four cases: noise √2 too large, noise 10 % too large, no noise, the likelihood's drift
    doubled, the step doubled, prior forgotten, 1/(n·prior_std) or 1/prior_std² for 1/(n·prior_std²). In the three with
    minibatches also: likelihood not rescaled (n/b). In its own: padding not masked (Poisson), C from the divisor.
    """
    regression, replicas = example(), 128
    n = len(regression.y)
    method = SGLD(lr=3.0, batch=batch, temperature=1.0, burn_in=200, draws=600, thin=5, chains=1, sampling=sampling)
    x, y = regression.stack(replicas)
    predictor = method.fit(regression.model, x, y, seeded(0))
    assert not predictor.failures
    law, posterior = law_of(method, regression), regression.posterior.covariance

    deviations = predictor.theta.double().numpy() - law.mean  # (R, S, P)
    means = deviations.mean(1)
    covariances = np.einsum("rsi,rsj->rij", deviations, deviations) / deviations.shape[1]
    variances = np.diag(posterior)
    near = 5 * means.std(0) / np.sqrt(replicas) + 0.05 * np.sqrt(variances)
    alike = 5 * covariances.std(0) / np.sqrt(replicas) + 0.05 * np.sqrt(np.outer(variances, variances))
    assert (np.abs(means.mean(0)) < near).all()
    assert (np.abs(covariances.mean(0) - law.covariance) < alike).all()

    others = [posterior]
    if batch < n:
        other = FixedSize() if sampling != FixedSize() else Poisson()
        for another in (replace(method, batch=n, sampling=FixedSize()), replace(method, sampling=other)):
            others.append(law_of(another, regression).covariance)
    for covariance in others:
        assert (np.abs(law.covariance - covariance) > 2 * alike).any()


# 4. Replicas and chains are independent to the bit


CLIPPED = SGLD(
    lr=0.05,
    batch=4,
    noise_multiplier=3.0,
    allow_clipping=True,
    burn_in=0,
    draws=10,
    thin=1,
    chains=2,
    sampling=Poisson(),
)


def moved_by_the_others_data(seeded: Seeded) -> bool:
    """Whether replica 0's draws change when the other replicas get other data."""
    model = MLP(hidden=(5,))
    x, y = sine(seeded(0), 3, 12)
    other_x, other_y = x.clone(), y.clone()
    other_x[1:], other_y[1:] = 2 - x[1:], y[1:] + 5
    one, other = CLIPPED.fit(model, x, y, seeded(1)), CLIPPED.fit(model, other_x, other_y, seeded(1))
    assert (one.diagnostics["clipped fraction"] > 0.1).all()
    assert not torch.equal(one.theta[1:], other.theta[1:])
    return not torch.equal(one.theta[0], other.theta[0])


def test_replicas_do_not_see_each_other(seeded: Seeded) -> None:
    assert not moved_by_the_others_data(seeded)


def test_joint_clipping_would_be_seen(seeded: Seeded, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stock DPOptimizer does to a stack, silently: one norm per sample over all replicas and chains."""
    own = MLPGradients.norms.fget

    def joint(gradients: MLPGradients) -> Tensor:
        norms = own(gradients)  # (R, chains, B)
        return norms.square().sum((0, 1), keepdim=True).sqrt().expand_as(norms)

    monkeypatch.setattr(MLPGradients, "norms", property(joint))
    assert moved_by_the_others_data(seeded)


@dataclass(frozen=True, kw_only=True)
class Displaced(MLP):
    """Chain 1 starts elsewhere."""

    def init(self, generator: Generator, shape: Sequence[int]) -> Tensor:
        start = super().init(generator, shape)
        start[:, 1] += 3
        return start


def test_chains_do_not_see_each_other(seeded: Seeded) -> None:
    """Seen to catch: norms over the last two dimensions, one clip factor for all chains."""
    x, y = sine(seeded(0), 2, 12)
    one = CLIPPED.fit(MLP(hidden=(5,)), x, y, seeded(1)).theta.unflatten(1, (2, 10))  # (R, chains, draws, P)
    other = CLIPPED.fit(Displaced(hidden=(5,)), x, y, seeded(1)).theta.unflatten(1, (2, 10))
    assert torch.equal(one[:, 0], other[:, 0]) and not torch.equal(one[:, 1], other[:, 1])


# 5. Limits and book-keeping


def test_a_step_is_gradient_descent_on_the_potential_plus_its_noise(seeded: Seeded) -> None:
    """θ ← θ − ε ∇U(θ) + √(2ε) ξ on all data, ε = lr/n, with U by torch.distributions and autograd and ξ replayed:
    without its noise SGLD is plain gradient descent. Seen to catch: drift doubled, prior forgotten or
    1/(n·prior_std), noise 1 % too large, one noise for all chains, momentum."""
    model = MLP(hidden=(6,), activation="tanh", prior_std=0.8, noise_std=0.5)
    x, y = sine(seeded(0), 2, 10)
    method = SGLD(lr=0.05, batch=10, burn_in=0, draws=40, thin=1, chains=2)
    predictor = method.fit(model, x, y, seeded(1))
    path = predictor.theta.unflatten(1, (2, 40))  # (R, chains, draws, P)
    theta = model.init(seeded(1), (2, 2))
    for step, noise in enumerate(langevin_noise(method, 10, model, 2, 40, seeded(1))):
        theta.requires_grad_()
        likelihood = Normal(model.mean(theta, x.unsqueeze(1)), 0.5).log_prob(y.unsqueeze(1)).sum()
        potential = -likelihood - Normal(0.0, 0.8).log_prob(theta).sum()
        (gradient,) = torch.autograd.grad(potential, theta)
        theta = (theta - 0.005 * gradient - math.sqrt(2 * 0.005) * noise).detach()  # −: Opacus adds ξ to ∇U
        torch.testing.assert_close(path[:, :, step], theta, rtol=0, atol=1e-5)
    assert predictor.diagnostics["clipped fraction"].tolist() == [0, 0]


def test_a_tempered_step_is_langevins_at_its_temperature(seeded: Seeded) -> None:
    """T = 4, 2, 1 in equal parts of burn-in, and 1 after it: θ ← θ − εT ∇U_T(θ) + √(2εT) ξ with U_T the prior's
    potential and 1/T of the likelihood's. Seen to catch: a temperature that never falls, the noise or the prior left at
    T = 1, √T for T, the likelihood's step grown by T too."""
    model = MLP(hidden=(6,), activation="tanh", prior_std=0.8, noise_std=0.5)
    x, y = sine(seeded(0), 2, 10)
    method = SGLD(lr=0.05, batch=10, temperature=4.0, burn_in=6, draws=2, thin=1, chains=2)
    theta = model.init(seeded(1), (2, 2))
    for t, noise in zip([4, 4, 2, 2, 1, 1, 1, 1], langevin_noise(method, 10, model, 2, 8, seeded(1)), strict=True):
        theta.requires_grad_()
        likelihood = Normal(model.mean(theta, x.unsqueeze(1)), 0.5).log_prob(y.unsqueeze(1)).sum()
        (gradient,) = torch.autograd.grad(-likelihood / t - Normal(0.0, 0.8).log_prob(theta).sum(), theta)
        theta = (theta - 0.005 * t * gradient - math.sqrt(2 * 0.005 * t) * noise).detach()
    last = method.fit(model, x, y, seeded(1)).theta.unflatten(1, (2, 2))[:, :, -1]
    torch.testing.assert_close(last, theta, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("temperature", "burn_in", "expected"),
    [
        (1.0, 4, [1, 1, 1, 1, 1]),
        (8.0, 8, [8, 8, 4, 4, 2, 2, 1, 1, 1, 1]),
        (3.0, 6, [3, 3, 1.5, 1.5, 1, 1, 1]),
        (8.0, 0, [1, 1]),
        (8.0, 2, [8, 2, 1]),
    ],
)
def test_temperatures_are_halved_until_one(temperature: float, burn_in: int, expected: list[float]) -> None:
    """No draw is of another temperature than 1. Seen to catch: T below 1, a burn-in of 0 that divides by it."""
    method = SGLD(temperature=temperature, burn_in=burn_in)
    assert [method.tempering(step) for step in range(1, len(expected) + 1)] == expected


def test_without_clipping_and_its_noise_it_is_sgd(seeded: Seeded) -> None:
    """torch.optim.SGD with weight decay on the batches' mean loss, each replica and chain by itself; the noise is
    replayed, as a gradient of its own. Seen to catch: division by n in place of b, momentum, every chain on the first
    one's batches, drift doubled, prior forgotten, noise 1 % too large."""
    model = MLP(hidden=(6,), prior_std=0.8, noise_std=0.5)
    x, y = sine(seeded(0), 2, 10)
    batches = tuple(islice(FixedSize().draw((2, 2), 3, 10, seeded(2)), 30))
    method = SGLD(lr=0.05, batch=3, burn_in=0, draws=30, thin=1, chains=2, sampling=Replay(FixedSize(), batches))
    predictor = method.fit(model, x, y, seeded(1))
    assert not predictor.failures
    noise = langevin_noise(method, 10, model, 2, 30, seeded(1)) * math.sqrt(2 / (0.05 * 10))
    start = model.init(seeded(1), (2, 2))
    for r in range(2):
        for chain in range(2):
            theta = start[r, chain].clone().requires_grad_()
            optimizer = torch.optim.SGD([theta], lr=0.05, weight_decay=1 / (10 * 0.8**2))
            for step, batch in enumerate(batches):
                chosen = batch.index[r, chain]
                loss = -Normal(model.mean(theta, x[r, chosen]), 0.5).log_prob(y[r, chosen]).mean()
                optimizer.zero_grad()
                (loss + theta @ noise[step, r, chain]).backward()
                optimizer.step()
            last = predictor.theta[r, 30 * chain + 29]
            torch.testing.assert_close(last, theta.detach(), rtol=0, atol=1e-5)


def test_an_active_clip_fails_the_replicas_it_touched(seeded: Seeded) -> None:
    """And no other, unless it is allowed. Seen to catch: every replica failed for one, none failed."""
    model = MLP(hidden=(5,))
    x, y = sine(seeded(0), 4, 12)
    y[[1, 3], 0] = 1e9  # an outlier each
    method = SGLD(batch=6, burn_in=0, draws=10, thin=1)
    predictor = method.fit(model, x, y, seeded(1))
    clipped = predictor.diagnostics["clipped fraction"]
    assert clipped.nonzero().flatten().tolist() == [1, 3] and (clipped <= 1).all()
    assert set(predictor.failures) == {1, 3}
    assert f"C = {method.max_grad_norm(12):.4g}" in predictor.failures[1]
    assert not replace(method, allow_clipping=True).fit(model, x, y, seeded(1)).failures


@pytest.mark.parametrize("sampling", [FixedSize(), Poisson()])
def test_norms_that_cannot_reach_the_clip_are_not_computed(
    seeded: Seeded, monkeypatch: pytest.MonkeyPatch, sampling: Minibatches
) -> None:
    """The same bits as with all norms, and the same counts; in a run with clips in some steps. Seen to catch: padding
    that counts as a point, and the gradient of padding added."""
    model = MLP(hidden=(5,))
    x, y = sine(seeded(0), 2, 12)
    y[1, 0] = 3e4  # an outlier, whose gradient is clipped
    method = SGLD(batch=4, burn_in=20, draws=10, thin=1, chains=2, allow_clipping=True, sampling=sampling)
    computed: list[int] = []
    norms = MLPGradients.norms.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(MLPGradients, "norms", property(lambda self: (computed.append(0), norms(self))[1]))
    fitted = method.fit(model, x, y, seeded(1))
    assert 0 < len(computed) < method.steps and (fitted.diagnostics["clipped fraction"] > 0).tolist() == [False, True]
    monkeypatch.setattr(MLPGradients, "norm_bound", property(lambda self: torch.tensor(math.inf)))
    whole = method.fit(model, x, y, seeded(1))
    assert torch.equal(fitted.theta, whole.theta)
    for name, value in whole.diagnostics.items():
        assert torch.equal(fitted.diagnostics[name], value), name


def test_draws_are_the_iterates_they_say(seeded: Seeded) -> None:
    """After burn_in, every thin-th, chain-major. Seen to catch: draws-major order, every draw one step late."""
    model = MLP(hidden=(5,))
    x, y = sine(seeded(0), 2, 12)
    every = SGLD(batch=6, burn_in=0, draws=13, thin=1, chains=2)
    some = replace(every, temperature=1.0, burn_in=4, draws=3, thin=3)
    assert some.steps == every.steps == 13
    path = every.fit(model, x, y, seeded(1)).theta.unflatten(1, (2, 13))
    kept = some.fit(model, x, y, seeded(1))
    assert torch.equal(kept.theta.unflatten(1, (2, 3)), path[:, :, [6, 9, 12]])
    assert isinstance(kept, PosteriorDraws) and kept(x).chained_f.shape == (2, 2, 3, 12)


def test_diagnostics(seeded: Seeded) -> None:
    """Epsilon, temperatures and cost are those of the method at this n. Seen to catch: the temperatures swapped."""
    x, y = sine(seeded(0), 2, 13)
    method = SGLD(
        batch=5,
        noise_multiplier=2.0,
        allow_clipping=True,
        burn_in=3,
        draws=2,
        thin=4,
        chains=4,
        sampling=OpacusLoader(),
    )
    diagnostics = method.fit(MLP(), x, y, seeded(1)).diagnostics
    likelihood, prior = method.temperatures(13)
    expected = {
        "likelihood temperature": likelihood,
        "prior temperature": prior,
        "epsilon": method.epsilon(13),
        "noise multiplier": method.noise_multiplier,
        "clipping norm": method.max_grad_norm(13),
        "steps": 11,
    }
    assert set(diagnostics) == {"clipped fraction", "gradient evaluations", *expected}
    # Those that were made: 11 steps of 4 chains, each point with probability 1/3; 5 standard deviations.
    evaluations = diagnostics["gradient evaluations"]
    assert ((evaluations - 11 * 4 * 13 / 3).abs() < 5 * math.sqrt(11 * 4 * 13 * 2 / 9)).all()
    for name, value in expected.items():
        torch.testing.assert_close(diagnostics[name], torch.full((2,), float(value), dtype=torch.float64))


def test_skip_says_why() -> None:
    x = torch.zeros(2, 12, 1)
    assert SGLD(batch=12).skip(MLP(), x) is None
    reason = SGLD(batch=13).skip(MLP(), x)
    assert reason is not None and "13" in reason and "12" in reason


def test_a_run_of_empty_batches_clips_nothing(seeded: Seeded) -> None:
    """0 of 0 is not a clip, and says how many gradients there were. Seen to catch: 0/0, which counted as one; the
    nominal number of gradients in place of the true one."""
    method = SGLD(batch=1, burn_in=0, draws=1, thin=1, chains=1, sampling=Poisson())
    x, y = sine(seeded(0), 40, 50)
    predictor = method.fit(MLP(hidden=(5,)), x, y, seeded(1))
    assert not predictor.failures and (predictor.diagnostics["gradient evaluations"] == 0).any()


@pytest.mark.parametrize(
    "field",
    [{"noise_multiplier": 0.0}, {"delta": 1.0}, {"delta": 0.0}, {"temperature": 0.5}, {"temperature": math.inf}],
)
def test_settings_of_its_own_are_checked(field: dict[str, float]) -> None:
    """Seen to catch: ≥ for >, no upper end of delta."""
    with pytest.raises(ValueError, match="{} = {}".format(*next(iter(field.items())))):
        SGLD(**field)
