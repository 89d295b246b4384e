"""Convergence: chains are judged by f, since weights are not identifiable (permutations, signs); optimisers by their
loss.

A chain of *components* gives f a normal law with a mean m and a variance v at each draw. R-hat of m alone does not see
chains that differ in v, so several numbers of the components are judged.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from gapbench.methods.engine.chains import rhat

Floats = NDArray[np.float64]

RHAT_THRESHOLD = 1.05  # rank-normalised split R-hat of f up to which a method with many draws counts as converged
# R-hat² of independent draws: in 95 % of cases, its largest value over a test grid is within this many stds of 1
# (timings/rhat_chance.py measures this number).
RHAT_CHANCE = 5.5
# The largest fall of the loss on a tenth of an optimiser's way, in nats per observation, that counts as converged: 0.1
# is the cost of moving every prediction by 0.45 stds of the noise. Then the largest standard error of a known fall.
MAX_LOSS_FALL = 0.1
MAX_LOSS_FALL_ERROR = 0.25
FINE = 25  # with this many test points, neighbours have nearly the same R-hat


def convergence(chained_f: Tensor, every: int | None = None) -> dict[str, NDArray[np.float64]]:
    """Rank-normalised split R-hat, bulk and tail ESS of f at every test point (Vehtari et al. 2021), by arviz-stats;
    and `rhat_limit`, the R-hat up to which this number of draws counts as converged.

    chained_f: (R, chains, draws, M). Returns (R, M) each. With fewer than 4 draws a chain, R-hat is inf and ESS is 0.
    A single chain is cut into two halves that count as chains. This can show that the chain still drifts, but not that
    the chain missed a mode.
    every: the step between the points that are looked at; the others are nan. None: every fifth point if there are FINE
    points or more, where neighbours have nearly the same values; else every point.
    """
    if chained_f.shape[1] == 1:
        half = chained_f.shape[2] // 2
        chained_f = chained_f[:, :, -2 * half :].unflatten(2, (2, half)).squeeze(1) if half else chained_f
    shape = (chained_f.shape[0], chained_f.shape[-1])
    every = every or (5 if shape[1] >= FINE else 1)
    f = chained_f[..., ::every].double().cpu().numpy()
    if f.shape[1] < 2 or f.shape[2] < 4:  # too few draws to know anything: not converged
        unknown = {"rhat": np.inf, "rhat_limit": RHAT_THRESHOLD, "ess_bulk": 0.0, "ess_tail": 0.0}
        return {name: np.full(shape, value) for name, value in unknown.items()}
    from arviz_stats.base import array_stats  # here, because it takes a second, and most commands need none

    axes = {"chain_axis": 1, "draw_axis": 2}
    # Chains that never move have no R-hat, which counts as inf.
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "rhat": rhat(torch.from_numpy(f)).numpy(),
            "rhat_limit": np.full((shape[0], f.shape[-1]), limit(2 * f.shape[1], f.shape[2] // 2)),
            "ess_bulk": np.nan_to_num(array_stats.ess(f, method="bulk", **axes), nan=0.0),
            "ess_tail": np.nan_to_num(array_stats.ess(f, method="tail", prob=(0.05, 0.95), **axes), nan=0.0),
        }
    spread = {name: np.full(shape, np.nan) for name in found}
    for name, values in found.items():
        spread[name][:, ::every] = values
    return spread


def component_statistics(mean: Floats, std: Floats, noise: Floats | None) -> dict[str, Floats]:
    """The numbers of components whose convergence is judged, (..., chains, draws, M) each.

    They are m, v, the second moment of f about its mean, the mass of f in its two tails, and log σ if the noise is
    learned. A tail begins 1.645 stds of f from its mean, where a normal law has 5 % left. mean, std: of f given each
    draw; noise: σ, or None. All (..., chains, draws, M).
    """
    centre = mean.mean((-3, -2), keepdims=True)
    second = (mean - centre) ** 2 + std**2
    far = 1.645 * np.sqrt(second.mean((-3, -2), keepdims=True))
    found = {"m": mean, "v": std**2, "m² + v": second}
    found |= {"low tail": ndtr((centre - far - mean) / std), "high tail": ndtr((mean - centre - far) / std)}
    return found if noise is None else {**found, "log σ": np.log(noise)}


def component_convergence(mean: Tensor, std: Tensor, noise: Tensor | None) -> NDArray[np.float64]:
    """The largest R-hat of `component_statistics` at every test point, (R, M), as `convergence` looks at points.

    mean, std: (R, chains, draws, M). noise: the same shape, or None where it is known. A noise that never changes is
    known too.
    """
    if noise is not None and torch.equal(noise, noise[:, :1, :1].expand_as(noise)):
        noise = None
    every = 5 if mean.shape[-1] >= FINE else 1
    parts = [None if one is None else one[..., ::every].double().cpu().numpy() for one in (mean, std, noise)]
    assert parts[0] is not None and parts[1] is not None
    numbers = component_statistics(parts[0], parts[1], parts[2])
    found = [rhat(torch.from_numpy(one)).numpy() for one in numbers.values()]
    spread = np.full((mean.shape[0], mean.shape[-1]), np.nan)
    spread[:, ::every] = np.max(found, 0)
    return spread


def limit(halves: int, draws: int) -> float:
    """The limit of R-hat for this number of half chains, each with this number of draws: RHAT_THRESHOLD, plus chance.

    R-hat² is 1 + B/(nW) − 1/n, where B/W of m independent halves scatters around 1 with a std of √(2/(m − 1)).
    """
    return math.sqrt(RHAT_THRESHOLD**2 + RHAT_CHANCE * math.sqrt(2 / (halves - 1)) / draws)


def stands_still(fall: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.bool_]:
    """True if an optimiser's loss no longer falls: its fall is at most MAX_LOSS_FALL plus 2 standard errors.

    fall: nats per observation on a tenth of the way; error: the standard error of the fall. A fall with an error above
    MAX_LOSS_FALL_ERROR is not known well enough, and counts as falling.
    """
    return (error <= MAX_LOSS_FALL_ERROR) & (fall <= MAX_LOSS_FALL + 2 * error)
