"""`merge` and `gc`: folders are sound at every moment, sources stay as they are, nothing that is needed is removed."""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gapbench.runners import store as store_module
from gapbench.runners.cli.main import main
from gapbench.runners.gc import find, remove
from gapbench.runners.merge import Merged, merge
from gapbench.runners.store import STALE, Record, Store, StoreError, key_of

KINDS = ("records", "arrays", "failure notes")


@pytest.fixture(autouse=True)
def not_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is not what is tested here, and it is slow."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def commit(store: Store, number: int, by: str = "") -> str:
    """A record with two files of arrays, as a cell is committed; its key. by: who computed it, which changes the
    arrays and not the key."""
    arrays = {name: store.save({"values": np.full(50, number), name: np.array(by)}) for name in ("one", "two")}
    record = Record({"number": number}, "method", "MixturePrediction", [0], arrays, provenance={"by": by})
    store.write(key_of(record.identity), record)
    return key_of(record.identity)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def plainly(items: Sequence[Any], what: str) -> Iterable[Any]:
    return items


def joined(*folders: Path) -> Merged:
    """The last folder is the target."""
    return merge(folders[:-1], folders[-1], plainly)


def came(merged: Merged) -> tuple[int, ...]:
    return tuple(merged.came[kind] for kind in KINDS)


def there(merged: Merged) -> tuple[int, ...]:
    return tuple(merged.there[kind] for kind in KINDS)


def gapbench(*argv: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in argv], prog_name="gapbench")


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two results folders, with a record of the same key but other numbers in both, and the same note in both."""
    a, b = Store(tmp_path / "a"), Store(tmp_path / "b")
    for number in (1, 2):
        commit(a, number, "a")
    for number in (2, 3):
        commit(b, number, "b")
    for store in (a, b):
        store.fail("0" * 64, {"reason": "in both"})
        store.fail("0" * 64, {"reason": store.root.name})
    return a.root, b.root


# Merge ---------------------------------------------------------------------------------------------------------------


def test_a_merge_joins_folders_and_may_be_repeated(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Files are those of the sources, to the byte. Seen to catch: the last record of a key in place of the first,
    arrays of a record that is not taken, a note copied again."""
    before = [files(folder) for folder in two]
    out = tmp_path / "out"
    first = joined(*two, out)
    assert (came(first), there(first), first.damaged) == ((3, 6, 3), (1, 0, 1), [])
    made = files(out)
    for number, by in ((1, "a"), (2, "a"), (3, "b")):
        store, key = Store(out), key_of({"number": number})
        record = store.record(key)
        assert record.provenance["by"] == by and str(store.arrays(record.arrays["two"])["two"]) == by
        source = two[0] if by == "a" else two[1]
        assert store.path(key).read_bytes() == Store(source).path(key).read_bytes()
    assert {note["reason"] for note in Store(out).failures()} == {"in both", "a", "b"}
    assert len(made) == 3 + 6 + 3
    again = joined(*two, out)
    assert (came(again), there(again)) == ((0, 0, 0), (4, 6, 4)) and files(out) == made
    assert [files(folder) for folder in two] == before


def test_what_the_target_has_stays(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Unless it is damaged: then that is set aside, as a run does, and the source's comes. Seen to catch: the
    damaged record of the target left in the way."""
    out = Store(tmp_path / "out")
    key = commit(out, 1, "mine")
    before = files(out.root)
    joined(*two, out.root)
    assert before.items() <= files(out.root).items() and out.record(key).provenance["by"] == "mine"
    hurt = out.root / "arrays" / f"{out.record(key).arrays['one']}.npz"
    hurt.write_bytes(b"x")
    merged = joined(*two, out.root)
    assert merged.damaged == [f"{hurt} was damaged: moved to {out.root / 'damaged'}"]
    assert out.record(key).provenance["by"] == "a" and not out.set_aside_damaged()


def test_a_flipped_bit_in_a_source_is_left_out_named_and_not_moved(two: tuple[Path, Path], tmp_path: Path) -> None:
    """In every file of a source, each at three places. Seen to catch: arrays copied unread, one file of arrays copied
    before the other is read, damage set aside in the source, damage not told, the merge ended by the first damage."""
    rng, source = random.Random(0), two[0]
    sound = files(source)
    for name in sound:
        for _ in range(3):
            data = bytearray(sound[name])
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            (source / name).write_bytes(data)
            before = files(source)
            out = tmp_path / f"out {rng.random()}"
            merged = joined(source, out)
            (told,) = merged.damaged
            assert name in told and files(source) == before
            gone = {name}
            for key in Store(source).keys():  # noqa: SIM118 a store is no dict
                of = {f"cells/{key[:2]}/{key}.json", *(f"arrays/{one}.npz" for one in _arrays(sound, key))}
                gone |= of if name in of else set()
            assert files(out) == {one: data for one, data in sound.items() if one not in gone} or "failures" in name
            assert sum(came(merged)) == len(sound) - len(gone)
            (source / name).write_bytes(sound[name])


def _arrays(sound: dict[str, bytes], key: str) -> list[str]:
    text = sound[f"cells/{key[:2]}/{key}.json"].decode()
    return [path[7:-4] for path in sound if path.startswith("arrays/") and path[7:-4] in text]


CALLS = ("open", "write", "close", "link", "unlink", "mkdir", "rename")


def hooked(monkeypatch: pytest.MonkeyPatch, around: Callable[[str, Callable[[], Any]], Any]) -> None:
    """Calls to the system go through `around`."""

    def through(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: around(name, lambda: call(*args, **kwargs))

    for name in CALLS:
        monkeypatch.setattr(os, name, through(name, getattr(os, name)))


def killed(work: Callable[[], object], at: int, after: bool) -> None:
    """Do the work in a process that is killed before or after one of its calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: this child only writes files
        child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        return
    count = 0

    def around(name: str, call: Callable[[], Any]) -> Any:
        nonlocal count
        count += 1
        if count < at:
            return call()
        with suppress(OSError):
            if after:
                call()
        os.kill(os.getpid(), signal.SIGKILL)

    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            hooked(monkeypatch, around)
            work()
    finally:
        os._exit(1)


def test_a_merge_killed_at_any_call_leaves_a_sound_target_and_goes_on(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Seen to catch: the record written before its arrays."""
    joined(*two, tmp_path / "whole")
    expected, sources = files(tmp_path / "whole"), [files(folder) for folder in two]
    calls: list[str] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        hooked(monkeypatch, lambda name, call: (calls.append(name), call())[1])
        joined(*two, tmp_path / "dry")
    assert calls.count("link") >= 12  # of every file
    found = set()
    # Before and after what gives a file its name, and at a quarter of the other calls.
    moments = [
        (at, after)
        for at, name in enumerate(calls, 1)
        for after in (False, True)
        if name == "link" or at % 8 == 5 * after
    ]
    for at, after in moments:
        out = tmp_path / f"{at} {after}"
        killed(lambda out=out: joined(*two, out), at, after)  # type: ignore[misc]
        store = Store(out)
        assert not store.set_aside_damaged()
        whole = {name: data for name, data in files(out).items() if not Path(name).name.startswith(".")}
        assert whole.items() <= expected.items()
        found.add(len(store.keys()))
        joined(*two, out)
        assert {name: data for name, data in files(out).items() if not Path(name).name.startswith(".")} == expected
    assert found == {0, 1, 2, 3} and [files(folder) for folder in two] == sources


def test_merges_at_once_count_and_copy_each_file_once(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of them, on a slow disk. Seen to catch: a note that each finds missing, a record that each counts."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: (time.sleep(0.002), write(file, data[:200]))[1])
    out = tmp_path / "out"
    with ThreadPoolExecutor(8) as pool:
        merged = list(pool.map(lambda _: joined(*two, out), range(8)))
    assert sum(one.came["records"] for one in merged) == 3 and sum(one.came["arrays"] for one in merged) == 6
    assert len(files(out)) == 3 + 6 + 3 and not Store(out).set_aside_damaged()
    assert not any(one.damaged for one in merged)


def test_what_cannot_be_merged_is_refused_before_anything_is_written(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line and exit code 3. Seen to catch: a link to the target not seen, a published folder merged as an empty
    one."""
    a, b = two
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "manifest.json").write_text("{}")
    (tmp_path / "link").symlink_to(a)
    monkeypatch.setattr(store_module, "FORMAT", 3)
    commit(Store(tmp_path / "newer"), 9)
    monkeypatch.setattr(store_module, "FORMAT", 2)
    before = files(tmp_path)
    for sources, out, words in (
        (("a", "nowhere"), "out", "nowhere: no results there: expected a folder that `gapbench run --out` wrote"),
        (("a", "published"), "out", "a published folder has scores alone"),
        (("a", "b"), "b", "b: it is a source too"),
        (("link",), "a", "a: it is a source too"),
        (("a", "newer"), "out", "newer gapbench (record format 3; this one reads 2): upgrade"),
    ):
        result = gapbench("merge", *(tmp_path / one for one in sources), "--out", tmp_path / out)
        assert result.exit_code == 3 and words in result.stderr and result.stdout == ""
        assert len(result.stderr.splitlines()) == 1 and files(tmp_path) == before
    assert gapbench("merge", a).exit_code == gapbench("merge", "--out", b).exit_code == 2
    assert gapbench("merge", "", "--out", b).exit_code == 2
    with pytest.raises(StoreError):
        joined(a, tmp_path / "published" / "manifest.json")


def test_the_command_tells_what_came_and_what_is_left_out(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Seen to catch: exit code 0 for damage."""
    out = tmp_path / "out"
    first = gapbench("merge", *two, "--out", out)
    assert first.exit_code == 0 and first.stderr == ""
    assert first.stdout.splitlines() == [
        "records: 3 came, 1 were there",
        "arrays: 6 came, 0 were there",
        "failure notes: 3 came, 1 were there",
    ]
    hurt = Store(two[1]).path(key_of({"number": 3}))
    hurt.write_bytes(hurt.read_bytes()[:-3])
    second = gapbench("merge", two[1], "--out", tmp_path / "other")
    assert second.exit_code == 1 and f"Left out: {hurt}: " in second.stderr
    assert "records: 1 came" in second.stdout


# Garbage -------------------------------------------------------------------------------------------------------------

OLD = time.time() - 2 * STALE
HEX = "0123456789abcdef"


def aged(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (OLD, OLD))


def cleaned(root: Path) -> set[str]:
    """The files that gc removes, by their names."""
    before = files(root)
    found = find(root)
    remove(found)
    gone = set(before) - set(files(root))
    assert {str(one.path.relative_to(root)) for one in found.waste} == gone
    assert sum(one.size for one in found.waste) == sum(len(before[name]) for name in gone)
    return gone


def test_only_what_is_known_old_and_named_by_nothing_is_removed(tmp_path: Path) -> None:
    """Seen to catch: arrays of one purpose alone kept, young arrays removed, young unfinished files removed, any file
    that starts with a dot removed, any file of damaged/ or arrays/ removed, links followed (a file, a folder), notes of
    failures removed, a folder forgotten."""
    store = Store(tmp_path / "results")
    key = commit(store, 1)
    store.fail(key, {"reason": "once"})
    loose = [store.root / "arrays" / f"{store.save({'values': np.full(9, number)})}.npz" for number in range(2)]
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = outside / loose[0].name
    precious.write_text("precious")
    gone = commit(store, 2)
    lost = {f"arrays/{name}.npz" for name in store.record(gone).arrays.values()}
    store.set_aside(store.path(gone))
    (aside,) = (f"damaged/{path.name}" for path in (store.root / "damaged").iterdir())
    (store.root / "damaged" / "mine.txt").write_text("mine")
    (store.root / "cells" / "zz").symlink_to(outside)
    (outside / f".{key}.json.{HEX}").write_text("precious")
    (store.root / "arrays" / f"{'a' * 64}.npz").symlink_to(precious)
    (store.root / "damaged" / f"{'b' * 64}.npz-01234567").symlink_to(precious)
    names = [f".probe-{HEX}", f"cells/{key[:2]}/.{key}.json.{HEX}", f"arrays/.{'0' * 64}.npz.{HEX}"]
    names += [f"failures/.{key}-1.json.{HEX}"]
    unfinished = [store.root / name for name in names]
    young = store.root / "arrays" / f".{'1' * 64}.npz.{HEX}"
    unknown = [store.root / name for name in (".gitignore", "arrays/.notes", "arrays/mine.npz", f"arrays/.{'2' * 64}")]
    for path in (*unfinished, young, *unknown):
        path.write_bytes(b"12")
    aged(*(path for path in store.root.rglob("*") if path.is_file() and path not in (loose[1], young)))
    aged(precious, outside / f".{key}.json.{HEX}")
    before = files(tmp_path)
    assert not find(store.root).damaged and files(tmp_path) == before
    assert cleaned(store.root) == {*names, f"arrays/{loose[0].name}", *lost, aside}
    assert not cleaned(store.root) and not store.set_aside_damaged()


def test_while_a_record_is_damaged_all_arrays_stay(tmp_path: Path) -> None:
    """Nobody can read which of them it names. When a run has set it aside, they go. Seen to catch: the damaged record
    passed over, its arrays removed."""
    store = Store(tmp_path / "results")
    commit(store, 1)
    path = store.path(commit(store, 2))
    path.write_bytes(path.read_bytes().replace(b"method", b"methud"))
    aged(*(one for one in store.root.rglob("*") if one.is_file()))
    before = files(store.root)
    result = gapbench("gc", store.root)
    assert result.exit_code == 1 and files(store.root) == before
    assert f"No arrays are removed: {path}: its checksum" in result.stderr and "removed 0 files" in result.stdout
    store.set_aside_damaged()
    assert len(cleaned(store.root)) == 3 and len(store.keys()) == 1


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_arrays_that_a_run_saves_at_that_moment_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Old arrays, left by a killed run, are those that a run has just computed again: it keeps the file that is there,
    and writes its record later. Seen to catch: a saved file that stays old, the age looked at when the list was made,
    the file unlinked at once, what was renamed not given back."""
    store = Store(tmp_path / "results")
    values = {"values": np.arange(9)}
    path = store.root / "arrays" / f"{store.save(values)}.npz"
    aged(path)
    found = find(store.root)
    assert [one.path for one in found.waste] == [path]
    rename = os.rename

    def renamed(*args: Any) -> None:
        if moment == "within":
            store.save(values)
        rename(*args)
        if moment == "after":
            store.save(values)

    if moment == "before":
        store.save(values)
    monkeypatch.setattr(os, "rename", renamed)
    remove(found)
    np.testing.assert_equal(store.arrays(path.stem), values)
    assert set(files(store.root)) == {f"arrays/{path.name}"}


def test_gc_beside_a_writer_removes_nothing_that_it_names(tmp_path: Path) -> None:
    """Each record's arrays are there already, old and without a record, when its cell is computed again. Seen to catch:
    no new time for what is saved again, the file unlinked at once."""
    store, count = Store(tmp_path / "results"), 150
    commit(store, 0)
    for number in range(1, count):
        store.path(commit(store, number)).unlink()
    aged(*(store.root / "arrays").iterdir())
    done: list[int] = []

    def clean() -> None:
        while not done:
            remove(find(store.root))

    def write() -> None:
        for number in range(count):
            commit(store, number)
        done.append(1)

    with ThreadPoolExecutor(3) as pool:
        for ended in [pool.submit(clean), pool.submit(clean), pool.submit(write)]:
            ended.result()
    assert len(store.keys()) == count and not store.set_aside_damaged()


def test_the_command_tells_what_it_removes(tmp_path: Path) -> None:
    """Seen to catch: a dry run that removes."""
    store = Store(tmp_path / "results")
    commit(store, 1)
    path = store.root / "arrays" / f"{store.save({'values': np.arange(500)})}.npz"
    aged(path)
    size = f"{path.stat().st_size:,} bytes"
    dry = gapbench("gc", store.root, "--dry-run")
    assert dry.exit_code == 0 and path.exists()
    assert dry.stdout.splitlines() == [
        f"would remove {path} ({size})",
        f"arrays without a record: 1, {size}",
        f"would remove 1 files, {size}",
    ]
    assert gapbench("gc", store.root).stdout == dry.stdout.replace("would remove", "removed") and not path.exists()
    result = gapbench("gc", tmp_path)
    assert result.exit_code == 3 and "no results there" in result.stderr
