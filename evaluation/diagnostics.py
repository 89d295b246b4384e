"""Did the chains arrive? Judged on f, since weights are not identifiable (permutations, signs)."""

from __future__ import annotations

import math

import numpy as np
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from torch import Tensor

CONVERGED = 1.05  # rank-normalised split R-hat of f above which a row of many draws is marked and ranked apart
CHANCE = 5.5  # R-hat² of independent draws, the largest over a test grid, is in 95 % within so many stds of 1: measured


def convergence(chained_f: Tensor) -> dict[str, NDArray[np.float64]]:
    """Rank-normalised split R-hat, bulk and tail ESS of f at every test point (Vehtari et al. 2021), by arviz-stats;
    and `rhat_limit`, the R-hat up to which so many draws count as converged.

    chained_f: (R, chains, draws, M). Returns (R, M) each; nan with fewer than 4 draws a chain. A single chain is cut in
    two halves that count as chains: it can show that it still drifts, though not that it missed a mode.
    """
    if chained_f.shape[1] == 1:
        half = chained_f.shape[2] // 2
        chained_f = chained_f[:, :, -2 * half :].unflatten(2, (2, half)).squeeze(1) if half else chained_f
    f = chained_f.double().cpu().numpy()
    shape = (f.shape[0], f.shape[-1])
    if f.shape[1] < 2 or f.shape[2] < 4:
        return {name: np.full(shape, np.nan) for name in ("rhat", "rhat_limit", "ess_bulk", "ess_tail")}
    axes = {"chain_axis": 1, "draw_axis": 2}
    with np.errstate(divide="ignore", invalid="ignore"):  # chains that never move: R-hat is inf or nan, and says so
        return {
            "rhat": array_stats.rhat(f, method="rank", **axes),
            "rhat_limit": np.full(shape, limit(2 * f.shape[1], f.shape[2] // 2)),
            "ess_bulk": array_stats.ess(f, method="bulk", **axes),
            "ess_tail": array_stats.ess(f, method="tail", prob=(0.05, 0.95), **axes),
        }


def limit(halves: int, draws: int) -> float:
    """Of R-hat, for so many half chains of so many draws: CONVERGED, and what chance adds to it with few draws.

    R-hat² is 1 + B/(nW) − 1/n, where B/W of m independent halves scatters about 1 with a std of √(2/(m − 1)).
    """
    return math.sqrt(CONVERGED**2 + CHANCE * math.sqrt(2 / (halves - 1)) / draws)
