"""Agreement: distances between p(f | x) of a method and the reference posterior."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

from gapbench.evaluation.reference_file import Floats, Law, Reference, Z
from gapbench.methods.engine.distributions import HasCdf, NormalMixture

MEAN_SIZE = math.sqrt(2 / math.pi)  # E|z| of a standard normal z
OWN = 101  # equally spaced points, over a method's own range, at which its distribution function is looked at


def agreement(f: HasCdf, references: Sequence[Reference | None]) -> dict[str, NDArray[np.float64]]:
    """Distances between p(f | x) and each replica's reference, with the Monte-Carlo error of each distance.

    Each value is (R, M), nan for a replica without a reference. Units: the reference's stds.
    reference_w1: the Wasserstein distance ∫|F − G|. reference_cramer: the Cramér distance ∫(F − G)², without the bias
    that few draws give it; it is 0 on average for exact draws, however few, and may be negative. reference_log_std: log
    of the stds' ratio. reference_error: distance of the means.
    _mc_error: the mean distance that as many independent draws (or components) of the reference have, and the
    reference's own error. That of log_std is of the absolute value.
    """
    mean, std = f.mean.numpy(), f.std.numpy()
    values = {name: np.full(mean.shape, np.nan) for name in AGREEMENT}
    known = [r for r, reference in enumerate(references) if reference is not None]
    if not known:
        return values
    own = _atoms(f)
    if own is None:
        low, high = f.quantiles([special.ndtr(Z[0]), special.ndtr(Z[-1])]).unsqueeze(2).unbind(1)  # (R, 1, M) each
        own = low + (high - low) * torch.linspace(0, 1, OWN, dtype=low.dtype).view(1, -1, 1)
    t = np.zeros((len(mean), own.shape[1] + len(Z), mean.shape[1]))  # (R, T, M)
    for r in known:
        t[r] = np.sort(np.concatenate([own[r].numpy(), references[r].f.quantiles]), 0)  # type: ignore[union-attr]
    middle, width = (t[:, 1:] + t[:, :-1]) / 2, np.diff(t, axis=1)
    cdf, spread = _cdf_and_spread(f, torch.from_numpy(middle))
    for r in known:
        reference = references[r]
        assert reference is not None
        apart = cdf[r] - reference.f.cdf(middle[r])
        scale = reference.std
        with np.errstate(divide="ignore", invalid="ignore"):
            own_values = (
                (np.abs(apart) * width[r]).sum(0) / scale,
                ((apart**2 - spread[r]) * width[r]).sum(0) / scale,
                np.log(std[r] / scale),
                np.abs(mean[r] - reference.mean) / scale,
            )
        for name, value in zip(NAMES, own_values, strict=True):
            values[f"reference_{name}"][r] = value
        for name, error in zip(WITH_ERROR, mc_errors(f, reference), strict=True):
            values[f"reference_{name}_mc_error"][r] = error
    return values


NAMES = ("w1", "cramer", "log_std", "error")
WITH_ERROR = ("w1", "log_std", "error")  # the Cramér distance needs none: few draws do not enlarge it
AGREEMENT = [*(f"reference_{name}" for name in NAMES), *(f"reference_{name}_mc_error" for name in WITH_ERROR)]


def _atoms(f: HasCdf) -> torch.Tensor | None:
    """The places of a distribution of draws alone, (R, S, M); None for any other distribution."""
    return f.location if isinstance(f, NormalMixture) and not f.scale.any() else None


def _cdf_and_spread(f: HasCdf, t: torch.Tensor) -> tuple[Floats, Floats]:
    """The distribution function F(t), and the variance that it has because f has few components. All are (R, T, M)."""
    atoms = _atoms(f)
    if atoms is not None:
        ordered, at = (part.transpose(1, 2).contiguous() for part in (atoms.sort(1).values, t))
        count = atoms.shape[1]
        share = torch.searchsorted(ordered, at, right=True).transpose(1, 2).double() / count
        spread = share * (1 - share) / max(count - 1, 1)
        return share.numpy(), spread.numpy()
    cdf, spread = torch.empty_like(t), torch.zeros_like(t)
    for k in range(t.shape[1]):
        if not isinstance(f, NormalMixture):
            cdf[:, k] = f.cdf(t[:, k])
            continue
        each = f.each_cdf(t[:, k])  # (R, S, M)
        cdf[:, k] = each.mean(1)
        if each.shape[1] > 1:
            spread[:, k] = each.var(1) / each.shape[1]
    return cdf.numpy(), spread.numpy()


def mc_errors(f: HasCdf, reference: Reference) -> tuple[Floats, Floats, Floats]:
    """The Monte-Carlo errors of W1, of |log std| and of the mean's error; (M,) each.

    They are of independent draws. A distribution that is no mixture, or has one component, is no sample: its distances
    have the error of the reference alone.
    """
    errors = reference.errors
    own = errors.w1, MEAN_SIZE * errors.mcse_log_std, MEAN_SIZE * errors.mcse_mean
    count = f.location.shape[1] if isinstance(f, NormalMixture) else 1
    if _atoms(f) is not None:
        sampled = _of_draws(count, reference.f, reference.std)
    elif count > 1:
        root = MEAN_SIZE / math.sqrt(count)
        sampled = root * errors.component_w1, root * errors.component_log_std, root * errors.component_mean
    else:
        return own
    w1, log_std, error = (np.hypot(one, other) for one, other in zip(own, sampled, strict=True))
    return w1, log_std, error


def _of_draws(count: int, law: Law, std: Floats) -> tuple[Floats, Floats, Floats]:
    """The mean W1, |log std| and error of the mean of `count` independent draws of a law, in its stds; (M,) each."""
    from scipy import stats  # here, because most commands need none

    p = special.ndtr((Z[1:] + Z[:-1]) / 2)
    # E|K/n − p| of a binomial K (de Moivre): 2 (1 − p) P(K = k) k / n, with k the smallest integer above np.
    k = np.floor(count * p) + 1
    deviation = 2 * (1 - p) * stats.binom.pmf(k, count, p) * k / count
    w1 = deviation @ np.diff(law.quantiles, axis=0) / std
    # Var log s ≈ (kurtosis − 1) / (4 S)
    centred = law.draws(2000)
    centred = centred - centred.mean(0)
    kurtosis = (centred**4).mean(0) / (centred**2).mean(0) ** 2
    size = MEAN_SIZE / math.sqrt(count)
    return w1, size * np.sqrt((kurtosis - 1) / 4), np.full_like(std, size)
