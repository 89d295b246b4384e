"""What a dataset is: a frozen description that gives every replica its own split."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Splits:
    """R training sets with their test points. Everything is float32 but the regions, which are bool.

    y_test are fresh noisy draws. f_test and noise_test are the noise-free truth and the true noise std, where they
    are known (noise 0 for noise-free data). y_scale brings scores back to the data's units (1 where nothing was
    standardised). regions: "data", "gap", "edge" (beyond the data) -> which test points lie there.
    """

    x: Tensor  # (R, N, D)
    y: Tensor  # (R, N)
    x_test: Tensor  # (R, M, D)
    y_test: Tensor  # (R, M)
    f_test: Tensor | None  # (R, M)
    noise_test: Tensor | None  # (R, M)
    y_scale: Tensor  # (R,)
    regions: Mapping[str, Tensor]  # (R, M) each

    def to(self, device: torch.device | str) -> Splits:
        moved = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved, regions={name: mask.to(device) for name, mask in self.regions.items()})

    @property
    def sha256(self) -> str:
        """Of every number in it: a dataset that changed is another dataset, whatever it is called."""
        digest = hashlib.sha256()
        parts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "regions"}
        for name, value in sorted({**parts, **self.regions}.items()):
            if value is not None:
                digest.update(f"{name}{tuple(value.shape)}".encode())
                digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """Described completely by its fields; `repr` is part of what results are filed under."""

    @abstractmethod
    def splits(self, replicas: Sequence[int], seed: int = 0) -> Splits:
        """The splits of these replicas, on the CPU. Replica r is always the same split, whatever else is asked
        for, so that methods are compared in pairs."""
