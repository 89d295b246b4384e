"""Draws of f for other tools: one method on one dataset as a NetCDF file that ArviZ reads. It needs arviz-base and
h5netcdf: pip install 'gapbench[netcdf]'.

posterior        f (chain, draw, replica, point); or f_mean and f_std of the same shape, if a draw is a normal law of f
observed_data    y (replica, observation)
constant_data    x (replica, observation, feature), x_test (replica, point, feature), f_test (replica, point) if known
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapbench.methods.engine.predictions import MixturePrediction, kinds
from gapbench.runners import load
from gapbench.runners.store import Record, Store, StoreError

DIMS = {
    "f": ["replica", "point"],
    "f_mean": ["replica", "point"],
    "f_std": ["replica", "point"],
    "y": ["replica", "observation"],
    "x": ["replica", "observation", "feature"],
    "x_test": ["replica", "point", "feature"],
    "f_test": ["replica", "point"],
}


def write(folder: Path, dataset: str, method: str, out: Path) -> None:
    """Write the draws of a method on a dataset of a results folder. Raises StoreError if there are none."""
    from arviz_base import from_dict

    store = Store(folder)
    records = _records(store, dataset, method)
    parts = [_drawn(store, record, dataset, method) for record in records]
    draws, constant = (_joined([part[0] for part in parts]), _joined([part[1] for part in parts]))
    posterior = {  # (R, S, M) -> (chain, draw, R, M)
        name: values.reshape(len(values), parts[0][2], -1, values.shape[-1]).transpose(1, 2, 0, 3)
        for name, values in draws.items()
    }
    observed = {"y": constant.pop("y")}
    replicas = [replica for record in records for replica in record.replicas]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found chain dimension")  # here chains are many and short
        tree = from_dict(
            {"posterior": posterior, "observed_data": observed, "constant_data": constant},
            dims=DIMS,
            coords={"replica": replicas},
            attrs={"posterior": {"dataset": dataset, "method": method}},
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    tree.to_netcdf(out, engine="h5netcdf")


def _joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Blocks of replicas as one. Raises StoreError if they differ in their number of rows, as folds by group do."""
    for name, first in parts[0].items():
        if any(part[name].shape[1:] != first.shape[1:] for part in parts):
            raise StoreError(
                f"{name}: replicas have different numbers of rows, and a NetCDF file has one: export parquet"
            )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _records(store: Store, dataset: str, method: str) -> list[Record]:
    """The records that tables show, in the order of their replicas. Raises StoreError."""
    there = [record for record in store.records() if record.identity["dataset"]["name"] == dataset]
    own = [one for one in load._comparable(there) if one.identity["method"]["name"] == method] if there else []
    if not own:
        raise StoreError(f"{store.root}: no draws of {method} on {dataset}; a published folder has none of any method")
    return sorted(load._blocks(own), key=lambda record: record.replicas[0])


def _drawn(
    store: Store, record: Record, dataset: str, method: str
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]], int]:
    """Draws (R, S, M) of f or of its moments, the data, and the number of chains. Raises StoreError."""
    kind = kinds().get(record.prediction)  # None: of a method's own file, which nothing has imported here
    if kind is None or not issubclass(kind, MixturePrediction):
        raise StoreError(f"{store.root}: {method} on {dataset} has no draws of f: it is a {record.prediction}")
    prediction = kind.from_arrays(store.arrays(record.arrays["predictions"]))
    location = prediction.location.numpy()
    moments = {"f_mean": location, "f_std": prediction.scale.expand(prediction.location.shape).numpy()}
    points = store.arrays(record.arrays["points"])
    data = {name: points[f"grid {name}"] for name in ("x", "y", "x_test", "f_test") if f"grid {name}" in points}
    return moments if prediction.scale.any() else {"f": location}, data, max(prediction.chains, 1)
