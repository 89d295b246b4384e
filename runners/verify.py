"""Cells of a results folder, local or published, run again: do they give what was recorded?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import numpy as np
from rich.console import Console

from gapbench.evaluation.entries import Trained
from gapbench.evaluation.likeness import Likeness, likeness, shared
from gapbench.evaluation.results import Result, rounded
from gapbench.runners import load
from gapbench.runners.cell import Cell, Place
from gapbench.runners.complete import Outcome
from gapbench.runners.devices import devices
from gapbench.runners.publish import MANIFEST, read_manifest, read_published
from gapbench.runners.run import run_cells
from gapbench.runners.store import Damaged, Record, Store, canonical, opened
from gapbench.runners.suites import Suite, method_of, select

T = TypeVar("T")


@dataclass(frozen=True)
class Recorded:
    """What a folder has of one cell.

    content: of dataset, model and method, as text. versions: of what else decides the numbers, by its name in a
    sentence. age: larger if newer. cpu: seconds. arrays: their hashes, None in a published folder. result: reads the
    scores, and raises Damaged.
    """

    place: Place
    content: str
    versions: Mapping[str, Any]
    age: tuple[Any, ...]
    cpu: float
    arrays: Mapping[str, str] | None
    result: Callable[[], Result]


@dataclass(frozen=True)
class Verified:
    """The verdict on one cell. detail: the numbers behind it. changed: what is not as it was when it was recorded."""

    cell: Cell
    verdict: Literal["same bits", "within tolerance", "statistically alike", "different", "failed"]
    detail: str
    changed: Sequence[str] = ()

    @property
    def sound(self) -> bool:
        return self.verdict not in ("different", "failed")

    def __str__(self) -> str:
        since = f"; changed since: {', '.join(self.changed)}" if self.changed else ""
        return f"{self.cell.title}: {self.verdict}: {self.detail}{since}"


# What is recorded -----------------------------------------------------------------------------------------------------


def suite_name(folder: Path) -> str:
    """The suite of a folder: a published one's manifest names it, another is named after it. It may be no suite."""
    return str(read_manifest(folder)["suite"]) if (folder / MANIFEST).is_file() else folder.name


def recorded(folder: Path) -> tuple[list[Recorded], list[str]]:
    """What a folder has, and sentences on what is damaged there. Raises StoreError if it has no results."""
    if (folder / MANIFEST).is_file():
        return _published(folder), []
    store, found, damaged = opened(folder), list[Recorded](), list[str]()
    for key in store.keys():  # noqa: SIM118 a store is no dict
        try:
            found.append(_of_record(store, store.record(key)))
        except Damaged as error:
            damaged.append(str(error))
        except load.NONSENSE as error:
            damaged.append(f"{store.path(key)}: holds not what it should ({type(error).__name__}: {error})")
    return found, damaged


def _of_record(store: Store, record: Record) -> Recorded:
    identity = record.identity
    dataset, method, (first, stop) = identity["dataset"], identity["method"], identity["block"]
    return Recorded(
        (dataset["name"], method["name"], first, stop, identity["seed"]),
        canonical([dataset["content"], identity["model"], method["content"]]),
        _versions(method["code"], dataset["sha256"], identity["metrics"], identity.get("references")),
        load._age(record),
        float(record.provenance["cpu seconds"]),
        record.arrays,
        partial(_read, store, record),
    )


def _read(store: Store, record: Record) -> Result:
    for name in record.arrays.values():
        store.array_bytes(name)  # those that hold no scores are to be sound too
    return load.result_of(store, record)


def _published(folder: Path) -> list[Recorded]:
    manifest = read_manifest(folder)
    datasets = {one["name"]: one for one in manifest["datasets"]}
    return [
        Recorded(
            (one["dataset"], one["method"], *record["block"], datasets[one["dataset"]]["seed"]),
            canonical([*(datasets[one["dataset"]][part] for part in ("content", "model")), one["content"]]),
            _versions(one["code"], record["data"], manifest["metrics"], record["references"]),
            (),
            float(record.get("cpu seconds", 0.0)),
            None,
            partial(_block, result, *record["block"]),
        )
        for one, result in zip(manifest["results"], read_published(folder), strict=True)
        for record in one["records"]
    ]


def _versions(code: str, data: str, metrics: int, references: Any) -> dict[str, Any]:
    return {"the code": code, "the data": data, "the scores' definitions": metrics, "the references": references}


def _block(result: Result, first: int, stop: int) -> Result:
    """The scores of some of the replicas."""
    here = (result.replicas >= first) & (result.replicas < stop)
    return replace(
        result,
        replicas=result.replicas[here],
        scores={name: {where: values[here] for where, values in by.items()} for name, by in result.scores.items()},
        pits={},
        regions={},
        curves={},
        diagnostics={},
        failures={replica: why for replica, why in result.failures.items() if first <= replica < stop},
    )


# What is run again ----------------------------------------------------------------------------------------------------


def matched(
    there: Sequence[Recorded], suite: Suite, methods: Sequence[str] = ()
) -> tuple[list[tuple[Recorded, Cell]], int]:
    """The newest record of each cell of the suite as it is today, with the cell, sorted; and how many records are left.

    methods: only these, as for `select`, which raises Unknown. Without: all of the suite, and its controls.
    """
    datasets = [name for name in suite.tasks if any(one.place[0] == name for one in there)]
    if not datasets:
        return [], len(there)
    selection = select(suite, methods or [*suite.methods, *suite.on_request], datasets)
    named = [
        name for name, of in selection.entries.items() if not methods or isinstance(of, Trained) or name in methods
    ]
    wanted = [one for one in there if not methods or one.place[1] in named]
    today = {(cell.dataset_name, cell.name): cell for cell in selection.cells(1, 0, 1) if cell.name in named}
    contents = {place: canonical(list(cell.content.values())) for place, cell in today.items()}
    newest = {
        one.place: one
        for one in sorted(wanted, key=lambda one: one.age)
        if one.content == contents.get((one.place[0], one.place[1]))
    }
    pairs = [
        (one, replace(today[dataset, method], first=first, stop=stop, seed=seed))
        for (dataset, method, first, stop, seed), one in sorted(newest.items())
    ]
    return pairs, len(wanted) - len(pairs)


def sample(pairs: Sequence[T], size: int | None, seed: int) -> list[T]:
    """As many of them, all equally likely, in their order; all if size is None."""
    count = len(pairs) if size is None else min(size, len(pairs))
    return [pairs[at] for at in sorted(np.random.default_rng(seed).choice(len(pairs), count, replace=False))]


def drawn(
    pairs: Sequence[tuple[Recorded, Cell]], size: int | None, seed: int, first: str | None = None
) -> list[tuple[Recorded, Cell]]:
    """A sample of cells. first: the method whose cells are drawn before any others."""
    own = sample([pair for pair in pairs if pair[1].name == first], size, seed)
    rest = [pair for pair in pairs if pair[1].name != first]
    return own + sample(rest, None if size is None else size - len(own), seed)


def missing(pairs: Sequence[tuple[Recorded, Cell]], suite: Suite, word: str) -> list[str]:
    """The titles of a method's cells of a suite that are not among these. word: names the method, as for `select`."""
    name, _ = method_of(word, suite)
    there = {
        (cell.dataset_name, replica, cell.seed) for _, cell in pairs if cell.name == name for replica in cell.replicas
    }
    tasks = [of for of, task in suite.tasks.items() if not task.dataset.missing]
    return [
        cell.title
        for cell in select(suite, [word], tasks).cells(suite.replicas, 0, suite.block)
        if cell.name == name and not all((cell.dataset_name, replica, 0) in there for replica in cell.replicas)
    ]


def verify(pairs: Sequence[tuple[Recorded, Cell]], device: str, jobs: int, console: Console) -> list[Verified]:
    """Run the cells again, in a folder that is removed at the end, and compare each with its record. A cell whose
    record is damaged is not run, and has failed."""
    before, broken = dict[Place, Result](), dict[Place, str]()
    for old, _ in pairs:
        try:
            before[old.place] = _block(old.result(), *old.place[2:4])
        except (Damaged, *load.NONSENSE) as error:
            broken[old.place] = f"its record is no use: {type(error).__name__}: {error}"
    todo = [cell for old, cell in pairs if old.place in before]
    with TemporaryDirectory(prefix="gapbench-verify-") as folder:
        store = Store(Path(folder).resolve())
        store.prepare()
        ended = {one.cell.place: one for one in run_cells(todo, store, devices(device, jobs, 1), console)}
        return [
            Verified(cell, "failed", broken[cell.place])
            if cell.place in broken
            else _verified(old, before[cell.place], cell, ended.get(cell.place), store)
            for old, cell in pairs
        ]


def _verified(old: Recorded, before: Result, cell: Cell, ended: Outcome | None, store: Store) -> Verified:
    if ended is None:
        return Verified(cell, "failed", "its block of replicas is too large for the device's memory")
    if not ended.recorded:
        return Verified(cell, "failed", ended.reason)
    record = store.record(ended.key)
    versions = _of_record(store, record).versions
    changed = [name for name in versions if canonical(versions[name]) != canonical(old.versions[name])]
    found = _likeness(old.arrays, record.arrays, before, load.result_of(store, record))
    return Verified(cell, found.verdict, found.detail, changed)


def _likeness(old: Mapping[str, str] | None, new: Mapping[str, str], before: Result, now: Result) -> Likeness:
    """Same bits: equal hashes of arrays, or, where there are none to compare, equal scores as they are published."""
    if old == new:
        return Likeness("same bits", f"{len(new)} files of arrays have the same hashes")
    columns = shared(before, now)
    scores = [[rounded(one.scores[name][where]) for one in (before, now)] for name, where in columns]
    if old is None and scores and all(np.array_equal(a, b, equal_nan=True) for a, b in scores):
        return Likeness("same bits", f"{len(columns)} scores of each replica are the same, rounded as published")
    return likeness(before, now)
