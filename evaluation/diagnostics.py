"""Did a method arrive? Chains are judged on f, since weights are not identifiable (permutations, signs); optimisers by
their loss."""

from __future__ import annotations

import math

import numpy as np
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from torch import Tensor

RHAT_THRESHOLD = 1.05  # rank-normalised split R-hat of f above which a row of many draws is marked and ranked apart
# R-hat² of independent draws, the largest over a test grid, is in 95 % of cases within so many stds of 1
# (timings/rhat_chance.py measures it).
RHAT_CHANCE = 5.5
# The fall of the loss on a tenth of an optimiser's way, in nats for each observation, up to which it counts as arrived:
# 0.1 is what moving every prediction by 0.45 stds of the noise costs. And the standard error up to which it is known.
MAX_LOSS_FALL = 0.1
MAX_LOSS_FALL_ERROR = 0.25
FINE = 25  # test points from which neighbours say the same


def convergence(chained_f: Tensor, every: int | None = None) -> dict[str, NDArray[np.float64]]:
    """Rank-normalised split R-hat, bulk and tail ESS of f at every test point (Vehtari et al. 2021), by arviz-stats;
    and `rhat_limit`, the R-hat up to which so many draws count as converged.

    chained_f: (R, chains, draws, M). Returns (R, M) each; with fewer than 4 draws a chain R-hat is inf and no draw is
    effective. A single chain is cut in two halves that count as chains: it can show that it still drifts, though not
    that it missed a mode.
    every: look at points that are so many apart; the others are nan. None: every fifth point of a fine grid (of FINE
    points or more), where neighbours say the same; every point of a coarser one.
    """
    if chained_f.shape[1] == 1:
        half = chained_f.shape[2] // 2
        chained_f = chained_f[:, :, -2 * half :].unflatten(2, (2, half)).squeeze(1) if half else chained_f
    shape = (chained_f.shape[0], chained_f.shape[-1])
    every = every or (5 if shape[1] >= FINE else 1)
    f = chained_f[..., ::every].double().cpu().numpy()
    if f.shape[1] < 2 or f.shape[2] < 4:  # nothing is known, so nothing has arrived
        unknown = {"rhat": np.inf, "rhat_limit": RHAT_THRESHOLD, "ess_bulk": 0.0, "ess_tail": 0.0}
        return {name: np.full(shape, value) for name, value in unknown.items()}
    axes = {"chain_axis": 1, "draw_axis": 2}
    # Chains that never move have no R-hat, which counts as inf.
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "rhat": np.nan_to_num(array_stats.rhat(f, method="rank", **axes), nan=np.inf, posinf=np.inf),
            "rhat_limit": np.full((shape[0], f.shape[-1]), limit(2 * f.shape[1], f.shape[2] // 2)),
            "ess_bulk": np.nan_to_num(array_stats.ess(f, method="bulk", **axes), nan=0.0),
            "ess_tail": np.nan_to_num(array_stats.ess(f, method="tail", prob=(0.05, 0.95), **axes), nan=0.0),
        }
    spread = {name: np.full(shape, np.nan) for name in found}
    for name, values in found.items():
        spread[name][:, ::every] = values
    return spread


def limit(halves: int, draws: int) -> float:
    """The limit of R-hat for so many half chains of so many draws: RHAT_THRESHOLD, and what chance adds to it.

    R-hat² is 1 + B/(nW) − 1/n, where B/W of m independent halves scatters about 1 with a std of √(2/(m − 1)).
    """
    return math.sqrt(RHAT_THRESHOLD**2 + RHAT_CHANCE * math.sqrt(2 / (halves - 1)) / draws)


def stands_still(fall: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether an optimiser's loss no longer falls: by at most MAX_LOSS_FALL, and what chance adds to it, 2 standard
    errors. fall, error: nats for each observation on a tenth of the way. One that is not known well counts as falling.
    """
    return (error <= MAX_LOSS_FALL_ERROR) & (fall <= MAX_LOSS_FALL + 2 * error)
