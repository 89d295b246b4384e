"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011), with the step sizes of Hoffman & Gelman (2014).

    H(θ, p) = U(θ) + ½‖p‖²,    U(θ) = −log p(θ) − Σₙ log p(yₙ | xₙ, θ)
    leapfrog   p ← p − ½ε ∇U(θ),   θ ← θ + ε p,   p ← p − ½ε ∇U(θ)
    accept     with probability min(1, exp(H(θ, p) − H(θ′, p′)))

https://arxiv.org/abs/1206.1901, https://jmlr.org/papers/v15/hoffman14a.html (§3.2)
Caveat: exact only for the part of the posterior that its chains have reached. A draw costs about a thousand gradients
of all data: HMC is the reference for the other methods, not their competitor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim, UncertaintyMethod
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.engine.precision import widest

DIVERGED = 1000.0  # an energy error beyond which a trajectory has left the Hamiltonian's level (as Stan counts)
CACHED = 2**23  # bytes of activations of a block of chains on a CPU, to stay in its cache; no number depends on it


@dataclass(frozen=True)
class HMC(UncertaintyMethod):
    """Chains that start at draws of the prior, with identity mass. After burn-in each replica has one step size.

    trajectory: the mean length of a trajectory, in units of prior_std (π/2 is a quarter turn for a Gaussian of that
        width).
    jitter: lengths are uniform between 1 − jitter and 1 + jitter times the mean, to avoid periodic trajectories.
    lr: the first step size, in units of prior_std. During burn_in, the step size is tuned to this `acceptance`: in the
        first half for each chain, in the second half for all chains of a replica together.
    max_steps: the largest number of steps of a trajectory; a longer trajectory is cut. In the first half of burn_in,
        the k-th trajectory has at most k steps.
    burn_in, thin: numbers of trajectories. draws: the number of draws kept from each chain.
    """

    trajectory: float = 1.5
    jitter: float = 0.2
    lr: float = 1e-3
    acceptance: float = 0.75
    max_steps: int = 2000
    burn_in: int = 100
    draws: int = 50
    thin: int = 6
    chains: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.trajectory > 0 and 0 <= self.jitter < 1 and 0 < self.acceptance < 1 and self.max_steps >= 1):
            raise ValueError(
                f"HMC: trajectory = {self.trajectory}, jitter = {self.jitter}, acceptance = {self.acceptance}, "
                f"max_steps = {self.max_steps}: expected trajectory > 0, jitter in [0, 1), acceptance between 0 and 1 "
                "and max_steps ≥ 1"
            )

    @property
    def steps(self) -> int:
        """Trajectories per chain, burn-in included."""
        return self.burn_in + self.draws * self.thin

    @property
    def exactness(self) -> Claim:
        quick = replace(self, burn_in=50, draws=50, thin=1, chains=4, max_steps=1000)
        return Claim(quick, lambda regression: regression.posterior)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> PosteriorDraws:
        theta = model.init(generator, (len(y), self.chains))  # (R, chains, P)
        kept = theta.new_empty(len(y), self.chains, self.draws, theta.shape[-1])
        trace = Trace.empty(theta.shape[:2], self.draws * self.thin, theta.device)
        for state in self.walk(model, x, y, start(self, theta), generator):
            past, rest = divmod(state.steps - self.burn_in, self.thin)
            if state.steps > self.burn_in:
                trace.write(state, state.steps - self.burn_in - 1)
            if past > 0 and rest == 0:
                kept[:, :, past - 1] = state.theta
        diagnostics = {
            **trace.diagnostics,
            "step size": state.tuning.log_mean[:, 0].exp(),
            "gradient evaluations": state.gradients,
        }
        return PosteriorDraws(model, kept.flatten(1, 2), self.chains, diagnostics=diagnostics, failures=trace.failures)

    def walk(self, model: Model, x: Tensor, y: Tensor, state: State, generator: Generator) -> Iterator[State]:
        """The states after each trajectory, from `state` to the end of the run.

        To resume a run, pass its last state and its generator: the run then continues with the same numbers.
        """
        while state.steps < self.steps:
            warm, alone = state.steps < self.burn_in, state.steps < self.burn_in // 2
            if state.steps == self.burn_in // 2:  # steps tuned on the way in are too small later: restart the tuning
                state = replace(state, tuning=Tuning.start(_shared(state.tuning.log_step.amin(1), state)))
            step = (state.tuning.log_step if warm else state.tuning.log_mean).exp() * model.prior_std  # (R, chains)
            length = 1 + self.jitter * (2 * torch.rand(len(y), 1, generator=generator, device=y.device) - 1)
            # Short trajectories act as friction: the energy that a chain gains as it falls from the prior would carry
            # the chain too far away to come back.
            most = min(self.max_steps, state.steps + 1) if alone else self.max_steps
            steps = (length * self.trajectory * model.prior_std / step).ceil().clamp(1, most).long()
            momentum = torch.empty_like(state.theta).normal_(generator=generator)
            uniform = torch.rand(momentum.shape[:-1], generator=generator, device=y.device)

            theta, end = leapfrog(model, state.theta, momentum, x, y, step, steps)
            before = hamiltonian(model, state.theta, momentum, x, y)
            after = hamiltonian(model, theta, end, x, y).nan_to_num(nan=math.inf)  # (R, chains)
            acceptance = (before - after).clamp(max=0).exp()
            accepted = uniform < acceptance
            # In the first half each chain has its own step: a common step could leave a chain behind.
            found = acceptance if alone else _shared(acceptance.mean(1), state)
            state = State(
                steps=state.steps + 1,
                theta=torch.where(accepted.unsqueeze(-1), theta, state.theta),
                tuning=state.tuning.tuned(found, self.acceptance) if warm else state.tuning,
                acceptance=acceptance,
                diverged=after - before > DIVERGED,
                accepted=accepted,
                energy=before,
                gradients=state.gradients + (steps + 1).sum(1) * y.shape[1],
            )
            yield state


@dataclass(frozen=True)
class Tuning:
    """Dual averaging of log steps (Hoffman & Gelman 2014, eq. 6, with their t₀, γ and κ). (R, chains) each."""

    target: Tensor  # the value that log steps are pulled to
    error: Tensor  # running mean of (wanted − found) acceptance
    log_step: Tensor
    log_mean: Tensor  # the average of log steps, used after burn-in
    count: int = 0

    @staticmethod
    def start(log_step: Tensor) -> Tuning:
        return Tuning(log_step, torch.zeros_like(log_step), log_step, log_step)

    def tuned(self, found: Tensor, wanted: float) -> Tuning:
        """The tuning after one more trajectory. found: its acceptance, (R, chains). wanted: the target acceptance."""
        count = self.count + 1
        error = self.error + (wanted - found - self.error) / (count + 10)
        log_step = self.target - math.sqrt(count) / 0.05 * error
        log_mean = self.log_mean + count**-0.75 * (log_step - self.log_mean)
        return Tuning(self.target, error, log_step, log_mean, count)


@dataclass(frozen=True)
class State:
    """The state of all chains after `steps` trajectories, with the outcome of the last trajectory. (R, chains) each."""

    steps: int
    theta: Tensor  # (R, chains, P)
    tuning: Tuning
    acceptance: Tensor  # the probability of accepting the trajectory's end
    diverged: Tensor
    accepted: Tensor
    energy: Tensor  # H at the trajectory's start
    gradients: Tensor  # (R,): gradients of single points' log likelihood so far


@dataclass(frozen=True)
class Trace:
    """The outcomes of the trajectories after burn-in, (R, chains, trajectories) each."""

    acceptance: Tensor
    diverged: Tensor
    accepted: Tensor
    energy: Tensor

    @staticmethod
    def empty(lead: Sequence[int], trajectories: int, device: torch.device | str) -> Trace:
        return Trace(
            *(
                torch.zeros(*lead, trajectories, dtype=kind, device=device)
                for kind in (widest(torch.device(device)), torch.bool, torch.bool, widest(torch.device(device)))
            )
        )

    def write(self, state: State, at: int) -> None:
        for one in fields(self):
            getattr(self, one.name)[..., at] = getattr(state, one.name)

    def joined(self, states: Sequence[State]) -> Trace:
        """The trace with the outcomes of later trajectories added."""
        return Trace(
            *(
                torch.cat([getattr(self, one.name), *(getattr(state, one.name).unsqueeze(-1) for state in states)], -1)
                for one in fields(self)
            )
        )

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """Mean acceptance, number of divergences, and E-BFMI (the smallest over chains), (R,) each.

        E-BFMI: Betancourt 2016, https://arxiv.org/abs/1604.00695. Below 0.3 the momenta explore energies too slowly.
        """
        change = self.energy.diff(dim=-1).square().sum(-1)
        spread = (self.energy - self.energy.mean(-1, keepdim=True)).square().sum(-1)
        return {
            "acceptance": self.acceptance.mean((1, 2)),
            "divergences": self.diverged.sum((1, 2)),
            "E-BFMI": (change / spread).amin(1),
        }

    @property
    def failures(self) -> dict[int, str]:
        """The failed replicas, each with its reason: a chain that diverged, or a chain that never moved."""
        found: dict[int, str] = {}
        trajectories = self.accepted.shape[-1]
        for r, (moves, losses) in enumerate(
            zip(self.accepted.sum(-1).tolist(), self.diverged.sum(-1).tolist(), strict=True)
        ):
            for chain, (moved, lost) in enumerate(zip(moves, losses, strict=True)):
                if not moved:
                    found[r] = f"chain {chain} accepted none of its {trajectories} trajectories; try a longer burn_in"
                elif lost:
                    found[r] = (
                        f"chain {chain} diverged in {lost} of {trajectories} trajectories; try a higher acceptance"
                    )
        return found


def start(method: HMC, theta: Tensor) -> State:
    """The state before the first trajectory. theta: (R, chains, P)."""
    nothing = torch.zeros(theta.shape[:2], dtype=widest(theta.device), device=theta.device)
    log_step = torch.full_like(nothing, math.log(method.lr))
    return State(0, theta, Tuning.start(log_step), nothing, nothing > 0, nothing > 0, nothing, nothing[:, 0].long())


def _shared(values: Tensor, state: State) -> Tensor:
    """The values (R,), repeated for each chain: (R, chains)."""
    return values.unsqueeze(1).expand(state.theta.shape[:2])


def leapfrog(
    model: Model, theta: Tensor, momentum: Tensor, x: Tensor, y: Tensor, step: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """The pair (θ, p) at the trajectory's end. theta, momentum: (R, chains, P); x: (R, N, D); y: (R, N).

    step, steps: (R, chains), the size and the number of the steps of each chain."""
    theta, momentum = theta.clone(), momentum.clone()
    replicas, chains, size = theta.shape
    together = replicas if theta.is_cuda else max(1, CACHED // int(32 * y.shape[1] * math.sqrt(size) * chains))
    for first in range(0, replicas, together):
        block = slice(first, first + together)
        eps, last = step[block].unsqueeze(-1), steps[block].unsqueeze(-1)
        # A chain that has done its steps stays in place, with kicks and drifts of 0, until the longest chain is done.
        number = torch.arange(int(last.max()) + 1, device=step.device).view(-1, 1, 1, 1)
        kicks = eps * ((number < last).to(eps) - 0.5 * (number == 0) + 0.5 * (number == last))
        drifts = eps * (number < last)
        t, p = theta[block], momentum[block]
        inputs = x[block].unsqueeze(1).expand(-1, chains, -1, -1), y[block].unsqueeze(1).expand(-1, chains, -1)
        gradient = torch.empty_like(t)
        for kick, drift in zip(kicks.to(t), drifts.to(t), strict=True):
            torch.mul(t, 1 / model.prior_std**2, out=gradient)
            model.per_sample_gradients(t, *inputs).add_weighted_sum(None, gradient)
            p.addcmul_(gradient, kick, value=-1)
            t.addcmul_(p, drift)
    return theta, momentum


def hamiltonian(model: Model, theta: Tensor, momentum: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The Hamiltonian H, (R, chains), in the widest float of the device: acceptance needs differences of large sums."""
    kind = widest(theta.device)
    theta, x, y = theta.to(kind), x.to(kind).unsqueeze(1), y.to(kind).unsqueeze(1)
    potential = -model.log_prior(theta) - model.log_likelihood(theta, x, y).sum(-1)
    return potential + 0.5 * momentum.to(kind).square().sum(-1)
