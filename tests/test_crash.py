"""Whatever ends a run, at whatever moment: what was committed stays, and the same command goes on from there.

Run as a script, this file is a process that has everything imported and forks the runs that the tests kill: importing
torch takes seconds, and dozens of runs are started.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gapbench.runners.store import Store, key_of, load

PATIENCE = 60.0  # seconds that nothing should ever take


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
    record = {"format": 1, "identity": {"number": number}, "arrays": arrays}
    store.write(key_of(record["identity"]), record)
    return key_of(record["identity"])


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
            assert store.arrays(store.record(key)["arrays"]["two"])["values"].tolist() == [number + 1] * 300
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


def serve() -> None:
    """Forks `gapbench` for each line of standard input, in a session of its own, and tells its process id; for a line
    with a process id, waits and tells how it ended."""
    import torch

    from gapbench.datasets.gapped_sine import GappedSine
    from gapbench.evaluation import tables  # noqa: F401 imported before the forks, not in each
    from gapbench.evaluation.controls import PriorPredictive, Truth
    from gapbench.methods import registry
    from gapbench.methods.mc_dropout import MCDropout
    from gapbench.methods.model import MLP
    from gapbench.runners import benchmark, cli, execute, suites  # noqa: F401

    torch.optim.Adam([torch.zeros(1)])  # its first use imports half of torch
    registry.methods()
    data = {"sine": GappedSine(n=12, noise=0.1, test_points=13)}
    rows = {row: MCDropout(rate, steps=20, draws=5) for row, rate in (("little", 0.1), ("much", 0.5))}
    endless = {row: MCDropout(rate, steps=10**9) for row, rate in (("endless", 0.1), ("eternal", 0.5))}
    offered = {"tiny": rows, "endless": {**rows, **endless}}
    made = {name: suites.Suite(name, MLP(hidden=(4,)), data, methods) for name, methods in offered.items()}
    suites.suites = lambda: made
    suites.CONTROLS = {"prior": PriorPredictive(5), "truth": Truth()}
    train = benchmark._trained

    def told(cell: benchmark.Cell, *more: Any) -> Any:
        print("TRAINING", json.dumps([cell.row, cell.first, cell.stop]), flush=True)
        return train(cell, *more)

    benchmark._trained = told
    children = []
    for line in sys.stdin:
        task = json.loads(line)
        if "wait" in task:
            print(ended(task["wait"]), flush=True)
            continue
        child = os.fork()
        if child:
            children.append(child)
            print(child, flush=True)
            continue
        os.setsid()
        output = os.open(task["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if "limit" in task:
            resource.setrlimit(resource.RLIMIT_FSIZE, (task["limit"], task["limit"]))
        try:
            cli.main(task["argv"], prog_name="gapbench")
        except (
            SystemExit
        ) as end:  # without taking a copy of the whole interpreter down, which takes longer than the run
            sys.stdout.flush()
            os._exit(int(end.code or 0))
    for child in children:  # of a test that failed
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


def ended(child: int) -> int:
    """The exit code of a run; one that does not end is ended."""
    deadline = time.monotonic() + PATIENCE
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        time.sleep(0.005)
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(done[1])


@dataclass(frozen=True)
class Run:
    server: Server
    pid: int
    path: Path

    @property
    def output(self) -> str:
        return self.path.read_text()

    def wait(self) -> int:
        return self.server.ask({"wait": self.pid})


@dataclass
class Server:
    process: subprocess.Popen[str]
    folder: Path
    runs: int = 0

    def ask(self, task: dict[str, Any]) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, *argv: object, **more: Any) -> Run:
        self.runs += 1
        path = self.folder / f"{self.runs}.txt"
        return Run(self, self.ask({"argv": [str(arg) for arg in argv], "output": str(path), **more}), path)

    def run(self, *argv: object, **more: Any) -> tuple[int, str]:
        run = self.start(*argv, **more)
        return run.wait(), run.output


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    with process:
        yield Server(process, tmp_path_factory.mktemp("output"))
        assert process.stdin is not None
        process.stdin.close()


TINY = ("run", "--suite", "tiny", "--replicas", 12, "--device", "cpu", "--jobs", 1, "--out")
CELLS = 8  # 2 methods and 2 controls, 2 blocks of replicas


def table(server: Server, folder: Path) -> str:
    code, text = server.run("table", folder, "--format", "csv")
    assert code == 0, text
    return text


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that was made in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, text = server.run(*TINY, folder)
    assert code == 0 and f"{CELLS} cells: {CELLS} finished" in text, text
    return folder


def test_a_run_killed_again_and_again_gets_there_and_loses_nothing(
    server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    """Killed 12 times at random moments. No committed cell is trained or written again, no more cells are trained
    twice than there were kills, and the table is that of an undisturbed run.

    Seen to catch: records written at the end of the run, records not looked for at its start, the generator seeded
    from the time.
    """
    rng = random.Random(0)
    store, trained, kills = Store(tmp_path / "results"), list[tuple[Any, ...]](), 0

    def written() -> int:
        return sum(path.is_file() for path in store.root.rglob("*"))

    while True:
        before = {path: path.read_bytes() for path in map(store.path, store.keys())}
        committed = {(record["identity"]["row"], *record["identity"]["block"]) for record in store.records()}
        enough = written() + rng.randrange(3)
        run = server.start(*TINY, store.root)
        if kills < 12:
            until(lambda: written() >= enough or run.pid not in session(run.pid), run)  # noqa: B023
            time.sleep(rng.uniform(0, 0.05))
            os.kill(run.pid, signal.SIGKILL)
        code = run.wait()
        begun = [tuple(json.loads(line)) for line in re.findall(r"^TRAINING (.*)$", run.output, re.MULTILINE)]
        trained += begun
        assert not committed & set(begun)
        assert before.items() <= {path: path.read_bytes() for path in before}.items()
        if code == 0:
            break
        assert code == -signal.SIGKILL, run.output
        kills += 1
    assert kills >= 6
    assert len(set(trained)) == CELLS <= len(trained) <= CELLS + kills
    assert not store.set_aside_damaged() and not (store.root / "damaged").exists()
    assert table(server, store.root) == table(server, undisturbed)


def test_three_runs_at_once_share_a_folder(server: Server, undisturbed: Path, tmp_path: Path) -> None:
    """Seen to catch: a fixed temporary name, the second writer's complaint passed on."""
    runs = [server.start(*TINY, tmp_path / "results") for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0], [run.output for run in runs]
    store = Store(tmp_path / "results")
    keys = store.keys()
    assert len(keys) == CELLS and not store.set_aside_damaged()
    named = {f"{name}.npz" for record in store.records() for name in record["arrays"].values()}
    assert {path.name for path in store.root.rglob("*.*")} == named | {store.path(key).name for key in keys}
    assert table(server, store.root) == table(server, undisturbed)


def test_a_full_disk_is_one_line_and_takes_nothing_away(server: Server, tmp_path: Path) -> None:
    """As a limit on the size of files, which a record of 12 replicas exceeds. Seen to catch: the error taken for the
    cell's (its note then meets it too: a traceback), a part of the file left behind."""
    folder = tmp_path / "results"
    assert server.run(*TINY, folder, "--methods", "little")[0] == 0
    before = table(server, folder)
    code, text = server.run(*TINY, folder, limit=4096)
    assert code == 3
    (line,) = [line for line in text.splitlines() if line.startswith("Error: ")]
    assert "File too large" in line and "what is committed stays" in line and "Traceback" not in text
    assert not list(folder.rglob(".*")) and table(server, folder) == before
    assert "6 kept" in server.run(*TINY, folder)[1]


def session(leader: int) -> set[int]:
    """The processes of a session, those not counted that only wait for their parent to notice that they ended."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, of, *_ = path.read_text().rpartition(")")[2].split()
            if int(of) == leader and state != "Z":
                found.add(int(path.parent.name))
    return found


def until(what: Callable[[], bool], run: Run) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, run.output
        time.sleep(0.01)


def endless(server: Server, folder: Path, jobs: int) -> Run:
    """A run that has committed a cell and will never end by itself."""
    run = server.start("run", "--suite", "endless", "--jobs", jobs, "--device", "cpu", "--replicas", 2, "--out", folder)
    until(lambda: len(Store(folder).keys()) >= 2 and "endless · replicas 0–1: started" in run.output, run)
    return run


@pytest.mark.parametrize(
    ("jobs", "to", "number"),
    [
        (1, os.killpg, signal.SIGINT),
        (2, os.killpg, signal.SIGINT),
        (2, os.kill, signal.SIGINT),
        (2, os.kill, signal.SIGKILL),
    ],
    ids=["one process", "all processes", "the parent alone", "the parent killed"],
)
def test_an_interrupted_run_says_how_to_go_on_and_leaves_no_process(
    server: Server, tmp_path: Path, jobs: int, to: Callable[[int, int], None], number: int
) -> None:
    """Ctrl-C reaches every process of the terminal's group, `kill -INT` the parent alone; of `kill -9` the parent
    cannot tell anyone.

    Seen to catch: exit code 1, workers that print their own tracebacks, workers that work on (with the parent waiting
    for them, or orphaned for ever).
    """
    run = endless(server, tmp_path / "results", jobs)
    assert len(session(run.pid)) >= jobs
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
    assert set(load(store.root)["row"]) <= {"little", "much", "prior", "truth"}


def test_a_killed_worker_fails_its_cell_alone(server: Server, tmp_path: Path) -> None:
    """As where memory runs out: the cell is noted, the rest goes on, and the exit code says so. Seen to catch: the
    whole pool given up, the run waiting for ever."""
    folder = tmp_path / "results"
    run = endless(server, folder, 2)
    until(lambda: "eternal · replicas 0–1: started" in run.output, run)  # so both workers are busy for good
    workers = [each for each in session(run.pid) if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]
    assert len(workers) == 2
    for number, worker in enumerate(workers, 1):
        os.kill(worker, signal.SIGKILL)
        until(lambda: run.output.count(": failed: ProcessKilled: ") == number, run)  # noqa: B023
    assert run.wait() == 1
    assert "6 cells: 4 finished, 2 failed" in run.output
    assert [note["status"] for note in Store(folder).failures()] == ["ProcessKilled"] * 2
    assert set(load(folder)["row"]) == {"little", "much", "prior", "truth"}


if __name__ == "__main__":
    serve()
