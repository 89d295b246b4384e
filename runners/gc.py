"""What nothing in a results folder refers to: found, and removed while a run may be writing there."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gapbench.runners.store import STALE, Damaged, Store, opened, sha256

# The names that the store gives. A file of any other name is not its own, and is never touched.
ARRAYS = re.compile(r"[0-9a-f]{64}\.npz")
UNFINISHED = re.compile(r"\.probe-[0-9a-f]{16}|\.[0-9a-f]{64}(-[0-9]+)?\.(json|npz)\.[0-9a-f]{16}")
SET_ASIDE = re.compile(r"[0-9a-f]{64}\.(json|npz)-[0-9a-f]{8}")

Kind = Literal["arrays without a record", "unfinished files", "damaged files"]


@dataclass(frozen=True)
class Waste:
    """A file that nothing refers to. size: in bytes."""

    kind: Kind
    path: Path
    size: int


@dataclass(frozen=True)
class Found:
    """What may be removed of a store. before: the time, in seconds since 1970, after which no file may have changed.
    damaged: sentences on the records that are not sound. Then no arrays are among the waste, because nobody can read
    which of them such a record names."""

    store: Store
    before: float
    waste: list[Waste]
    damaged: list[str]


def find(folder: Path) -> Found:
    """Find the waste of a results folder; whatever a run may be writing, which is younger than an hour, is none.

    Links are not followed. Raises StoreError if it is no results folder, or has records of another format.
    """
    store, before = opened(folder.resolve()), time.time() - STALE
    parts = [store.root / name for name in ("cells", "arrays", "failures", "skipped", "plans", "running")]
    folders = [store.root, *parts, *(path for path in _listed(parts[0]) if len(path.name) == 2)]
    unfinished = [path for one in folders for path in _listed(one) if UNFINISHED.fullmatch(path.name)]
    arrays = [path for path in _listed(parts[1]) if ARRAYS.fullmatch(path.name)]
    named, damaged = set[str](), list[str]()
    for key in store.keys():  # noqa: SIM118 a store is no dict
        try:
            named |= set(store.record(key).arrays.values())
        except Damaged as error:
            damaged.append(str(error))
    loose = [path for path in arrays if path.stem not in named] if not damaged else []
    aside = [path for path in _listed(store.root / "damaged") if SET_ASIDE.fullmatch(path.name)]
    waste = [
        *_waste("arrays without a record", loose, before),
        *_waste("unfinished files", unfinished, before),
        *_waste("damaged files", aside, float("inf")),
    ]
    return Found(store, before, waste, damaged)


def _listed(folder: Path) -> list[Path]:
    """The content of a folder, sorted; nothing if it is a link or not there."""
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _waste(kind: Kind, paths: Iterable[Path], before: float) -> Iterator[Waste]:
    """Those of the paths that are files, no links, last changed before this time."""
    for path in paths:
        with suppress(FileNotFoundError):  # its writer has finished, or another gc was quicker
            if not path.is_symlink() and path.is_file() and path.stat().st_mtime < before:
                yield Waste(kind, path, path.stat().st_size)


def remove(found: Found) -> None:
    """Remove the waste. The folder damaged/ stays, because a run may be moving a file into it."""
    for one in found.waste:
        with suppress(FileNotFoundError):
            if one.kind == "arrays without a record":
                _remove_arrays(found.store, one.path, found.before)
            else:
                one.path.unlink()


def _remove_arrays(store: Store, path: Path, before: float) -> None:
    """Remove arrays, unless a run has just saved the same: that made their file new, and the run relies on it.

    The file is renamed first. From then on such a run finds it missing, and writes its own.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    os.rename(path, aside)
    if aside.stat().st_mtime >= before and sha256(data := aside.read_bytes()) == path.stem:
        store.keep(path.stem, data)
    aside.unlink()
