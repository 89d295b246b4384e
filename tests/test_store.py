"""The store: a record is complete or absent, is what was written or is set aside, and is found again when asked for."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Generator, Tensor

from gapbench.datasets.base import Layout, Problems
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.controls import Control, PriorPredictive, Truth
from gapbench.evaluation.entries import Entry, Trained
from gapbench.evaluation.scores import METRICS_VERSION, replica_scores
from gapbench.evaluation.tables import tabulate
from gapbench.methods.base import FittedMethod, UncertaintyMethod
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.registry import load_file
from gapbench.methods.sgld import SGLD
from gapbench.runners import cell as cells
from gapbench.runners import store as store_module
from gapbench.runners.cell import Cell
from gapbench.runners.complete import Outcome, complete
from gapbench.runners.load import collect, load, results
from gapbench.runners.run import run_cells
from gapbench.runners.store import Damaged, Record, Store, StoreError, canonical, floats, has_links, key_of
from gapbench.runners.suites import Selection, Task

DATA = GappedSine(n=12, noise_std=0.1, test_points=25)
MODEL = MLP(hidden=(4,))
DROPOUT = MCDropout(steps=4, draws=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "results")
    found.prepare()
    return found


@pytest.fixture(autouse=True)
def not_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is not what is tested here, and it is slow."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write takes a while, and comes in pieces."""
    write = os.write

    def slowly(file: int, data: bytes | memoryview) -> int:
        time.sleep(0.001)
        return write(file, data[:5000])

    monkeypatch.setattr(os, "write", slowly)


def cell(
    method: UncertaintyMethod | Control = DROPOUT, name: str = "dropout", first: int = 0, stop: int = 3, seed: int = 0
) -> Cell:
    return Cell("sine", DATA, MODEL, name, entry(method), first, stop, seed)


def entry(method: UncertaintyMethod | Control) -> Entry:
    return Trained(method) if isinstance(method, UncertaintyMethod) else method


def record_of(number: object, arrays: Mapping[str, str] | None = None, **provenance: object) -> Record:
    """A record that nothing was computed for."""
    return Record({"number": number}, "method", "MixturePrediction", [0], arrays or {}, provenance=provenance)


def made(store: Store, *wanted: Cell) -> list[Outcome]:
    return [complete(each, store, "cpu") for each in wanted]


def fake(number: int, store: Store) -> tuple[str, Record]:
    """A record that is quickly made, its arrays saved."""
    rng = np.random.default_rng(number)
    names = {name: store.save({"values": rng.normal(size=20)}) for name in ("predictions", "points")}
    record = record_of(number, names, numbers=rng.normal(size=5).tolist())
    return key_of(record.identity), record


def files(store: Store) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(store.root.rglob("*")) if path.is_file()}


# One file ------------------------------------------------------------------------------------------------------------


def test_a_record_is_a_checked_json_document_under_the_hash_of_its_identity(store: Store) -> None:
    """Hashes are taken here without the store's code. Seen to catch: a checksum of the body's repr, keys unsorted,
    nan written as NaN (which is not JSON), int64 refused."""
    identity = {"method": "é", "block": [0, 10]}
    values = [1.5, np.nan, -np.inf, np.float32(0.5), np.int64(3)]
    key = key_of(identity)
    record = Record(identity, "method", "MixturePrediction", [0], {}, diagnostics={"values": values})
    store.write(key, replace(record, provenance={"more": np.array([[np.inf, 1.0]])}))
    text = (store.root / "cells" / key[:2] / f"{key}.json").read_text()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    document = json.loads(text, parse_constant=refuse)
    assert key == hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    inside = text[text.index('"body":') + len('"body":') : -len("}\n")]
    assert document["sha256"] == hashlib.sha256(inside.encode()).hexdigest()
    read = store.read(key)
    assert read is not None and json.loads(canonical(read.document())) == document["body"]
    assert read.diagnostics["values"] == [1.5, "nan", "-inf", 0.5, 3] and read.provenance["more"] == [["inf", 1.0]]
    np.testing.assert_equal(floats(read.diagnostics["values"]), [1.5, np.nan, -np.inf, 0.5, 3])
    layout = Layout("grid", 1)
    for other in (replace(record, layout=layout, summary=(("rmse_y", "all"),)), replace(record, failures={"3": "x"})):
        assert Record.from_document(json.loads(canonical(replace(other, diagnostics={}).document()))) == replace(
            other, diagnostics={}
        )


def test_the_first_writer_wins(store: Store, slow_disk: None) -> None:
    """64 writers in 8 threads, each with something else to say of 4 records: what is first is complete and stays.
    Seen to catch: os.replace for os.link, a fixed temporary name, the second writer's complaint passed on, the final
    name opened for writing, whether it is there or not."""
    keys = [key_of({"number": number}) for number in range(4)]
    wide = "x" * 20_000  # so that it is written in several pieces

    def write(writer: int) -> Record:
        number = writer % 4
        store.write(keys[number], record_of(number, by=writer, wide=wide))
        return store.record(keys[number])

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(write, range(64)))
    for number, key in enumerate(keys):
        assert len({record.provenance["by"] for record in seen[number::4]}) == 1, "it changed after it was there"
        assert store.record(key).provenance["by"] == seen[number].provenance["by"]
    assert all(path.suffix == ".json" for path in files(store)), "something was left behind"


def test_failures_are_numbered_and_none_is_lost(store: Store, slow_disk: None) -> None:
    """Seen to catch: the number looked up before the write and not after (a note of two at once is lost)."""
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda n: store.fail("a" * 64, {"n": n}), range(16)))
    assert {path.name for path in paths} == {f"{'a' * 64}-{number}.json" for number in range(1, 17)}
    assert sorted(note["n"] for note in store.failures()) == list(range(16))


def test_unfinished_files_are_no_records_and_are_cleared_when_old(store: Store) -> None:
    """A file of a run that may still be going is left alone. Seen to catch: no clearing, clearing of everything,
    clearing of records, one folder forgotten, a user's file of that kind cleared."""
    key, record = fake(0, store)
    store.write(key, record)
    note = store.fail(key, {})
    kept = files(store)
    folders = [store.root, store.path(key).parent, store.root / "arrays", note.parent]
    names = [f".probe-{key}" if folder == store.root else f".{key}.json." for folder in folders]
    old = [folder / f"{name}0" for folder, name in zip(folders, names, strict=True)]
    new = [folder / f"{name}1" for folder, name in zip(folders, names, strict=True)]
    mine = store.root / ".gitignore"  # somebody's
    mine.write_text("*")
    kept[mine] = b"*"
    for path in (*old, *new):
        path.write_bytes(b'{"sha256"')
    hours_ago = time.time() - 2 * 3600
    for path in (*old, *kept):
        os.utime(path, (hours_ago, hours_ago))
    assert store.keys() == [key] and len(list(store.failures())) == 1 and not store.set_aside_damaged()
    store.prepare()
    assert set(files(store)) == {*kept, *new}


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    """Seen to catch: the OSError passed on."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"^[^\n]*file/results: cannot write there \(Not a directory\)[^\n]*--out"):
        Store(tmp_path / "file" / "results").prepare()


def test_a_folder_of_an_older_gapbench_is_one_line_and_stays_as_it_is(store: Store) -> None:
    """Its records are as they were written, to the byte, and hold other things. Seen to catch: a KeyError for what
    older records do not have, the folder taken for damaged and moved away."""
    body = {"format": 1, "identity": {"row": "svi"}, "scores": {}}
    key = key_of(body["identity"])
    path = store.path(key)
    path.parent.mkdir(parents=True)
    path.write_text(f'{{"sha256":"{hashlib.sha256(canonical(body).encode()).hexdigest()}","body":{canonical(body)}}}\n')
    before = files(store)
    for use in (store.set_aside_damaged, lambda: store.read(key), lambda: collect(store.root)):
        with pytest.raises(
            StoreError, match=r"^[^\n]*older gapbench \(record format 1; this one reads 2\): choose another folder"
        ):
            use()
    assert files(store) == before


def test_a_newer_record_is_not_taken_for_a_damaged_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a damaged one for newer: its checksum comes first. Seen to catch: the format looked at before the checksum,
    not looked at, the newer record set aside."""
    key, record = fake(0, store)
    monkeypatch.setattr(store_module, "FORMAT", 3)
    store.write(key, record)
    monkeypatch.setattr(store_module, "FORMAT", 2)
    for use in (store.set_aside_damaged, lambda: store.read(key), lambda: collect(store.root)):
        with pytest.raises(StoreError, match=r"^[^\n]*newer gapbench \(record format 3; this one reads 2\): upgrade"):
            use()
    path = store.path(key)
    path.write_bytes(path.read_bytes().replace(b'"format":3', b'"format":4'))
    assert store.set_aside_damaged() == [path]


# Damage --------------------------------------------------------------------------------------------------------------


def flip(rng: random.Random, path: Path, other: Path) -> list[Path]:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return [path]


def truncate(rng: random.Random, path: Path, other: Path) -> list[Path]:
    data = path.read_bytes()
    path.write_bytes(data[: rng.choice([0, len(data) - 1, rng.randrange(len(data))])])
    return [path]


def extend(rng: random.Random, path: Path, other: Path) -> list[Path]:
    path.write_bytes(path.read_bytes() + rng.choice([b"\n", b" ", b"\0", b"}", path.read_bytes()]))
    return [path]


def lose(rng: random.Random, path: Path, other: Path) -> list[Path]:
    path.unlink()
    return [path] if path.suffix == ".npz" else []  # a record that is not there is one to be made


def swap(rng: random.Random, path: Path, other: Path) -> list[Path]:
    data = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return [path, other]


def test_every_damaged_file_is_found_and_set_aside_and_what_is_sound_stays(store: Store) -> None:
    """200 injected: bits flipped, files cut, extended, lost, swapped; of records and of arrays. Made again, the files
    are what they were to the byte.

    Seen to catch: no checksum, one of the identity only, one of the parsed body only (white space at the end passes),
    the name not compared with the identity (swapped records pass), arrays not read, only the predictions' read, a
    record left without its array, the array left when its record is moved.
    """
    rng = random.Random(0)
    records = dict(fake(number, store) for number in range(5))
    for key, record in records.items():
        store.write(key, record)
    owner = {store.root / "arrays" / f"{name}.npz": key for key, r in records.items() for name in r.arrays.values()}
    owner |= {store.path(key): key for key in records}
    original = files(store)
    kinds = {suffix: sorted(path for path in original if path.suffix == suffix) for suffix in (".json", ".npz")}
    for _ in range(200):
        path, other = rng.sample(kinds[rng.choice([".json", ".npz"])], 2)
        hurt = rng.choice([flip, truncate, extend, lose, swap])(rng, path, other)
        assert sorted(store.set_aside_damaged()) == sorted(hurt)
        lost = {owner[each] for each in (path, *hurt)}
        assert store.keys() == sorted(set(records) - lost)
        for name, content in files(store).items():
            assert name.parent.name == "damaged" or original[name] == content
        for number in range(5):
            key, record = fake(number, store)
            store.write(key, record)
        assert {name: data for name, data in files(store).items() if name.parent.name != "damaged"} == original


@pytest.mark.parametrize("which", ["record", "predictions", "points"])
def test_what_was_damaged_is_shown_as_missing_and_made_again(store: Store, which: str) -> None:
    """The other row stays to be seen; `results`, which a README is made of, refuses instead.

    Seen to catch: the damaged row shown, what comes after it not read, nothing said of it, `results` without the row, a
    record or an array left where its other half was set aside.
    """
    wanted = [cell(), cell(PriorPredictive(3), "prior"), cell(Truth(), "truth")]
    made_of = {outcome.key: outcome.cell for outcome in made(store, *wanted)}
    key = min(made_of)  # the first to be read, so that what is after it is seen to be read too
    record = store.record(key)
    path = store.path(key) if which == "record" else store.root / "arrays" / f"{record.arrays[which]}.npz"
    flip(random.Random(1), path, path)
    if which != "predictions":  # no table is made of them
        found = collect(store.root)
        others = {each.name for each in wanted} - {made_of[key].name}
        assert {result.method for result in found.results} == others
        assert len(found.damaged) == 1 and str(path) in found.damaged[0]
        with pytest.raises(StoreError, match=rf"^{path}[^\n]*gapbench run --out"):
            results(store.root)
    assert store.set_aside_damaged() == [path]
    assert any(path.name in each.name for each in (store.root / "damaged").iterdir())
    again = made(store, *made_of.values())
    assert [outcome.status for outcome in again] == ["finished" if each == key else "kept" for each in made_of]
    remade = store.record(key)
    assert remade.arrays == record.arrays
    assert not store.set_aside_damaged() and len(results(store.root)) == 3


def test_a_damaged_array_does_not_stand_in_for_the_one_just_computed(store: Store) -> None:
    """No record names it yet, so no check has seen it: left by a killed run, then damaged. Seen to catch: the first
    writer winning whatever it wrote."""
    values = {"values": np.arange(5)}
    name = store.save(values)
    path = store.root / "arrays" / f"{name}.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged):
        store.arrays(name)
    assert store.save(values) == name
    np.testing.assert_equal(store.arrays(name), values)


def test_no_name_in_a_record_leads_out_of_the_folder(store: Store, tmp_path: Path) -> None:
    """A record may come from anyone. Seen to catch: the name joined to the path as it is (the file outside is moved to
    damaged/)."""
    outside = tmp_path / "outside.npz"
    outside.write_text("precious")
    key, record = fake(0, store)
    store.write(key, replace(record, arrays={"predictions": "../../outside"}))
    with pytest.raises(Damaged):
        store.arrays("../../outside")
    assert store.set_aside_damaged() == [store.path(key)]
    assert outside.read_text() == "precious" and not store.keys()


# Cells ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given(FittedMethod):
    """Draws of N(0, 1), and one replica's numbers spoilt."""

    mean: Tensor
    spoilt: str

    def __call__(self, x: Tensor) -> MixturePrediction:
        ones = torch.ones_like(self.mean)
        parts = {"location": self.mean, "scale": ones, "noise_std": torch.full((1, 1, 1), 0.1)}
        if self.spoilt:
            parts[self.spoilt] = parts[self.spoilt].expand_as(self.mean).clone()
            parts[self.spoilt][1, 0, 0] = torch.nan
        return MixturePrediction(**parts)


@dataclass(frozen=True)
class Spoilt(UncertaintyMethod):
    """Fails in one replica, in one of the ways there are. Class attributes are no part of its identity."""

    how: ClassVar[str] = ""

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Given:
        mean = torch.randn((len(x), 4, DATA.test_points), generator=generator)
        diagnostics = {"effort": torch.arange(len(x), dtype=torch.float64) + 0.1}
        if self.how == "raises":
            raise ValueError("no such luck\nsecond line")
        if self.how == "says so":
            return Given(mean, "", diagnostics=diagnostics, failures={1: "lost its way"})
        return Given(mean, self.how, diagnostics=diagnostics)


@pytest.mark.parametrize("how", ["location", "scale", "noise_std", "says so"])
def test_a_failed_replica_is_marked_and_the_others_stand(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The others' scores are those of an undisturbed run, to the bit. Replicas are 10–12, so that a number is not
    taken for a place.

    Seen to catch: only the mean looked at, the whole stack failed for one replica, the place in the stack noted for
    the replica's number, the next replica marked, the failed replica scored, a table that does not say so.
    """
    sound = Store(tmp_path / "sound")
    spoilt = cell(Spoilt(), "spoilt", 10, 13)
    made(sound, spoilt)
    monkeypatch.setattr(Spoilt, "how", how)
    for status in ("finished", "kept"):
        (outcome,) = made(store, spoilt)
        assert outcome.status == status and outcome.failed and list(outcome.failures) == ["11"]
        assert outcome.reason.startswith("replica 11: " + ("lost its way" if how == "says so" else "predictions are"))
    (there,), (undisturbed,) = results(store.root), results(sound.root)
    assert there.failures.keys() == {11} and there.status == "ranked"
    for name, regions in there.scores.items():
        for region, values in regions.items():
            expected = undisturbed.scores[name][region].copy()
            expected[1] = np.nan
            np.testing.assert_array_equal(values, expected)
    frame = load(store.root)
    assert set(frame.loc[frame["replica"] == 11, "status"]) == {"failed"}
    assert set(frame.loc[frame["replica"] != 11, "status"]) == {"ranked"}
    assert "1 of 3 replicas failed" in tabulate([there])[0].lines[0].label


def test_a_method_that_raises_is_noted_shown_and_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to catch: the exception ending the run, the note without its traceback, the second note written over the
    first, a failed cell kept, the note still told when the cell has been made."""
    wanted = [cell(Spoilt(), "spoilt"), cell()]
    monkeypatch.setattr(Spoilt, "how", "raises")
    for attempt in (1, 2):
        outcomes = made(store, *wanted)
        assert [outcome.status for outcome in outcomes] == ["failed", "finished" if attempt == 1 else "kept"]
        path = store.root / "failures" / f"{outcomes[0].key}-{attempt}.json"
        assert outcomes[0].reason == f"ValueError: no such luck (see {path})"
        note = json.loads(path.read_text())["body"]
        assert (note["status"], note["reason"]) == ("ValueError", "no such luck\nsecond line")
        assert "in fit\n" in note["traceback"] and note["identity"]["method"]["name"] == "spoilt"
    found = collect(store.root)
    assert [result.method for result in found.results] == ["dropout"]
    words = "failed (ValueError: no such luck); `gapbench run --retry-failed` tries it again"
    assert found.notes == [f"{wanted[0].title} {words}"]
    monkeypatch.setattr(Spoilt, "how", "")
    assert [outcome.status for outcome in made(store, *wanted)] == ["finished", "kept"]
    assert not collect(store.root).notes


def test_data_that_cannot_be_made_are_a_failed_cell_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to catch: the exception ending the run."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no data")

    monkeypatch.setattr(GappedSine, "problems", refuse)
    (outcome,) = made(store, cell())
    assert outcome.status == "failed" and outcome.message.startswith("RuntimeError: no data (see ")


@dataclass(frozen=True, kw_only=True)
class Huge(GappedSine):
    """Finite in float64, and not in the float32 that methods see."""

    where: str = "y"

    def problems(self, replicas: Sequence[int], seed: int = 0) -> Problems:
        found = super().problems(replicas, seed)
        changed = getattr(found, self.where).double()
        changed[1, 2] = 1e300
        return replace(found, **{self.where: changed})


@pytest.mark.parametrize("where", ["x", "y", "x_test"])
def test_data_too_large_for_float32_are_named(store: Store, where: str) -> None:
    """Seen to catch: the blame on the method ("the training diverged; a smaller lr may help")."""
    (outcome,) = made(store, replace(cell(), dataset=Huge(n=12, noise_std=0.1, test_points=25, where=where)))
    assert outcome.status == "failed"
    assert re.match(
        rf"ProblemError: {where}\[1, 2(, 0)?\] = 1e\+300: beyond float32 where methods see", outcome.message
    )


def test_a_store_that_cannot_be_written_to_ends_the_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the cell's. Seen to catch: a failed cell, for which the next one would be trained in vain."""

    def full(source: Path, target: Path) -> None:
        if target.suffix == ".npz":
            raise OSError(28, "No space left on device")
        link(source, target)

    link = os.link
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StoreError, match=r"cannot write there \(No space left on device\); make room"):
        made(store, cell())
    assert not files(store)


def test_cells_of_few_replicas_are_used_for_more(store: Store) -> None:
    """--replicas 20 after --replicas 10, and the rows of both blocks are one row in the replicas' order.

    Seen to catch: blocks cut by what is asked for, blocks not merged (the content hash of the data differs between
    them), only the newest block shown, the second block's replicas counted or its data taken from 0.
    """

    def asked(replicas: int) -> list[Cell]:
        entries = {"dropout": entry(DROPOUT), "truth": Truth()}
        return Selection(entries, {"sine": Task(DATA, MODEL)}).cells(replicas, 0, 10)

    assert [outcome.status for outcome in made(store, *asked(10))] == ["finished", "finished"]
    few = {result.method: result for result in results(store.root)}
    assert [(each.name, each.first, each.stop) for each in asked(20)] == [
        ("dropout", 0, 10),
        ("dropout", 10, 20),
        ("truth", 0, 10),
        ("truth", 10, 20),
    ]
    assert [outcome.status for outcome in made(store, *asked(20))] == ["kept", "finished", "kept", "finished"]
    many = results(store.root)
    assert [result.method for result in many] == ["dropout", "truth"]
    for result in many:
        assert result.replicas.tolist() == list(range(20)) and len(result.provenance) == 2
        np.testing.assert_array_equal(result.curves["y"], DATA.problems(range(20)).y)
        for name, values in few[result.method].curves.items():
            np.testing.assert_array_equal(result.curves[name][:10], values)


def test_blocks_that_overlap_give_way_to_the_larger(store: Store) -> None:
    """Seen to catch: both shown, the smaller or the newer one taken, a gap left."""
    made(store, cell(first=0, stop=4), cell(first=0, stop=3), cell(first=4, stop=6), cell(first=3, stop=5))
    (result,) = results(store.root)
    assert result.replicas.tolist() == [0, 1, 2, 3, 4, 5]


def test_of_several_versions_of_a_row_the_newest_is_shown(store: Store) -> None:
    """Even where the older has more replicas. Seen to catch: the older, both merged, one chosen by key."""
    versions = [cell(replace(DROPOUT, rate=rate), stop=2) for rate in (0.1, 0.2, 0.3)]
    first, newest, last = sorted(versions, key=lambda one: key_of(one.identity(DATA.problems(one.replicas))))
    *_, outcome = made(store, replace(first, stop=5), first, last, newest)
    assert outcome.status == "finished"
    (result,) = results(store.root)
    assert result.replicas.tolist() == [0, 1]
    points = store.arrays(store.record(outcome.key).arrays["points"])
    np.testing.assert_array_equal(result.curves["f_50"], points["point f_50"])


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"model": replace(MODEL, noise_std=0.2)},
        {"dataset": replace(DATA, noise_std=0.2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_rows_that_cannot_be_compared_are_not_put_side_by_side(store: Store, change: dict[str, object]) -> None:
    """Of another seed, network or data under the same name: the newest stands, the rest is told. Asked for by their
    cells, as a run that found everything there does, the older ones are shown.

    Seen to catch: all shown, the oldest shown, nothing told, the newest shown whatever was asked for.
    """
    old = [cell(), cell(PriorPredictive(3), "prior"), cell(Truth(), "truth")]
    new = [replace(each, **change) for each in old[:2]]  # type: ignore[arg-type]
    asked = {outcome.key for outcome in made(store, *old)}
    made(store, *new)
    found = collect(store.root)
    assert [result.method for result in found.results] == ["dropout", "prior"]
    assert [note.startswith("sine: dropout, prior, truth also there with another") for note in found.notes] == [True]
    assert [result.method for result in collect(store.root, asked).results] == ["dropout", "prior", "truth"]
    ours = collect(store.root, asked).results[0].scores["nll_y"]["all"]
    assert not np.array_equal(ours, found.results[0].scores["nll_y"]["all"])


def test_new_scores_need_no_training(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the newly scored are shown, alone: one column never has two definitions.

    Seen to catch: training again, the new record under the old key, the old scores shown (both were trained at the
    same time), rows of both versions side by side, predictions of another row or seed taken, damaged ones taken, the
    diagnostics rounded to float32.
    """
    other = cell(Spoilt(), "other", seed=1)
    asked = [cell(), cell(seed=1), other, cell(PriorPredictive(3), "prior", seed=1)]
    outcomes = made(store, *asked)
    assert [outcome.status for outcome in outcomes] == ["finished"] * 4
    old = [store.record(outcome.key) for outcome in outcomes]
    assert [result.method for result in results(store.root)] == ["dropout", "other", "prior"]

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    for trained in (MCDropout, Spoilt):
        monkeypatch.setattr(trained, "fit", refuse)
    monkeypatch.setattr(PriorPredictive, "run", refuse)
    monkeypatch.setattr(cells, "METRICS_VERSION", METRICS_VERSION + 1)
    outcomes = made(store, *asked[:3])
    assert [outcome.status for outcome in outcomes] == ["rescored"] * 3
    for outcome, before in zip(outcomes, old[:3], strict=True):
        now = store.record(outcome.key)
        assert unscored(now) == replace(before, identity={**before.identity, "metrics": METRICS_VERSION + 1})
        assert now.provenance["scored"] > before.provenance["finished"]
    found = collect(store.root)
    assert [result.method for result in found.results] == ["dropout", "other"]
    assert "dropout, prior also there with another seed" in found.notes[0]
    assert [outcome.status for outcome in made(store, *asked[:3])] == ["kept"] * 3

    path = store.root / "arrays" / f"{old[3].arrays['predictions']}.npz"
    path.write_bytes(path.read_bytes()[:-1])
    assert made(store, asked[3])[0].message.startswith("AssertionError: trained again")


def unscored(record: Record) -> Record:
    """The record without the time of its last scoring."""
    return replace(record, provenance={name: v for name, v in record.provenance.items() if name != "scored"})


def test_an_edited_summary_is_shown_without_training(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a user's dataset, whose results are there already. Seen to catch: the old summary shown, training again, a
    choice between two records of one training by chance."""
    made(store, cell(), cell(Truth(), "truth"))
    monkeypatch.setattr(MCDropout, "fit", lambda *_: pytest.fail("trained again"))
    for names in (("rmse_y",), ("crps_y", "nll_y"), ("std_y",)):
        own = tuple((name, "all") for name in names)
        monkeypatch.setattr(type(DATA), "summary", property(lambda _, own=own: own))
        assert [outcome.status for outcome in made(store, cell(), cell(Truth(), "truth"))] == ["rescored"] * 2
        assert [result.summary for result in results(store.root)] == [own] * 2


def test_an_edited_method_is_trained_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to catch: a key without the source."""
    assert made(store, cell())[0].status == "finished"
    monkeypatch.setattr(cells, "code_hash", lambda *classes: "edited")
    assert made(store, cell())[0].status == "finished"
    assert len(store.keys()) == 2


MODEL_FILE = """from dataclasses import dataclass
from gapbench.methods.engine.model import MLP
@dataclass(frozen=True)
class Own(MLP):
    def log_prior(self, theta):
        return {factor} * super().log_prior(theta)
"""


def test_an_edited_model_is_trained_again(store: Store, tmp_path: Path) -> None:
    """A model of a user's file has code that decides numbers, too. Seen to catch: a key without it."""
    codes = []
    for factor in (1, 2, 1):
        (tmp_path / f"model{len(codes)}.py").write_text(MODEL_FILE.format(factor=factor))
        own: type[MLP] = vars(load_file(f"{tmp_path}/model{len(codes)}.py"))["Own"]
        codes.append(replace(cell(), model=own(hidden=(4,))).identity(None)["method"]["code"])
    assert codes[0] == codes[2] != codes[1]
    assert cell().identity(None)["method"]["code"] == cells.code_hash(MCDropout)


def test_the_bits_do_not_depend_on_how_many_cells_run_side_by_side(tmp_path: Path) -> None:
    """Two at a time, or one after the other; and an earlier training is found among the others, and scored anew.

    Seen to catch: a cell lost from the queue, the earlier trainings of other cells looked at only.
    """
    sgld = SGLD(burn_in=2, draws=4, thin=1, chains=2, batch=4)
    entries = {"dropout": entry(DROPOUT), "sgld": entry(sgld), "prior": PriorPredictive(3)}
    wanted = Selection(entries, {"sine": Task(DATA, MODEL)}).cells(12, 0, 10)
    console = Console(file=io.StringIO())
    stores = {jobs: Store(tmp_path / str(jobs)) for jobs in (1, 2)}
    for jobs, each in stores.items():
        outcomes = run_cells(wanted, each, ["cpu"] * jobs, console)
        assert [outcome.status for outcome in outcomes] == ["finished"] * 6
        assert {outcome.cell for outcome in outcomes} == set(wanted)
    assert stores[1].keys() == stores[2].keys() and len(stores[1].keys()) == 6
    for one, two in zip(stores[1].records(), stores[2].records(), strict=True):
        assert one.arrays == two.arrays
    key = stores[1].keys()[0]
    record = stores[1].record(key)
    older = replace(record, identity={**record.identity, "metrics": METRICS_VERSION - 1})
    stores[1].path(key).unlink()
    stores[1].write(key_of(older.identity), older)
    outcomes = run_cells(wanted, stores[1], ["cpu"], console)
    assert {outcome.status for outcome in outcomes if outcome.key != key} == {"kept"}
    assert [outcome.status for outcome in outcomes if outcome.key == key] == ["rescored"]
    assert unscored(stores[1].record(key)) == record


# What is there -------------------------------------------------------------------------------------------------------


def test_load_gives_every_number_of_the_records_with_its_name(store: Store) -> None:
    """Seen to catch: regions mixed up, replicas numbered from 0, diagnostics forgotten, the pooled scores' column of
    nan, a row's status for every row."""
    outcomes = made(store, cell(Spoilt(), "given", 4, 7), cell(Truth(), "truth", 4, 7))
    frame = load(store.root)
    assert list(frame.columns) == ["dataset", "method", "status", "replica", "region", "score", "value"]
    assert set(zip(frame["method"], frame["status"], strict=True)) == {("given", "ranked"), ("truth", "oracle")}
    expected = {}
    for outcome in outcomes:
        record = store.record(outcome.key)
        arrays = store.arrays(record.arrays["points"])
        sections: dict[str, dict[str, Any]] = {"point": {}, "region": {}, "grid": {}}
        for name, values in arrays.items():
            sections[name.partition(" ")[0]][name.partition(" ")[2]] = values
        named = replica_scores(sections["point"], sections["region"])
        named |= {name: {"run": floats(values)} for name, values in record.diagnostics.items()}
        for score, regions in named.items():
            for region, values in regions.items():
                for replica, value in zip(record.replicas, floats(values), strict=True):
                    expected["sine", outcome.cell.name, replica, region, score] = value
    names = ["dataset", "method", "replica", "region", "score"]
    assert not frame.duplicated(names).any()
    np.testing.assert_equal(frame.set_index(names)["value"].to_dict(), expected)
    assert expected["sine", "given", 6, "run", "effort"] == 2.1
    assert {region for *_, region, _ in expected} == {"all", "data", "gap", "extrapolation", "run"}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda root: root / "nowhere", "there is no such folder"),
        (lambda root: root, "gapbench run --out"),
        (lambda root: root / "file", "it is a file: expected a folder"),
    ],
    ids=["missing", "empty", "a file"],
)
def test_a_folder_without_results_is_one_line(tmp_path: Path, place: Callable[[Path], Path], words: str) -> None:
    """Seen to catch: an empty list, which a table is then made of."""
    (tmp_path / "file").write_text("")
    for look in (results, load, collect):
        with pytest.raises(StoreError, match=rf"^{place(tmp_path)}: no results there; [^\n]*{words}[^\n]*$"):
            look(place(tmp_path))


def test_results_one_folder_down_are_pointed_at(store: Store) -> None:
    made(store, cell())
    with pytest.raises(StoreError, match=f"no results there; there are in {store.root}"):
        results(store.root.parent)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_hard_links_will_do(store: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Cloud drives, exFAT and SMB have none. Records are written, the first writer wins, nothing is left behind; and
    half a file, which a kill may then leave, is found. Seen to catch: the refusal passed on, the second writer's file
    over the first's, the temporary file left."""
    assert has_links(store.root)

    def refuse(source: object, target: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    assert not has_links(store.root)
    store.prepare()
    assert made(store, cell())[0].status == "finished"
    (key,) = store.keys()
    store.write(key, record_of(1))
    assert store.record(key).identity != {"number": 1} and not list(store.root.rglob(".*"))
    assert made(store, cell())[0].status == "kept" and not store.set_aside_damaged()
    path = store.path(key)
    path.write_bytes(path.read_bytes()[:50])
    assert store.set_aside_damaged() == [path]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_that_cannot_be_synced_will_do(store: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Many that are mounted over a network do not sync folders. An error of the disk is one all the same. Seen to
    catch: the refusal passed on, every refusal ignored."""

    def refuse(file: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    if code == errno.EIO:
        with pytest.raises(StoreError, match="cannot write there"):
            store.prepare()
    else:
        store.prepare()
        assert [made(store, cell())[0].status for _ in range(2)] == ["finished", "kept"]


@pytest.mark.parametrize("number", [3, 2, 1])
def test_a_block_too_large_for_a_device_is_halved(store: Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A device with memory for two replicas: a block of three is halved, and one of two is not. Seen to catch: a failed
    cell, the error of a block of one hidden."""
    own = MCDropout.fit

    def fit(self: MCDropout, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Any:
        if len(x) > 2 or number == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(self, model, x, y, generator)

    monkeypatch.setattr(MCDropout, "fit", fit)
    (outcome,) = made(store, cell(stop=number))
    assert outcome.status == {3: "halved", 2: "finished", 1: "failed"}[number]
    if number == 3:
        assert outcome.reason == "out of memory on cpu" and not outcome.failed
        halves = outcome.cell.halves()
        assert [(half.first, half.stop) for half in halves] == [(0, 1), (1, 3)]
        assert [each.status for each in made(store, *halves)] == ["finished"] * 2
        assert results(store.root)[0].replicas.tolist() == [0, 1, 2]
