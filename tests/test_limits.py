"""Limits of cells, and what becomes of cells that fail: their notes, another try, the device that is free again."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from nursery import started
from rich.console import Console
from torch import Generator, Tensor

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.entries import Trained
from gapbench.methods.engine.model import MLP, Model
from gapbench.methods.mc_dropout import MCDropout
from gapbench.runners import run, suites
from gapbench.runners.cell import Cell
from gapbench.runners.cli import how
from gapbench.runners.cli.errors import UserError
from gapbench.runners.cli.how import BYTES, LEAST, SECONDS, number
from gapbench.runners.cli.main import main
from gapbench.runners.complete import Outcome, failed
from gapbench.runners.costs import expected
from gapbench.runners.devices import devices
from gapbench.runners.load import load
from gapbench.runners.plan import status, write_plan
from gapbench.runners.run import Job, run_cells
from gapbench.runners.store import Store
from gapbench.runners.used import Used
from gapbench.runners.workers import NO_LIMITS, Died, Ended, Limits, TimedOut

Gapbench = Callable[..., Result]
PATIENCE = 120.0  # seconds that nothing should ever take
GIB = 2**30
SINE = GappedSine(n=12, noise_std=0.1, test_points=13)
RUN = ("run", "--device", "cpu", "--jobs", 1, "--out", "out")


def cells(count: int, replicas: int = 2) -> list[Cell]:
    model = MLP(hidden=(4,))
    entries = [Trained(MCDropout(rate=0.1 + 0.01 * at, steps=3, draws=4)) for at in range(count)]
    return [Cell("sine", SINE, model, f"method {at}", entry, 0, replicas, 0) for at, entry in enumerate(entries)]


@dataclass(frozen=True)
class Fickle(MCDropout):
    """It raises for as long as the file "broken" is there, and tells in the file "tried" that it was tried."""

    steps: int = 3
    draws: int = 4

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Any:
        with open("tried", "a") as file:
            file.write("x")
        if Path("broken").exists():
            raise ValueError("no such luck\nsecond line")
        return super().fit(model, x, y, generator)


@pytest.fixture
def gapbench(in_this_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gapbench:
    """The command line in this process, in an empty folder, with a suite of milliseconds."""
    methods = {"fickle": Fickle(), "sgld": MCDropout(steps=3, draws=4), "svi": MCDropout(rate=0.5, steps=3, draws=4)}
    suite = suites.Suite("tiny", {"sine": suites.Task(SINE, MLP(hidden=(4,)))}, methods, 2)
    monkeypatch.setattr(suites, "suites", lambda: {"default": suite})
    monkeypatch.setattr(suites, "CONTROLS", {})
    monkeypatch.chdir(tmp_path)

    def call(*argv: object) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in argv], prog_name="gapbench")

    return call


def tried() -> int:
    """How often `Fickle` was tried since this was asked last."""
    path = Path("tried")
    count = len(path.read_text()) if path.exists() else 0
    path.write_text("")
    return count


# Notes ----------------------------------------------------------------------------------------------------------------


TORCH_SHORT = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TimedOut("it ran longer"), "time-out"),
        (MemoryError("Unable to allocate"), "memory"),
        (TORCH_SHORT, "memory"),
        (OSError(12, "Cannot allocate memory"), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory"),
        (Died("its process was ended by SIGSEGV"), "signal"),
        (ValueError("no memory of it"), "exception"),
        (RuntimeError("timeout"), "exception"),
    ],
)
def test_a_note_tells_what_kind_of_end_it_was(error: Exception, cause: str, tmp_path: Path) -> None:
    """And under which limits, by the key that the cell has in a plan. Also where the device is another machine's.

    Seen to catch: torch's want of memory taken for an exception, any RuntimeError for it, limits left out, --memory
    named for another kind of end, the name of a GPU asked for where there is none.
    """
    (cell,) = cells(1)
    for device in ("cpu", "cuda:7"):
        store, limits = Store(tmp_path / device), Limits(timeout=90.0, memory=2 * GIB)
        outcome = failed(cell, store, device, error, limits=limits)
        ((key, note),) = store.attempts()
        assert key == outcome.key == cell.early_key and outcome.failed
        assert (note["cause"], note["status"], note["reason"]) == (cause, type(error).__name__, str(error))
        assert note["limits"] == {"timeout": 90.0, "memory": 2 * GIB}
        assert ("; --memory allows 2 GiB (see " in outcome.reason) == (cause == "memory")
        assert "--memory" not in failed(cell, store, device, error).reason


def test_the_status_tells_what_a_failed_cell_used(tmp_path: Path) -> None:
    """If the system told it: the note of a server that died has none. Seen to catch: the first attempt for the last."""
    (cell,), store = cells(1), Store(tmp_path)
    write_plan(store, [cell], {})
    failed(cell, store, "cpu", KILLED, used=Used(1.0, 2**20))
    failed(cell, store, "cpu", LATE, used=Used(12.34, 812 * 2**20))
    assert status(store).failed == {cell.title: f"TimedOut: {LATE}, 2 times (12.3 CPU s, peak 812 MiB)"}
    failed(cell, store, "cpu", RAISED)
    assert status(store).failed == {cell.title: f"ValueError: {RAISED}, 3 times"}


# Another try ----------------------------------------------------------------------------------------------------------


def attempts(cell: Cell, store: Store, *ends: tuple[Exception, Limits]) -> None:
    for error, limits in ends:
        failed(cell, store, "cpu", error, limits=limits)


def after(store: Store, cell: Cell, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Outcome:
    """The outcome of a cell in the next run, whose training always succeeds."""

    def succeed(work: Any, jobs: deque[Job], *_: Any) -> Iterator[Ended[Job]]:
        while jobs:
            job = jobs.popleft()
            yield Ended(job, Outcome(job.cell, "key", "finished", 0.1))

    monkeypatch.setattr(run, "run_all", succeed)
    (outcome,) = run_cells([cell], store, ["cpu"], Console(quiet=True), -1, **more)
    return outcome


RAISED, LATE, KILLED = ValueError("no such luck"), TimedOut("it ran too long"), Died("ended by SIGKILL")
SHORT = MemoryError("Unable to allocate")
TEN = Limits(timeout=10.0)
TWO = Limits(memory=2 * GIB)


@pytest.mark.parametrize(
    ("ends", "limits", "again"),
    [
        ([], NO_LIMITS, True),
        ([(RAISED, NO_LIMITS)], NO_LIMITS, False),
        ([(RAISED, TEN)], NO_LIMITS, False),
        ([(LATE, TEN)], TEN, False),
        ([(LATE, TEN)], Limits(timeout=9.0), False),
        ([(LATE, TEN)], Limits(timeout=11.0), True),
        ([(LATE, TEN)], NO_LIMITS, True),
        ([(LATE, TEN)], TWO, True),
        ([(LATE, replace(TEN, memory=GIB))], replace(TEN, memory=2 * GIB), False),
        ([(LATE, TEN), (LATE, Limits(timeout=20.0))], Limits(timeout=15.0), False),
        ([(LATE, TEN), (RAISED, NO_LIMITS)], NO_LIMITS, False),
        ([(SHORT, TWO)], TWO, False),
        ([(SHORT, TWO)], Limits(memory=GIB), False),
        ([(SHORT, TWO)], Limits(memory=3 * GIB), True),
        ([(SHORT, TWO)], NO_LIMITS, True),
        ([(SHORT, TWO)], replace(TWO, timeout=99.0), False),
        ([(SHORT, NO_LIMITS)], NO_LIMITS, False),
        ([(TORCH_SHORT, TWO)], NO_LIMITS, True),
        ([(KILLED, NO_LIMITS)], NO_LIMITS, True),
        ([(KILLED, NO_LIMITS)] * 2, NO_LIMITS, True),
        ([(KILLED, NO_LIMITS)] * 3, NO_LIMITS, False),
        ([(KILLED, NO_LIMITS), (RAISED, NO_LIMITS)], NO_LIMITS, False),
    ],
)
def test_a_cell_is_tried_again_if_it_may_succeed(
    ends: list[tuple[Exception, Limits]], limits: Limits, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception never, what ran too long or needed too much under a limit that is wider or gone, what was killed
    three times in all. With `retry` always. The last attempt counts.

    Seen to catch: limits that are equal or tighter, no limit taken for the tightest, the first attempt for the last,
    --timeout looked at for want of memory, a fourth try after three kills, none after two, retry without effect.
    """
    ends = [(type(error)(f"{error} {number}"), of) for number, (error, of) in enumerate(ends)]  # no two notes are alike
    (cell,), store = cells(1), Store(tmp_path)
    attempts(cell, store, *ends)
    outcome = after(store, cell, monkeypatch, limits=limits)
    assert outcome.status == ("finished" if again else "failed")
    if not again:
        error = ends[-1][0]
        often = f"{len(ends)} times" if len(ends) > 1 else "before"
        assert outcome.failed and outcome.reason == (
            f"failed {often} ({type(error).__name__}: {error}); --retry-failed tries it again"
        )
    assert after(store, cell, monkeypatch, limits=limits, retry=True).status == "finished"
    assert len(list(store.attempts())) == len(ends)


def test_another_cell_s_failure_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with other settings under the same name. Seen to catch: failures looked for by name."""
    (cell,), store = cells(1), Store(tmp_path)
    attempts(cell, store, (RAISED, NO_LIMITS))
    other = replace(cell, entry=Trained(MCDropout(rate=0.7, steps=3, draws=4)))
    assert after(store, other, monkeypatch).status == "finished"
    assert after(store, replace(cell, seed=1), monkeypatch).status == "finished"
    assert after(store, cell, monkeypatch).status == "failed"


def test_a_failed_cell_is_told_until_it_is_made(gapbench: Gapbench) -> None:
    """Each run tells it in one line and ends with exit code 1, but only --retry-failed trains it. When it has been made
    it is kept, whatever failed before.

    Seen to catch: a cell that failed and was then made told as failed, a note for each run that did not try it, exit
    code 0, the second line of a reason printed.
    """
    Path("broken").touch()
    title = "sine · fickle · replicas 0–1"
    assert gapbench(*RUN).exit_code == 1 and tried() == 1
    for option, count, words in (
        ((), 0, "failed before (ValueError: no such luck); --retry-failed tries it again"),
        ((), 0, "failed before (ValueError: no such luck); --retry-failed tries it again"),
        (("--retry-failed",), 1, "ValueError: no such luck (see "),
        ((), 0, "failed 2 times (ValueError: no such luck); --retry-failed tries it again"),
    ):
        result = gapbench(*RUN, *option)
        assert result.exit_code == 1 and tried() == count, result.output
        assert re.findall(rf"^{title}: failed(?: in [\d.]+ s)?: (.*)$", result.stderr, re.MULTILINE)[0].startswith(
            words
        )
        assert re.findall(rf"^Failed {title}: (.*)$", result.stderr, re.MULTILINE)[0].startswith(words)
        assert "3 cells: 2 kept, 1 failed\n" in result.stderr and "second line" not in result.output
    table = gapbench("table", "out")
    assert f"{title} failed (ValueError: no such luck); `gapbench run --retry-failed` tries it again" in table.stderr
    Path("broken").unlink()
    made = gapbench(*RUN, "--retry-failed")
    assert made.exit_code == 0 and tried() == 1 and "3 cells: 1 finished, 2 kept\n" in made.stderr
    again = gapbench(*RUN)
    assert again.exit_code == 0 and tried() == 0 and "3 cells: 3 kept\n" in again.stderr, again.output
    assert len(Store(Path("out")).notes()) == 2


def test_a_cell_that_was_too_large_is_no_cell_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its halves take its place in what `gapbench status` tells. Seen to catch: a folder whose run has ended and that
    waits for a cell for ever."""
    (cell,), store = cells(1, replicas=2), Store(tmp_path)
    write_plan(store, [cell], {})

    def too_large(work: Any, jobs: deque[Job], *_: Any) -> Iterator[Ended[Job]]:
        while jobs:
            job = jobs.popleft()
            whole = len(job.cell.replicas) > 1
            yield Ended(
                job, Outcome(job.cell, "", "halved", 0.1, "out of memory on cuda") if whole else work(job, print)
            )

    monkeypatch.setattr(run, "run_all", too_large)
    outcomes = run_cells([cell], store, ["cpu"], Console(quiet=True), -1)
    assert [outcome.status for outcome in outcomes] == ["finished"] * 2
    found = status(store)
    assert sorted(found.done) == [half.title for half in cell.halves()] and not found.waiting
    assert list(found.skipped) == [cell.title] and "out of memory on cuda" in found.skipped[cell.title]


# Folders --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Locks(Fickle):
    """The folder cannot be written any more while this trains."""

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> Any:
        Path("locked").touch()
        return super().fit(model, x, y, generator)


def test_a_folder_that_cannot_be_written_is_one_line(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it so from the start, or from the midst of a run. It is not touched, and can be read.

    Seen to catch: the system's error passed on as it is, a table that needs a folder that it can write.
    """

    def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any, *args: Any, **more: Any) -> Any:
            writes = call is not system_open or (args and args[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if Path("locked").exists() and "out" in Path(os.fspath(path)).parts and writes:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
            return call(path, *args, **more)

        return called

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}

    system_open = os.open
    assert gapbench(*RUN, "--methods", "svi").exit_code == 0
    before = contents()
    for name in ("open", "mkdir", "link", "unlink", "rename", "utime"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    locks = suites.Suite("tiny", {"sine": suites.Task(SINE, MLP(hidden=(4,)))}, {"svi": Locks()}, 2)
    monkeypatch.setattr(suites, "suites", lambda: {"default": locks})
    for moment in ("midst", "start"):
        if moment == "start":
            before = contents()
        result = gapbench(*RUN)
        assert result.exit_code == 3 and "Traceback" not in result.output, result.output
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert "cannot write there (Read-only file system); make room or choose another --out" in line
        assert not list(Store(Path("out")).attempts())
        assert before.items() <= contents().items()
        assert moment == "midst" or contents() == before
        for command in ("table", "status"):
            assert gapbench(command, "out").exit_code == 0


# Stopping -------------------------------------------------------------------------------------------------------------


def test_the_first_failure_stops_a_run_that_is_asked_to(gapbench: Gapbench, here: Callable[..., Any]) -> None:
    """What is left has no outcome, which is told; a failure of an earlier run stops it too. What was committed stays.

    Seen to catch: -x without effect, cells without an outcome not counted, jobs that are not ended (the generator left
    open), an earlier failure passed over.
    """
    order = ("--methods", "svi,fickle,sgld")
    Path("broken").touch()
    closed = list[bool]()

    def all_of(*args: Any) -> Iterator[Ended[Job]]:
        try:
            yield from sorted(here(*args), key=lambda one: ["svi", "fickle", "sgld"].index(one.job.cell.name))
        finally:
            closed.append(True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_all", all_of)
        first = gapbench(*RUN, *order, "-x")
        assert closed == [True]
    assert first.exit_code == 1 and "Stopped at the first failure: 1 cells have no outcome\n" in first.stderr
    assert "2 cells: 1 finished, 1 failed\n" in first.stderr and "svi" in first.stdout
    tried()
    again = gapbench(*RUN, *order, "--stop-at-failure")
    assert again.exit_code == 1 and tried() == 0 and "failed before (ValueError" in again.stderr
    assert re.search(r"Stopped at the first failure: \d cells have no outcome\n", again.stderr)
    assert gapbench(*RUN, *order).stderr.count("2 kept, 1 failed") == 1


# Devices --------------------------------------------------------------------------------------------------------------


def test_there_are_as_many_places_as_devices_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices in turn, so that two cells are on two devices. Seen to catch: all cells on the first device, one device
    filled before the next, --jobs for the number of devices, --per-device on the CPU."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices("cuda", 5, 2) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert devices("cuda", 1, 1) == ["cuda:0", "cuda:1"]
    assert devices("cuda:1", 5, 3) == ["cuda:1"] * 3
    assert devices("cpu", 3, 7) == ["cpu"] * 3
    assert devices("mps", 3, 7) == ["mps"]


def test_the_options_make_the_places(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to catch: --per-device that goes nowhere, --jobs that goes nowhere."""
    given = list[list[str]]()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(run, "run_cells", lambda cells, store, slots, *_, **__: given.append(slots) or [])
    for words in (("cuda", "--per-device", 2), ("cuda",), ("cpu", "--jobs", 3)):
        result = gapbench("run", "--out", "out", "--device", *words)
        assert result.exit_code == 0, result.output
    assert given == [["cuda:0", "cuda:1"] * 2, ["cuda:0", "cuda:1"], ["cpu"] * 3]


def test_a_job_has_a_device_that_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives it back, however it ends: with a value, an error, or as two halves.

    Seen to catch: the device of the first slot for all, a device that is not given back, one given back twice.
    """
    slots = ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:2"]
    most, seen = 0, Counter[str]()

    def some_at_a_time(work: Any, jobs: deque[Job], limit: int, *_: Any) -> Iterator[Ended[Job]]:
        nonlocal most
        running, number = list[Job](), 0
        while jobs or running:
            while jobs and len(running) < limit:
                running.append(jobs.popleft())
            busy = Counter(job.device for job in running)
            assert busy <= Counter(slots), busy
            most, number = max(most, len(running)), number + 1
            job = running.pop((2 * number) % len(running))
            seen[job.device] += 1
            if number % 3 == 0:
                yield Ended(job, error=ValueError("no such luck"))
            elif number % 3 == 1 and job.cell.halves():
                yield Ended(job, Outcome(job.cell, "", "halved", 0.1))
            else:
                yield Ended(job, Outcome(job.cell, "key", "finished", 0.1))

    monkeypatch.setattr(run, "run_all", some_at_a_time)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a {device}")
    outcomes = run_cells(cells(20, replicas=4), Store(tmp_path), slots, Console(quiet=True), -1)
    assert most == len(slots) and seen.keys() == set(slots) and len(outcomes) > 20
    assert {outcome.status for outcome in outcomes} == {"finished", "failed"}


def test_the_longest_cell_starts_first(gapbench: Gapbench) -> None:
    """By what it costs elsewhere, and how many replicas it has. Seen to catch: cells in the order of the suite, the
    cheapest first, replicas not counted."""
    result = gapbench(*RUN, "--replicas", 12)
    assert result.exit_code == 0
    began = re.findall(r"^sine · (\w+) · replicas (\d+)–(\d+): started$", result.stderr, re.MULTILINE)
    (some,) = cells(1)
    costs = [expected(replace(some, name=name, first=int(first), stop=int(last) + 1)) for name, first, last in began]
    assert len(costs) == 6 and costs == sorted(costs, reverse=True) and len(set(costs)) == 6
    assert [name for name, *_ in began] != sorted((name for name, *_ in began), key=["fickle", "sgld", "svi"].index)


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90s", 90), ("10m", 600), ("10min", 600), ("2h", 7200), ("1.5h", 5400), ("90", 90), ("1d", 86_400)),
        *((" 2 H ", 7200), ("0.5", 0.5)),
        *(("0", None), ("0s", None), ("-1", None), ("-1s", None), ("", None), ("m", None), ("1e3", None)),
        *(("10 minutes", None), ("1h30m", None), ("inf", None), ("nan", None), ("5b", None), ("10mb", None)),
        *(("9" * 20, None), ("1.", None), ("1,5h", None), ("4G", None)),
    ],
)
def test_a_time_is_what_it_says(text: str, seconds: float | None) -> None:
    """Seen to catch: minutes taken for months, a unit that is dropped, b for seconds, a time of 0, 1e3 taken for 1."""
    if seconds is None:
        with pytest.raises(UserError, match=re.escape(f"--timeout {text!r}: expected a time")):
            number("--timeout", text, SECONDS, "a time")
    else:
        assert number("--timeout", text, SECONDS, "a time") == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("4G", 4 * GIB), ("4GiB", 4 * GIB), ("4gb", 4 * GIB), ("1.5G", 3 * GIB // 2), ("2048M", 2 * GIB)),
        *(("1t", 2**40), (str(2 * GIB), 2 * GIB), ("1G", GIB)),
        *(("512M", None), ("1023M", None), ("4", None), ("0", None), ("-4G", None), ("4X", None), ("G", None)),
        *(("1e3", None), ("1e10", None), ("4iB", None), ("4h", None), ("4GG", None), ("9999t", None)),
    ],
)
def test_a_size_is_what_it_says(text: str, size: int | None) -> None:
    """At least what torch needs. Seen to catch: thousands for 1024, GiB not understood, 512M let through."""
    if size is None:
        with pytest.raises(UserError, match=re.escape(f"--memory {text!r}: expected a size")):
            number("--memory", text, BYTES, "a size", LEAST)
    else:
        assert number("--memory", text, BYTES, "a size", LEAST) == size


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--timeout", "0"), "--timeout '0': expected a time above 0, such as 90s, 10m or 2h"),
        (("--timeout", "soon"), "--timeout 'soon': expected a time above 0"),
        (("--memory", "512M"), "--memory '512M': expected a size of at least 1G, such as 4G"),
        (("--shard", "0/3"), "--shard '0/3': expected K/N with K from 1 to N, such as 3/64"),
        (("--shard", "4/3"), "--shard '4/3': expected K/N"),
        (("--shard", "1"), "--shard '1': expected K/N"),
        (("--shard", "-1/3"), "--shard '-1/3': expected K/N"),
        (("--shard", "1/3/5"), "--shard '1/3/5': expected K/N"),
        (("--per-device", "0"), "'--per-device': 0 is not in the range x>=1"),
        (("--engine", "cluster"), "--engine 'cluster': expected local, dask, dask=tcp://HOST:PORT, slurm, pbs, sge"),
        (("--engine", "dask=localhost"), "--engine 'dask=localhost': expected local, dask"),
        (("--engine-option", "queue=a"), "--engine-option: it is of a batch scheduler, not of --engine local"),
        (("--engine", "dask", "--engine-option", "queue=a"), "a batch scheduler, not of --engine dask"),
        (("--engine", "slurm", "--engine-option", "walltme=1h"), "expected key=value with a key of workers, minimum"),
    ],
)
def test_options_that_make_no_sense_are_one_line(gapbench: Gapbench, argv: tuple[str, ...], words: str) -> None:
    """And nothing is written or trained. Seen to catch: each check left out, the options of a batch scheduler looked at
    when the folder has been made."""
    result = gapbench(*RUN, *argv)
    assert result.exit_code == 2 and result.stdout == "" and "Traceback" not in result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert words.replace("'", "") in line.replace("'", "")
    assert not list(Path().iterdir())


def test_limits_and_wishes_reach_the_run(gapbench: Gapbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a limit that the system does not keep is told. Seen to catch: each option that goes nowhere, the limit told
    where it is kept."""
    given = list[dict[str, Any]]()
    monkeypatch.setattr(run, "run_cells", lambda *_, **more: given.append(more) or [])
    assert gapbench(*RUN, "--timeout", "1.5h", "--memory", "4G", "--retry-failed", "-x").exit_code == 0
    assert gapbench(*RUN).exit_code == 0
    warned = []
    for kept, words in ((True, ("--memory", "4G")), (False, ("--memory", "4G", "-q")), (False, ())):
        monkeypatch.setattr(how, "KEPT", kept)
        warned.append("--memory: this system does not keep it" in gapbench(*RUN, *words).stderr)
    assert warned == [False, True, False]
    assert given[:2] == [
        {"limits": Limits(5400.0, 4 * GIB), "retry": True, "stop": True, "engine": None},
        {"limits": NO_LIMITS, "retry": False, "stop": False, "engine": None},
    ]


# Whole runs -----------------------------------------------------------------------------------------------------------

METHODS = """
import ctypes, time
from dataclasses import dataclass
import numpy as np
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.methods.mc_dropout import MCDropout


@dataclass(frozen=True, kw_only=True)
class Sine(GappedSine):
    n: int = 12
    noise_std: float = 0.1
    test_points: int = 13


@dataclass(frozen=True)
class Sound(MCDropout):
    steps: int = 20
    draws: int = 5


@dataclass(frozen=True)
class Loops(Sound):
    def fit(self, model, x, y, generator):
        while True:
            self.turn_round()

    def turn_round(self):
        time.sleep(0.01)


@dataclass(frozen=True)
class Holds(Sound):
    def fit(self, model, x, y, generator):
        lock, library = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
        for _ in range(2):  # the second waits for ever, and no signal handler of Python's has a chance
            library.pthread_mutex_lock(lock)


@dataclass(frozen=True)
class Hoards(Sound):
    def fit(self, model, x, y, generator):
        kept = []
        while True:
            kept.append(np.empty(2**22))


@dataclass(frozen=True)
class Raises(Sound):
    def fit(self, model, x, y, generator):
        raise ValueError("no such luck")
"""


def whole(session: Callable[[int], set[int]], folder: Path, methods: str, *more: object) -> tuple[int, str]:
    """The exit code and the output of `gapbench run` in a session of its own, of which no process is left."""
    file, output = folder / "methods.py", folder / "output.txt"
    file.write_text(METHODS)
    chosen = ",".join(f"{file}:{name}" for name in methods.split(","))
    options = ("--datasets", f"{file}:Sine", "--replicas", 2, "--device", "cpu", "--jobs", 2, "--out", folder / "out")
    command = ["run", "--methods", chosen, *options, *more]
    process = started(*command, folder=folder, output=output)
    try:
        code = process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while session(process.pid):
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.01)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return code, output.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="--memory is not kept elsewhere")
def test_cells_that_exceed_a_limit_fail_alone(session: Callable[[int], set[int]], tmp_path: Path) -> None:
    """One that loops in Python, one that is in C code for ever with Python's lock, one that takes all memory: each is a
    note and a line, and the rest of the grid is made. `gapbench status` tells all of it.

    Seen to catch: limits that do not reach the children, the time-out of C code told as a signal, a note without the
    place where the loop was, notes without limits.
    """
    limits = ("--timeout", "8s", "--memory", "2G")
    code, output = whole(session, tmp_path, "Loops,Holds,Hoards,Sound", *limits)
    assert code == 1 and "7 cells: 3 finished, 1 skipped, 3 failed\n" in output and "Traceback" not in output, output
    store = Store(tmp_path / "out")
    notes = {note["identity"]["method"]["name"]: note for note in store.failures()}
    assert {name: note["cause"] for name, note in notes.items()} == {
        "loops": "time-out",
        "holds": "time-out",
        "hoards": "memory",
    }
    assert all(note["limits"] == {"timeout": 8.0, "memory": 2 * GIB} for note in notes.values())
    assert ", in turn_round\n" in notes["loops"]["traceback"]
    for note in notes.values():
        assert 0 < note["provenance"]["cpu seconds"] < 60 and note["provenance"]["peak memory (bytes)"] > 2**26
    assert set(load(store.root)["method"]) == {"sound", "prior", "truth"}
    late = "TimedOut: it ran longer than the 8 s of --timeout"
    for name, words in (("loops", late), ("holds", late), ("hoards", r"\w*MemoryError: .*; --memory allows 2 GiB")):
        title = f"sine · {name} · replicas 0–1"
        for line in (rf"^{title}: failed(?: in [\d.]+ s)?: {words} \(see /", rf"^Failed {title}: {words} \(see /"):
            assert len(re.findall(line, output, re.MULTILINE)) == 1, line
    told = CliRunner().invoke(main, ["status", str(store.root)])
    assert told.exit_code == 0
    assert told.stdout.splitlines()[0] == "7 cells: 3 done, 3 failed, 1 skipped"
    lines = re.findall(r"^failed: sine · (\w+) · replicas 0–1: (\w+): ", told.stdout, re.MULTILINE)
    assert dict(lines).keys() == notes.keys() and dict(lines)["holds"] == "TimedOut"
    assert len(re.findall(r"^failed: .* \([\d.]+ CPU s, peak \d+ MiB\)$", told.stdout, re.MULTILINE)) == 3


def test_a_run_that_stops_at_a_failure_ends_what_runs(session: Callable[[int], set[int]], tmp_path: Path) -> None:
    """Also under a time-out of months. What was committed before stays.

    Seen to catch: children that work on, the failure waited out to the end of the grid, a wait that is too long for
    the system (OverflowError).
    """
    code, output = whole(session, tmp_path, "Sound,Holds,Raises", "-x", "--timeout", "60d")
    assert code == 1 and "Stopped at the first failure: 4 cells have no outcome\n" in output, output
    assert "2 cells: 1 finished, 1 failed\n" in output
    assert set(load(tmp_path / "out")["method"]) == {"sound"}
    assert [note["cause"] for note in Store(tmp_path / "out").failures()] == ["exception"]
