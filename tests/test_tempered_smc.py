"""Tempered sequential Monte Carlo (Del Moral, Doucet & Jasra 2006): a second sampler of the collapsed posterior.

Particles go from the prior to the posterior through the laws  p_β(q) ∝ p(q) p(y | q)^β,  β from 0 to 1:

    weigh      w ∝ p(y | q)^(β′ − β), with the β′ that leaves an effective share of the particles
    resample   systematically
    move       by trajectories of HMC that leave p_β′ as it is

https://doi.org/10.1111/j.1467-9868.2006.00553.x
No chain starts at an optimum or is long, so it fails in other ways than the chains of the references do. It gives the
evidence log p(y) too. The particles are in independent groups, whose spread is the error.

`python tests/test_tempered_smc.py` writes the moments and quantiles of REPLICAS of gapped_sine_noisy to
smc_references.npz: ten minutes of one core each. test_reference.py compares the references with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.reference_file import law_of
from gapbench.methods.engine.collapsed import Collapsed
from gapbench.methods.engine.distributions import NormalMixture
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.target import Point
from gapbench.methods.hmc import HMC
from gapbench.runners.suites import suites

REPLICAS = (0, 3, 7)
EVERY = 4  # test points between those that are kept
FILE = Path(__file__).parent / "smc_references.npz"


@dataclass(frozen=True)
class Tempered(Collapsed):
    """The law p(q) p(y | q)^β of the collapsed parameters."""

    beta: float

    def at(self, q: Tensor, x: Tensor, y: Tensor) -> Point:
        whole = super().at(q, x, y)
        energy = self.beta * whole.energy - (1 - self.beta) * self.log_prior(q)
        return Point(q, energy, self.beta * whole.gradient + (1 - self.beta) / self.model.prior_std**2 * q)

    def log_likelihood(self, q: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.beta * super().log_likelihood(q, x, y)


@dataclass(frozen=True)
class Particles:
    """What is left at β = 1. q: (G, N, size). log_evidence: of each group, (G,)."""

    q: Tensor
    log_evidence: Tensor
    stages: int


def tempered_smc(
    model: MLP,
    x: Tensor,
    y: Tensor,
    generator: Generator,
    *,
    groups: int = 8,
    particles: int = 128,
    share: float = 0.8,
    trajectory: float = 0.4,
    moves: int = 4,
    last_moves: int = 15,
    tell: Any = lambda line: None,
) -> Particles:
    """The particles of one data set. x: (N, D), y: (N,).

    share: the effective share of the particles that a rise of β leaves. trajectory: the mean length, in units of
    prior_std. moves: trajectories at each β; last_moves: more of them at 1.
    """
    x, y = x.view(1, 1, *x.shape), y.view(1, 1, *y.shape)
    whole = Collapsed(model)
    q = whole.prior_draws(generator, (groups, particles))
    beta, log_step, stages = 0.0, math.log(0.3), 0
    log_evidence = torch.zeros(groups, dtype=torch.float64)
    while beta < 1:
        log_likelihood = whole.log_likelihood(q, x, y)
        rise = rise_to(share, log_likelihood, 1 - beta)
        log_weight = rise * log_likelihood
        log_evidence += log_weight.logsumexp(1) - math.log(particles)
        q = resampled(q, log_weight.softmax(1), generator)
        beta, stages = min(1.0, beta + rise), stages + 1
        target = Tempered(model, beta)
        for _ in range(moves + (last_moves if beta == 1 else 0)):
            q, acceptance = moved(target, q, x, y, math.exp(log_step), trajectory, generator)
            log_step += acceptance - 0.75
        tell(f"stage {stages}: β {beta:.3g}, acceptance {acceptance:.2f}, step {math.exp(log_step):.2g}")
    return Particles(q, log_evidence, stages)


def rise_to(share: float, log_likelihood: Tensor, most: float) -> float:
    """The rise of β, at most `most`, that leaves an effective share of the particles, in the mean of the groups."""

    def left(rise: float) -> float:
        weight = (rise * log_likelihood).softmax(1)
        return float((1 / weight.square().sum(1)).mean()) / weight.shape[1]

    low, high = 0.0, most
    if left(most) >= share:
        return most
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > share else (low, middle)
    return low


def resampled(q: Tensor, weight: Tensor, generator: Generator) -> Tensor:
    """The particles, each group's resampled with its weights, (G, N)."""
    groups, count = weight.shape
    places = (torch.arange(count, dtype=torch.float64) + torch.rand(groups, 1, generator=generator).double()) / count
    chosen = torch.searchsorted(weight.cumsum(1).contiguous(), places).clamp(max=count - 1)
    return q.gather(1, chosen.unsqueeze(-1).expand_as(q))


def moved(
    target: Tempered, q: Tensor, x: Tensor, y: Tensor, step: float, trajectory: float, generator: Generator
) -> tuple[Tensor, float]:
    """The particles after one trajectory each, and the mean acceptance."""
    prior_std = target.model.prior_std
    length = trajectory * (0.1 + 1.8 * float(torch.rand((), generator=generator)))
    number = min(2000, max(1, math.ceil(length / step)))
    sizes = torch.full(q.shape[:2], step * prior_std, dtype=torch.float64)
    point = target.at(q, x, y)
    end, _, change = HMC().propose(target, point, x, y, sizes, torch.full(q.shape[:2], number), generator)
    acceptance = (-change.nan_to_num(nan=math.inf)).clamp(max=0).exp()
    accepted = torch.rand(acceptance.shape, generator=generator) < acceptance
    return torch.where(accepted.unsqueeze(-1), end.q, q), float(acceptance.mean())


def numbers(model: MLP, found: Particles, x: Tensor, y: Tensor, x_test: Tensor) -> dict[str, Any]:
    """Mean and std of f at the test points, with their errors; quantiles; log evidence with its error."""
    groups = len(found.q)
    flat = found.q.flatten(0, 1)
    inputs = (part.expand(len(flat), *part.shape) for part in (x, y, x_test))
    m, s, _ = (part.double() for part in Collapsed(model).law(flat, *inputs))
    mean = m.mean(0)
    second = (m - mean).square() + s.square()
    std = second.mean(0).sqrt()
    errors = [part.view(groups, -1, part.shape[-1]).mean(1).std(0) / math.sqrt(groups) for part in (m, second)]
    law = law_of(NormalMixture(m.unsqueeze(0), s.unsqueeze(0)))
    evidence = found.log_evidence
    return {
        "mean": mean.numpy(),
        "std": std.numpy(),
        "mcse_mean": (errors[0] / std).numpy(),
        "mcse_log_std": (errors[1] / (2 * std.square())).numpy(),
        "quantiles": law.at(np.linspace(-2, 2, 9)),
        "log evidence": np.array([evidence.mean(), evidence.std() / math.sqrt(groups)]),
    }


def test_its_law_and_evidence_are_those_of_weighted_prior_draws(seeded: Callable[[int], Generator]) -> None:
    """Of two hidden units and 6 points, from 400,000 draws.

    Seen to catch: the evidence without the number of particles, or of the last stage alone; weights that are forgotten;
    moves at the β of before; every move accepted.
    """
    model = MLP(hidden=(2,), noise_std=0.1)
    x = torch.linspace(-2, 2, 6).unsqueeze(-1)
    y = torch.sin(x[:, 0])
    found = tempered_smc(model, x, y, seeded(0), groups=16, moves=3, last_moves=5)
    assert found.stages > 3
    of_particles = numbers(model, found, x, y, x)

    whole, count = Collapsed(model), 400_000
    q = whole.prior_draws(seeded(1), (count,))
    log_weight = whole.log_likelihood(q, x, y)
    weight = log_weight.softmax(0).unsqueeze(-1)
    assert 1 / weight.square().sum() > 3000
    m, s, _ = (part.double() for part in whole.law(q, *(part.expand(count, *part.shape) for part in (x, y, x))))
    mean = (weight * m).sum(0)
    std = (weight * ((m - mean).square() + s.square())).sum(0).sqrt()
    apart = (of_particles["mean"] - mean.numpy()) / std.numpy()
    assert (np.abs(apart) < 4 * of_particles["mcse_mean"] + 0.03).all() and of_particles["mcse_mean"].max() < 0.05
    apart = np.log(of_particles["std"] / std.numpy())
    assert (np.abs(apart) < 4 * of_particles["mcse_log_std"] + 0.03).all()
    evidence, error = of_particles["log evidence"]
    assert abs(evidence - float(log_weight.logsumexp(0)) + math.log(count)) < 4 * error + 0.03 < 0.3


def main() -> None:
    torch.set_num_threads(1)
    task, arrays = suites()["default"].tasks["gapped_sine_noisy"], {}
    for replica in REPLICAS:
        data = task.dataset.problems([replica])
        x, y, x_test = (part[0] for part in data.inputs)
        found = tempered_smc(task.model, x, y, torch_stream("cpu", "tempered smc", str(replica)), tell=print)
        of_one = numbers(task.model, found, x, y, x_test[::EVERY])
        print(f"replica {replica}: log evidence {of_one['log evidence']}", flush=True)
        arrays |= {f"{replica} {name}": np.asarray(value, np.float32) for name, value in of_one.items()}
        np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
