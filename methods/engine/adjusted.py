"""Adjusted samplers: trajectories that are accepted or rejected, so that the chains have exactly the posterior's law.

A trajectory has a random length and a new momentum. It is accepted with probability min(1, exp(−Δ)), where Δ is the
change of its energy U + K. During burn-in the step size is tuned to a wanted acceptance (Hoffman & Gelman 2014,
https://jmlr.org/papers/v15/hoffman14a.html, §3.2).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.chains import rhat
from gapbench.methods.engine.collapsed import cannot_collapse, collapsed_or_whole
from gapbench.methods.engine.global_moves import moved_globally
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.precision import widest
from gapbench.methods.engine.target import Point, Target

DIVERGED = 1000.0  # an energy error beyond which a trajectory has left its level of energy (as Stan counts)


@dataclass(frozen=True)
class AdjustedSampler(UncertaintyMethod):
    """Chains that start at draws of the prior. After burn-in each replica has one step size.

    trajectory: the mean length of a trajectory, in units of prior_std for each coordinate.
    jitter: lengths are uniform between 1 − jitter and 1 + jitter times the mean, to avoid periodic trajectories.
    lr: the first step size, in units of prior_std. During burn_in, the step size is tuned to this `acceptance`: in the
        first half for each chain, in the second half for all chains of a replica together.
    max_steps: the largest number of steps of a trajectory; a longer trajectory is cut. In the first half of burn_in,
        the k-th trajectory has at most k steps.
    burn_in, thin: numbers of trajectories. draws: the number of draws kept from each chain.
    collapse: True: the output layer is integrated out, and a draw is a normal distribution of f.
    proposals: the number of draws of the prior that a chain may go to before each trajectory; see global_moves.py.
    """

    trajectory: float = 1.5
    jitter: float = 0.2
    lr: float = 1e-3
    acceptance: float = 0.75
    max_steps: int = 2000
    burn_in: int = 100
    draws: int = 25
    thin: int = 12
    chains: int = 8
    collapse: bool = False
    proposals: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.trajectory > 0 and 0 <= self.jitter < 1 and 0 < self.acceptance < 1 and self.max_steps >= 1):
            raise ValueError(
                f"{type(self).__name__}: trajectory = {self.trajectory}, jitter = {self.jitter}, acceptance = "
                f"{self.acceptance}, max_steps = {self.max_steps}: expected trajectory > 0, jitter in [0, 1), "
                "acceptance between 0 and 1 and max_steps ≥ 1"
            )
        if self.proposals < 0:
            raise ValueError(f"{type(self).__name__}: proposals = {self.proposals}: expected at least 0")

    @property
    def steps(self) -> int:
        """Trajectories per chain, burn-in included."""
        return self.burn_in + self.draws * self.thin

    def skip(self, model: Model, x: Tensor) -> str | None:
        return cannot_collapse(model, x, self.chains, self.draws + self.proposals) if self.collapse else None

    def target(self, model: Model) -> Target:
        """The density that the chains walk on."""
        return collapsed_or_whole(model, self.collapse)

    @abstractmethod
    def propose(
        self, target: Target, point: Point, x: Tensor, y: Tensor, step: Tensor, steps: Tensor, generator: Generator
    ) -> tuple[Point, Tensor, Tensor]:
        """The end of a trajectory from `point`; the energy U + K at its start, and the change of U + K, (R, chains).

        step, steps: the size of the steps, in units of q's root mean square speed, and their number; (R, chains) each.
        """

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        target = self.target(model)
        q = target.start(generator, (len(y), self.chains))  # (R, chains, size)
        kept = q.new_empty(len(y), self.chains, self.draws, q.shape[-1])
        trace = Trace.empty(q.shape[:2], self.draws * self.thin, q.device)
        for state in self.walk(target, x, y, start(self, target, q, x, y), generator):
            past, rest = divmod(state.steps - self.burn_in, self.thin)
            if state.steps > self.burn_in:
                trace.write(state, state.steps - self.burn_in - 1)
            if past > 0 and rest == 0:
                kept[:, :, past - 1] = state.point.q
        diagnostics = {
            **self.diagnostics(trace),
            "step size": state.tuning.log_mean[:, 0].exp(),
            "gradient evaluations": state.gradients,
        }
        return target.fitted(kept, x, y, diagnostics, trace.failures)

    def diagnostics(self, trace: Trace) -> dict[str, Tensor]:
        """The mean acceptance, the number of divergences and R-hat of U, (R,) each."""
        return {
            "acceptance": trace.acceptance.mean((1, 2)),
            "divergences": trace.diverged.sum((1, 2)),
            "rhat of U": rhat(trace.potential),
        }

    def walk(self, target: Target, x: Tensor, y: Tensor, state: State, generator: Generator) -> Iterator[State]:
        """The states after each trajectory, from `state` to the end of the run.

        To resume a run, pass its last state and its generator: the run then continues with the same numbers.
        """
        prior_std, inputs = target.model.prior_std, (x.unsqueeze(1), y.unsqueeze(1))
        # A likelihood counts as a gradient, though it costs less; the new place needs one gradient more.
        counted = self.proposals + 1 if self.proposals else 0
        while state.steps < self.steps:
            warm, alone = state.steps < self.burn_in, state.steps < self.burn_in // 2
            if state.steps == self.burn_in // 2:  # steps tuned on the way in are too small later: restart the tuning
                state = replace(state, tuning=Tuning.start(_shared(state.tuning.log_step.amin(1), state)))
            step = (state.tuning.log_step if warm else state.tuning.log_mean).exp() * prior_std  # (R, chains)
            length = 1 + self.jitter * (2 * torch.rand(len(y), 1, generator=generator, device=y.device) - 1)
            # Short trajectories act as friction: the energy that a chain gains as it falls from the prior would carry
            # the chain too far away to come back.
            most = min(self.max_steps, state.steps + 1) if alone else self.max_steps
            steps = (length * self.trajectory * prior_std / step).ceil().clamp(1, most).long()
            begin = state.point
            if self.proposals:
                begin = moved_globally(target, begin, *inputs, self.proposals, generator)
            end, energy, change = self.propose(target, begin, *inputs, step, steps, generator)
            change = change.nan_to_num(nan=math.inf)
            acceptance = (-change).clamp(max=0).exp()
            accepted = torch.rand(change.shape, generator=generator, device=y.device) < acceptance
            # In the first half each chain has its own step: a common step could leave a chain behind.
            found = acceptance if alone else _shared(acceptance.mean(1), state)
            point = begin.moved(accepted, end)
            state = State(
                steps=state.steps + 1,
                point=point,
                tuning=state.tuning.tuned(found, self.acceptance) if warm else state.tuning,
                acceptance=acceptance,
                diverged=change > DIVERGED,
                accepted=accepted,
                energy=energy,
                potential=point.energy,
                gradients=state.gradients + (steps + counted).sum(1) * y.shape[1],
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
    point: Point  # (R, chains, size)
    tuning: Tuning
    acceptance: Tensor  # the probability of accepting the trajectory's end
    diverged: Tensor
    accepted: Tensor
    energy: Tensor  # U + K at the trajectory's start
    potential: Tensor  # U after the trajectory
    gradients: Tensor  # (R,): gradients of single points' log likelihood so far


@dataclass(frozen=True)
class Trace:
    """The outcomes of the trajectories after burn-in, (R, chains, trajectories) each."""

    acceptance: Tensor
    diverged: Tensor
    accepted: Tensor
    energy: Tensor
    potential: Tensor

    @staticmethod
    def empty(lead: Sequence[int], trajectories: int, device: torch.device | str) -> Trace:
        wide = widest(torch.device(device))
        kinds = (wide, torch.bool, torch.bool, wide, wide)
        return Trace(*(torch.zeros(*lead, trajectories, dtype=kind, device=device) for kind in kinds))

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


def start(method: AdjustedSampler, target: Target, q: Tensor, x: Tensor, y: Tensor) -> State:
    """The state before the first trajectory. q: (R, chains, size); x: (R, N, D); y: (R, N)."""
    point = target.at(q, x.unsqueeze(1), y.unsqueeze(1))
    nothing = torch.zeros_like(point.energy)
    log_step = torch.full_like(nothing, math.log(method.lr))
    no = nothing > 0
    # The gradient at the start counts too.
    gradients = torch.full_like(nothing[:, 0], q.shape[1] * y.shape[1]).long()
    return State(0, point, Tuning.start(log_step), nothing, no, no, nothing, point.energy, gradients)


def _shared(values: Tensor, state: State) -> Tensor:
    """The values (R,), repeated for each chain: (R, chains)."""
    return values.unsqueeze(1).expand(state.acceptance.shape)


def longest(steps: Tensor) -> int:
    """The number of steps of the longest trajectory. steps: (R, chains).

    A chain that has done its own steps stays in place, with steps of 0, until the longest trajectory is done.
    """
    return int(steps.max())
