"""Certificates: the conditions that long chains must meet to be a reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from torch import Tensor

from gapbench.evaluation.diagnostics import convergence
from gapbench.evaluation.reference_file import Reference

# The limits: the largest R-hat by region, the smallest ESS, and the largest distance between the two halves of the
# chains, or of the draws, in standard errors. A distance is the largest over a region's points, which are strongly
# dependent.
MAX_RHAT = {"data": 1.01, "gap": 1.01}
MAX_RHAT_ELSEWHERE = 1.02
MIN_ESS = 400
MAX_HALF_DISCREPANCY = 5.0


def verdict(reference: Reference, regions: Mapping[str, Tensor]) -> list[str]:
    """The problems of a reference: those that its run recorded, and those of its kept draws, which are checked again.

    regions: (M,) each. The kept draws are fewer than those of the run, so the limits of R-hat are 0.01 wider for them.
    """
    recorded = reference.about["certificate"]
    again = certificate(torch.from_numpy(reference.f), regions, recorded["divergences"], slack=0.01)
    return [*(f"its run: {problem}" for problem in recorded["problems"]), *again["problems"]]


def certificate(f: Tensor, regions: Mapping[str, Tensor], diverged: int, slack: float = 0.0) -> dict[str, Any]:
    """The diagnostics of the chains by region, and `problems`: a sentence for each limit that they exceed.

    f: (chains, draws, M). regions: (M,) each. diverged: the number of trajectories after burn-in that diverged. slack:
    added to R-hat's limits.
    """
    found = {name: values[0] for name, values in convergence(f.unsqueeze(0), every=1).items()}  # (M,)
    apart = halves_apart(f.double().cpu().numpy())
    result: dict[str, Any] = {"divergences": diverged, "draws": f.shape[0] * f.shape[1]}
    problems = [f"{diverged} trajectories diverged"] if diverged else []
    if f.shape[1] < 4:
        problems.append(f"{f.shape[1]} draws a chain are too few for R-hat: expected at least 4, and hundreds to pass")
    for region, mask in regions.items():
        inside = mask.cpu().numpy()
        if not inside.any():
            continue
        numbers = {
            "rhat": float(found["rhat"][inside].max()),
            "ess_bulk": float(found["ess_bulk"][inside].min()),
            "ess_tail": float(found["ess_tail"][inside].min()),
            "halves apart": float(apart[:, inside].max()),
        }
        result[region] = numbers
        limit = MAX_RHAT.get(region, MAX_RHAT_ELSEWHERE) + slack
        for name, sound, expected in (
            ("rhat", numbers["rhat"] <= limit, f"at most {limit:g}"),
            ("ess_bulk", numbers["ess_bulk"] >= MIN_ESS, f"at least {MIN_ESS}"),
            ("ess_tail", numbers["ess_tail"] >= MIN_ESS, f"at least {MIN_ESS}"),
            (
                "halves apart",
                numbers["halves apart"] <= MAX_HALF_DISCREPANCY,
                f"at most {MAX_HALF_DISCREPANCY} standard errors",
            ),
        ):
            if not sound:
                problems.append(f"{name} in the {region} is {numbers[name]:.4g}: expected {expected}")
    return {**result, "problems": problems}


def halves_apart(f: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances between the means, and the stds, of two halves: of the chains, then of the draws, (4, M).

    f: (chains, draws, M). Units: √2 Monte-Carlo standard errors of the half with the smaller error. The smaller one,
    because a chain that has not converged enlarges the error of its own half as much as it moves its std. Rank R-hat
    hardly sees such a chain if it mixes quickly.
    """
    chains, draws = len(f) // 2, f.shape[1] // 2
    found = []
    for pair in ((f[:chains], f[chains : 2 * chains]), (f[:, :draws], f[:, draws : 2 * draws])):
        (first, error), (second, other) = map(_moments, pair)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.abs(first - second) / (math.sqrt(2) * np.minimum(error, other)))
    return np.concatenate(found)


def _moments(f: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and std, (2, M), and their Monte-Carlo standard errors, (2, M). f: (chains, draws, M)."""
    axes = {"chain_axis": 0, "draw_axis": 1}
    mean, std = f.mean((0, 1)), f.std((0, 1))
    # The std's error needs the autocorrelation of the squares; arviz's mcse(method="sd") takes that of f itself.
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = [
            array_stats.mcse(f, method="mean", **axes),
            array_stats.mcse((f - mean) ** 2, method="mean", **axes) / (2 * std),
        ]
    return np.stack([mean, std]), np.stack(errors)
