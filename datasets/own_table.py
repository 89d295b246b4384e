"""A user's own table: random splits, gaps in features, splits by group or by time.

A gap leaves out the middle third of the rows in the order of a feature, as in `uci`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gapbench.datasets.base import Dataset, Layout, ProblemError, Problems
from gapbench.datasets.standardise import Standardisation
from gapbench.datasets.streams import stream
from gapbench.datasets.table_file import Table, TableError, load
from gapbench.datasets.uci import middle
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import LearnedNoise

HELD = 0.1  # the share of the rows that is held out
SUMMARY = ("crps_y", "coverage_90_y", "width_90_y", "rmse_y", "nll_y")  # columns, in each region

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class OwnTable(Dataset):
    """The table of a file with one kind of splits; a replica is a split.

    path, target, drop, impute, group, time: as in `table_file.load`. sha256: of the file. kind: of the splits. "gap":
    one for each of `gaps`, names of features; a tenth of the other rows is held out too. "group": `splits` folds of
    whole groups. "time": each of `splits` windows is trained on, and the rows after it are held out.
    """

    path: str = field(metadata={"place": True})  # a file that was moved is the same table
    sha256: str
    target: str
    kind: Literal["random", "gap", "group", "time"] = "random"
    gaps: tuple[str, ...] = ()
    splits: int = 5
    drop: tuple[str, ...] = ()
    impute: bool = False
    group: str = ""
    time: str = ""

    @property
    def layout(self) -> Layout:
        """Random splits and folds share training rows; gaps and windows are all that there are."""
        held, names = {"random": HELD, "group": 1 / self.splits}.get(self.kind), tuple(self.table.names)
        return Layout(sample=held is not None, overlap=held and held / (1 - held), names=names)

    @property
    def summary(self) -> tuple[tuple[str, str], ...]:
        regions = ("data", "gap") if self.kind == "gap" else ("data",)
        return tuple((name, region) for name in SUMMARY for region in regions)

    @property
    def count(self) -> int | None:
        return {"gap": len(self.gaps), "random": None}.get(self.kind, self.splits)

    @property
    def table(self) -> Table:
        """Raises TableError."""
        if sha256_of(self.path) != self.sha256:
            raise TableError(f"{self.path}: it was changed since this run began; run again")
        return loaded(self.path, self.sha256, self.target, self.drop, self.impute, self.group, self.time)

    @property
    def network(self) -> MLP:
        """Two hidden layers of 50, and a learned noise: the model of `gapbench.runners.api.fit`."""
        return MLP(features=len(self.table.names), noise_std=LearnedNoise())

    def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
        """Raises ProblemError if splits by group that are not of one size are asked for together."""
        table = self.table
        parts = [self._rows(replica, table, seed) for replica in replicas]
        if len({(len(train), len(test)) for train, test, _ in parts}) > 1:
            raise ProblemError(f"{self.path}: these splits have different numbers of rows: ask for them one by one")
        train, test, in_gap = (np.stack(part) for part in zip(*parts, strict=True))
        filled = [_filled(table.x, rows) for rows in train]
        x = torch.from_numpy(np.stack([each[rows] for each, rows in zip(filled, train, strict=True)]))
        x_test = torch.from_numpy(np.stack([each[rows] for each, rows in zip(filled, test, strict=True)]))
        y = torch.from_numpy(table.y[train])
        regions = {"data": torch.from_numpy(~in_gap), "gap": torch.from_numpy(in_gap)}
        return Problems(
            x=x,
            y=y,
            x_test=x_test,
            y_test=torch.from_numpy(table.y[test]),
            regions={name: mask for name, mask in regions.items() if mask.any()},
            standardisation=Standardisation.of(x, y),
        )

    def _rows(self, replica: int, table: Table, seed: int) -> tuple[Rows, Rows, NDArray[np.bool_]]:
        """The rows for training, those for testing, and which of the latter lie in the gap."""
        n, random = len(table.y), stream("OwnTable", self.kind, seed, replica)
        gap = np.zeros(0, np.int64)
        if self.kind == "time":
            step = max(1, round(min(HELD, 0.5 / self.splits) * n))  # half of the rows are left for the first window
            start, end = step * replica, n - step * (self.splits - replica)
            assert table.when is not None
            # Rows of one time stay together: none of them is on both sides.
            end, last = (int(np.searchsorted(table.when, table.when[at - 1], "right")) for at in (end, end + step))
            if end == last:
                raise ProblemError(f"{self.path}: --time {self.time}: too few different times for {self.splits} splits")
            return np.arange(start, end), np.arange(end, last), np.zeros(last - end, bool)
        if self.kind == "group":
            assert table.groups is not None
            held_out = folds(table.groups, self.splits, seed) == replica
            return np.flatnonzero(~held_out), np.flatnonzero(held_out), np.zeros(int(held_out.sum()), bool)
        if self.kind == "gap":
            values = table.x[:, table.names.index(self.gaps[replica])]
            gap = middle(np.where(np.isnan(values), np.nanmedian(values), values))
        others = random.permutation(np.setdiff1d(np.arange(n), gap))
        held = max(1, round(HELD * len(others)))
        test = np.concatenate([others[:held], gap])
        return others[held:], test, np.arange(len(test)) >= held


def folds(groups: NDArray[np.int64], number: int, seed: int) -> NDArray[np.int64]:
    """The fold of each row, in which whole groups are held out together: each group goes, the largest first, into the
    fold that has the fewest rows; equal ones in random order."""
    sizes = np.bincount(groups)
    order = stream("OwnTable folds", seed).permutation(len(sizes))
    fold, filled_up = np.zeros(len(sizes), np.int64), np.zeros(number, np.int64)
    for one in order[np.argsort(-sizes[order], kind="stable")]:
        fold[one] = filled_up.argmin()
        filled_up[fold[one]] += sizes[one]
    return fold[groups]


def sha256_of(path: str) -> str:
    """The hash of a file. Raises TableError."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from error


@lru_cache(maxsize=4)
def loaded(path: str, sha256: str, target: str, drop: tuple[str, ...], impute: bool, group: str, time: str) -> Table:
    """`load`, once for each content of the file."""
    return load(path, target, drop, impute, group, time)


def _filled(x: NDArray[np.float64], rows: Rows) -> NDArray[np.float64]:
    """x with the medians of the training rows where a number is missing; 0 for a feature that none of them has."""
    if not np.isnan(x).any():
        return x
    known = ~np.isnan(x[rows]).all(0)
    medians = np.zeros(x.shape[1])
    medians[known] = np.nanmedian(x[rows][:, known], 0)
    return np.where(np.isnan(x), medians, x)


def filled(table: Table, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """New rows with the medians of the table where a number is missing. x: (M, D)."""
    both = np.concatenate([table.x, x])
    return _filled(both, np.arange(len(table.x)))[len(table.x) :]


def with_a_gap(table: Table) -> dict[str, float]:
    """The features that can have a gap, those that say most about y first -> the share of y's variance that the means
    of y in ten bins of the feature explain.

    Numbers and dates can, if the middle third of the rows has three values of them at least.
    """
    found = {}
    for feature in table.features:
        if feature.kind == "category":
            continue
        values = table.x[:, table.names.index(feature.column)]
        values = np.where(np.isnan(values), np.nanmedian(values), values)
        if len(np.unique(values[middle(values)])) < 3:
            continue  # a flag of 0 and 1, say: both ends of such a gap stay in the training
        bins = np.searchsorted(np.quantile(values, np.linspace(0.1, 0.9, 9)), values)
        means = np.array([table.y[bins == one].mean() if (bins == one).any() else 0.0 for one in range(10)])
        found[feature.column] = float(means[bins].var() / table.y.var())
    return dict(sorted(found.items(), key=lambda one: -one[1]))
