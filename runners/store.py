"""The store of results: a write-once JSON record for each cell, the arrays that it names, and notes of failures.

    cells/<2 hex>/<key>.json     key = sha256 of what decides the numbers; inside, the sha256 of the record's body
    arrays/<sha256>.npz          predictions and per-point values, written before the record that names them
    failures/<key>-<n>.json      the error and its time, of the n-th attempt
    skipped/<key>.json           why a cell is not run
    plans/<sha256>.json          the cells that a run was asked for
    running/.<key>.json.<random> a cell that is being computed, where and since when; touched while its process lives
    damaged/                     files that failed their checksum, set aside so that they are made again

A kill at any byte loses at most the running cell, because files appear complete or not at all. No lock is needed, since
the first writer of a name wins. A killed writer leaves only files whose names start with a dot; these are never read.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapbench.datasets.base import Layout
from gapbench.evaluation.entries import Kind

FORMAT = 2
BEAT = 20.0  # seconds between signs of life of a cell that is being computed
STALE = 3600.0  # seconds after which no writer of an unfinished file is alive: a commit takes far less
# Errors of os.link on a file system without hard links: exFAT, SMB, cloud drives mounted in a notebook.
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES}
# Errors of os.fsync on a file system that cannot write at once, above all for folders.
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class StoreError(Exception):
    """A folder that cannot be used as asked; the message says what to do."""


class Damaged(Exception):
    """A file that is missing, truncated, altered or swapped; the message says which."""


@dataclass(frozen=True)
class Record:
    """A cell's record.

    identity: everything that decides the numbers; its hash is the record's key. prediction: class name of the kind of
    prediction. replicas: the replica numbers. arrays: purpose ("predictions" or "points") -> name of the file.
    diagnostics: name -> a number for each replica. failures: replica number -> reason. summary: the columns that the
    dataset declares. provenance: place, time and cost of the computation; not a part of the identity.
    """

    identity: Mapping[str, Any]
    kind: Kind
    prediction: str
    replicas: Sequence[int]
    arrays: Mapping[str, str]
    layout: Layout = field(default_factory=Layout)
    summary: tuple[tuple[str, str], ...] | None = None
    diagnostics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The record's body, JSON-able up to `canonical`."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**parts, "format": FORMAT, "layout": self.layout.content}

    @staticmethod
    def from_document(body: Mapping[str, Any]) -> Record:
        """The record that `document` wrote. Raises KeyError or TypeError if the body is no record."""
        parts = {one.name: body[one.name] for one in fields(Record)}
        summary = parts["summary"]
        parts["summary"] = None if summary is None else tuple((score, region) for score, region in summary)
        return Record(**{**parts, "layout": Layout(**parts["layout"])})


def canonical(value: object) -> str:
    """The JSON text with one spelling for each value. Numbers unknown to JSON become "nan", "inf" or "-inf"."""
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
    """A store in a folder. Every method raises StoreError if the file system refuses."""

    root: Path

    def prepare(self) -> None:
        """Make the folder, check that commits work there, and remove unfinished files of killed runs."""
        probe = self.root / f".probe-{secrets.token_hex(8)}"
        self._commit(probe, b"")
        with _refusals(f"{self.root}: cannot write there"):
            probe.unlink()
            for pattern in (
                ".probe-*",
                "cells/??/.*",
                "arrays/.*",
                "failures/.*",
                "skipped/.*",
                "plans/.*",
                "running/.*",
            ):
                for path in self.root.glob(pattern):
                    with suppress(FileNotFoundError):  # another run removed the file
                        if path.is_file() and time.time() - path.stat().st_mtime > STALE:
                            path.unlink()

    # Records ---------------------------------------------------------------------------------------------------------

    def path(self, key: str) -> Path:
        return self.root / "cells" / key[:2] / f"{key}.json"

    def write(self, key: str, record: Record) -> bool:
        """Commit a record. Returns False, and changes nothing, if another process was first."""
        return self._commit(self.path(key), _document(record.document()))

    def read(self, key: str) -> Record | None:
        """The record of this key, or None. A damaged record is set aside and counts as absent."""
        path = self.path(key)
        try:
            return _checked(path) if path.exists() else None
        except Damaged:
            self.set_aside(path)
            return None

    def records(self) -> Iterator[Record]:
        """All records, sorted by key. Raises Damaged at a record that is not sound."""
        return map(self.record, self.keys())

    def record(self, key: str) -> Record:
        """The record of this key. Raises Damaged if the record is not sound, or missing."""
        return _checked(self.path(key))

    def keys(self) -> list[str]:
        """The keys of all records, sound or not."""
        found = (self.root / "cells").glob("??/*.json")
        return sorted(path.stem for path in found if path == self.path(path.stem))

    def set_aside_damaged(self) -> list[Path]:
        """Move every file that fails its checksum to damaged/, with the record that names it.

        Returns the former paths of the files that failed.
        """
        found = []
        for key in self.keys():
            path = self.path(key)
            try:
                arrays = [self._array_path(name) for name in self.record(key).arrays.values()]
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
        """Store arrays under the hash of their content. Returns the hash."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        name = sha256(buffer.getvalue())
        self.keep(name, buffer.getvalue())
        return name

    def keep(self, name: str, data: bytes) -> bool:
        """Commit the bytes of arrays under their hash. Returns False if they were there."""
        path = self._array_path(name)
        if self._commit(path, data):
            return True
        with suppress(OSError):  # `gc` removed the file, or it is another user's
            os.utime(path)  # no record names it yet, and `gc` spares what is new
        if self._sound(name):
            return False
        self.set_aside(path)
        return self._commit(path, data)

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of this hash. Raises Damaged if the file is missing or does not match the hash."""
        with np.load(io.BytesIO(self.array_bytes(name)), allow_pickle=False) as archive:
            return dict(archive)

    def array_bytes(self, name: str) -> bytes:
        """The file of this hash. Raises Damaged if it is missing or does not match the hash."""
        path = self._array_path(name)
        data = _bytes(path)
        if sha256(data) != name:
            raise Damaged(f"{path}: its content does not match its name")
        return data

    def _sound(self, name: str) -> bool:
        try:
            self.array_bytes(name)
        except Damaged:
            return False
        return True

    def _array_path(self, name: str) -> Path:
        if len(name) != 64 or set(name) - set("0123456789abcdef"):
            raise Damaged(f"{name!r} is not a sha256")  # a name read from a file never becomes a path unchecked
        return self.root / "arrays" / f"{name}.npz"

    # Failures --------------------------------------------------------------------------------------------------------

    def fail(self, key: str, note: Mapping[str, Any]) -> Path:
        """Write the note of a failed cell under the first free number, unless it is there. Returns its path."""
        number, data = 1, _document({**note, "format": FORMAT})
        while not self._commit(path := self.root / "failures" / f"{key}-{number}.json", data) and _bytes(path) != data:
            number += 1
        return path

    def failures(self) -> Iterator[dict[str, Any]]:
        """All notes of failed cells, in the order of attempts; a note that cannot be read is left out."""
        for _, note in self.attempts():
            yield note

    def attempts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The key and the note of every attempt that failed, in their order; a note that cannot be read is left out."""
        for path in self.notes():
            with suppress(Damaged):
                yield path.stem.rpartition("-")[0], self.note(path)

    def notes(self) -> list[Path]:
        """The paths of all notes of failed cells, sound or not: of each cell in the order of its attempts."""
        found = [(*path.stem.rpartition("-")[::2], path) for path in (self.root / "failures").glob("*-*.json")]
        return [path for *_, path in sorted(found, key=lambda one: (one[0], one[1].zfill(9)))]

    def note(self, path: Path) -> dict[str, Any]:
        """The note in a file. Raises Damaged if it is not sound."""
        return _read(path)

    def skip(self, key: str, reason: str) -> None:
        """Write down why a cell is not run."""
        self._commit(self.root / "skipped" / f"{key}.json", _document({"reason": reason, "format": FORMAT}))

    def skipped(self) -> dict[str, str]:
        """Key -> why that cell is not run."""
        found = {}
        for path in sorted((self.root / "skipped").glob("*.json")):
            with suppress(Damaged):
                found[path.stem] = str(_read(path)["reason"])
        return found

    # Plans, and cells that are being computed -------------------------------------------------------------------------

    def plan(self, body: Mapping[str, Any]) -> None:
        """Write down what a run was asked for."""
        path = self.root / "plans" / f"{sha256(canonical(body))}.json"
        if not self._commit(path, _document({**body, "format": FORMAT})):
            with _refusals(f"{path}: cannot write there"):
                os.utime(path)  # it is the newest plan again

    @property
    def planned(self) -> bool:
        """Whether a run was asked for here. It stays so, unless somebody removes the folder."""
        return (self.root / "plans").is_dir()

    def plans(self) -> list[dict[str, Any]]:
        """What runs were asked for, the newest last; a plan that cannot be read is left out."""
        found = []
        for path in sorted((self.root / "plans").glob("*.json"), key=lambda path: (path.stat().st_mtime, path)):
            with suppress(Damaged):
                found.append(_read(path))
        return found

    @contextmanager
    def running(self, key: str, note: Mapping[str, Any]) -> Iterator[None]:
        """Show inside that a cell is being computed: `marks` has its note for as long as this process lives."""
        path = self.root / "running" / f".{key}.json.{secrets.token_hex(8)}"
        with _refusals(f"{path.parent}: cannot write there"):
            _make(path.parent)
            path.write_bytes(_document({**note, "format": FORMAT}))
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT):
                with suppress(OSError):
                    os.utime(path)

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            with suppress(OSError):
                path.unlink()

    def marks(self) -> Iterator[tuple[str, float, dict[str, Any]]]:
        """The key, the seconds since its last sign of life, and the note of every cell that is being computed."""
        for path in sorted((self.root / "running").glob(".*")):
            with suppress(Damaged, FileNotFoundError):
                yield path.name[1:].partition(".")[0], time.time() - path.stat().st_mtime, _read(path)

    def _commit(self, path: Path, data: bytes) -> bool:
        """Write a file once: complete under its name, or not at all. Returns True if this call wrote the file."""
        advice = "; make room or choose another --out (what is committed stays)"
        with _refusals(f"{path.parent}: cannot write there", advice):
            _make(path.parent)
            temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
            try:
                _write(temporary, data)
                _name(temporary, path, data)
                first = True
            except FileExistsError:  # the first writer wins
                first = False
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
            _sync(path.parent)
        return first


def opened(folder: Path) -> Store:
    """The store in a folder. Raises StoreError if there is none."""
    if not any((folder / part).is_dir() for part in ("cells", "arrays", "failures")):
        raise StoreError(
            f"{folder}: no results there: expected a folder that `gapbench run --out` wrote "
            "(a published folder has scores alone, and no records)"
        )
    return Store(folder)


@contextmanager
def _refusals(what: str, advice: str = "") -> Iterator[None]:
    """Turn an OSError of the file system into a StoreError of one line."""
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
    """Make a folder and its parents, all on the disk when this returns."""
    if not folder.is_dir():
        _make(folder.parent)
        with suppress(FileExistsError):  # another process was quicker, or it is a file: then the next step fails
            os.mkdir(folder)
        _sync(folder.parent)


def _write(path: Path, data: bytes) -> None:
    """Write a new file, on the disk when this returns. Raises FileExistsError if the name is taken."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        _flush(file)
    finally:
        os.close(file)


def _sync(folder: Path) -> None:
    """Flush the names in a folder: they are on the disk when this returns."""
    file = os.open(folder, os.O_RDONLY)
    try:
        _flush(file)
    finally:
        os.close(file)


def put(path: Path, data: bytes) -> None:
    """Put data in the place of a file at once: whoever reads it meanwhile has the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(file: int) -> None:
    """Flush an open file to the disk, if the file system can do that.

    If not, a power cut may leave half a file, which its checksum reveals.
    """
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def _name(temporary: Path, path: Path, data: bytes) -> None:
    """Give a complete file its name. Raises FileExistsError if the name is taken."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # The second best way: a kill during this write leaves half a file under the name. Its checksum reveals this,
        # and the next run sets the file aside.
        try:
            _write(path, data)
        except FileExistsError:
            raise
        except OSError:  # a full disk must not leave half a file
            with suppress(FileNotFoundError):
                os.unlink(path)
            raise


def has_links(folder: Path) -> bool:
    """True if the file system of a folder has hard links. The folder must be writable."""
    one, other = (folder / f".probe-{secrets.token_hex(8)}" for _ in range(2))
    try:
        _write(one, b"")
        os.link(one, other)
        return True
    except OSError as error:
        return error.errno not in NO_LINKS
    finally:
        for path in (one, other):
            with suppress(FileNotFoundError):
                os.unlink(path)


def _document(body: Mapping[str, Any]) -> bytes:
    text = canonical(body)
    return f'{{"sha256":"{sha256(text)}","body":{text}}}\n'.encode()


def _read(path: Path) -> dict[str, Any]:
    """The body of a document, if the file is intact to the byte. Raises Damaged, and StoreError for another format."""
    data = _bytes(path)
    try:
        body = json.loads(data)["body"]
        sound = data == _document(body)
        newer, older = sound and body["format"] > FORMAT, sound and body["format"] < FORMAT
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{path}: not a record ({error})") from error
    if not sound:
        raise Damaged(f"{path}: its checksum does not match; it was altered")
    if newer or older:  # no damage: nothing of the folder is touched
        raise StoreError(
            f"{path} was written by {'a newer' if newer else 'an older'} gapbench (record format {body['format']}; "
            f"this one reads {FORMAT}): "
            + ("upgrade gapbench, or choose another folder" if newer else "choose another folder, or remove this one")
        )
    return dict(body)


def _checked(path: Path) -> Record:
    """The record in a file, if it belongs under the file's name. Raises Damaged."""
    try:
        record = Record.from_document(_read(path))
    except (KeyError, TypeError) as error:
        raise Damaged(f"{path}: not a record ({error})") from error
    if key_of(record.identity) != path.stem:
        raise Damaged(f"{path}: it belongs under another name")
    return record


def key_of(identity: Mapping[str, Any]) -> str:
    return sha256(canonical(identity))


def floats(values: Any) -> NDArray[np.float64]:
    """The numbers of a record as an array, "nan" and "inf" included."""
    return np.array(values, dtype=float)


def first_line(text: str) -> str:
    """The first line of a message."""
    return text.strip().partition("\n")[0]
