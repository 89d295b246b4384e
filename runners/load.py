"""Results of a folder, local or published: those that may be compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gapbench.evaluation.entries import KINDS
from gapbench.evaluation.results import Result, merge, tidy
from gapbench.evaluation.scores import replica_scores
from gapbench.runners import publish
from gapbench.runners.store import Damaged, Record, Store, StoreError, canonical, first_line, floats, key_of
from gapbench.runners.suites import suites

# What a record raises that is as it was written, but does not hold what it should.
NONSENSE = (KeyError, ValueError, TypeError, IndexError, AttributeError)


@dataclass(frozen=True)
class Collected:
    """The content of a folder. results: those that may be compared. damaged: files that are left out. notes: sentences
    on whatever else is not shown."""

    results: list[Result]
    damaged: list[str]
    notes: list[str]


def collect(folder: Path | str, keys: Collection[str] | None = None) -> Collected:
    """Whatever is sound in a results folder, or in these of its cells; `results` says which versions are taken.

    Raises StoreError if there is nothing at all, unless it was asked for certain cells.
    """
    if (Path(folder) / publish.MANIFEST).is_file():
        return Collected(publish.read_published(Path(folder)), [], [])
    store = Store(Path(folder))
    datasets: dict[str, list[Record]] = {}
    damaged: list[str] = []
    for key in store.keys() if keys is None else sorted(keys):
        try:
            record = store.record(key)
            _age(record), _setting(record), KINDS.index(record.kind)  # as they will be asked for below
            datasets.setdefault(_place(record)[0], []).append(record)
        except Damaged as error:
            damaged.append(str(error))
        except NONSENSE as error:
            damaged.append(_senseless(store, key, error))

    found: list[Result] = []
    notes: list[str] = []
    for dataset, records in sorted(datasets.items()):
        shown = _comparable(records)
        methods: dict[str, list[Result]] = {}
        for method in dict.fromkeys(record.identity["method"]["name"] for record in shown):
            for record in _blocks([record for record in shown if record.identity["method"]["name"] == method]):
                parts = methods.setdefault(method, [])
                try:
                    part = result_of(store, record)
                    merge([*parts[:1], part])  # to see that it fits to the others
                    parts.append(part)
                except Damaged as error:
                    damaged.append(str(error))
                except NONSENSE as error:
                    damaged.append(_senseless(store, key_of(record.identity), error))
        found += [merge(parts) for parts in methods.values() if parts]
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
    return Collected(ordered(found), damaged, notes)


def ordered(found: Iterable[Result]) -> list[Result]:
    """Results by dataset, kind and method: the methods of the default suite first, those on request after these, others
    by name. Figures give colours by place, so a method has one colour in every suite."""
    default = suites()["default"]
    order = {name: place for place, name in enumerate([*default.methods, *default.on_request])}
    return sorted(
        found, key=lambda one: (one.dataset, KINDS.index(one.kind), order.get(one.method, len(order)), one.method)
    )


def results(folder: Path | str, keys: Collection[str] | None = None) -> list[Result]:
    """Every method of every dataset in a results folder, or in these of its cells, blocks of replicas merged.

    Methods are only shown side by side if they are of the same data, network, seed and version of the scores: the
    newest. If a method is there in several versions (its code or settings changed between runs), the one written last
    is taken; blocks that overlap give way to the larger. Raises StoreError if there is nothing to show, or a file is
    damaged.
    """
    found = collect(folder, keys)
    if found.damaged:
        raise StoreError(f"{found.damaged[0]}; `gapbench run --out {folder}` sets it aside and makes it again")
    return found.results


def _senseless(store: Store, key: str, error: Exception) -> str:
    """The sentence on a record that is sound as a file and cannot be shown."""
    return f"{store.path(key)}: cannot be shown ({type(error).__name__}: {first_line(str(error))})"


def _age(record: Record) -> tuple[int, str, int, str]:
    """Scores of a later version count as newer, whenever the training was, and those with more references. Of the same
    training, what was scored last is newest."""
    references, finished = record.identity.get("references") or [], str(record.provenance["finished"])
    scored = str(record.provenance.get("scored", finished))
    return int(record.identity["metrics"]), finished, sum(map(bool, references)), scored


def _place(record: Record) -> tuple[str, str, tuple[int, ...], str]:
    """The place of a record: its dataset, method, block of replicas and data."""
    dataset = record.identity["dataset"]
    block = tuple(map(int, record.identity["block"]))
    return str(dataset["name"]), str(record.identity["method"]["name"]), block, str(dataset["sha256"])


def _setting(record: Record) -> tuple[object, ...]:
    """The setting of a record, which methods must share to be compared."""
    identity = record.identity
    return (
        canonical(identity["dataset"]["content"]),
        canonical(identity["model"]),
        identity["seed"],
        identity["metrics"],
    )


def _comparable(records: Iterable[Record]) -> list[Record]:
    """Those of the newest setting, and of the newest data where the same replicas have two versions of them."""
    by_age = sorted(records, key=_age)
    alike = [record for record in by_age if _setting(record) == _setting(by_age[-1])]
    data = {block: sha256 for _, _, block, sha256 in map(_place, alike)}
    return [record for record in alike if _place(record)[3] == data[_place(record)[2]]]


def _hidden(records: Iterable[Record], shown: Iterable[Record]) -> list[str]:
    """Methods of which something is left out, other than older scores of what is shown."""

    def kinds(of: Iterable[Record]) -> set[tuple[object, ...]]:
        return {(record.identity["method"]["name"], *_setting(record)[:-1]) for record in of}

    return sorted({str(method) for method, *_ in kinds(records) - kinds(shown)})


def _blocks(records: Iterable[Record]) -> list[Record]:
    """The newest version of a method, each replica once."""

    def version(record: Record) -> str:
        return canonical({**record.identity, "block": None, "dataset": None, "references": None})

    newest = version(max(records, key=_age))
    chosen: list[Record] = []
    taken: set[int] = set()
    newest_first = sorted(records, key=_age, reverse=True)
    for record in sorted(newest_first, key=lambda record: -len(record.replicas)):
        if version(record) == newest and not taken & set(record.replicas):
            chosen.append(record)
            taken |= set(record.replicas)
    return chosen


def _failed(store: Store, found: Iterable[Result]) -> list[str]:
    """The last word of every cell that failed and was not made since."""
    there = {(result.dataset, result.method, replica) for result in found for replica in result.replicas.tolist()}
    words = {}
    for note in store.failures():
        identity = note["identity"]
        if any(
            (identity["dataset"]["name"], identity["method"]["name"], r) not in there for r in range(*identity["block"])
        ):
            words[note["cell"]] = f"{note['status']}: {first_line(note['reason'])}"
    return [f"{cell} failed ({word}); `gapbench run --retry-failed` tries it again" for cell, word in words.items()]


def _nothing(folder: Path, problems: Iterable[str]) -> str:
    """The sentence on a folder without results: the reason, and what to do."""
    elsewhere = sorted(str(path.parent) for path in folder.glob("*/cells"))
    reasons = [
        *problems,
        *(f"there are in {path}" for path in elsewhere),
        *(["it is a file: expected a folder that `gapbench run --out` wrote"] if folder.is_file() else []),
        *([] if folder.is_dir() else [f"there is no such folder: `gapbench run --out {folder}` makes it"]),
        f"`gapbench run --out {folder}` makes some",
    ]
    return f"{folder}: no results there; {reasons[0]}"


def result_of(store: Store, record: Record) -> Result:
    """A record as a result. Raises Damaged if its arrays are not sound."""
    points = store.arrays(record.arrays["points"])

    def section(prefix: str) -> dict[str, NDArray[Any]]:
        return {name.removeprefix(prefix): value for name, value in points.items() if name.startswith(prefix)}

    values, regions = section("point "), section("region ")
    return Result(
        record.identity["dataset"]["name"],
        record.identity["method"]["name"],
        record.kind,
        np.array(record.replicas),
        replica_scores(values, regions),
        {name: values[name] for name in ("pit_y", "pit_f")},
        regions,
        {**section("grid "), **{name: value for name, value in values.items() if name == "std_f" or is_curve(name)}},
        record.layout,
        record.summary,
        {name: floats(numbers) for name, numbers in record.diagnostics.items()},
        {int(replica): reason for replica, reason in record.failures.items()},
        [record.provenance],
    )


def is_curve(name: str) -> bool:
    """True if point values of this name are a quantile that figures show, such as "f_05"."""
    return name[:2] in ("f_", "y_") and name[2:].isdigit()


def load(folder: Path | str) -> pd.DataFrame:
    """A results folder as one tidy frame: dataset, method, status, replica, region, score, value (see `tidy`)."""
    return tidy(results(folder))
