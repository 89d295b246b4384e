"""What a folder has to show: whatever is sound, and for the rest a line with its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.controls import PriorPredictive, Truth
from gapbench.evaluation.entries import Entry, Trained
from gapbench.evaluation.tables import summary, tabulate
from gapbench.methods.engine.model import MLP
from gapbench.methods.mc_dropout import MCDropout
from gapbench.runners.cell import Cell
from gapbench.runners.complete import complete
from gapbench.runners.load import collect, load, results
from gapbench.runners.store import Record, Store, StoreError, key_of

DATA = GappedSine(n=12, noise_std=0.1, test_points=25)
ENTRIES: Mapping[str, Entry] = {
    "dropout": Trained(MCDropout(steps=4, draws=3)),
    "prior": PriorPredictive(3),
    "truth": Truth(),
}


@pytest.fixture(autouse=True)
def not_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is not what is tested here, and it is slow."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a method and two controls, on replicas 0 and 1."""
    found = Store(tmp_path / "results")
    for name, entry in ENTRIES.items():
        complete(Cell("sine", DATA, MLP(hidden=(4,)), name, entry, 0, 2, 0), found, "cpu")
    return found


def record_of(store: Store, method: str) -> Record:
    return next(record for record in store.records() if record.identity["method"]["name"] == method)


def rewritten(store: Store, record: Record) -> Path:
    """Commit a record in place of the one of the same method; where it stands. Its checksum is right."""
    store.path(key_of(record_of(store, record.identity["method"]["name"]).identity)).unlink()
    store.write(key_of(record.identity), record)
    return store.path(key_of(record.identity))


def with_arrays(change: Callable[[dict[str, Any]], object]) -> Callable[[Store, Record], Record]:
    """A record whose arrays of points were changed."""

    def changed(store: Store, record: Record) -> Record:
        points = store.arrays(record.arrays["points"])
        change(points)
        return replace(record, arrays={**record.arrays, "points": store.save(points)})

    return changed


def without(part: str) -> Callable[[Store, Record], Record]:
    """A record without a part of its identity."""
    return lambda _, record: replace(
        record, identity={name: value for name, value in record.identity.items() if name != part}
    )


NONSENSE: Mapping[str, Callable[[Store, Record], Record]] = {
    "no points": lambda _, record: replace(record, arrays={"predictions": record.arrays["predictions"]}),
    "no PITs": with_arrays(lambda points: points.pop("point pit_y")),
    "points of another shape": with_arrays(lambda points: points.update({"point rmse_y": np.zeros((3, 7))})),
    "a ragged diagnostic": lambda _, record: replace(record, diagnostics={"loss": [1.0, [2.0, 3.0]]}),  # type: ignore[list-item]
    "a diagnostic that is a word": lambda _, record: replace(record, diagnostics={"loss": ["high", "low"]}),  # type: ignore[list-item]
    "no block": without("block"),
    "no seed": without("seed"),
    "a kind that there is not": lambda _, record: replace(record, kind="ceiling"),  # type: ignore[arg-type]
    "a failure of no number": lambda _, record: replace(record, failures={"first": "x"}),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_record_of_nonsense_takes_no_other_away(store: Store, what: str) -> None:
    """It is as it was written, so no checksum tells. It is left out, by name; the others stand, in every use.

    Seen to catch: the error passed on, the record left out without a word.
    """
    path = rewritten(store, NONSENSE[what](store, record_of(store, "dropout")))
    found = collect(store.root)
    assert [result.method for result in found.results] == ["prior", "truth"]
    (line,) = found.damaged
    assert line.startswith(f"{path}: ") and "\n" not in line
    assert tabulate(found.results, summary)
    with pytest.raises(StoreError, match="cannot be shown"):
        results(store.root)


@pytest.mark.parametrize("loss", [0.3, [0.3], [0.3, 0.4, 0.5], [[0.1, 0.2], [0.3, 0.4]]])
def test_a_diagnostic_of_a_wrong_length_is_unknown(store: Store, loss: Any) -> None:
    """The door refuses it; a folder that was written by other means shows the method all the same. Seen to catch: an
    error in tables, the numbers of other replicas shown."""
    rewritten(store, replace(record_of(store, "dropout"), diagnostics={"loss": loss}))
    frame = load(store.root)
    values = frame.loc[frame["score"] == "loss", "value"]
    assert len(values) == 2 and values.isna().all() and set(frame["method"]) == {"dropout", "prior", "truth"}


def test_blocks_that_do_not_fit_together_are_left_out_by_name(store: Store) -> None:
    """Two blocks of one method whose arrays have another number of axes. Seen to catch: the error passed on."""
    cell = Cell("sine", DATA, MLP(hidden=(4,)), "dropout", ENTRIES["dropout"], 2, 3, 0)
    second = store.record(complete(cell, store, "cpu").key)
    store.path(key_of(second.identity)).unlink()
    changed = with_arrays(lambda points: points.update({"grid y": points["grid y"][..., None]}))(store, second)
    store.write(key_of(changed.identity), changed)
    found = collect(store.root)
    first = found.results[0]
    assert (first.method, first.replicas.tolist()) == ("dropout", [0, 1])
    (line,) = found.damaged
    assert line.startswith(f"{store.path(key_of(changed.identity))}: cannot be shown")
