"""HMC: its integrator, its exact laws, its tuning, and Pyro's NUTS on a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from arviz_stats.base import array_stats
from pyro.infer import MCMC, NUTS
from scipy import integrate
from torch import Generator, Tensor

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.methods.engine.adjusted import State, Trace, Tuning, start
from gapbench.methods.engine.model import MLP, Model, PerSampleGradients, Perturb
from gapbench.methods.engine.target import AllParameters, Point, Target
from gapbench.methods.hmc import HMC, kinetic, leapfrog

Seeded = Callable[[int], Generator]


# 1. The integrator


def problem(seeded: Seeded) -> tuple[Target, Point, Tensor, Tensor, Tensor]:
    """A smooth network's posterior, a point and momenta (R, chains, P), and data for every chain, all float64."""
    model, generator = MLP(hidden=(5,), activation="tanh", prior_std=1.3, noise_std=0.5), seeded(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    target, stack = AllParameters(model), (2, 3, model.size)
    theta, momentum, x, y = normal(*stack), normal(*stack), normal(2, 1, 9, 1), normal(2, 1, 9)
    return target, target.at(theta, x, y), momentum, x, y


def test_the_integrator_is_reversible(seeded: Seeded) -> None:
    """Back to the start with the momentum turned round. Seen to catch: a whole first kick, the last kick forgotten
    or whole."""
    target, point, momentum, x, y = problem(seeded)
    step, steps = torch.tensor([[0.01], [0.02]], dtype=torch.float64).expand(2, 3), torch.tensor([[50, 20, 30]] * 2)
    there, turned = leapfrog(target, point, momentum, x, y, step, steps)
    assert (there.q - point.q).abs().max() > 0.1
    back, again = leapfrog(target, there, -turned, x, y, step, steps)
    torch.testing.assert_close(back.q, point.q, rtol=0, atol=1e-10)
    torch.testing.assert_close(again, -momentum, rtol=0, atol=1e-10)


def test_the_energy_error_is_of_second_order(seeded: Seeded) -> None:
    """A quarter at half the step over the same time. Seen to catch: the prior's gradient forgotten or halved, a drift
    with twice the step (the error then does not vanish at all)."""
    target, point, momentum, x, y = problem(seeded)
    errors = []
    for halvings in range(3):
        size = torch.full((2, 3), 0.01 / 2**halvings, dtype=torch.float64)
        end, last = leapfrog(target, point, momentum, x, y, size, torch.full((2, 3), 50 * 2**halvings))
        change = end.energy + kinetic(last, end) - point.energy - kinetic(momentum, point)
        errors.append(change.abs().mean())
    assert errors[0] < 0.05
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1) and errors[1] / errors[2] == pytest.approx(4, rel=0.05)


def test_the_energy_is_the_log_posteriors(seeded: Seeded) -> None:
    """And the gradient is the energy's. Seen to catch: the mean over the data in place of the sum, the prior left out,
    the momentum not squared."""
    target, point, momentum, x, y = problem(seeded)
    for r in range(2):
        for c in range(3):
            theta = point.q[r, c].clone().requires_grad_()
            prior = torch.distributions.Normal(0, 1.3).log_prob(theta).sum()
            f = target.model.mean(theta, x[r, 0])
            potential = -prior - torch.distributions.Normal(f, 0.5).log_prob(y[r, 0]).sum()
            torch.testing.assert_close(point.energy[r, c], potential.detach())
            torch.testing.assert_close(point.gradient[r, c], torch.autograd.grad(potential, theta)[0])
            torch.testing.assert_close(kinetic(momentum, point)[r, c], momentum[r, c].square().sum() / 2)


def test_a_shorter_trajectory_waits_for_the_longer(seeded: Seeded) -> None:
    """Each chain's end is what it is alone. Seen to catch: every chain integrated for the longest, the first replica's
    data or step for all."""
    target, point, momentum, x, y = problem(seeded)
    step = torch.tensor([[0.01, 0.02, 0.01], [0.03, 0.03, 0.01]], dtype=torch.float64)
    steps = torch.tensor([[4, 2, 4], [9, 1, 9]])
    together, _ = leapfrog(target, point, momentum, x, y, step, steps)
    for r in range(2):
        for c in range(3):
            one = (slice(r, r + 1), slice(c, c + 1))
            own = Point(point.q[one], point.energy[one], point.gradient[one])
            alone, _ = leapfrog(target, own, momentum[one], x[one[0]], y[one[0]], step[one], steps[one])
            torch.testing.assert_close(together.q[one], alone.q, rtol=0, atol=1e-12)


# 2. Exact laws


def test_it_samples_the_posterior_of_a_badly_scaled_linear_model(seeded: Seeded) -> None:
    """Inputs of scale 1 and 20: mean and covariance in closed form, 128 replicas, within 5 standard errors and 5 %.

    Seen to catch: every proposal accepted, the prior forgotten, the same momenta in every trajectory (240 draws then
    average no better than a few).
    """
    replicas, n, generator = 128, 6, seeded(0)
    model = MLP(features=2, hidden=(), scale_by_fan_in=False, noise_std=1.0)
    x = torch.randn(replicas, n, 2, generator=generator) * torch.tensor([1.0, 20.0])
    y = torch.randn(replicas, n, generator=generator)
    method = HMC(burn_in=40, draws=30, thin=1, chains=8)
    draws = method.fit(model, x, y, seeded(1)).theta.double()  # (R, S, 3)

    design = torch.cat([x, torch.ones(replicas, n, 1)], -1).double()
    covariance = torch.linalg.inv(torch.eye(3, dtype=torch.float64) / model.prior_std**2 + design.mT @ design)
    mean = (covariance @ design.mT @ y.double().unsqueeze(-1)).squeeze(-1)
    scale = covariance.diagonal(dim1=1, dim2=2).sqrt()
    centred = (draws - mean.unsqueeze(1)) / scale.unsqueeze(1)
    found = centred.mT @ centred / draws.shape[1]
    wanted = covariance / (scale.unsqueeze(1) * scale.unsqueeze(2))
    for error in (centred.mean(1), found - wanted):
        allowed = 5 * error.std(0) / math.sqrt(replicas) + 0.05
        assert (error.mean(0).abs() < allowed).all(), error.mean(0)
    assert centred.mean(1).std(0).max() < 0.1


@dataclass(frozen=True, kw_only=True)
class Poisson(Model):
    """y ~ Poisson(exp θ) with θ ~ N(0, prior_std²): an asymmetric posterior of one number, known by quadrature."""

    network_size = 1
    hidden = ()

    def network(self, theta: Tensor, x: Tensor, perturb: Perturb | None = None) -> Tensor:
        return theta.unsqueeze(-2).expand(*theta.shape[:-1], x.shape[-2], 1)

    def log_likelihood(self, theta: Tensor, x: Tensor, y: Tensor, perturb: Perturb | None = None) -> Tensor:
        return y * theta - theta.exp()

    def per_sample_gradients(self, theta: Tensor, x: Tensor, y: Tensor) -> PerSampleGradients:
        return Counts(theta, y)


@dataclass(frozen=True)
class Counts(PerSampleGradients):
    theta: Tensor
    y: Tensor

    @property
    def norms(self) -> Tensor:
        return (self.theta.exp() - self.y).abs()

    def add_weighted_sum(self, weights: Tensor | None, out: Tensor) -> None:
        out += (self.theta.exp() - self.y).sum(-1, keepdim=True)


def test_it_samples_an_asymmetric_posterior(seeded: Seeded) -> None:
    """One count of 0: mean, std and third moment by quadrature. Seen to catch: acceptance min(1, exp(+ΔH))."""
    model, replicas = Poisson(prior_std=2.0), 128

    def density(t: float) -> float:
        return math.exp(-(t**2) / 8 - math.exp(t))

    total = integrate.quad(density, -12, 6)[0]
    mean = integrate.quad(lambda t: t * density(t), -12, 6)[0] / total
    moments = [integrate.quad(lambda t, k=k: (t - mean) ** k * density(t), -12, 6)[0] / total for k in (2, 3)]
    scale = math.sqrt(moments[0])
    assert moments[1] / scale**3 < -0.4  # asymmetric indeed
    x, y = torch.zeros(replicas, 1, 1), torch.zeros(replicas, 1)
    draws = HMC(burn_in=60, draws=100, thin=1, chains=4).fit(model, x, y, seeded(0)).theta.squeeze(-1).double()
    centred = (draws - mean) / scale
    for power, wanted in ((1, 0.0), (2, 1.0), (3, moments[1] / scale**3)):
        each = (centred**power).mean(1)
        assert abs(each.mean() - wanted) < 5 * each.std() / math.sqrt(replicas) + 0.05 * (power == 3), power


def test_a_network_agrees_with_pyros_nuts(seeded: Seeded, own_randomness: None) -> None:
    """Mean and std of f on a grid, within 5 of both runs' Monte-Carlo standard errors."""
    model = MLP(hidden=(2,), activation="tanh", noise_std=0.4)
    generator = seeded(0)
    x = torch.rand(1, 12, 1, generator=generator) * 4 - 2
    y = x[..., 0].sin() + 0.4 * torch.randn(1, 12, generator=generator)
    grid = torch.linspace(-3, 3, 7).unsqueeze(-1)

    def potential(found: dict[str, Tensor]) -> Tensor:  # a program of Pyro's takes twice the time
        theta = found["theta"]
        likelihood = dist.Normal(model.mean(theta, x[0]), model.noise_std).log_prob(y[0])
        return -dist.Normal(0.0, model.prior_std).log_prob(theta).sum() - likelihood.sum()

    begin = {"theta": model.sample_prior(seeded(1), ())}
    kernel = NUTS(potential_fn=potential)
    nuts = MCMC(kernel, num_samples=100, warmup_steps=50, initial_params=begin, disable_progbar=True)
    nuts.run()
    theirs = model.mean(nuts.get_samples()["theta"], grid).double().numpy()[None]  # (1, draws, M)
    # A step this small: on some processors one trajectory of the default's 1600 diverges.
    fitted = HMC(burn_in=60, draws=80, thin=1, chains=20, acceptance=0.9).fit(model, x, y, seeded(2))
    assert not fitted.failures
    ours = fitted(grid.unsqueeze(0)).location[0].unflatten(0, (20, 80)).double().numpy()
    axes = {"chain_axis": 0, "draw_axis": 1}
    for method, estimate in (("mean", np.mean), ("sd", np.std)):
        error = np.hypot(*(array_stats.mcse(part, method=method, **axes) for part in (ours, theirs)))
        apart = np.abs(estimate(ours, axis=(0, 1)) - estimate(theirs, axis=(0, 1))) / error
        assert (apart < 5).all(), (method, apart)


# 3. The run


def linear(seeded: Seeded, replicas: int = 2) -> tuple[MLP, Tensor, Tensor]:
    model, generator = MLP(hidden=(), noise_std=0.5), seeded(0)
    return model, torch.randn(replicas, 8, 1, generator=generator), torch.randn(replicas, 8, generator=generator)


def states(method: HMC, model: Model, x: Tensor, y: Tensor, generator: Generator) -> list[State]:
    target = method.target(model)
    return list(method.walk(target, x, y, begun(method, target, x, y, generator), generator))


def begun(method: HMC, target: Target, x: Tensor, y: Tensor, generator: Generator) -> State:
    """The state at draws of the prior."""
    return start(method, target, target.start(generator, (len(y), method.chains)), x, y)


@pytest.mark.parametrize("wanted", [0.6, 0.9])
def test_dual_averaging_finds_the_step_of_the_acceptance(wanted: float) -> None:
    """Where acceptance falls with the step as exp(−step / s), it is −s log(wanted), for each one's own s; observed with
    noise. Seen to catch: found − wanted, the last step in place of the mean."""
    scales = torch.tensor([0.01, 1.0, 30.0], dtype=torch.float64)
    tuning, generator = Tuning.start(torch.zeros(3, dtype=torch.float64)), torch.Generator().manual_seed(0)
    for _ in range(1000):
        noise = 0.1 * torch.randn(3, generator=generator, dtype=torch.float64)
        tuning = tuning.tuned((-tuning.log_step.exp() / scales).exp() + noise, wanted)
    torch.testing.assert_close(tuning.log_mean.exp(), -scales * math.log(wanted), rtol=0.15, atol=0)


def test_each_replica_has_its_step(seeded: Seeded) -> None:
    """One has inputs ten times as large, and so about a tenth of the step. Seen to catch: one step for all, the
    acceptance of another replica."""
    model, x, y = linear(seeded)
    x[1] *= 10
    method = HMC(burn_in=60, draws=20, thin=1, chains=4)
    steps = method.fit(model, x, y, seeded(1)).diagnostics["step size"]
    careful = replace(method, acceptance=0.97).fit(model, x, y, seeded(1)).diagnostics["step size"]
    assert steps[0] > 3 * steps[1] and (careful < steps).all()


def test_no_chain_is_left_behind(seeded: Seeded) -> None:
    """One of eight starts where steps must be a thousandth of what suits the others: it arrives all the same. Seen to
    catch: the step tuned to the mean of the chains from the start on (it never moves)."""
    model, x, y = Poisson(prior_std=2.0), torch.zeros(1, 1, 1), torch.zeros(1, 1)
    method = HMC(burn_in=60, draws=10, thin=1)
    theta = torch.zeros(1, 8, 1)
    theta[0, 3] = 16.0
    target = AllParameters(model)
    *_, last = method.walk(target, x, y, start(method, target, theta, x, y), seeded(0))
    assert last.point.q.max() < 4 and last.tuning.log_mean.exp().min() > 0.05


def test_no_chain_is_carried_away(seeded: Seeded) -> None:
    """Draws of the prior that miss the data by far fall from a great height, and end near the prior's sphere all the
    same, where the posterior's draws are. Seen to catch: long trajectories from the start on (one is 80 radii off)."""
    model, data = MLP(hidden=(10, 10), noise_std=0.003), GappedSine(n=40).problems(range(4))
    method = HMC(burn_in=40)
    target = AllParameters(model)
    state = begun(method, target, data.x, data.y, seeded(0))
    walk = method.walk(target, data.x, data.y, state, seeded(1))
    while state.steps < method.burn_in // 2:
        state = next(walk)
    radius = state.point.q.norm(dim=-1) / (model.prior_std * math.sqrt(model.size))
    assert radius.min() > 0.5 and radius.max() < 1.5


def test_a_run_goes_on_from_any_state(seeded: Seeded) -> None:
    """The same bits as without the stop."""
    model, x, y = linear(seeded)
    method = HMC(burn_in=6, draws=6, thin=1, chains=2)
    whole = states(method, model, x, y, seeded(1))
    for stop in (2, 3, 4, 9):
        generator = seeded(1)
        first = states(replace(method, draws=stop - 6) if stop > 6 else method, model, x, y, generator)
        if stop <= 6:  # start over, and stop there
            generator = seeded(1)
            target = method.target(model)
            walk = method.walk(target, x, y, begun(method, target, x, y, generator), generator)
            first = [next(walk) for _ in range(stop)]
        rest = list(method.walk(method.target(model), x, y, first[-1], generator))
        assert len(first) + len(rest) == 12
        assert torch.equal(rest[-1].point.q, whole[-1].point.q) and torch.equal(rest[-1].gradients, whole[-1].gradients)


def test_draws_and_costs_are_what_they_say(seeded: Seeded) -> None:
    """After burn_in every thin-th state, chain-major; the gradients are counted where they are taken. Seen to catch:
    draws one trajectory late, rejected proposals kept, the trajectory's last gradient not counted."""
    model, x, y = linear(seeded)
    method = HMC(burn_in=3, draws=4, thin=2, chains=2, lr=0.3)
    every = states(method, model, x, y, seeded(1))
    fitted = method.fit(model, x, y, seeded(1))
    kept = torch.stack([every[t].point.q for t in (4, 6, 8, 10)], 2)  # (R, chains, draws, P)
    assert torch.equal(fitted.theta, kept.flatten(1, 2)) and fitted.chains == 2

    own, count = MLP.per_sample_gradients, torch.zeros(())

    def counted(model: MLP, theta: Tensor, x: Tensor, y: Tensor) -> PerSampleGradients:
        count.add_(y.numel())
        return own(model, theta, x, y)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MLP, "per_sample_gradients", counted)
        alone = method.fit(model, x[:1], y[:1], seeded(1))
    assert alone.diagnostics["gradient evaluations"].tolist() == [count.item()]


def test_diagnostics_are_arvizs(seeded: Seeded) -> None:
    """E-BFMI, the smallest over chains. Seen to catch: the mean over chains, the variance's root."""
    model, x, y = linear(seeded)
    method = HMC(burn_in=5, draws=60, thin=1, chains=3, trajectory=0.2)
    energy = torch.stack([state.energy for state in states(method, model, x, y, seeded(1))][5:], -1)
    found = method.fit(model, x, y, seeded(1)).diagnostics
    for r in range(2):
        theirs = array_stats.bfmi(energy[r].numpy(), chain_axis=0, draw_axis=1)
        assert found["E-BFMI"][r].item() == pytest.approx(np.min(theirs), rel=0.05)
    assert found["divergences"].tolist() == [0, 0]


def test_a_chain_that_diverges_or_never_moves_fails_its_replica(seeded: Seeded) -> None:
    """And no other. Seen to catch: all replicas failed for one, a NaN energy accepted."""
    model, x, y = linear(seeded, replicas=3)
    x[1] *= 1e4  # its step is far beyond what is stable there
    method = HMC(burn_in=0, draws=5, thin=1, chains=2, lr=0.03)
    fitted = method.fit(model, x, y, seeded(1))
    assert list(fitted.failures) == [1] and "accepted none of its 5 trajectories" in fitted.failures[1]
    assert fitted.theta.isfinite().all()
    assert fitted.diagnostics["divergences"].tolist() == [0, 10, 0]

    never = Trace.empty((2, 2), 5, "cpu")
    never.accepted[:, :, 2] = True
    assert never.failures == {}
    never.accepted[1, 0] = False
    never.diverged[0, 1, 2:4] = True
    assert "chain 0 accepted none of its 5 trajectories" in never.failures[1]
    assert "chain 1 diverged in 2 of 5 trajectories" in never.failures[0]


@pytest.mark.parametrize(
    "field", [{"trajectory": 0.0}, {"jitter": 1.0}, {"acceptance": 1.0}, {"max_steps": 0}, {"chains": 0}, {"lr": 0.0}]
)
def test_settings_of_its_own_are_checked(field: dict[str, float]) -> None:
    with pytest.raises(ValueError) as error:
        HMC(**field)
    assert all(f"{name} = {value}" in str(error.value) for name, value in field.items())
