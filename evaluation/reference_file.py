"""Reference files: the law of p(f | x, data) on the test grid, by long chains, of the model that every method shares.

A reference holds one replica of a dataset and a model. Its name is a hash of training data, test grid and model. So
changed data or a changed model find no file, and never a wrong file. It is two files: NAME.json says what it is and how
sure it is, NAME.npz has the numbers.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from gapbench.datasets.base import Problems
from gapbench.datasets.content import describe
from gapbench.methods.engine.distributions import NormalMixture
from gapbench.methods.engine.model import Model

FOLDER = Path(__file__).parent / "references"
FORMAT = 2
Z = np.linspace(-4, 4, 101)  # the normal scores of the levels at which a law is kept
CODES = 2**16 - 1  # quantiles are kept in 16 bits between the lowest and the highest at each point

Floats = NDArray[np.float64]


class Refused(Exception):
    """A file that is not the expected reference; the message names the file and says why."""


def key_of(problems: Problems, replica: int, model: Model) -> str:
    """The hash of a replica's training data, test points and model. replica: position in `problems`."""
    digest = hashlib.sha256(json.dumps(describe(model), sort_keys=True).encode())
    for value in problems.inputs:
        one = value[replica].cpu().contiguous()
        digest.update(str(tuple(one.shape)).encode() + one.numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Law:
    """The law of a number at each of M points, by its quantiles at the levels Φ(Z). quantiles: (L, M), increasing.

    Between two levels a quantile is linear in the normal score, so a normal law is exact. The law ends at the outermost
    quantiles: the share of 3e-5 beyond each of them is left out.
    """

    quantiles: Floats

    def at(self, z: Floats) -> Floats:
        """The quantiles at normal scores z (K,), increasing, within those of Z; (K, M)."""
        place = np.interp(z, Z, np.arange(len(Z)))
        below = np.minimum(place.astype(int), len(Z) - 2)
        share = (place - below)[:, None]
        return np.asarray((1 - share) * self.quantiles[below] + share * self.quantiles[below + 1])

    def draws(self, count: int) -> Floats:
        """The quantiles at `count` levels in the middle of equal shares: as even as draws can be, (count, M)."""
        return self.at(np.clip(special.ndtri((np.arange(count) + 0.5) / count), Z[0], Z[-1]))

    def cdf(self, t: Floats) -> Floats:
        """The distribution function, (K, M), at t (K, M)."""
        columns = zip(t.T, self.quantiles.T, strict=True)
        score = np.stack([np.interp(one, own, Z, left=-np.inf, right=np.inf) for one, own in columns], 1)
        return np.asarray(special.ndtr(score))


def law_of(mixture: NormalMixture) -> Law:
    """The law of one replica's mixture with stds above 0. mixture: R = 1."""
    return Law(mixture.quantiles(special.ndtr(Z).tolist())[0].cpu().numpy())


@dataclass(frozen=True)
class Errors:
    """The Monte-Carlo errors of a reference, and the spread of its components, (M,) each, in stds of f.

    mcse_mean, mcse_log_std: standard errors of the mean, and of the log of the std. w1: the expected distance W1 of the
    law from the true law. A *component* is the law of f given one draw. component_mean: the std of its mean;
    component_log_std: the std of its contribution to the log std of the whole; component_w1: the integral of the std of
    its distribution function. The mean of S independent components has these divided by √S as its error.
    """

    mcse_mean: Floats
    mcse_log_std: Floats
    w1: Floats
    component_mean: Floats
    component_log_std: Floats
    component_w1: Floats


@dataclass(frozen=True)
class Reference:
    """The law of f of one replica at the M test points, in the units that methods see.

    mean, std: (M,). y: the law of an observation, where the noise is learned; else None. about: a description of the
    reference and of how it was made, with its certificate.
    """

    f: Law
    mean: Floats
    std: Floats
    errors: Errors
    about: Mapping[str, Any]
    y: Law | None = None

    def rescaled(self, shift: float, scale: float) -> Reference:
        """The reference in other units: shift + scale · f, and the same of y. Its errors are in stds, and stay."""

        def moved(law: Law) -> Law:
            return Law(shift + scale * law.quantiles)

        y = None if self.y is None else moved(self.y)
        return replace(self, f=moved(self.f), mean=shift + scale * self.mean, std=scale * self.std, y=y)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The numbers as they are kept."""
        points = {"mean": self.mean, "std": self.std, **vars(self.errors)}
        laws = {name: law for name, law in (("f", self.f), ("y", self.y)) if law is not None}
        kept: dict[str, NDArray[Any]] = {name: value.astype(np.float32) for name, value in points.items()}
        for name, law in laws.items():
            low = law.quantiles[0]
            step = np.maximum(law.quantiles[-1] - low, np.finfo(np.float64).tiny) / CODES
            codes = ((law.quantiles - low) / step).round().astype(np.uint16)
            # Neighbours differ by little, so the file of differences is small.
            kept |= {
                f"{name} low": low,
                f"{name} step": step,
                f"{name} codes": np.diff(codes, axis=0, prepend=codes[:1]),
            }
        return kept

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> Reference:
        """The reference that `arrays` gave."""

        def law(name: str) -> Law:
            codes = np.cumsum(arrays[f"{name} codes"].astype(np.int64), 0)
            return Law(arrays[f"{name} low"] + arrays[f"{name} step"] * codes)

        points = {
            name: arrays[name].astype(np.float64) for name in ("mean", "std", *(one.name for one in fields(Errors)))
        }
        mean, std = points.pop("mean"), points.pop("std")
        return cls(law("f"), mean, std, Errors(**points), about, law("y") if "y codes" in arrays else None)

    def files(self) -> tuple[bytes, bytes]:
        """The contents of NAME.npz and NAME.json."""
        buffer, arrays = io.BytesIO(), self.arrays()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        text = json.dumps({**self.about, "sha256": digest(self.about, arrays)}, indent=1, sort_keys=True)
        return buffer.getvalue(), (text + "\n").encode()


def digest(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """The hash of a description and of every number."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name}{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def read(path: Path, key: str) -> Reference:
    """The reference of a .json file and its .npz file. Raises Refused if one is truncated, altered, or not of this
    key."""
    numbers = path.with_suffix(".npz")
    try:
        about = json.loads(path.read_bytes())
        said = about.pop("sha256")
        with np.load(io.BytesIO(numbers.read_bytes()), allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise Refused(f"{path.stem} cannot be read ({error}); `gapbench reference make` makes it again") from error
    if about.get("format") != FORMAT:
        raise Refused(f"{path.stem} has format {about.get('format')}, this version reads {FORMAT}")
    if digest(about, arrays) != said:
        raise Refused(f"{path.stem} was altered: its sha256 is {digest(about, arrays)[:16]}…, it says {said[:16]}…")
    if about["key"] != key:
        raise Refused(f"{path.stem} is the reference of other data or another model ({about['model']})")
    try:
        return Reference.of(arrays, about)
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"{path.stem} lacks a part ({error}); `gapbench reference make` makes it again") from error


def find(problems: Problems, replica: int, model: Model, folder: Path = FOLDER) -> Reference | None:
    """The reference of this replica (position in `problems`); None if it has no file. Raises Refused."""
    key = key_of(problems, replica, model)
    path = path_of(key, folder)
    return read(path, key) if path.exists() else None


def digests(problems: Problems, model: Model, folder: Path = FOLDER) -> list[str | None]:
    """The sha256 of each replica's file, None without a file. They tell which references a score was computed with."""
    paths = [path_of(key_of(problems, r, model), folder) for r in range(len(problems.x))]
    return [hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None for path in paths]


def path_of(key: str, folder: Path = FOLDER) -> Path:
    """The .json file of a reference. Its numbers are beside it."""
    return folder / f"{key[:32]}.json"
