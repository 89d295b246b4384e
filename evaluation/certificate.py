"""Certificates: the conditions that long chains must meet to be a reference.

The chains are of components (see diagnostics.py), whose energy U is judged too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

from gapbench.evaluation.diagnostics import component_statistics, convergence
from gapbench.evaluation.reference_file import Errors, Floats, Law, Reference, law_of
from gapbench.methods.engine.distributions import NormalMixture

# The limits. R-hat is the largest over a region's points. It is of f, with one draw of each component, and of the
# components' numbers. These say more with as many draws, since a part of the variance of f is known in closed form.
# MCSEs are in stds of f: PRECISE for the two sines, else MAX_MCSE. A distance between halves is in standard errors,
# the largest over points, which are strongly dependent.
MAX_RHAT = {"data": 1.01, "gap": 1.01}
MAX_RHAT_ELSEWHERE = 1.02
MAX_RHAT_COMPONENTS = 1.02
MAX_RHAT_ENERGY = 1.05
MIN_ESS = 400
MAX_MCSE = 0.04
PRECISE = 0.02
MAX_HALF_DISCREPANCY = 5.0
LAW_COMPONENTS = 12_000  # a law is of at most this many components


@dataclass(frozen=True)
class Chains:
    """The components along chains: mean and std of f, and std of the noise, (chains, draws, M) each; U (chains, draws).

    noise: None where it is known.
    """

    mean: Floats
    std: Floats
    energy: Floats
    noise: Floats | None = None


def reference_of(chains: Chains, about: Mapping[str, Any]) -> Reference:
    """The reference of these chains. about: its description."""
    m, v = chains.mean, chains.std**2
    mean = m.mean((0, 1))
    second = (m - mean) ** 2 + v
    variance = second.mean((0, 1))
    std = np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        mcse_mean, mcse_second = _mcse(m), _mcse(second)
    f, y = _law(chains.mean, chains.std), None
    if chains.noise is not None:
        y = _law(chains.mean, np.hypot(chains.std, chains.noise))
    halves = [_cdf(part, f) for part in _halves(chains)]
    spread = np.zeros(len(mean))
    t, width = _middles(f)
    for at, share in zip(t, width, strict=True):
        spread += special.ndtr((at - m) / chains.std).std((0, 1)) * share
    errors = Errors(
        mcse_mean=mcse_mean / std,
        mcse_log_std=mcse_second / (2 * variance),
        w1=(np.abs(halves[0] - halves[1]) * width).sum(0) / 2 / std,
        component_mean=m.std((0, 1)) / std,
        component_log_std=second.std((0, 1)) / (2 * variance),
        component_w1=spread / std,
    )
    return Reference(f, mean, std, errors, about, y)


def _law(mean: Floats, std: Floats) -> Law:
    """The law of the components, of which some are left out where there are many."""
    draws = mean.shape[1]
    kept = np.linspace(0, draws - 1, min(draws, max(1, LAW_COMPONENTS // len(mean)))).round().astype(int)
    some = (torch.from_numpy(part[:, kept].reshape(1, -1, part.shape[2])) for part in (mean, std))
    return law_of(NormalMixture(*some))


def _middles(law: Law) -> tuple[Floats, Floats]:
    """The middles between neighbouring quantiles, and the distances between these; (L − 1, M) each."""
    return (law.quantiles[1:] + law.quantiles[:-1]) / 2, np.diff(law.quantiles, axis=0)


def _halves(chains: Chains) -> list[tuple[Floats, Floats]]:
    """The mean and std of the components of the first half of the chains, and of the second."""
    middle = len(chains.mean) // 2
    return [(chains.mean[part], chains.std[part]) for part in (slice(None, middle), slice(middle, None))]


def _cdf(components: tuple[Floats, Floats], law: Law) -> Floats:
    """The distribution function of a mixture at the middles of a law's quantiles, (L − 1, M)."""
    mean, std = components
    return np.stack([special.ndtr((at - mean) / std).mean((0, 1)) for at in _middles(law)[0]])


def measured(chains: Chains, reference: Reference, regions: Mapping[str, NDArray[np.bool_]]) -> dict[str, Any]:
    """The numbers of a certificate: R-hat and ESS of U, and by region the worst of each diagnostic.

    regions: (M,) each.
    """
    statistics = component_statistics(chains.mean, chains.std, chains.noise)
    found = [_converged(part) for part in statistics.values()]
    components, ess = np.max([one["rhat"] for one in found], 0), np.min([one["ess_bulk"] for one in found], 0)
    z = np.random.default_rng(0).standard_normal(chains.energy.shape)[..., None]
    rhat = _converged(chains.mean + chains.std * z)["rhat"]
    apart = halves_apart(chains)
    energy = _converged(chains.energy[..., None])
    return {
        "chains": len(chains.mean),
        "draws": chains.mean.shape[0] * chains.mean.shape[1],
        "energy": {"rhat": float(energy["rhat"][0]), "ess": float(energy["ess_bulk"][0])},
        "regions": {
            region: {
                "rhat": float(rhat[inside].max()),
                "rhat of components": float(components[inside].max()),
                "ess": float(ess[inside].min()),
                "mcse_mean": float(reference.errors.mcse_mean[inside].max()),
                "mcse_log_std": float(reference.errors.mcse_log_std[inside].max()),
                "halves apart": float(apart[:, inside].max()),
            }
            for region, inside in regions.items()
            if inside.any()
        },
    }


def _converged(values: Floats) -> dict[str, Floats]:
    """R-hat and ESS at every point, (M,) each. values: (chains, draws, M)."""
    return {name: found[0] for name, found in convergence(torch.from_numpy(values)[None], every=1).items()}


def problems(numbers: Mapping[str, Any], mcse: float) -> list[str]:
    """A sentence for each limit that a certificate's numbers exceed. mcse: the largest MCSE in data and gap."""
    found = []

    def check(what: str, value: float, limit: float, sound: bool, words: str = "at most") -> None:
        if not sound:  # nan is not sound
            found.append(f"{what} is {value:.4g}: expected {words} {limit:g}")

    energy = numbers["energy"]["rhat"]
    check("R-hat of U", energy, MAX_RHAT_ENERGY, energy <= MAX_RHAT_ENERGY)
    for region, values in numbers["regions"].items():
        known = region in MAX_RHAT
        limits = {
            "rhat": MAX_RHAT.get(region, MAX_RHAT_ELSEWHERE),
            "rhat of components": MAX_RHAT_COMPONENTS,
            "mcse_mean": mcse if known else MAX_MCSE,
            "mcse_log_std": mcse if known else MAX_MCSE,
            "halves apart": MAX_HALF_DISCREPANCY,
        }
        for name, limit in limits.items():
            check(f"{name} in the {region}", values[name], limit, values[name] <= limit)
        check(f"ess in the {region}", values["ess"], MIN_ESS, values["ess"] >= MIN_ESS, "at least")
    return found


def verdict(reference: Reference, mcse: float) -> list[str]:
    """The problems of a reference by today's limits, from its file alone. mcse: the largest MCSE in data and gap."""
    about = reference.about
    found = problems(about["certificate"], mcse)
    errors = reference.errors
    worst = max(one["mcse_mean"] for one in about["certificate"]["regions"].values())
    if not np.isclose(errors.mcse_mean.max(), worst, rtol=1e-4):
        found.append("its certificate is not that of its numbers")
    return found


def halves_apart(chains: Chains) -> Floats:
    """The distances between the means, and the log stds, of two halves: of the chains, then of the draws, (4, M).

    Units: √2 Monte-Carlo standard errors of the half with the smaller error. The smaller one, because a chain that has
    not converged enlarges the error of its own half as much as it moves its std. Rank R-hat hardly sees such a chain if
    it mixes quickly. The first half of the chains starts at the prior, the second half at optima.
    """
    m, v = chains.mean, chains.std**2
    of_chains, of_draws = len(m) // 2, m.shape[1] // 2
    found = []
    for pair in (
        ((m[:of_chains], v[:of_chains]), (m[of_chains : 2 * of_chains], v[of_chains : 2 * of_chains])),
        ((m[:, :of_draws], v[:, :of_draws]), (m[:, of_draws : 2 * of_draws], v[:, of_draws : 2 * of_draws])),
    ):
        (first, error), (second, other) = (_moments(*half) for half in pair)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.abs(first - second) / (math.sqrt(2) * np.minimum(error, other)))
    return np.concatenate(found)


def _moments(m: Floats, v: Floats) -> tuple[Floats, Floats]:
    """The mean and the std of f, (2, M), and their Monte-Carlo standard errors, (2, M). m, v: (chains, draws, M)."""
    mean = m.mean((0, 1))
    second = (m - mean) ** 2 + v
    std = np.sqrt(second.mean((0, 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = [_mcse(m), _mcse(second) / (2 * std)]
    return np.stack([mean, std]), np.stack(errors)


def _mcse(values: Floats) -> Floats:
    """The Monte-Carlo standard error of the mean over chains and draws, (M,), by arviz-stats. values: (chains, draws,
    M)."""
    from arviz_stats.base import array_stats  # here, because it takes a second, and most commands need none

    return np.asarray(array_stats.mcse(values, method="mean", chain_axis=0, draw_axis=1))
