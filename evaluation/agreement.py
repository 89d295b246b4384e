"""Agreement: distances between p(f | x) of a method and the reference posterior."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gapbench.evaluation.reference_file import Reference, thinned
from gapbench.methods.engine.distributions import HasQuantiles


def agreement(
    f: HasQuantiles, references: Sequence[Reference | None], draws: int | None = None
) -> dict[str, NDArray[np.float64]]:
    """Distances between p(f | x) and each replica's reference, with the Monte-Carlo error of each distance.

    The Monte-Carlo error is the mean distance that as many draws of the reference itself have. Each value is (R, M),
    nan for a replica without a reference.
    reference_w1: Wasserstein distance in the reference's stds. reference_log_std: log of the stds' ratio; its
    Monte-Carlo error is that of the absolute value. reference_error: distance of the means in the reference's stds.
    draws: S, the draws that f is made of; None if f is a closed form. Its Monte-Carlo error is the reference's own.
    """
    mean, std = f.mean.numpy(), f.std.numpy()
    values = {name: np.full(mean.shape, np.nan) for name in AGREEMENT}
    if not any(references):
        return values
    levels = draws or 200
    quantiles = f.quantiles([(i + 0.5) / levels for i in range(levels)]).numpy()  # (R, S, M)
    for r, reference in enumerate(references):
        if reference is None:
            continue
        own = _distances(quantiles[r], mean[r], std[r], _sorted(reference, reference.codes))
        for name, value, error in zip(("w1", "log_std", "error"), own, _mc_errors(reference, draws), strict=True):
            values[f"reference_{name}"][r], values[f"reference_{name}_mc_error"][r] = value, error
    return values


AGREEMENT = [f"reference_{name}{error}" for name in ("w1", "log_std", "error") for error in ("", "_mc_error")]


def _sorted(reference: Reference, codes: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Some of a reference's draws, sorted at each point, (T, M). codes: (chains, draws, M).

    The 16-bit codes are sorted, in a fifth of the time that 64-bit numbers need.
    """
    whole = codes.reshape(-1, codes.shape[2])
    return reference.low + reference.step * np.sort(whole, axis=0, kind="stable")


def _mc_errors(reference: Reference, draws: int | None) -> NDArray[np.float64]:
    """The mean of each of the three distances between `draws` of the reference's draws and its other chains, (3, M).

    If the reference has too few chains for this, or `draws` is None, the distances between the available parts are
    scaled as the error of a mean is: with √(1/S + 1/T).
    """
    chains, kept = reference.codes.shape[:2]
    total = chains * kept
    some = min(math.ceil((draws or total) / kept), max(1, chains // 2))  # chains
    found = []
    for k in range(chains):
        turned = np.roll(reference.codes, k, 0)
        part = _sorted(reference, thinned(turned[:some], draws or total))  # type: ignore[arg-type]  # it only indexes
        rest = _sorted(reference, turned[some:])
        distances = _distances(part, part.mean(0), part.std(0), rest)
        found.append(np.abs(np.stack(distances)))
    wanted = (1 / draws if draws else 0) + 1 / total
    return np.asarray(np.mean(found, 0) * math.sqrt(wanted / (1 / len(part) + 1 / len(rest))))


def _distances(
    quantiles: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64], truth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Distance W1, log ratio of stds, error of the mean, (M,) each. quantiles: (S, M), truth: (T, M), both sorted."""
    scale = truth.std(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            wasserstein(quantiles, truth) / scale,
            np.log(std / scale),
            np.abs(mean - truth.mean(0)) / scale,
        )


def wasserstein(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Wasserstein distance ∫|F_a⁻¹(p) − F_b⁻¹(p)| dp at each point, (M,). a: (S, M), b: (T, M), sorted."""
    cuts = np.unique(np.concatenate([np.arange(len(a) + 1) * len(b), np.arange(len(b) + 1) * len(a)]))  # of p · S · T
    middle, width = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts) / cuts[-1]
    gaps = np.abs(a[(middle // len(b)).astype(int)] - b[(middle // len(a)).astype(int)])
    return np.asarray(width @ gaps)
