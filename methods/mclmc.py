"""Microcanonical Langevin Monte Carlo (MCLMC; Robnik, De Luca, Silverstein & Seljak 2022; Robnik & Seljak 2023).

    step      B(ε/2) A(ε) B(ε/2) of engine/microcanonical.py, at constant speed
    refresh   u ← (u + ν z)/‖·‖,   z ~ N(0, I),   ν = √((e^{2ε/L} − 1)/d)

https://arxiv.org/abs/2212.08549, https://arxiv.org/abs/2303.18221
Family: Markov chain.
Caveat: there is no accept step, so the chains have a bias, which grows with ε. The step size is tuned to a wanted
energy error, and the error that the draws had is a diagnostic. A step is refused only if it raises U + K by more than
JUMP · (1 + √(error · d)), which an accept step would hardly ever accept.
After burn-in a refused step halves all later steps of its chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gapbench.methods.base import Claim, FittedMethod, UncertaintyMethod
from gapbench.methods.engine.chains import rhat
from gapbench.methods.engine.collapsed import cannot_collapse, collapsed_or_whole
from gapbench.methods.engine.microcanonical import bounded_move, direction, refresh
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.target import Target

WINDOW = 10  # steps between two changes of the step size
# The range of one change of log ε. Steps a little too large have huge errors, and a chain comes back from them slowly.
CHANGE = (-1.0, 0.3)
JUMP = 25.0  # an accept step accepts such a rise of U + K with probability e^−25 = 1e-11
UNSETTLED = 10.0  # a realised energy error this many times the wanted one is a failure
MAX_REFUSED = 0.05  # and so is a larger share of refused steps


@dataclass(frozen=True)
class MCLMC(UncertaintyMethod):
    """Chains that start at draws of the prior. After burn-in the chains of a replica have one step size; a refused step
    halves that of its chain.

    error: the wanted mean of (Δ(U + K))²/d of one step, d the number of sampled parameters.
    length: L, the length after which a direction is forgotten, in units of prior_std · √d.
    lr: the first step size, in the same units. Every 10 steps of burn_in, log ε changes by ⅓ log(wanted / found error),
        at least by −1 and at most by 0.3: in the first half for each chain, in the second half for all chains of a
        replica. Then ε is the mean of the log ε of the last quarter.
    burn_in, thin: numbers of steps. draws: the number of draws kept from each chain.
    collapse: True: the output layer is integrated out, and a draw is a normal distribution of f.
    adam_steps: steps of Adam, with step size adam_lr, by which each chain goes to an optimum first. (A chain of all
        parameters that starts at a draw of the prior may need long to come down.)
    """

    error: float = 5e-4
    length: float = 0.5
    lr: float = 1e-3
    burn_in: int = 400
    draws: int = 25
    thin: int = 34
    chains: int = 8
    collapse: bool = True
    adam_steps: int = 0
    adam_lr: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("error", "length", "adam_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"MCLMC: {name} = {getattr(self, name)}: expected a positive number")
        if self.adam_steps < 0:
            raise ValueError(f"MCLMC: adam_steps = {self.adam_steps}: expected at least 0")

    @property
    def steps(self) -> int:
        """Steps of each chain, burn-in included."""
        return self.burn_in + self.draws * self.thin

    @property
    def exactness(self) -> Claim:
        quick = replace(
            self, error=1e-5, length=1.0, burn_in=400, draws=200, thin=10, chains=2, collapse=False, adam_steps=0
        )
        return Claim(quick, lambda regression: regression.posterior)

    def skip(self, model: Model, x: Tensor) -> str | None:
        return cannot_collapse(model, x, self.chains, self.draws) if self.collapse else None

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        target = collapsed_or_whole(model, self.collapse)
        q = target.start(generator, (len(y), self.chains))  # (R, chains, size)
        if self.adam_steps:
            q = target.optima(q, x.unsqueeze(1), y.unsqueeze(1), self.adam_steps, self.adam_lr)
        return self.sample(target, q, x, y, generator)

    def sample(self, target: Target, q: Tensor, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        """The draws of chains that start at q. q: (R, chains, size); x: (R, N, D); y: (R, N)."""
        inputs = x.unsqueeze(1), y.unsqueeze(1)
        point, u = target.at(q, *inputs), direction(q, generator)
        kept = q.new_empty(*q.shape[:2], self.draws, target.size)
        energies = point.energy.new_empty(*q.shape[:2], self.draws)
        unit = target.model.prior_std * math.sqrt(target.size)
        log_step = torch.full_like(point.energy, math.log(self.lr))
        error, refused, late = torch.zeros_like(log_step), torch.zeros_like(log_step), []
        limit = JUMP * (1 + math.sqrt(self.error * target.size))  # the root is the size of change that is wanted
        for number in range(1, self.steps + 1):
            step = log_step.exp() * unit
            point, u, change, stayed = bounded_move(target, point, u, step, limit, *inputs)
            u = refresh(u, step / (self.length * unit), generator)
            squares = change.square() / target.size
            if number > self.burn_in:
                refused += stayed
                log_step = log_step - math.log(2) * stayed  # else a chain in a narrow place would be refused for ever
                error += squares.masked_fill(stayed, 0)  # a step that was not made has no error
                past, rest = divmod(number - self.burn_in, self.thin)
                if rest == 0:
                    kept[:, :, past - 1], energies[:, :, past - 1] = point.q, point.energy
                continue
            error += squares
            if number % WINDOW == 0:
                found = error / WINDOW
                if number > self.burn_in // 2:  # one step size for all chains of a replica
                    found, log_step = (one.mean(1, keepdim=True).expand_as(one) for one in (found, log_step))
                log_step = log_step + ((self.error / found).log() / 3).nan_to_num(nan=CHANGE[0]).clamp(*CHANGE)
                late += [log_step] if number > 3 * self.burn_in // 4 else []
                error = torch.zeros_like(error)
            if number == self.burn_in:
                log_step, error = torch.stack(late).mean(0) if late else log_step, torch.zeros_like(error)
        realised, refusals = (part.mean(1) / (self.draws * self.thin) for part in (error, refused))
        gradients = (self.steps + 1 + self.adam_steps) * q.shape[1] * y.shape[1]
        diagnostics = {
            "energy error": realised,
            "refused steps": refusals,
            "step size": log_step.exp().mean(1),
            "rhat of U": rhat(energies),
            "gradient evaluations": torch.full_like(realised, gradients),
        }
        return target.fitted(kept, x, y, diagnostics, self._unsettled(realised, refusals))

    def _unsettled(self, realised: Tensor, refused: Tensor) -> dict[int, str]:
        """The replicas whose step size did not arrive, by the steps after burn-in. realised: their mean energy error;
        refused: the share of them that was refused; (R,) each."""
        return {
            r: f"energy error {error:.2g} ({self.error:g} wanted), {share:.0%} of the steps refused (at most "
            f"{MAX_REFUSED:.0%}) after burn_in: the step size did not settle; try a longer burn_in"
            for r, (error, share) in enumerate(zip(realised.tolist(), refused.tolist(), strict=True))
            if not (error <= UNSETTLED * self.error and share <= MAX_REFUSED)
        }
