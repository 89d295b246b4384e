"""Certificates: what long chains must show to be a reference."""

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

# The limits. R-hat at most, by region. Effective draws at least. Halves of the chains, and of the draws, apart at most,
# in standard errors (the largest over a region's points, which are anything but independent).
MAX_RHAT = {"data": 1.01, "gap": 1.01}
MAX_RHAT_ELSEWHERE = 1.02
MIN_ESS = 400
MAX_HALF_DISCREPANCY = 5.0


def verdict(reference: Reference, regions: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with a reference: what its own run fell short of, or the draws that are kept of it do now.

    regions: (M,) each. The kept draws are fewer, so R-hat's limits are 0.01 wider for them.
    """
    recorded = reference.about["certificate"]
    again = certificate(torch.from_numpy(reference.f), regions, recorded["divergences"], slack=0.01)
    return [*(f"its run: {problem}" for problem in recorded["problems"]), *again["problems"]]


def certificate(f: Tensor, regions: Mapping[str, Tensor], diverged: int, slack: float = 0.0) -> dict[str, Any]:
    """What is found, by region, and `problems`: in which it falls short of what a reference must pass.

    f: (chains, draws, M), regions: (M,) each, diverged: trajectories after burn-in. slack: added to R-hat's limits.
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
    """(4, M): how far the means and the stds of two halves are apart: of the chains, then of the draws. f: (chains,
    draws, M).

    Units: the Monte-Carlo standard errors of the half with the smaller error. A chain that has not arrived widens its
    own half's error by as much as it moves its std, and R-hat of ranks hardly sees it if it is quick.
    """
    chains, draws = len(f) // 2, f.shape[1] // 2
    found = []
    for pair in ((f[:chains], f[chains : 2 * chains]), (f[:, :draws], f[:, draws : 2 * draws])):
        (first, error), (second, other) = map(_moments, pair)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.abs(first - second) / (math.sqrt(2) * np.minimum(error, other)))
    return np.concatenate(found)


def _moments(f: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and std, and their Monte-Carlo standard errors, (2, M) each. f: (chains, draws, M)."""
    axes = {"chain_axis": 0, "draw_axis": 1}
    mean, std = f.mean((0, 1)), f.std((0, 1))
    # The std's from the squares' own autocorrelation: arviz's mcse(method="sd") takes that of f itself.
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = [
            array_stats.mcse(f, method="mean", **axes),
            array_stats.mcse((f - mean) ** 2, method="mean", **axes) / (2 * std),
        ]
    return np.stack([mean, std]), np.stack(errors)
