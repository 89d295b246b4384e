"""Published results: what tables and figures need of a results folder, small enough to be tracked.

scores.parquet    every replica's scores and diagnostics, float32, tidy
curves.npz        PITs, and what figures draw, in 16 bits
manifest.json     what was computed, with which code, where, and the sha256 of every array of the whole run
figures/          PNG
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gapbench.datasets.base import Layout
from gapbench.evaluation.plots import plot
from gapbench.evaluation.results import Result, tidy
from gapbench.runners.store import Record, Store, StoreError, canonical, sha256

MANIFEST = "manifest.json"
FORMAT = 1
FIGURE_BYTES = 60_000  # of one PNG at most
LEVELS = 2**16 - 2  # a PIT in 16 bits; the last code is nan
SCHEMA = pa.schema(
    [
        ("dataset", pa.dictionary(pa.int16(), pa.string())),
        ("method", pa.dictionary(pa.int16(), pa.string())),
        ("status", pa.dictionary(pa.int16(), pa.string())),
        ("replica", pa.int32()),
        ("region", pa.dictionary(pa.int16(), pa.string())),
        ("score", pa.dictionary(pa.int16(), pa.string())),
        ("value", pa.float32()),
    ]
)
OF_DATASET = ("x", "y", "x_test", "f_test")  # curves that all methods of a dataset share


def publish(results: Sequence[Result], records: Sequence[Record], folder: Path) -> list[Path]:
    """Write `folder`; whatever was published there before is replaced. Returns the files.

    results: as `load.collect` gives them. records: of which they were made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {"scores.parquet": _parquet(results), "curves.npz": _curves(results)}
    manifest = {
        "format": FORMAT,
        "files": {name: sha256_of(data) for name, data in files.items()},
        "results": [_entry(result) for result in results],
        "records": [
            {"key": sha256(canonical(record.identity)), "identity": record.identity, "arrays": record.arrays}
            for record in sorted(records, key=lambda record: canonical(record.identity))
        ],
    }
    files[MANIFEST] = (json.dumps(json.loads(canonical(manifest)), indent=1, ensure_ascii=False) + "\n").encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    for old in (folder / "figures").glob("*.png"):
        old.unlink()
    figures = plot(results, folder / "figures", ("png",), FIGURE_BYTES).paths
    return [*(folder / name for name in files), *figures]


def publish_folder(source: Path, folder: Path) -> list[Path]:
    """Publish whatever a results folder has to show. Raises StoreError if a file of it is damaged."""
    from gapbench.runners.load import results

    return publish(results(source), list(Store(source).records()), folder)


def read_published(folder: Path) -> list[Result]:
    """The results of a published folder, to the precision that is kept. Raises StoreError if a file was altered."""
    manifest = _manifest(folder)
    data = {name: _checked(folder / name, digest) for name, digest in manifest["files"].items()}
    frame = pq.read_table(pa.BufferReader(data["scores.parquet"])).to_pandas()
    with np.load(io.BytesIO(data["curves.npz"]), allow_pickle=False) as arrays:
        curves = dict(arrays)
    by_result = dict(list(frame.groupby(["dataset", "method"], observed=True)))
    return [_result(entry, by_result[entry["dataset"], entry["method"]], curves) for entry in manifest["results"]]


def published_hash(folder: Path) -> str:
    """The hash of everything that is published in a folder but its figures."""
    return sha256_of((folder / MANIFEST).read_bytes())[:16]


def sha256_of(data: bytes) -> str:
    return sha256(data)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        number = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a manifest ({error}); get it again from the repository") from error
    if number != FORMAT:
        raise StoreError(f"{path} has format {number}, this gapbench reads {FORMAT}: use the version that wrote it")
    return manifest


def _checked(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    if sha256_of(data) != digest:
        raise StoreError(f"{path}: it is not what the manifest names; get it again from the repository")
    return data


def _parquet(results: Sequence[Result]) -> bytes:
    frame = tidy(results)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, SCHEMA, preserve_index=False), sink, compression="zstd")
    return sink.getvalue()


def _curves(results: Sequence[Result]) -> bytes:
    """The arrays of all results. Those that the methods of a dataset share are there once."""
    arrays: dict[str, NDArray[Any]] = {}
    for result in results:
        own, shared = f"{result.dataset}|{result.method}|", f"{result.dataset}||"
        for name, values in result.pits.items():
            codes = np.where(np.isnan(values), LEVELS + 1, np.nan_to_num(values) * LEVELS).round()
            arrays[f"{own}pit {name}"] = codes.astype(np.uint16)
        for name, mask in result.regions.items():
            arrays[f"{shared}region {name}"] = mask
        drawn = result.curves if result.layout.points == "grid" else {}
        for name, values in drawn.items():
            where = shared if name in OF_DATASET else own
            # x in float32: 16 bits would move points of a fine grid.
            arrays[f"{where}curve {name}"] = values.astype(np.float32 if name in ("x", "x_test") else np.float16)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _entry(result: Result) -> dict[str, Any]:
    return {
        "dataset": result.dataset,
        "method": result.method,
        "kind": result.kind,
        "replicas": result.replicas.tolist(),
        "layout": {"points": result.layout.points, "feature": result.layout.feature},
        "summary": result.summary,
        "failures": {str(replica): reason for replica, reason in result.failures.items()},
        "diagnostics": list(result.diagnostics),
        "provenance": list(result.provenance),
    }


def _result(entry: Mapping[str, Any], frame: pd.DataFrame, arrays: Mapping[str, NDArray[Any]]) -> Result:
    own, shared = f"{entry['dataset']}|{entry['method']}|", f"{entry['dataset']}||"
    replicas = np.array(entry["replicas"])

    def part(prefix: str) -> dict[str, NDArray[Any]]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    scores: dict[str, dict[str, NDArray[np.float64]]] = {}
    diagnostics: dict[str, NDArray[np.float64]] = {}
    for (score, region), lines in frame.groupby(["score", "region"], observed=True, sort=False):
        values = lines.sort_values("replica")["value"].to_numpy(np.float64)
        if region == "run":
            diagnostics[str(score)] = values
        else:
            scores.setdefault(str(score), {})[str(region)] = values
    pits = {name: np.where(codes > LEVELS, np.nan, codes / LEVELS) for name, codes in part(f"{own}pit ").items()}
    curves = {
        name: np.asarray(v, np.float64) for name, v in {**part(f"{shared}curve "), **part(f"{own}curve ")}.items()
    }
    summary = entry["summary"]
    return Result(
        entry["dataset"],
        entry["method"],
        entry["kind"],
        replicas,
        scores,
        pits,
        part(f"{shared}region "),
        curves,
        Layout(**entry["layout"]),
        None if summary is None else tuple((score, region) for score, region in summary),
        {name: diagnostics[name] for name in entry["diagnostics"]},
        {int(replica): reason for replica, reason in entry["failures"].items()},
        entry["provenance"],
    )
