"""Microcanonical samplers: their dynamics, their exact laws, and the bias of the one that rejects nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Generator, Tensor

from gapbench.methods.engine.adjusted import start
from gapbench.methods.engine.collapsed import Collapsed, Components
from gapbench.methods.engine.microcanonical import bounded_move, direction, kick, move, refresh
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import LearnedNoise
from gapbench.methods.engine.target import AllParameters, Point, Target
from gapbench.methods.mams import MAMS
from gapbench.methods.mclmc import MCLMC

Seeded = Callable[[int], Generator]


# 1. The dynamics


@pytest.mark.parametrize("strength", [0.1, 3.0, 40.0])
def test_a_kick_is_the_flow_of_its_equation(seeded: Seeded, strength: float) -> None:
    """u̇ = −(g − u (u·g))/(d−1) and K̇ = −u·g, by many small steps of Runge and Kutta's method.

    Seen to catch: d for d − 1, the sign of e, ε for ε/2 in δ, ΔK without its first term or not scaled by d − 1.
    """
    generator, d = seeded(0), 5
    u = direction(torch.empty(20, d, dtype=torch.float64), generator)
    gradient = strength * torch.randn(20, d, generator=generator, dtype=torch.float64)

    def flow(u: Tensor) -> tuple[Tensor, Tensor]:
        along = (u * gradient).sum(-1)
        return -(gradient - u * along.unsqueeze(-1)) / (d - 1), -along

    turned, change = kick(u, gradient, torch.ones(20, dtype=torch.float64))
    small, total, steps = u, torch.zeros(20, dtype=torch.float64), 2000
    h = 1 / steps
    for _ in range(steps):
        (a, p), (b, q) = flow(small), flow(small + h / 2 * flow(small)[0])
        c, r = flow(small + h / 2 * b)
        e, s = flow(small + h * c)
        small, total = small + h / 6 * (a + 2 * b + 2 * c + e), total + h / 6 * (p + 2 * q + 2 * r + s)
    torch.testing.assert_close(turned, small, rtol=0, atol=1e-8)
    torch.testing.assert_close(change, total, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(turned.norm(dim=-1), torch.ones(20, dtype=torch.float64))


def test_a_kick_against_any_force_is_finite(seeded: Seeded) -> None:
    """A force of 0, and one of 1e15, along and against the direction, in float32."""
    u = direction(torch.empty(1, 10), seeded(0))
    for gradient in (0 * u, 1e15 * u, -1e15 * u):
        turned, change = kick(u, gradient, torch.ones(1, dtype=torch.float64))
        assert turned.isfinite().all() and change.isfinite().all()
        assert turned.norm().item() == pytest.approx(1, abs=1e-5)


def smooth(seeded: Seeded) -> tuple[Target, Point, Tensor, Tensor, Tensor]:
    """A smooth network's collapsed posterior, a point and directions (R, chains, size), and data, all float64."""
    model, generator = MLP(hidden=(5,), activation="tanh", prior_std=1.3, noise_std=0.5), seeded(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    target = Collapsed(model)
    x, y = normal(2, 1, 9, 1), normal(2, 1, 9)
    q = normal(2, 3, target.size)
    return target, target.at(q, x, y), direction(q, generator), x, y


def steps(
    target: Target, point: Point, u: Tensor, size: float, count: int, x: Tensor, y: Tensor
) -> tuple[Point, Tensor, Tensor]:
    total, eps = torch.zeros_like(point.energy), torch.full_like(point.energy, size)
    for _ in range(count):
        point, u, change = move(target, point, u, eps, x, y)
        total += change
    return point, u, total


def test_a_trajectory_is_reversible(seeded: Seeded) -> None:
    """Back to the start, with the opposite change of U + K. Seen to catch: a whole first kick, the last forgotten."""
    target, point, u, x, y = smooth(seeded)
    there, turned, change = steps(target, point, u, 0.1, 30, x, y)
    assert (there.q - point.q).abs().max() > 0.1
    back, again, other = steps(target, there, -turned, 0.1, 30, x, y)
    torch.testing.assert_close(back.q, point.q, rtol=0, atol=1e-9)
    torch.testing.assert_close(again, -u, rtol=0, atol=1e-9)
    torch.testing.assert_close(other, -change, rtol=0, atol=1e-9)


def test_a_step_that_an_accept_step_would_refuse_is_not_made(seeded: Seeded) -> None:
    """A chain whose U + K would rise by more than the limit, or to nan, stays and turns around; the others move as
    ever. Seen to catch: a chain that stays and does not turn, nan that passes, the new gradient at the old place."""
    target, point, u, x, y = smooth(seeded)
    eps = torch.full_like(point.energy, 0.1)
    eps[0, 0], eps[1, 1] = 30.0, torch.nan
    after, turned, change = move(target, point, u, eps, x, y)
    limit = float(change.nan_to_num(-torch.inf).flatten().sort().values[-2]) + 1e-6  # one is above
    assert change[0, 0] > limit
    kept, u_kept, bounded, refused = bounded_move(target, point, u, eps, limit, x, y)
    assert refused.nonzero().tolist() == [[0, 0], [1, 1]]
    for found, old, new in (
        (kept.q, point.q, after.q),
        (kept.gradient, point.gradient, after.gradient),
        (u_kept, -u, turned),
    ):
        assert torch.equal(found[refused], old[refused]) and torch.equal(found[~refused], new[~refused])
    assert torch.equal(kept.energy[refused], point.energy[refused]) and torch.equal(
        kept.energy[~refused], after.energy[~refused]
    )
    assert (bounded[refused] == limit).all() and torch.equal(bounded[~refused], change[~refused])


def test_the_energy_error_is_of_second_order(seeded: Seeded) -> None:
    """A quarter at half the step over the same way. Seen to catch: the gradient of the old point in the second kick,
    a drift of twice the step."""
    target, point, u, x, y = smooth(seeded)
    errors = [steps(target, point, u, 0.08 / 2**k, 20 * 2**k, x, y)[2].abs().mean() for k in range(3)]
    assert 1e-6 < errors[0] < 0.1
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15) and errors[1] / errors[2] == pytest.approx(4, rel=0.08)


def test_a_refresh_turns_by_the_angle_that_it_says(seeded: Seeded) -> None:
    """E[u·u′] = exp(−ε/L), in 2,000 dimensions. Seen to catch: ν too large by √2, or of d − 1 hundred dimensions."""
    u = direction(torch.empty(400, 2000, dtype=torch.float64), seeded(0))
    for share in (0.02, 0.3, 2.0):
        turned = refresh(u, torch.full((400,), share, dtype=torch.float64), seeded(1))
        found = (u * turned).sum(-1)
        assert abs(found.mean() - math.exp(-share)) < 5 * found.std() / 20 + 1e-3
        torch.testing.assert_close(turned.norm(dim=-1), torch.ones(400, dtype=torch.float64))


# 2. Exact laws


X, GRID = torch.linspace(-2, 2, 6).unsqueeze(-1), torch.linspace(-3, 3, 7).unsqueeze(-1)
Y = torch.tensor([-1.2, -0.6, 0.1, 0.9, 0.7, 1.5])


@cache
def by_importance(model: MLP, draws: int) -> tuple[Tensor, Tensor, float]:
    """The mean and std of f at GRID, (M,), given X and Y, by draws of the prior weighted with their likelihood; and
    the ESS."""
    generator = torch.Generator().manual_seed(7)
    parts = []
    for _ in range(draws // 100_000):
        theta = model.sample_prior(generator, (100_000,))
        log_weight = model.log_likelihood(theta, X, Y).double().sum(-1)
        parts.append((log_weight, model.mean(theta, GRID).double()))
    log_weight, f = (torch.cat(part) for part in zip(*parts, strict=True))
    weight = (log_weight - log_weight.logsumexp(0)).exp()
    mean = weight @ f
    return mean, (weight @ (f - mean).square()).sqrt(), float(1 / weight.square().sum())


SMALL = MLP(hidden=(2,), noise_std=0.5)


@pytest.mark.parametrize(
    "method",
    [
        MAMS(trajectory=1.0, jitter=0.9, burn_in=30, thin=1, draws=30, chains=8),
        MAMS(trajectory=1.0, jitter=0.9, burn_in=30, thin=1, draws=30, chains=8, collapse=False),
        MAMS(trajectory=0.1, burn_in=40, thin=1, draws=30, chains=8, proposals=16),
        MCLMC(error=1e-5, length=1.0, burn_in=400, draws=40, thin=25, chains=16),
    ],
)
@pytest.mark.parametrize("model", [SMALL, replace(SMALL, noise_std=LearnedNoise(center=0.5, spread=0.3))])
def test_the_law_of_f_is_that_of_importance_sampling(seeded: Seeded, method: MAMS | MCLMC, model: MLP) -> None:
    """Of two hidden units and 6 points, from 10⁶ draws of the prior.

    Seen to catch: ½ log det A doubled, the prior of the hidden layer left out. (Without ½ log det A the law of f is
    nearly the same here; the tests of the energy and of the drift see that.)
    """
    mean, std, ess = by_importance(model, 1_000_000)
    assert ess > 2000
    replicas = 16 if isinstance(method, MAMS) else 8  # more of them cost less than more draws
    fit = method.fit(model, X.expand(replicas, -1, -1).clone(), Y.expand(replicas, -1).clone(), seeded(0))
    assert not fit.failures
    f = fit(GRID.expand(replicas, -1, -1)).f
    assert f is not None
    for found, exact, scale in ((f.mean, mean, std), (f.std, std, std)):
        error = (found - exact) / scale  # (R, M)
        allowed = 5 * error.std(0) / math.sqrt(replicas) + 5 / math.sqrt(ess) + 0.02
        assert (error.mean(0).abs() < allowed).all(), error.mean(0)
        assert allowed.max() < 0.45  # other processors round otherwise, and chains part by that


@pytest.mark.parametrize("method", [MAMS(draws=100, thin=1, chains=8), MCLMC(burn_in=300, draws=50)])
def test_without_data_the_law_is_the_prior(seeded: Seeded, method: MAMS | MCLMC) -> None:
    """Mean 0, and the variance of the network's prior, which the recursion over its layers gives for ReLU."""
    model = MLP(hidden=(20, 20))
    grid = torch.linspace(-3, 3, 5).expand(6, -1).unsqueeze(-1)
    f = method.fit(model, torch.empty(6, 0, 1), torch.empty(6, 0), seeded(0))(grid).f
    assert f is not None
    variance = 2 * (1 + grid[0, :, 0].double().square())
    for _ in range(2):
        variance = 2 * (1 + variance / 2)
    error = f.std.square() / variance - 1
    for one in (error, f.mean / variance.sqrt()):
        assert (one.mean(0).abs() < 5 * one.std(0) / math.sqrt(6) + 0.02).all(), one.mean(0)
        assert one.std(0).max() < 0.4


# 3. The bias on the real target: chains that start at the true parameters


def drift(
    method: MAMS | MCLMC, tasks: int, generator: Generator, noise: float | LearnedNoise = 0.3
) -> dict[str, Tensor]:
    """g(q_k) − g(q*) for each prior-drawn task, (R,): a true parameter is one exact draw of its task's posterior, so
    a kernel that keeps the posterior moves no mean over tasks, however few its steps."""
    model = MLP(hidden=(10, 10), noise_std=noise)
    target = Collapsed(model)
    theta = model.sample_prior(generator, (tasks,))
    x = 8 * torch.rand(tasks, 40, 1, generator=generator) - 4
    y = model.mean(theta, x) + model.noise(theta, x) * torch.randn(tasks, 40, generator=generator)
    q = target.part(theta).unsqueeze(1)
    if isinstance(method, MAMS):
        *_, last = method.walk(target, x, y, start(method, target, q, x, y), generator)
        end = last.point.q.squeeze(1)
    else:
        fit = method.sample(target, q, x, y, generator)
        assert isinstance(fit, Components)
        end = fit.q[:, -1]
        print("energy error", float(fit.diagnostics["energy error"].mean()))
    middle = torch.zeros(tasks, 1, 1)

    def values(q: Tensor) -> dict[str, Tensor]:
        mean, std, _ = target.law(q, x, y, middle)
        prior = 0.5 * (q / model.prior_std).square().sum(-1).double()
        return {
            "U": target.at(q, x, y).energy,
            "log likelihood": prior - target.at(q, x, y).energy,
            "E f²": (mean.square() + std.square()).squeeze(-1).double(),
            "log var f": 2 * std.log().squeeze(-1).double(),
            "last entry²": q[:, -1].double().square(),  # that of the noise, where it is learned
        }

    before, after = values(q.squeeze(1)), values(end)
    return {name: after[name] - before[name] for name in before}


def standard_errors(moved: Tensor) -> float:
    return float(moved.mean() / (moved.std() / math.sqrt(len(moved))))


def test_an_adjusted_chain_does_not_drift_from_the_truth(seeded: Seeded) -> None:
    """With steps so large that most proposals are rejected.

    Seen to catch: every proposal accepted, ½ log det A left out, the change of U + K forgotten.
    """
    method = MAMS(burn_in=0, lr=0.1, draws=10, thin=1, chains=1, trajectory=0.3)
    moved = drift(method, 1000, seeded(0))
    for name, change in moved.items():
        assert change.std() > 0.05 and abs(standard_errors(change)) < 4, (name, standard_errors(change))


@pytest.mark.parametrize("noise", [0.3, LearnedNoise(center=0.3, spread=0.5)])
def test_global_moves_do_not_drift_from_the_truth(seeded: Seeded, noise: float | LearnedNoise) -> None:
    """With local steps so large that none is accepted.

    Seen to catch: the own place left out or with another weight, the weights without the likelihood or with that of
    another proposal, starts of training for draws of the prior.
    """
    method = MAMS(burn_in=0, lr=30.0, draws=6, thin=1, chains=1, proposals=8)
    moved = drift(method, 1000, seeded(0), noise)
    for name, change in moved.items():
        assert change.std() > 0.05 and abs(standard_errors(change)) < 4, (name, standard_errors(change))


def test_a_rejected_proposal_leaves_nothing_behind(seeded: Seeded) -> None:
    """Energy and gradient are those at the chain's own place, after every trajectory, and its costs are counted.

    Seen to catch: a rejected proposal's gradient kept, or its energy; the place before the global move.
    """
    target, (x, y) = Collapsed(MLP(hidden=(10, 10), noise_std=0.3)), data(seeded)
    method = MAMS(burn_in=0, lr=0.1, trajectory=0.05, draws=12, thin=1, chains=4, proposals=2)
    q = target.start(seeded(2), (2, 4))
    seen = []
    for state in method.walk(target, x, y, start(method, target, q, x, y), seeded(3)):
        here = target.at(state.point.q, x.unsqueeze(1), y.unsqueeze(1))
        torch.testing.assert_close(state.point.gradient, here.gradient)
        torch.testing.assert_close(state.point.energy, here.energy)
        seen.append(state.accepted)
    assert state.gradients.tolist() == [4 * x.shape[1] * (1 + 12 * (1 + 2 + 1))] * 2  # of one step each
    accepted = torch.stack(seen)
    assert accepted.any() and not accepted.all()


def test_the_bias_of_mclmc_grows_with_its_energy_error(seeded: Seeded, capsys: pytest.CaptureFixture[str]) -> None:
    """At small steps nothing drifts; at steps ten times as large the likelihood does, beyond chance.

    Seen to catch: ε for ε/2 in the kicks, ½ log det A left out.
    """
    moved = {}
    for lr in (0.01, 0.1):
        moved[lr] = drift(MCLMC(burn_in=0, lr=lr, draws=1, thin=round(2 / lr), chains=1), 800, seeded(0))
    with capsys.disabled():
        for lr, found in moved.items():
            print(lr, {name: (round(float(c.mean()), 3), round(standard_errors(c), 1)) for name, c in found.items()})
    assert all(abs(standard_errors(change)) < 4 for change in moved[0.01].values())
    assert abs(standard_errors(moved[0.1]["log likelihood"])) > 4


# 4. The run


def data(seeded: Seeded) -> tuple[Tensor, Tensor]:
    x = 4 * torch.rand(2, 12, 1, generator=seeded(0)) - 2
    return x, x[..., 0].sin() + 0.3 * torch.randn(2, 12, generator=seeded(1))


def test_mclmc_keeps_the_energy_error_that_was_asked_for(seeded: Seeded) -> None:
    """Within a factor of 3, for errors that are a hundredfold apart. Seen to catch: the controller's sign."""
    model, (x, y) = MLP(hidden=(10, 10), noise_std=0.3), data(seeded)
    for error in (1e-5, 1e-3):
        fit = MCLMC(error=error, draws=20, thin=20).fit(model, x, y, seeded(2))
        realised = fit.diagnostics["energy error"]
        assert ((realised / error).log().abs() < math.log(3)).all(), realised


def test_the_energy_error_is_the_square_for_each_dimension(seeded: Seeded) -> None:
    """Of one step, by hand. Seen to catch: the error not divided by d, its size for its square, steps not in units of
    prior_std · √d."""
    target, (x, y) = Collapsed(MLP(hidden=(10, 10), noise_std=0.3)), data(seeded)
    q, inputs = target.start(seeded(2), (2, 3)), (x.unsqueeze(1), y.unsqueeze(1))
    fit = MCLMC(burn_in=0, draws=1, thin=1, chains=3, lr=0.05).sample(target, q, x, y, seeded(3))
    step = torch.full((2, 3), 0.05 * math.sqrt(2 * target.size), dtype=torch.float64)
    _, _, change = move(target, target.at(q, *inputs), direction(q, seeded(3)), step, *inputs)
    torch.testing.assert_close(fit.diagnostics["energy error"], change.square().mean(1) / target.size)


def test_a_step_size_that_does_not_arrive_fails_its_replica(seeded: Seeded) -> None:
    """In one line with the numbers; too many refused steps do too. Seen to catch: refused steps that count as none."""
    model, (x, y) = MLP(hidden=(10, 10), noise_std=0.01), data(seeded)
    fit = MCLMC(lr=1e9, burn_in=0, draws=4, thin=5).fit(model, x, y, seeded(2))
    assert list(fit.failures) == [0, 1]
    assert "energy error 0 (0.0005 wanted), 100% of the steps refused (at most 5%)" in fit.failures[0]


def test_a_refused_step_halves_those_that_follow(seeded: Seeded) -> None:
    """Of that chain alone.

    Seen to catch: steps that stay as they are, all chains of a replica halved, a quarter for a half."""
    model, (x, y) = MLP(hidden=(10, 10), noise_std=0.3), data(seeded)
    method = MCLMC(lr=0.5, burn_in=0, draws=60, thin=1, chains=3)
    fit = method.fit(model, x, y, seeded(2))
    assert isinstance(fit, Components)
    q = torch.cat([Collapsed(model).start(seeded(2), (2, 3)).unsqueeze(2), fit.q.unflatten(1, (3, 60))], 2)
    walked = q.diff(dim=2).norm(dim=-1).double() / math.sqrt(2 * q.shape[-1])  # 0 where a step was refused
    refused = walked == 0
    assert len(refused.sum(-1).unique()) > 1 and (refused.sum(-1) < 20).all()
    allowed = method.lr * 0.5 ** (refused.cumsum(-1) - refused.int()).double()
    torch.testing.assert_close(walked, allowed.masked_fill(refused, 0), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(fit.diagnostics["refused steps"], refused.double().mean((1, 2)))


def test_draws_are_components_along_chains(seeded: Seeded) -> None:
    """Every thin-th state after burn-in, chain-major; with learned noise each has its own σ."""
    model, (x, y) = MLP(hidden=(4,), noise_std=LearnedNoise()), data(seeded)
    fit = MCLMC(burn_in=20, draws=3, thin=2, chains=2).fit(model, x, y, seeded(2))
    longer = MCLMC(burn_in=20, draws=6, thin=1, chains=2).fit(model, x, y, seeded(2))
    assert isinstance(fit, Components) and isinstance(longer, Components)
    torch.testing.assert_close(fit.q.unflatten(1, (2, 3)), longer.q.unflatten(1, (2, 6))[:, :, 1::2])
    found = fit(x)
    assert found.chains == 2 and found.location.shape == found.scale.shape == found.noise_std.shape == (2, 6, 12)
    assert (found.scale > 0).all() and len(found.noise_std[0, :, 0].unique()) == 6
    assert fit.diagnostics["gradient evaluations"].tolist() == [27 * 2 * 12] * 2


def test_optima_are_lower_than_their_starts(seeded: Seeded) -> None:
    """Adam goes down from each start, for both targets. Seen to catch: the surrogate's sign, another chain's data."""
    model, (x, y) = MLP(hidden=(10,), noise_std=0.3), data(seeded)
    for target in (Collapsed(model), AllParameters(model)):
        q = target.start(seeded(2), (2, 3))
        inputs = x.unsqueeze(1), y.unsqueeze(1)
        low = target.optima(q, *inputs, 1000, 0.03)
        drop = target.at(q, *inputs).energy - target.at(low, *inputs).energy
        assert (drop > 1).all()


def test_what_cannot_be_collapsed_is_skipped_in_words() -> None:
    x = torch.zeros(1, 5, 1)
    for method in (MCLMC(), MAMS()):
        reason = method.skip(MLP(hidden=()), x)
        assert reason is not None and reason.startswith("hidden = (): nothing is left to sample")
        assert method.skip(MLP(), x) is None and replace(method, collapse=False).skip(MLP(hidden=()), x) is None


def test_more_hidden_units_than_memory_are_refused_in_one_line() -> None:
    """With what is needed and what there is. A wide layer and few points need the small matrices only. Seen to catch:
    the (H+1)² matrices counted where the N × N form is used, one replica counted for all."""
    few, many = torch.zeros(1, 5, 1), torch.zeros(1, 10**6, 1)
    for method in (MCLMC(), MAMS()):
        for hidden, x in (((10**9,), few), ((50, 10**5), many)):
            reason = method.skip(MLP(hidden=hidden), x)
            assert reason is not None and "\n" not in reason
            assert reason.startswith(f"hidden = {hidden}: ") and " GB, and this machine has " in reason
        assert method.skip(MLP(hidden=(50_000,)), few) is None
        assert method.skip(MLP(hidden=(50_000,)), torch.zeros(10_000, 5, 1)) is not None


@pytest.mark.parametrize("field", [{"error": 0.0}, {"length": -1.0}, {"adam_lr": math.inf}, {"adam_steps": -1}])
def test_settings_of_its_own_are_checked(field: dict[str, float]) -> None:
    with pytest.raises(ValueError) as error:
        MCLMC(**field)
    assert all(f"{name} = {value}" in str(error.value) for name, value in field.items())
