"""Where results live: one write-once JSON record for each cell, the arrays it names beside it, failures apart.

    cells/<2 hex>/<key>.json     key = sha256 of what decides the numbers; inside, the sha256 of its own body
    arrays/<sha256>.npz          predictions and per-point values, written before the record that names them
    failures/<key>-<n>.json      what went wrong, and when; the next run tries again
    damaged/                     whatever failed its checksum, set aside so that it is made again

A kill at any byte loses at most the running cell: files appear complete or not at all, and no lock is needed since the
first writer of a name wins. What a killed writer leaves has a name that starts with a dot, and is never read.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gapbench.evaluation.tables import Result, merge, tidy

FORMAT = 1
STALE = 3600.0  # seconds after which an unfinished file is nobody's: a commit takes far less

Record = dict[str, Any]


class StoreError(click.ClickException):
    """The folder cannot be used as asked; the message says what to do, and the command line exits with 3."""

    exit_code = 3


class Damaged(Exception):
    """A file is not what was written: truncated, altered or swapped."""


def canonical(value: object) -> str:
    """JSON with one spelling for each value; a number that JSON has no word for becomes the string "nan" or "inf"."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def sha256(data: bytes | str) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


@dataclass(frozen=True)
class Store:
    """Every method raises StoreError where the file system refuses."""

    root: Path

    def prepare(self) -> None:
        """Make the folder, see that it can be committed to, and clear what killed runs left unfinished."""
        probe = self.root / f".probe-{secrets.token_hex(8)}"
        self._commit(probe, b"")
        with _refusals(f"{self.root}: cannot write there"):
            probe.unlink()
            for pattern in (".*", "cells/??/.*", "arrays/.*", "failures/.*"):
                for path in self.root.glob(pattern):
                    with suppress(FileNotFoundError):  # another run clears it too
                        if path.is_file() and time.time() - path.stat().st_mtime > STALE:
                            path.unlink()

    # Records ---------------------------------------------------------------------------------------------------------

    def path(self, key: str) -> Path:
        return self.root / "cells" / key[:2] / f"{key}.json"

    def write(self, key: str, record: Record) -> None:
        """Commit a record; a no-op if another process was first."""
        self._commit(self.path(key), _document(record))

    def read(self, key: str) -> Record | None:
        """The record of this key, or None. A damaged one is set aside and counts as absent."""
        path = self.path(key)
        try:
            return _checked(path) if path.exists() else None
        except Damaged:
            self.set_aside(path)
            return None

    def records(self) -> Iterator[Record]:
        """Every record, by key. Raises Damaged at one that is not sound."""
        for key in self.keys():
            yield self.record(key)

    def record(self, key: str) -> Record:
        """Raises Damaged if it is not sound, or not there."""
        return _checked(self.path(key))

    def keys(self) -> list[str]:
        """Of every record, sound or not."""
        found = (self.root / "cells").glob("??/*.json")
        return sorted(path.stem for path in found if path == self.path(path.stem))

    def set_aside_damaged(self) -> list[Path]:
        """Move every file that fails its checksum to damaged/, with the record that names it. Returns where they
        stood."""
        found = []
        for key in self.keys():
            path = self.path(key)
            try:
                arrays = [self._array_path(name) for name in self.record(key)["arrays"].values()]
            except Damaged:
                broken = [path]
            else:
                broken = [array for array in arrays if not self._sound(array.stem)]
            for each in dict.fromkeys([*broken, path]) if broken else ():
                self.set_aside(each)
            found += broken
        return list(dict.fromkeys(found))

    def set_aside(self, path: Path) -> None:
        folder = self.root / "damaged"
        with _refusals(f"{path}: cannot be moved to {folder}"), suppress(FileNotFoundError):  # another run was quicker
            folder.mkdir(exist_ok=True)
            path.rename(folder / f"{path.name}-{secrets.token_hex(4)}")

    # Arrays ----------------------------------------------------------------------------------------------------------

    def save(self, arrays: Mapping[str, NDArray[Any]]) -> str:
        """Store arrays under the hash of their content; returns it."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        name = sha256(buffer.getvalue())
        path = self._array_path(name)
        if not self._commit(path, buffer.getvalue()) and not self._sound(name):
            self.set_aside(path)
            self._commit(path, buffer.getvalue())
        return name

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of this hash. Raises Damaged if the file is missing or not what was written."""
        with np.load(io.BytesIO(self._array_bytes(name)), allow_pickle=False) as archive:
            return dict(archive)

    def _array_bytes(self, name: str) -> bytes:
        path = self._array_path(name)
        data = _bytes(path)
        if sha256(data) != name:
            raise Damaged(f"{path}: its content does not match its name")
        return data

    def _sound(self, name: str) -> bool:
        try:
            self._array_bytes(name)
        except Damaged:
            return False
        return True

    def _array_path(self, name: str) -> Path:
        if len(name) != 64 or set(name) - set("0123456789abcdef"):
            raise Damaged(f"{name!r} is not a sha256")  # a name read from a file never becomes a path unchecked
        return self.root / "arrays" / f"{name}.npz"

    # Failures --------------------------------------------------------------------------------------------------------

    def fail(self, key: str, record: Record) -> Path:
        """Note a failed cell under the first free number."""
        number = 1
        while not self._commit(path := self.root / "failures" / f"{key}-{number}.json", _document(record)):
            number += 1
        return path

    def failures(self) -> Iterator[Record]:
        """Every note of a failed cell; one that cannot be read is left out."""
        for path in sorted((self.root / "failures").glob("*-*.json")):
            with suppress(Damaged):
                yield _read(path)

    def _commit(self, path: Path, data: bytes) -> bool:
        """Write-once: complete under its name, or absent. Whether it was this call that wrote it."""
        advice = "; make room or choose another --out (what is committed stays)"
        with _refusals(f"{path.parent}: cannot write there", advice):
            _make(path.parent)
            temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
            try:
                _write(temporary, data)
                os.link(temporary, path)
                first = True
            except FileExistsError:  # the first writer wins
                first = False
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
            _sync(path.parent)
        return first


@contextmanager
def _refusals(what: str, advice: str = "") -> Iterator[None]:
    """What the file system refuses, in one line."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what} ({error.strerror or error}){advice}") from error


def _bytes(path: Path) -> bytes:
    with _refusals(f"{path}: cannot be read"):
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise Damaged(f"{path}: missing") from error


def _make(folder: Path) -> None:
    """Like mkdir -p, and on the disk when it returns."""
    if not folder.is_dir():
        _make(folder.parent)
        with suppress(FileExistsError):  # another process was quicker, or it is a file, as the next step will tell
            os.mkdir(folder)
        _sync(folder.parent)


def _write(path: Path, data: bytes) -> None:
    """A new file, on the disk when it returns."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def _sync(folder: Path) -> None:
    """The names in a folder, on the disk when it returns."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _document(body: Record) -> bytes:
    text = canonical(body)
    return f'{{"sha256":"{sha256(text)}","body":{text}}}\n'.encode()


def _read(path: Path) -> Record:
    """A document's body, if the file is what was written, to the byte."""
    data = _bytes(path)
    try:
        body = json.loads(data)["body"]
        sound = data == _document(body)
        newer = sound and body["format"] > FORMAT
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{path}: not a record ({error})") from error
    if not sound:
        raise Damaged(f"{path}: its checksum does not match; it was altered")
    if newer:
        raise StoreError(
            f"{path} was written by a newer gapbench (record format {body['format']}; this one reads {FORMAT}): "
            "upgrade gapbench, or choose another folder"
        )
    return dict(body)


def _checked(path: Path) -> Record:
    """The record that belongs under this name."""
    record = _read(path)
    if key_of(record["identity"]) != path.stem:
        raise Damaged(f"{path}: it belongs under another name")
    return record


def key_of(identity: Mapping[str, Any]) -> str:
    return sha256(canonical(identity))


def floats(values: Any) -> NDArray[np.float64]:
    """Numbers of a record as an array, "nan" and "inf" included."""
    return np.array(values, dtype=float)


# What a folder has to show -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Survey:
    """results: rows that may be compared. damaged: which files are left out. notes: what else is not shown, and why."""

    results: list[Result]
    damaged: list[str]
    notes: list[str]


def survey(folder: Path | str, keys: Collection[str] | None = None) -> Survey:
    """Whatever is sound in a results folder, or in these of its cells; `results` says which versions are taken.

    Raises StoreError if there is nothing at all, unless it was asked for certain cells.
    """
    store = Store(Path(folder))
    datasets: dict[str, list[Record]] = {}
    damaged: list[str] = []
    for key in store.keys() if keys is None else sorted(keys):
        try:
            record = store.record(key)
        except Damaged as error:
            damaged.append(str(error))
            continue
        datasets.setdefault(record["identity"]["dataset"]["name"], []).append(record)

    found: list[Result] = []
    notes: list[str] = []
    for dataset, records in sorted(datasets.items()):
        shown = _comparable(records)
        rows: dict[str, list[Result]] = {}
        for row in dict.fromkeys(record["identity"]["row"] for record in shown):
            for record in _blocks([record for record in shown if record["identity"]["row"] == row]):
                try:
                    part = _result(store, record)
                except Damaged as error:
                    damaged.append(str(error))
                else:
                    rows.setdefault(row, []).append(part)
        found += [merge(parts) for parts in rows.values()]
        hidden = _hidden(records, shown)
        if hidden:
            notes.append(
                f"{dataset}: {', '.join(hidden)} also there with another seed, network, data or version of the scores: "
                "not shown, since only the newest can be compared"
            )
    if keys is None:
        notes += _failed(store, found)
        if not found:
            raise StoreError(_nothing(store.root, [*damaged, *notes]))
    kinds = ("method", "reference", "floor", "ceiling")
    return Survey(
        sorted(found, key=lambda result: (result.dataset, kinds.index(result.kind), result.row)), damaged, notes
    )


def results(folder: Path | str) -> list[Result]:
    """Every row of every dataset in a results folder, blocks of replicas merged.

    Rows are only shown side by side if they are of the same data, network, seed and version of the scores: the newest.
    If a row is there in several versions (its code or settings changed between runs), the one written last is taken;
    blocks that overlap give way to the larger. Raises StoreError if there is nothing to show, or a file is damaged.
    """
    found = survey(folder)
    if found.damaged:
        raise StoreError(f"{found.damaged[0]}; `gapbench run --out {folder}` sets it aside and makes it again")
    return found.results


def _age(record: Record) -> tuple[int, str, int]:
    """Scores of a later version count as newer, whenever the training was, and those with more references."""
    references = record["identity"].get("references") or []
    return record["identity"]["metrics"], record["provenance"]["finished"], sum(map(bool, references))


def _setting(record: Record) -> tuple[object, ...]:
    """What rows must share to be compared."""
    identity = record["identity"]
    return identity["dataset"]["repr"], identity["model"], identity["seed"], identity["metrics"]


def _comparable(records: Iterable[Record]) -> list[Record]:
    """Those of the newest setting, and of the newest data where the same replicas have two versions of them."""
    by_age = sorted(records, key=_age)
    alike = [record for record in by_age if _setting(record) == _setting(by_age[-1])]
    data = {tuple(record["identity"]["block"]): record["identity"]["dataset"]["sha256"] for record in alike}
    return [
        record
        for record in alike
        if record["identity"]["dataset"]["sha256"] == data[tuple(record["identity"]["block"])]
    ]


def _hidden(records: Iterable[Record], shown: Iterable[Record]) -> list[str]:
    """Rows of which something is left out, other than older scores of what is shown."""

    def kinds(of: Iterable[Record]) -> set[tuple[object, ...]]:
        return {(record["identity"]["row"], *_setting(record)[:-1]) for record in of}

    return sorted({str(row) for row, *_ in kinds(records) - kinds(shown)})


def _blocks(records: Iterable[Record]) -> list[Record]:
    """The newest version of a row, each replica once."""

    def version(record: Record) -> str:
        return canonical({**record["identity"], "block": None, "dataset": None, "references": None})

    newest = version(max(records, key=_age))
    chosen: list[Record] = []
    taken: set[int] = set()
    newest_first = sorted(records, key=_age, reverse=True)
    for record in sorted(newest_first, key=lambda record: -len(record["replicas"])):
        if version(record) == newest and not taken & set(record["replicas"]):
            chosen.append(record)
            taken |= set(record["replicas"])
    return chosen


def _failed(store: Store, found: Iterable[Result]) -> list[str]:
    """The last word of every cell that failed and was not made since."""
    there = {(result.dataset, result.row, replica) for result in found for replica in result.replicas.tolist()}
    words = {}
    for note in store.failures():
        identity = note["identity"]
        if any((identity["dataset"]["name"], identity["row"], r) not in there for r in range(*identity["block"])):
            words[note["cell"]] = f"{note['status']}: {first_line(note['reason'])}"
    return [f"{cell} failed ({word}); the next run tries it again" for cell, word in words.items()]


def first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _nothing(folder: Path, problems: Iterable[str]) -> str:
    """Why there is nothing to show, and what to do."""
    elsewhere = sorted(str(path.parent) for path in folder.glob("*/cells"))
    reasons = [
        *problems,
        *(f"there are in {path}" for path in elsewhere),
        *(["it is a file: expected a folder that `gapbench run --out` wrote"] if folder.is_file() else []),
        *([] if folder.is_dir() else [f"there is no such folder: `gapbench run --out {folder}` makes it"]),
        f"`gapbench run --out {folder}` makes some",
    ]
    return f"{folder}: no results there; {reasons[0]}"


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
    """A results folder as one tidy frame: dataset, row, status, replica, region, score, value (see `tidy`)."""
    return tidy(results(folder))
