"""Where results live: one write-once JSON record for each cell, the arrays it names beside it, failures apart.

    cells/<2 hex>/<key>.json     key = sha256 of what decides the numbers; inside, the sha256 of its own body
    arrays/<sha256>.npz          predictions and per-point values, written before the record that names them
    failures/<key>-<n>.json      what went wrong, and when; the next run tries again
    damaged/                     whatever failed its checksum, set aside so that it is made again

A kill at any byte loses at most the running cell: files appear complete or not at all, and no lock is needed since the
first writer of a name wins.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gapbench.evaluation.tables import Result, merge

FORMAT = 1

Record = dict[str, Any]


class StoreError(Exception):
    """The folder cannot be used as asked; the message says what to do."""


class Damaged(Exception):
    """A file is not what was written: truncated, altered or swapped."""


def canonical(value: object) -> str:
    """JSON with one spelling for each value; a number that JSON has no word for becomes the string "nan" or "inf"."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def sha256(data: bytes | str) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


@dataclass(frozen=True)
class Store:
    root: Path

    def prepare(self) -> None:
        """Make the folder; raises StoreError if nothing can be written there."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{secrets.token_hex(4)}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"--out {self.root}: cannot write there ({error.strerror}); choose a folder you can write to"
            ) from error

    # Records ---------------------------------------------------------------------------------------------------------

    def path(self, key: str) -> Path:
        return self.root / "cells" / key[:2] / f"{key}.json"

    def write(self, key: str, record: Record) -> None:
        """Commit a record; a no-op if another process was first."""
        body = canonical(record)
        self._commit(self.path(key), f'{{"sha256":"{sha256(body)}","body":{body}}}\n'.encode())

    def read(self, key: str) -> Record | None:
        """The record of this key, or None. A damaged one is set aside and counts as absent."""
        path = self.path(key)
        if not path.exists():
            return None
        try:
            return _checked(path)
        except Damaged:
            self.set_aside(path)
            return None

    def records(self) -> Iterator[Record]:
        """Every sound record, by key. A damaged one raises Damaged: call `set_aside_damaged` first to go on."""
        for path in self._paths():
            yield _checked(path)

    def set_aside_damaged(self) -> list[Path]:
        """Move every file that fails its checksum to damaged/. Returns where they stood."""
        found = []
        for path in self._paths():
            try:
                record = _checked(path)
            except Damaged:
                found.append(path)
                self.set_aside(path)
                continue
            for name in record["arrays"].values():
                array = self._array_path(name)
                try:
                    self.arrays(name)
                except Damaged:
                    found.append(array)
                    self.set_aside(path)
                    if array.exists():
                        self.set_aside(array)
                    break
        return found

    def set_aside(self, path: Path) -> None:
        folder = self.root / "damaged"
        folder.mkdir(exist_ok=True)
        path.rename(folder / f"{path.name}-{secrets.token_hex(4)}")

    def _paths(self) -> list[Path]:
        return sorted((self.root / "cells").glob("??/*.json"))

    # Arrays ----------------------------------------------------------------------------------------------------------

    def save(self, arrays: Mapping[str, NDArray[Any]]) -> str:
        """Store arrays under the hash of their content; returns it."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        name = sha256(buffer.getvalue())
        self._commit(self._array_path(name), buffer.getvalue())
        return name

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of this hash. Raises Damaged if the file is missing or not what was written."""
        path = self._array_path(name)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Damaged(f"{path}: {error.strerror}") from error
        if sha256(data) != name:
            raise Damaged(f"{path}: its content does not match its name")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive)

    def _array_path(self, name: str) -> Path:
        if len(name) != 64 or set(name) - set("0123456789abcdef"):
            raise Damaged(f"{name!r} is not a sha256")  # a name read from a file never becomes a path unchecked
        return self.root / "arrays" / f"{name}.npz"

    # Failures --------------------------------------------------------------------------------------------------------

    def fail(self, key: str, record: Record) -> None:
        """Note a failed cell under the first free number."""
        folder = self.root / "failures"
        number = 1
        while (folder / f"{key}-{number}.json").exists():
            number += 1
        self._commit(folder / f"{key}-{number}.json", (canonical(record) + "\n").encode())

    def _commit(self, path: Path, data: bytes) -> None:
        """Write-once: complete under its name, or absent."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # the first writer wins
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _checked(path: Path) -> Record:
    try:
        document = json.loads(path.read_bytes())
        body, claimed = document["body"], document["sha256"]
        sound = sha256(canonical(body)) == claimed and key_of(body["identity"]) == path.stem
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{path}: not a record ({error})") from error
    if not sound:
        raise Damaged(f"{path}: its checksum does not match; it was altered or belongs elsewhere")
    if body["format"] > FORMAT:
        raise StoreError(
            f"{path} was written by a newer gapbench (record format {body['format']}; this one reads {FORMAT}): "
            "upgrade gapbench to read it"
        )
    return dict(body)


def key_of(identity: Mapping[str, Any]) -> str:
    return sha256(canonical(identity))


def floats(values: Any) -> NDArray[np.float64]:
    """Numbers of a record as an array, "nan" and "inf" included."""
    return np.array(values, dtype=float)


def results(folder: Path | str) -> list[Result]:
    """Every row of every dataset in a results folder, blocks of replicas merged.

    If a row is there in several versions (its code, settings or scores changed between runs), the one written last is
    taken; blocks that overlap give way to the larger. Raises StoreError if there is nothing to show.
    """
    store = Store(Path(folder))
    try:
        records = list(store.records())
    except Damaged as error:
        raise StoreError(f"{error}; run `gapbench run` on this folder again: it sets the file aside") from error
    if not records:
        raise StoreError(f"{folder}: no results there; `gapbench run --out {folder}` makes some")
    rows: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        identity = record["identity"]
        rows.setdefault((identity["dataset"]["name"], identity["row"]), []).append(record)
    found = [merge([_result(store, record) for record in _blocks(versions)]) for versions in rows.values()]
    kinds = ("method", "floor", "ceiling")
    return sorted(found, key=lambda result: (result.dataset, kinds.index(result.kind), result.row))


def _blocks(records: list[Record]) -> list[Record]:
    def version(record: Record) -> str:
        return canonical({key: value for key, value in record["identity"].items() if key != "block"})

    newest = version(max(records, key=lambda record: str(record["provenance"]["finished"])))
    chosen: list[Record] = []
    taken: set[int] = set()
    for record in sorted(records, key=lambda record: -len(record["replicas"])):
        if version(record) == newest and not taken & set(record["replicas"]):
            chosen.append(record)
            taken |= set(record["replicas"])
    return chosen


def _result(store: Store, record: Record) -> Result:
    points = store.arrays(record["arrays"]["points"])

    def section(prefix: str) -> dict[str, NDArray[Any]]:
        return {name.removeprefix(prefix): value for name, value in points.items() if name.startswith(prefix)}

    return Result(
        record["identity"]["dataset"]["name"],
        record["identity"]["row"],
        record["kind"],
        np.array(record["replicas"]),
        section("point "),
        section("region "),
        section("grid "),
        {name: floats(values) for name, values in record["diagnostics"].items()},
        {int(replica): reason for replica, reason in record["failures"].items()},
        [record["provenance"]],
    )


def load(folder: Path | str) -> pd.DataFrame:
    """A results folder as one tidy frame: dataset, row, status, replica, region, score, value.

    Scores pooled over replicas are not here, having no value for one replica: see `gapbench table`. Diagnostics of the
    methods (epsilon, clipped fraction, …) are, with region "run".
    """
    lines: list[dict[str, object]] = []
    for result in results(folder):
        named = {**result.scores, **{name: {"run": values} for name, values in result.diagnostics.items()}}
        for score, regions in named.items():
            for region, values in regions.items():
                for replica, value in zip(result.replicas.tolist(), values.tolist(), strict=True):
                    lines.append(
                        {
                            "dataset": result.dataset,
                            "row": result.row,
                            "status": "failed" if replica in result.failures else result.status,
                            "replica": replica,
                            "region": region,
                            "score": score,
                            "value": value,
                        }
                    )
    return pd.DataFrame(lines)
