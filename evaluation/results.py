"""One method's scored replicas on one dataset: the input of tables, figures, exports and published files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gapbench.datasets.base import Layout
from gapbench.evaluation.diagnostics import stands_still
from gapbench.evaluation.entries import Kind
from gapbench.evaluation.scores import SCORES

Floats = NDArray[np.float64]
Column = tuple[str, str]  # (score, region)

COLUMNS = ("dataset", "method", "status", "replica", "region", "score", "value")  # of a tidy frame


@dataclass(frozen=True, eq=False)
class Result:
    """The scored replicas of one method on one dataset.

    replicas: the replica numbers, (R,), ascending. scores: score -> region -> (R,). pits: "pit_y" and "pit_f", (R, M)
    each, nan for a PIT that is not defined. regions: name -> mask of the test points in that region, (R, M). curves:
    the data of figures: x (R, N, D), y (R, N), x_test (R, M, D), f_test (R, M) if the truth is known; and (R, M) each:
    std_f and, for q = "f" or "y", q_05, q_25, q_50, q_75, q_95. diagnostics: name -> (R,); a diagnostic of another
    shape becomes nan. failures: replica number -> reason. summary: the columns that the dataset declares. provenance:
    a mapping for each block of replicas. points: the number of test points of each replica, (R,), where they differ:
    arrays go on with nan; None if all have M.
    """

    dataset: str
    method: str
    kind: Kind
    replicas: NDArray[np.int64]
    scores: Mapping[str, Mapping[str, Floats]]
    pits: Mapping[str, Floats]
    regions: Mapping[str, NDArray[np.bool_]]
    curves: Mapping[str, Floats] = field(default_factory=dict)
    layout: Layout = field(default_factory=Layout)
    summary: tuple[Column, ...] | None = None
    diagnostics: Mapping[str, Floats] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)
    provenance: Sequence[Mapping[str, Any]] = ()
    points: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        # One diagnostic of a wrong shape must not break every table of its folder.
        expected, unknown = self.replicas.shape, np.full(self.replicas.shape, np.nan)
        kept = {name: value if np.shape(value) == expected else unknown for name, value in self.diagnostics.items()}
        object.__setattr__(self, "diagnostics", kept)

    @cached_property
    def sound(self) -> NDArray[np.bool_]:
        """True for the replicas that did not fail, (R,)."""
        return ~np.isin(self.replicas, list(self.failures))

    @cached_property
    def status(self) -> str:
        """The status of a method: "ranked", "not converged" or "failed". The status of a control is its kind."""
        if self.kind != "method":
            return self.kind
        if not self.sound.any():
            return "failed"
        # Of many replicas, one in twenty may exceed a limit by chance.
        return "ranked" if self.arrived is None or self.arrived.mean() >= 0.95 else "not converged"

    @property
    def chained(self) -> bool:
        """True if the method has chains: their R-hat tells whether they converged, else the loss does."""
        return "rhat" in self.scores and not np.isnan(self.scores["rhat"]["all"][self.sound]).all()

    @property
    def arrived(self) -> NDArray[np.bool_] | None:
        """True for the sound replicas that converged: their chains agree, or their loss no longer falls.

        None if the method has neither chains nor a loss. A replica whose R-hat or loss is nan has not converged.
        """
        if self.chained:
            rhat, limit = (self.scores[name]["all"][self.sound] for name in ("rhat", "rhat_limit"))
            return rhat <= limit
        if not {"loss fall", "loss fall error"} <= self.diagnostics.keys():
            return None
        fall, error = (self.diagnostics[name][self.sound] for name in ("loss fall", "loss fall error"))
        return stands_still(fall, error)

    @property
    def label(self) -> str:
        """The method's name, followed by its status if the method is not ranked."""
        return self.method + ("" if self.status in ("ranked", self.method) else f" ({self.status})")

    def inside(self, region: str) -> NDArray[np.bool_]:
        """The mask of the test points in a region, (R, M). "all" has every point, an unknown region none."""
        replicas, most = next(iter(self.pits.values())).shape
        if region == "all":
            return np.arange(most) < (np.full(replicas, most) if self.points is None else self.points)[:, None]
        return self.regions.get(region, np.zeros((replicas, most), bool))

    def valid(self, column: Column) -> NDArray[np.int64]:
        """The numbers of the replicas for which the column is defined."""
        name, region = column
        score, nobody = SCORES[name], self.replicas[:0]
        if self.kind == "oracle" and score.of != "y":
            return nobody  # the oracle knows f: nothing to score
        if self.kind == "reference" and name.startswith("reference_"):
            return nobody  # a distance to itself is no score
        if score.pooled is not None:
            pits = self.pits.get(f"pit_{score.of}")
            if pits is None:
                return nobody
            mask = self.inside(region)
            return self.replicas[mask.any(1) & ~(np.isnan(pits) & mask).any(1)]
        values = self.scores.get(name, {}).get(region)
        return nobody if values is None else self.replicas[~np.isnan(values)]


def merge(parts: Sequence[Result]) -> Result:
    """The blocks of one method as one result, in the order of replica numbers. What a block lacks is left out."""
    replicas = np.concatenate([part.replicas for part in parts])
    order = np.argsort(replicas)

    def shared(maps: Sequence[Mapping[str, Any]]) -> list[str]:
        return [key for key in maps[0] if all(key in other for other in maps)]

    def joined(maps: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        return {key: _stacked([each[key] for each in maps])[order] for key in shared(maps)}

    scores = [part.scores for part in parts]
    points = np.concatenate([part.inside("all").sum(1) for part in parts])[order] if parts[0].pits else None
    return replace(
        parts[0],
        replicas=replicas[order],
        scores={name: joined([each[name] for each in scores]) for name in shared(scores)},
        pits=joined([part.pits for part in parts]),
        regions=joined([part.regions for part in parts]),
        curves=joined([part.curves for part in parts]),
        diagnostics=joined([part.diagnostics for part in parts]),
        failures={replica: reason for part in parts for replica, reason in part.failures.items()},
        provenance=[run for part in parts for run in part.provenance],
        points=points,
    )


def _stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The arrays, concatenated. Blocks can differ in their number of held-out rows: shorter arrays are filled with nan,
    and masks with False."""
    shape = np.max([array.shape[1:] for array in arrays], axis=0)
    empty = False if arrays[0].dtype == bool else np.nan
    filled = [
        np.pad(
            array,
            [(0, 0), *((0, int(n) - m) for n, m in zip(shape, array.shape[1:], strict=True))],
            constant_values=empty,
        )
        if array.shape[1:] != tuple(shape)
        else array
        for array in arrays
    ]
    return np.concatenate(filled)


def tidy(results: Sequence[Result]) -> pd.DataFrame:
    """A frame with a line for each replica, region and score: dataset, method, status, replica, region, score, value.

    Scores pooled over replicas are left out, since one replica has no value of such a score. The methods' own
    diagnostics (epsilon, clipped fraction, …) have the region "run".
    """
    blocks = [block for result in results for block in _blocks(result)]
    if not blocks:
        return pd.DataFrame(columns=list(COLUMNS))
    owners, scores, regions, values = zip(*blocks, strict=True)
    counts = [len(one) for one in values]
    return pd.DataFrame(
        {
            "dataset": np.repeat([owner.dataset for owner in owners], counts),
            "method": np.repeat([owner.method for owner in owners], counts),
            "status": np.concatenate([np.where(owner.sound, owner.status, "failed") for owner in owners]),
            "replica": np.concatenate([owner.replicas for owner in owners]),
            "region": np.repeat(regions, counts),
            "score": np.repeat(scores, counts),
            "value": np.concatenate(values).astype(np.float64),
        }
    )


def _blocks(result: Result) -> list[tuple[Result, str, str, Floats]]:
    scores = [(result, score, region, values) for score, by in result.scores.items() for region, values in by.items()]
    return scores + [(result, name, "run", values) for name, values in result.diagnostics.items()]


def rounded(values: NDArray[Any]) -> NDArray[np.float32]:
    """The values as they are published: in float32 with 17 significant bits, which are nearly five digits. The last
    byte is then almost always 0 or 128, which a file keeps in next to nothing."""
    mantissa, exponent = np.frexp(values)
    with np.errstate(over="ignore"):  # what float32 cannot hold is inf
        return np.asarray(np.ldexp((mantissa * 2**17).round() / 2**17, exponent), np.float32)
