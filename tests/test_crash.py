"""Whatever ends a run, at whatever moment: what was committed stays, and the same command goes on from there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nursery import Command, started

from gapbench.runners.load import load
from gapbench.runners.store import Record, Store, key_of

Session = Callable[[int], set[int]]
PATIENCE = 120.0  # seconds that nothing should ever take


# At every call to the system ---------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def not_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is not what is tested here, and it is slow."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


CALLS = ("open", "write", "fsync", "close", "link", "unlink", "mkdir", "rename")
Call = Callable[..., Any]


def hooked(monkeypatch: pytest.MonkeyPatch, around: Callable[[str, Call, tuple[Any, ...]], Any]) -> None:
    """Calls to the system go through `around`."""

    def through(name: str, call: Call) -> Call:
        return lambda *args, **kwargs: around(name, lambda *given: call(*given, **kwargs), args)

    for name in CALLS:
        monkeypatch.setattr(os, name, through(name, getattr(os, name)))


def commit(store: Store, number: int) -> str:
    """A record with arrays, as a cell is committed; its key."""
    arrays = {name: store.save({"values": np.full(300, number) + at}) for at, name in enumerate(("one", "two"))}
    record = Record({"number": number}, "method", "MixturePrediction", [0], arrays)
    store.write(key_of(record.identity), record)
    return key_of(record.identity)


def killed(work: Callable[[], object], at: int, moment: str) -> None:
    """Do the work in a process that is killed at one of its calls: before it, after it, or with half of it done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: this child only writes files
        child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        return
    try:
        count = 0

        def around(name: str, call: Call, args: tuple[Any, ...]) -> Any:
            nonlocal count
            count += 1
            if count < at:
                return call(*args)
            with suppress(OSError):
                if moment == "after":
                    call(*args)
                if moment == "half":
                    call(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.MonkeyPatch.context() as monkeypatch:
            hooked(monkeypatch, around)
            work()
    finally:
        os._exit(1)


def test_a_kill_at_any_call_of_a_commit_leaves_a_record_whole_or_absent(tmp_path: Path) -> None:
    """Before, in the midst of and after each of its calls. What was there before is not touched, what is there now
    needs no repair, and the same work done again completes it.

    Seen to catch: the file opened under its own name, os.link before the write.
    """
    calls: list[str] = []
    dry = Store(tmp_path / "dry")
    commit(dry, 1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        hooked(monkeypatch, lambda name, call, args: (calls.append(name), call(*args))[1])
        commit(dry, 2)
    assert calls.count("link") == 3 and calls.count("fsync") >= 6 and calls.count("write") >= 3
    points = [(at + 1, when) for at, name in enumerate(calls) for when in ("before", "after")]
    points += [(at + 1, "half") for at, name in enumerate(calls) if name == "write"]
    appeared = set()
    for at, moment in points:
        store = Store(tmp_path / f"{at} {moment}")
        first = commit(store, 1)
        before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
        killed(lambda store=store: commit(store, 2), at, moment)  # type: ignore[misc]
        second = key_of({"number": 2})
        assert not store.set_aside_damaged() and {first} <= set(store.keys()) <= {first, second}
        appeared.add(len(store.keys()))
        assert commit(store, 2) == second and not store.set_aside_damaged()
        assert set(store.keys()) == {first, second} and not (store.root / "damaged").exists()
        assert before.items() <= {path: path.read_bytes() for path in before}.items()
        for key, number in ((first, 1), (second, 2)):
            assert store.arrays(store.record(key).arrays["two"])["values"].tolist() == [number + 1] * 300
    assert appeared == {1, 2}


def test_everything_is_on_the_disk_before_its_name_is(tmp_path: Path) -> None:
    """A power cut is not a kill: written pages may be lost, so each file is synced before it is linked, and each
    folder after. Seen to catch: no fsync of the file, none of the folder, none of a new folder's parent, the record
    written before its arrays' folder is synced."""
    unsynced: set[str] = set()
    opened: dict[int, str] = {}
    linked: list[str] = []

    def around(name: str, call: Call, args: tuple[Any, ...]) -> Any:
        done = call(*args)
        if name == "open":
            opened[done] = os.fspath(args[0])
        elif name == "write":
            unsynced.add(opened[args[0]])
        elif name == "fsync":
            unsynced.discard(opened[args[0]])
        elif name == "mkdir":
            unsynced.add(os.path.dirname(args[0]))
        elif name == "link":
            assert not unsynced, f"{args[1]} is named before {unsynced} is safe"
            unsynced.add(os.path.dirname(args[1]))
            linked.append(Path(args[1]).suffix)
        return done

    with pytest.MonkeyPatch.context() as monkeypatch:
        hooked(monkeypatch, around)
        commit(Store(tmp_path / "results"), 1)
    assert not unsynced and linked == [".npz", ".npz", ".json"]


# Whole runs ----------------------------------------------------------------------------------------------------------

TINY = """
import os, shutil, time
from dataclasses import dataclass
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.methods.mc_dropout import MCDropout


@dataclass(frozen=True, kw_only=True)
class Sine(GappedSine):
    n: int = 12
    noise_std: float = 0.1
    test_points: int = 13


@dataclass(frozen=True)
class Little(MCDropout):
    rate: float = 0.1
    steps: int = 20
    draws: int = 5

    def fit(self, model, x, y, generator):
        with open(os.environ["TRAINED"], "a") as file:
            file.write(f"{type(self).__name__} {len(x)}\\n")
        if "MEET" in os.environ:  # two runs have each begun this cell before one of them goes on
            path = os.path.join(os.environ["MEET"], f"{type(self).__name__} {len(x)}")
            with open(path, "a") as file:
                file.write("x")
            deadline = time.monotonic() + 60  # the other may have failed
            while os.path.getsize(path) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
        return super().fit(model, x, y, generator)


@dataclass(frozen=True)
class Much(Little):
    rate: float = 0.5


@dataclass(frozen=True)
class Endless(Little):
    def fit(self, model, x, y, generator):
        while True:
            time.sleep(0.1)


@dataclass(frozen=True)
class Eternal(Endless):
    pass


@dataclass(frozen=True)
class Removes(Little):
    def fit(self, model, x, y, generator):
        shutil.rmtree(os.environ["FOLDER"])
        return super().fit(model, x, y, generator)
"""
CELLS = 8  # 2 methods and 2 controls, 2 blocks of replicas; there is no reference


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The methods and the data of these runs."""
    path = tmp_path_factory.mktemp("own") / "tiny.py"
    path.write_text(TINY)
    return path


@dataclass(frozen=True)
class Run:
    """A command in a session of its own. trained: which methods began to train, and on how many replicas."""

    process: Command
    path: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.path.read_text()

    @property
    def trained(self) -> list[str]:
        log = self.path.with_suffix(".trained")
        return log.read_text().splitlines() if log.exists() else []

    def wait(self) -> int:
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            raise


def start(folder: Path, *argv: object, limit: int | None = None) -> Run:
    """`gapbench` with these arguments. limit: bytes that a file may have."""
    path = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.txt")

    told = {"TRAINED": str(path.with_suffix(".trained")), "FOLDER": str(folder)}
    return Run(started(*argv, folder=folder.parent, output=path, environment=told, limit=limit), path)


def tiny(file: Path, folder: Path, *more: object, jobs: int = 1, methods: str = "Little,Much") -> list[object]:
    """The arguments of a run of two quick methods into `folder`."""
    chosen = ",".join(f"{file}:{name}" for name in methods.split(","))
    options = ("--replicas", 12, "--device", "cpu", "--jobs", jobs, "--datasets", f"{file}:Sine")
    return ["run", "--methods", chosen, *options, "--out", folder, *more]


def numbers(folder: Path) -> str:
    """Every number that a folder has to show."""
    return str(load(folder).to_csv(index=False))


@pytest.fixture(scope="module")
def undisturbed(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that was made in one go."""
    folder = tmp_path_factory.mktemp("undisturbed") / "results"
    run = start(folder, *tiny(file, folder))
    assert run.wait() == 0 and f"10 cells: {CELLS} finished, 2 skipped" in run.output, run.output
    return folder


def test_a_run_killed_again_and_again_gets_there_and_loses_nothing(
    file: Path, undisturbed: Path, session: Session, tmp_path: Path
) -> None:
    """Killed 3 times at random moments. No committed cell is trained or written again, no more cells are trained twice
    than there were kills, and the numbers are those of an undisturbed run.

    Seen to catch: records not looked for at a run's start, the generator seeded from the time.
    """
    rng = random.Random(0)
    store, trained, kills = Store(tmp_path / "results"), list[str](), 0

    def written() -> int:
        return sum(path.is_file() for path in store.root.rglob("*"))

    while True:
        before = {path: path.read_bytes() for path in map(store.path, store.keys())}
        enough = written() + rng.randrange(4)
        run = start(store.root, *tiny(file, store.root))
        if kills < 3:
            until(lambda: written() >= enough or run.process.poll() is not None, run)  # noqa: B023
            time.sleep(rng.uniform(0, 0.1))
            os.kill(run.pid, signal.SIGKILL)
        code = run.wait()
        until(lambda: not session(run.pid), run)  # noqa: B023
        trained += run.trained
        assert before.items() <= {path: path.read_bytes() for path in before}.items()
        if code == 0:
            assert not before or f"{len(before)} kept" in run.output, run.output
            break
        assert code == -signal.SIGKILL, run.output
        kills += 1
    assert kills >= 2
    assert len(set(trained)) == 4 <= len(trained) <= 4 + kills
    assert not store.set_aside_damaged() and not (store.root / "damaged").exists()
    assert numbers(store.root) == numbers(undisturbed)


def test_two_runs_at_once_share_a_folder(
    file: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cell is trained by both, so that one of them finds its record there. Seen to catch: the second writer's
    complaint passed on."""
    (tmp_path / "meet").mkdir()
    monkeypatch.setenv("MEET", str(tmp_path / "meet"))
    store = Store(tmp_path / "results")
    runs = [start(store.root, *tiny(file, store.root)) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0], [run.output for run in runs]
    assert [len(run.trained) for run in runs] == [4, 4]
    keys = store.keys()
    assert len(keys) == CELLS and not store.set_aside_damaged()
    named = {f"{name}.npz" for record in store.records() for name in record.arrays.values()}
    plans, skipped = ([path.name for path in (store.root / of).iterdir()] for of in ("plans", "skipped"))
    assert len(plans) == 1 and len(skipped) == 2  # the same plan, and the references that are not there
    records = {store.path(key).name for key in keys}
    assert {path.name for path in store.root.rglob("*.*")} == named | records | {*plans, *skipped}
    assert numbers(store.root) == numbers(undisturbed)


def test_a_full_disk_is_one_line_and_takes_nothing_away(file: Path, tmp_path: Path) -> None:
    """As a limit on the size of files, which a record of 12 replicas exceeds. Seen to catch: the error taken for the
    cell's (its note then meets it too: a traceback), a part of the file left behind."""
    folder = tmp_path / "results"
    assert start(folder, *tiny(file, folder, methods="Little")).wait() == 0
    before = numbers(folder)
    run = start(folder, *tiny(file, folder), limit=4096)
    assert run.wait() == 3, run.output
    (line,) = [line for line in run.output.splitlines() if line.startswith("Error: ")]
    assert "File too large" in line and "what is committed stays" in line and "Traceback" not in run.output
    assert not list(folder.rglob(".*")) and numbers(folder) == before


def test_a_folder_that_is_removed_ends_the_run(file: Path, session: Session, tmp_path: Path) -> None:
    """By one line, when the next cell ends: what a run has committed is lost. No process is left.

    Seen to catch: a folder that is made anew without a word, in which the run goes on.
    """
    folder = tmp_path / "results"
    run = start(folder, *tiny(file, folder, "--replicas", 2, jobs=2, methods="Endless,Removes"))
    assert run.wait() == 3, run.output
    (line,) = [line for line in run.output.splitlines() if line.startswith("Error: ")]
    assert line.startswith(f"Error: {folder}: it was removed while cells ran") and "Traceback" not in run.output
    until(lambda: not session(run.pid), run)


def until(what: Callable[[], bool], run: Run) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, run.output
        time.sleep(0.01)


def endless(file: Path, folder: Path, jobs: int) -> Run:
    """A run that has begun what it will never end by itself."""
    run = start(folder, *tiny(file, folder, "--replicas", 2, jobs=jobs, methods="Little,Endless,Eternal"))
    running = [f"{name} · replicas 0–1: started" for name in ("endless", "eternal")[:jobs]]
    until(lambda: len(Store(folder).keys()) >= 1 and all(line in run.output for line in running), run)
    return run


def all_processes(leader: int, number: int) -> None:
    """Send a signal to every process of a group; the leader meets it last."""
    os.kill(leader, signal.SIGSTOP)
    os.killpg(leader, number)
    time.sleep(0.3)
    os.kill(leader, signal.SIGCONT)


@pytest.mark.parametrize(
    ("jobs", "to", "number"),
    [
        (1, all_processes, signal.SIGINT),
        (2, os.kill, signal.SIGINT),
        (2, os.kill, signal.SIGKILL),
    ],
    ids=["all processes", "the parent alone", "the parent killed"],
)
def test_an_interrupted_run_says_how_to_go_on_and_leaves_no_process(
    file: Path, session: Session, tmp_path: Path, jobs: int, to: Callable[[int, int], None], number: int
) -> None:
    """Ctrl-C reaches every process of the terminal's group, `kill -INT` the parent alone; of `kill -9` the parent
    cannot tell anyone.

    Seen to catch: exit code 1, children that print their own tracebacks, children that work on (with the parent waiting
    for them, or orphaned for ever).
    """
    run = endless(file, tmp_path / "results", jobs)
    assert len(session(run.pid)) > jobs
    to(run.pid, number)
    if number == signal.SIGINT:
        assert run.wait() == 130, run.output
        assert f"Interrupted. Finished cells are in {tmp_path / 'results'}; run the same command" in run.output
        assert "Traceback" not in run.output
    else:
        assert run.wait() == -signal.SIGKILL
    until(lambda: not session(run.pid), run)
    store = Store(tmp_path / "results")
    assert not store.set_aside_damaged()
    assert set(load(store.root)["method"]) == {"little"}


def test_a_killed_process_fails_its_cell_alone(file: Path, session: Session, tmp_path: Path) -> None:
    """As where memory runs out: the cell is noted, the rest goes on, and the exit code says so. Seen to catch: the
    whole pool given up, the run waiting for ever."""
    folder = tmp_path / "results"
    run = endless(file, folder, 2)

    def working() -> list[int]:
        """The children: processes whose parent is neither the run nor what started it, but the server."""
        parents = {}
        for each in session(run.pid):
            with suppress(OSError):
                parents[each] = int(Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[1])
        return sorted(each for each, parent in parents.items() if parent in parents and parent != run.pid)

    for number, child in enumerate(working(), 1):
        os.kill(child, signal.SIGKILL)
        until(lambda: run.output.count(": failed: Died: its process was ended by SIGKILL") == number, run)  # noqa: B023
    assert run.wait() == 1
    assert "6 cells: 3 finished, 1 skipped, 2 failed" in run.output
    assert [note["status"] for note in Store(folder).failures()] == ["Died"] * 2
    assert set(load(folder)["method"]) == {"little", "prior", "truth"}
