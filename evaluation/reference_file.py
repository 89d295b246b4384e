"""Reference files: p(f | x, data) on the test grid, by long chains, of the model that every method shares.

A file holds one replica of a dataset and a model. Its name is a hash of training data, test grid and model. So changed
data or a changed model find no file, and never a wrong file.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gapbench.datasets.base import Problems
from gapbench.datasets.content import describe
from gapbench.methods.engine.model import Model

FOLDER = Path(__file__).parent / "references"
FORMAT = 1
LEVELS = 2**16 - 1  # f is kept in 16 bits between its smallest and largest draw at each point
DRAWS_PER_CHAIN = 200


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
class Reference:
    """The draws of f of one replica. f = low + step · code; codes: (chains, draws, M), 16-bit; low, step: (M,).

    about: a description of the reference and of how it was made, with its certificate.
    """

    codes: NDArray[np.uint16]
    low: NDArray[np.float64]
    step: NDArray[np.float64]
    about: Mapping[str, Any]

    @staticmethod
    def of(f: Tensor, about: Mapping[str, Any]) -> Reference:
        """The reference of these chains. f: (chains, draws, M), all draws after burn-in, of which some are kept."""
        draws = thinned(f.double().cpu().numpy(), DRAWS_PER_CHAIN * len(f))
        low = draws.min((0, 1))
        step = np.maximum(draws.max((0, 1)) - low, np.finfo(np.float64).tiny) / LEVELS
        return Reference(((draws - low) / step).round().astype(np.uint16), low, step, about)

    @cached_property
    def f(self) -> NDArray[np.float64]:
        """The draws of f, (chains, draws, M), float64."""
        return self.low + self.step * self.codes

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode())
        for array in (self.codes, self.low, self.step):
            digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def bytes(self) -> bytes:
        """The content of the reference's file."""
        buffer = io.BytesIO()
        text = np.array(json.dumps({**self.about, "sha256": self.sha256}, sort_keys=True))
        np.savez_compressed(buffer, codes=self.codes, low=self.low, step=self.step, about=text)
        return buffer.getvalue()


def read(path: Path, key: str) -> Reference:
    """The reference in a file. Raises Refused if the file is truncated, altered, or not the reference of this key."""
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
    return folder / f"{key[:32]}.npz"


def thinned(f: NDArray[np.float64], draws: int) -> NDArray[np.float64]:
    """Evenly spaced draws of each chain, (chains, draws // chains, M); all draws of chains that have fewer.

    f: (chains, any number of draws, M).
    """
    chosen = np.linspace(0, f.shape[1] - 1, max(1, min(draws // len(f), f.shape[1]))).round().astype(int)
    return f[:, chosen]
