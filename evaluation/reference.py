"""Reference posteriors: p(f | x, data) of the model every method shares, by long chains, certified, on the test grid.

A file holds one replica of a (dataset, model), and is found by the hash of what it is the posterior of: training data,
test grid and model. Data or a model that changed find none, never a wrong one.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from torch import Generator, Tensor

from gapbench.datasets.base import Splits
from gapbench.evaluation.controls import Control
from gapbench.evaluation.diagnostics import convergence
from gapbench.methods.base import Distribution, Mixture
from gapbench.methods.model import Model

FOLDER = Path(__file__).parent / "references"
FORMAT = 1
LEVELS = 2**16 - 1  # f is kept in 16 bits between its smallest and largest draw at each point
KEPT = 200  # draws a chain
# What a reference must pass: R-hat at most, by region; effective draws at least; halves of the chains, and of the
# draws, apart at most, in standard errors (the largest over a region's points, which are anything but independent).
RHAT = {"data": 1.01, "gap": 1.01, "edge": 1.02}
EFFECTIVE = 400
APART = 5.0


class Refused(Exception):
    """A file that is not the reference it should be; the message says which and why."""


def key_of(splits: Splits, replica: int, model: Model) -> str:
    """What a reference is the posterior of. replica: position in `splits`."""
    digest = hashlib.sha256(repr(model).encode())
    for value in (splits.x, splits.y, splits.x_test):
        one = value[replica].cpu().contiguous()
        digest.update(str(tuple(one.shape)).encode() + one.numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Reference:
    """codes: (chains, draws, M) 16-bit; f = low + step · code, low and step (M,). about: what it is, how it was made,
    and its certificate."""

    codes: NDArray[np.uint16]
    low: NDArray[np.float64]
    step: NDArray[np.float64]
    about: Mapping[str, Any]

    @staticmethod
    def of(f: Tensor, about: Mapping[str, Any]) -> Reference:
        """f: (chains, draws, M), all draws after burn-in; evenly spaced ones are kept."""
        draws = thinned(f.double().cpu().numpy(), KEPT * len(f))
        low = draws.min((0, 1))
        step = np.maximum(draws.max((0, 1)) - low, np.finfo(np.float64).tiny) / LEVELS
        return Reference(((draws - low) / step).round().astype(np.uint16), low, step, about)

    @cached_property
    def f(self) -> NDArray[np.float64]:
        """(chains, draws, M)."""
        return self.low + self.step * self.codes

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode())
        for array in (self.codes, self.low, self.step):
            digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def bytes(self) -> bytes:
        """As a file."""
        buffer = io.BytesIO()
        text = np.array(json.dumps({**self.about, "sha256": self.sha256}, sort_keys=True))
        np.savez_compressed(buffer, codes=self.codes, low=self.low, step=self.step, about=text)
        return buffer.getvalue()


def read(path: Path, key: str) -> Reference:
    """Raises Refused if the file is truncated, altered, or not the reference of this key."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            digest = about.pop("sha256")
            reference = Reference(arrays["codes"], arrays["low"], arrays["step"], about)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise Refused(f"{path.name} cannot be read ({error}); `gapbench reference make` makes it again") from error
    if about.get("format") != FORMAT:
        raise Refused(f"{path.name} has format {about.get('format')}, this version reads {FORMAT}")
    if reference.sha256 != digest:
        raise Refused(f"{path.name} was altered: its sha256 is {reference.sha256[:16]}…, it says {digest[:16]}…")
    if about["key"] != key:
        raise Refused(f"{path.name} is the reference of other data or another model ({about['model']})")
    return reference


def find(splits: Splits, replica: int, model: Model, folder: Path = FOLDER) -> Reference | None:
    """The reference of this replica (position in `splits`); None if there is none. Raises Refused."""
    key = key_of(splits, replica, model)
    path = path_of(key, folder)
    return read(path, key) if path.exists() else None


def digests(splits: Splits, model: Model, folder: Path = FOLDER) -> list[str | None]:
    """sha256 of each replica's file, None where there is none: what a score against them was computed with."""
    paths = [path_of(key_of(splits, r, model), folder) for r in range(len(splits.x))]
    return [hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None for path in paths]


def path_of(key: str, folder: Path = FOLDER) -> Path:
    return folder / f"{key[:32]}.npz"


@dataclass(frozen=True)
class ReferencePosterior(Control):
    """What the others are measured against: `draws` of HMC's, from the shipped references."""

    draws: int = 200

    def skip(self, model: Model, splits: Splits) -> str | None:
        missing = [r for r in range(len(splits.x)) if not path_of(key_of(splits, r, model)).exists()]
        return f"no reference posterior for {len(missing)} of {len(splits.x)} replicas" if missing else None

    def predict(self, model: Model, splits: Splits, generator: Generator) -> Mixture:
        found = [find(splits, r, model) for r in range(len(splits.x))]
        chains = [thinned(reference.f, self.draws) for reference in found if reference is not None]
        assert len(chains) == len(found), self.skip(model, splits)
        f = torch.from_numpy(np.stack(chains)).float().to(splits.x.device)  # (R, chains, draws, M)
        noise = model.noise(f.new_empty(model.size), splits.x_test)
        # No chains: R-hat of the few that are kept would say less than the certificate does.
        return Mixture(f.flatten(1, 2), f.new_tensor(model.f_std), noise)


def thinned(f: NDArray[np.float64], draws: int) -> NDArray[np.float64]:
    """(chains, draws // chains, M), evenly spaced. f: (chains, more, M)."""
    chosen = np.linspace(0, f.shape[1] - 1, max(1, min(draws // len(f), f.shape[1]))).round().astype(int)
    return f[:, chosen]


def agreement(
    f: Distribution, references: Sequence[Reference | None], draws: int | None = None
) -> dict[str, NDArray[np.float64]]:
    """How far p(f | x) is from each replica's reference, and the floor of each: what that many draws of the reference
    itself score. (R, M) each; nan where there is no reference.

    reference_w1: Wasserstein distance in the reference's stds. reference_log_std: log of the stds' ratio.
    reference_error: distance of the means in the reference's stds. The floor of the log is of its absolute value.
    draws: S, the draws that f is made of; None if it is a closed form, whose floor is the reference's own error.
    """
    mean, std = f.mean.numpy(), f.std.numpy()
    values = {name: np.full(mean.shape, np.nan) for name in AGREEMENT}
    if not any(references):
        return values
    levels = draws or 200
    quantiles = np.stack([f.quantile((i + 0.5) / levels).numpy() for i in range(levels)], 1)  # (R, S, M)
    for r, reference in enumerate(references):
        if reference is None:
            continue
        truth = np.sort(reference.f.reshape(-1, reference.f.shape[-1]), 0)
        own = _distances(quantiles[r], mean[r], std[r], truth)
        for name, value, floor in zip(("w1", "log_std", "error"), own, _floors(reference.f, draws), strict=True):
            values[f"reference_{name}"][r], values[f"reference_{name}_floor"][r] = value, floor
    return values


AGREEMENT = [f"reference_{name}{floor}" for name in ("w1", "log_std", "error") for floor in ("", "_floor")]


def _floors(f: NDArray[np.float64], draws: int | None) -> NDArray[np.float64]:
    """(3, M): means of the three distances between that many draws and the rest, which is of other chains.

    f: (chains, kept, M). Where there are not enough chains for both, or no draws at all, the distance of what there is
    is scaled as the error of a mean would be: by √(1/S + 1/T).
    """
    chains, kept = f.shape[:2]
    total = chains * kept
    some = min(math.ceil((draws or total) / kept), max(1, chains // 2))  # chains
    found = []
    for k in range(chains):
        turned = np.roll(f, k, 0)
        part = thinned(turned[:some], draws or total).reshape(-1, f.shape[2])
        rest = turned[some:].reshape(-1, f.shape[2])
        distances = _distances(np.sort(part, 0), part.mean(0), part.std(0), np.sort(rest, 0))
        found.append(np.abs(np.stack(distances)))
    wanted = (1 / draws if draws else 0) + 1 / total
    return np.asarray(np.mean(found, 0) * math.sqrt(wanted / (1 / len(part) + 1 / len(rest))))


def _distances(
    quantiles: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64], truth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """W1, log ratio of stds and error of the mean, (M,) each. quantiles: (S, M), truth: (T, M), both sorted."""
    scale = truth.std(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            wasserstein(quantiles, truth) / scale,
            np.log(std / scale),
            np.abs(mean - truth.mean(0)) / scale,
        )


def wasserstein(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """∫|F_a⁻¹(p) − F_b⁻¹(p)| dp at each point, (M,). a: (S, M), b: (T, M), sorted."""
    cuts = np.unique(np.concatenate([np.arange(len(a) + 1) * len(b), np.arange(len(b) + 1) * len(a)]))  # of p · S · T
    middle, width = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts) / cuts[-1]
    gaps = np.abs(a[(middle // len(b)).astype(int)] - b[(middle // len(a)).astype(int)])
    return np.asarray(width @ gaps)


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
    found = {name: values[0] for name, values in convergence(f.unsqueeze(0)).items()}  # (M,)
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
        limit = RHAT.get(region, max(RHAT.values())) + slack
        for name, sound, expected in (
            ("rhat", numbers["rhat"] <= limit, f"at most {limit:g}"),
            ("ess_bulk", numbers["ess_bulk"] >= EFFECTIVE, f"at least {EFFECTIVE}"),
            ("ess_tail", numbers["ess_tail"] >= EFFECTIVE, f"at least {EFFECTIVE}"),
            ("halves apart", numbers["halves apart"] <= APART, f"at most {APART} standard errors"),
        ):
            if not sound:
                problems.append(f"{name} in the {region} is {numbers[name]:.4g}: expected {expected}")
    return {**result, "problems": problems}


def halves_apart(f: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, M): how far the means and the stds of two halves are apart: of the chains, then of the draws. f: (chains,
    draws, M).

    In the Monte-Carlo standard errors of the surer half. A chain that has not arrived widens its own half's error by
    as much as it moves its std, and R-hat of ranks hardly sees it if it is quick.
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
