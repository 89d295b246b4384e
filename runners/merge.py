"""Several results folders joined in one. Sources are only read, and the target is sound at every moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapbench.runners.store import Damaged, Record, Store, StoreError, canonical, opened

Watch = Callable[[Sequence[Any], str], Iterable[Any]]  # goes through a list, and shows under a heading how far it is


@dataclass(frozen=True)
class Merged:
    """What a merge did. came, there: how many files of each kind are new in the target, and how many it had already.
    damaged: sentences on what was left out of the sources, or set aside in the target."""

    came: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)

    def count(self, kind: str, came: bool) -> None:
        (self.came if came else self.there)[kind] += 1


def merge(sources: Sequence[Path], target: Path, watch: Watch) -> Merged:
    """Commit what is sound in the sources to the target. Of records with the same key the first stays, and of these the
    target's own.

    Others may write to the target meanwhile. Raises StoreError, before anything is written, if a source is no results
    folder, is the target, or has records of another format.
    """
    stores = [opened(folder) for folder in dict.fromkeys(folder.resolve() for folder in sources)]
    if target.resolve() in [store.root for store in stores]:
        raise StoreError(f"{target}: it is a source too: expected an --out that is none")
    merged, records, notes = Merged(), list[tuple[Store, str, Record]](), list[tuple[str, dict[str, Any]]]()
    files = [(store, path) for store in stores for path in [*map(store.path, store.keys()), *store.notes()]]
    for store, path in watch(files, "checking records"):
        try:
            if path.parent.name == "failures":
                notes.append((path.stem.rpartition("-")[0], store.note(path)))
            else:
                records.append((store, path.stem, store.record(path.stem)))
        except Damaged as error:
            merged.damaged.append(str(error))
    into = Store(target)
    into.prepare()
    for store in watch([into], "checking the target"):
        found = store.set_aside_damaged()
        merged.damaged.extend(f"{path} was damaged: moved to {target / 'damaged'}" for path in found)
    for store, key, record in watch(records, "records"):
        try:
            _copy(store, key, record, into, merged)
        except Damaged as error:
            merged.damaged.append(f"{store.path(key)}: {error}")
    known = set(map(canonical, into.failures()))
    for key, note in watch(notes, "failure notes"):
        merged.count("failure notes", canonical(note) not in known)
        if canonical(note) not in known:
            into.fail(key, note)
            known.add(canonical(note))
    return merged


def _copy(store: Store, key: str, record: Record, into: Store, merged: Merged) -> None:
    """Commit a record of a store to another, after its arrays. Raises Damaged, with nothing written, if one of these is
    not sound."""
    first = into.read(key)
    if first is not None:
        merged.there["records"] += 1
        merged.there["arrays"] += len({*record.arrays.values()} & {*first.arrays.values()})
        return
    arrays = {name: store.array_bytes(name) for name in record.arrays.values()}
    for name, data in arrays.items():
        merged.count("arrays", into.keep(name, data))
    merged.count("records", into.write(key, record))
