"""The contract of a dataset: a frozen description that gives every replica its own problem."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, Self

import torch
from torch import Tensor

from gapbench.datasets.standardise import Standardisation
from gapbench.methods.engine.model import Model


class ProblemError(ValueError):
    """Data that cannot be used; the message names the tensor, the value, and what was expected."""


@dataclass(frozen=True)
class Layout:
    """The kind of a dataset's test points. It decides what may be drawn and what may be tested.

    points: "grid": the same points for every replica, to draw over. "tasks": replicas are independent tasks with at
        most one test point a region, so their PITs are independent. "rows": held-out rows.
    feature: the feature that a grid is drawn over; None if the grid is not to be drawn.
    line: the number of test points, from the first, that lie on a straight line. Then these alone are drawn, over their
        position on the line instead of a feature.
    overlap: of replicas that are random splits of one table, which share training rows: test rows ÷ training rows; None
        for replicas of their own data.
    sample: False if the replicas are all that there are, such as one for each feature of a table, or if some share
        their data: then there is no interval over replicas.
    seeds: of replicas that share their data: how many in a row do, each trained with random numbers of its own.
    names: of the features, if they have any.
    """

    points: Literal["grid", "tasks", "rows"] = "rows"
    feature: int | None = None
    line: int | None = None
    overlap: float | None = None
    sample: bool = True
    seeds: int = 1
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.line is not None and self.line < 2:
            raise ValueError(f"Layout: line = {self.line}: expected at least the two points that make a line")
        object.__setattr__(self, "names", tuple(self.names))  # JSON has lists

    @property
    def independent(self) -> bool:
        """True if replicas are a sample of independent ones, which a bootstrap may draw from."""
        return self.sample and self.overlap is None

    @property
    def drawn(self) -> bool:
        """True if figures draw over the test points."""
        return self.points == "grid" and (self.feature is not None or self.line is not None)

    @property
    def content(self) -> dict[str, str | float | list[str] | None]:
        """The fields, JSON-able, for keys, records and manifests. Fields that came later are there only if they say
        something, which leaves the keys of older layouts as they were."""
        later: dict[str, object] = {"line": None, "overlap": None, "sample": True, "seeds": 1, "names": []}
        now = {**vars(self), "names": list(self.names)}
        return {name: value for name, value in now.items() if name not in later or value != later[name]}


@dataclass(frozen=True)
class Problems:
    """R training sets with their test points, in the units of the data, on the CPU, float32 or float64.

    y_test: fresh noisy observations. f_test: the noise-free truth. noise_test: the true std of the noise, 0 for
    noise-free data. f_test and noise_test are None where they are not known. regions: name -> mask of the test points
    in that region; any names, with "data", "gap" and "extrapolation" where these exist. standardisation: None for the
    identity.
    Raises ProblemError if a shape does not fit, or a number is not finite, or is too large for the float32 that methods
    compute in.
    """

    x: Tensor  # (R, N, D)
    y: Tensor  # (R, N)
    x_test: Tensor  # (R, M, D)
    y_test: Tensor  # (R, M)
    f_test: Tensor | None = None  # (R, M)
    noise_test: Tensor | None = None  # (R, M)
    regions: Mapping[str, Tensor] = field(default_factory=dict)  # (R, M) bool each
    standardisation: Standardisation = None  # type: ignore[assignment]  # never None after __post_init__

    def __post_init__(self) -> None:
        if not (isinstance(self.x, Tensor) and self.x.ndim == 3 and self.x.shape[1] > 0):
            raise ProblemError(f"x: {_shape(self.x)}, expected (R, N, D) with at least one training point")
        replicas, points, features = self.x.shape
        if not (isinstance(self.x_test, Tensor) and self.x_test.ndim == 3 and self.x_test.shape[1] > 0):
            raise ProblemError(f"x_test: {_shape(self.x_test)}, expected (R, M, D) with at least one test point")
        tests = self.x_test.shape[1]
        expected = {
            "y": (replicas, points),
            "x_test": (replicas, tests, features),
            "y_test": (replicas, tests),
            "f_test": (replicas, tests),
            "noise_test": (replicas, tests),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is None and name in ("f_test", "noise_test"):
                continue
            if not isinstance(value, Tensor) or value.shape != shape:
                raise ProblemError(f"{name}: {_shape(value)}, expected {shape}")
        for name in ("x", *expected):
            value = getattr(self, name)
            if value is None:
                continue
            if value.dtype not in (torch.float32, torch.float64):
                raise ProblemError(f"{name}: {value.dtype}, expected float32 or float64")
            if not value.isfinite().all():
                at = (~value.isfinite()).nonzero()[0].tolist()
                raise ProblemError(f"{name}{at} = {float(value[tuple(at)])}: expected finite numbers; drop or fill it")
        if self.noise_test is not None and (self.noise_test < 0).any():
            raise ProblemError(f"noise_test: {float(self.noise_test.min())}, expected a std of at least 0")
        for name, mask in self.regions.items():
            if not isinstance(mask, Tensor) or mask.shape != (replicas, tests) or mask.dtype != torch.bool:
                raise ProblemError(f"region {name}: {_shape(mask)}, expected bool {(replicas, tests)}")
            if name == "all":
                raise ProblemError('region "all": the name is taken by all test points together; choose another')
        if self.standardisation is None:
            object.__setattr__(self, "standardisation", Standardisation.identity(replicas, features))
        for name in ("x_mean", "x_std", "y_mean", "y_std"):
            value, shape = getattr(self.standardisation, name), (replicas, features)[: 2 if name[0] == "x" else 1]
            sound = value.shape == shape and value.isfinite().all() and (name.endswith("mean") or (value > 0).all())
            if not sound:
                raise ProblemError(f"standardisation: {name} = {value}, expected {shape}, finite, stds above 0")
        for name, part in zip(("x", "y", "x_test"), self.inputs, strict=True):
            if not part.isfinite().all():
                at = tuple((~part.isfinite()).nonzero()[0].tolist())
                raise ProblemError(
                    f"{name}{list(at)} = {float(getattr(self, name)[at])}: beyond float32 where methods see it; choose "
                    "other units, or give a Standardisation"
                )

    def select(self, keep: Tensor) -> Self:
        """The problems of some of the replicas. keep: (R,) bool."""
        chosen = {one.name: v[keep] for one in fields(self) if isinstance(v := getattr(self, one.name), Tensor)}
        regions = {name: mask[keep] for name, mask in self.regions.items()}
        return replace(self, **chosen, regions=regions, standardisation=self.standardisation.select(keep))

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """x (R, N, D), y (R, N) and x_test (R, M, D) as methods see them: standardised, float32."""
        units = self.standardisation
        return units.x(self.x), units.y(self.y), units.x(self.x_test)

    @property
    def sha256(self) -> str:
        """The hash of every number of the problems. Other numbers make another dataset, under any name."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        units = parts.pop("standardisation")
        parts |= {f"region {name}": mask for name, mask in parts.pop("regions").items()}
        parts |= {f"standardisation {one.name}": getattr(units, one.name) for one in fields(units)}
        digest = hashlib.sha256()
        for name, value in sorted(parts.items()):
            if value is not None:
                digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
                digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _shape(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """A dataset. Its fields describe it completely. Results are filed under these fields, among other things."""

    @abstractmethod
    def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
        """The problems of these replicas, on the CPU.

        Replica r is always the same problem, whatever other replicas are asked for: methods are compared in pairs.
        """

    @property
    def layout(self) -> Layout:
        """The kind of the test points."""
        return Layout()

    @property
    def count(self) -> int | None:
        """The number of replicas that there are; None for any number."""
        return None

    @property
    def missing(self) -> str | None:
        """The reason why the data are not on this machine, with what to do; None if they are."""
        return None

    @property
    def summary(self) -> tuple[tuple[str, str], ...] | None:
        """The (score, region) columns of this dataset's table; None for the columns that suit its layout."""
        return None

    @property
    def network(self) -> Model | None:
        """The model that this dataset asks for; None for the model that the user chooses."""
        return None
