"""The workers: a job has a process of its own, whose end is told in words, and none is left behind."""

from __future__ import annotations

import ast
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gapbench.runners import cgroup, workers
from gapbench.runners.store import Record, Store, key_of
from gapbench.runners.workers import Died, Limits, Tell, TimedOut, how_it_ended, no_interrupts, run_all

PATIENCE = 120.0  # seconds that nothing should ever take
LONG = 240.0  # seconds that nothing should ever wait for


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Whoever started these tests may ignore SIGINT, as nohup does; here it raises KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def found_by_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children import the jobs of this file by the name that pytest gave it, which `pytest` alone puts on no path."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[__name__.count(".")]))


def perform(job: Callable[..., Any], tell: Tell) -> Any:
    """What a child does here: the job, which is a function."""
    return job(tell)


def ended(*jobs: Callable[..., Any], limit: int = 2) -> list[Any]:
    """What became of each job: its value, or its error."""
    found = {each.job: each.error or each.value for each in run_all(perform, deque(jobs), limit, lambda *_: None)}
    return [found[job] for job in jobs]


def gone(process: int) -> bool:
    """Whether a process has ended, be it that nobody has asked after it yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# What comes back ------------------------------------------------------------------------------------------------------


def double(job: int, tell: Tell) -> int:
    tell(f"{job} begins")
    began = time.monotonic()
    time.sleep(0.05)
    tell((began, time.monotonic(), os.getpid()))
    return 2 * job


@pytest.mark.parametrize("limit", [1, 2])
def test_every_job_ends_once_with_its_value(limit: int) -> None:
    """Jobs that are appended meanwhile are done too; no more than `limit` run at a time, each in a process of its own.

    Seen to catch: the limit passed by one, the queue looked at once, messages of the wrong job, a process used twice.
    """
    jobs, told = deque([1, 2, 3]), list[tuple[int, Any]]()
    values = {}
    for each in run_all(double, jobs, limit, lambda job, message: told.append((job, message))):
        values[each.job] = each.value
        if each.job < 3:
            jobs.append(each.job + 10)
    assert values == {1: 2, 2: 4, 3: 6, 11: 22, 12: 24}
    assert sorted(job for job, message in told if message == f"{job} begins") == sorted(values)
    spans = [message for _, message in told if isinstance(message, tuple)]
    assert len({process for *_, process in spans}) == 5
    for began, _, _ in spans:
        assert sum(first <= began < last for first, last, _ in spans) <= limit


def raises(tell: Tell) -> None:
    raise ValueError("no such luck")


def exits(tell: Tell) -> None:
    threading.Thread(target=time.sleep, args=(LONG,)).start()  # Python would wait for it
    sys.exit(3)


def exits_with_words(tell: Tell) -> None:
    sys.exit("enough")


def vanishes(tell: Tell) -> None:
    os._exit(0)


def is_killed(tell: Tell) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crashes(tell: Tell) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def gives_what_cannot_be_sent(tell: Tell) -> Any:
    return lambda: 0


class Fussy(Exception):
    """An exception that pickle cannot make again."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one)


def raises_what_cannot_be_sent(tell: Tell) -> None:
    raise Fussy("one", "other")


def leaves_a_thread(tell: Tell) -> str:
    threading.Thread(target=time.sleep, args=(LONG,)).start()
    return "done"


def closes_its_streams(tell: Tell) -> str:
    sys.stdout.close()
    sys.stderr = None  # type: ignore[assignment]
    return "done"


def is_interrupted(tell: Tell) -> str:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    return "done"


def test_each_way_to_end_is_told_and_touches_no_other() -> None:
    """Seen to catch: an exit code taken for a result, the signal's number for its name, a thread that is waited for,
    what cannot be pickled ending the run, Ctrl-C in a child."""
    here = [lambda tell: 0]  # it cannot be sent
    jobs = [
        (raises, ValueError, "^no such luck$"),
        (exits, Died, r"^its process ended with exit code 3, without a result; does its code call sys\.exit\?$"),
        (exits_with_words, Died, "^its process ended with exit code 1"),
        (vanishes, Died, "^its process ended with exit code 0"),
        (is_killed, Died, "^its process was ended by SIGKILL; perhaps for want of memory"),
        (crashes, Died, "^its process was ended by SIGSEGV$"),
        (gives_what_cannot_be_sent, RuntimeError, "pickle"),
        (raises_what_cannot_be_sent, Exception, "Fussy"),
        (here[0], Exception, "pickle"),
    ]
    sound = [leaves_a_thread, closes_its_streams, is_interrupted]
    began = time.monotonic()
    found = ended(*(job for job, *_ in jobs), *sound)
    assert time.monotonic() - began < LONG / 2
    for (job, kind, words), error in zip(jobs, found, strict=False):
        with pytest.raises(kind, match=words):
            assert isinstance(error, Exception), job
            raise error
    assert found[len(jobs) :] == ["done"] * len(sound)
    assert how_it_ended(-63) == "its process was ended by signal 63"


# What a process used --------------------------------------------------------------------------------------------------


def works_and_is_killed(tell: Tell) -> None:
    kept = np.ones(2**25)  # 256 MiB
    while time.process_time() < 0.5:
        kept.sum()
    tell((time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
    is_killed(tell)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss has another unit")
def test_what_a_process_used_is_known_also_if_it_was_killed() -> None:
    """Seen to catch: what the process before it used, memory in KiB, what the server sends next taken for a part."""
    told = list[tuple[float, int]]()
    _, killed = run_all(perform, deque([quick, works_and_is_killed]), 1, lambda _, message: told.append(message))
    (late,) = run_all(perform, deque([loops]), 1, lambda *_: None, Limits(timeout=2))
    ((cpu, memory),) = told
    assert killed.used is not None and late.used is not None
    assert cpu <= killed.used.cpu < cpu + 0.5 and memory <= killed.used.memory < memory + 2**25
    assert late.used.cpu < 0.5 and late.used.memory < memory - 2**27


def is_killed_for_memory(tell: Tell) -> None:
    Path("cgroup/slice/memory.events").write_text("oom 9\noom_kill 4\n")
    is_killed(tell)


def test_a_kill_for_want_of_memory_is_told_if_the_kernel_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the count of the cgroup, which has to rise meanwhile. Seen to catch: any count above 0, the count of `oom`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")
    assert cgroup.killed_for_memory() is None
    (tmp_path / "own").write_text("4:memory:/other\n0::/slice\n")
    (tmp_path / "cgroup" / "slice").mkdir(parents=True)
    assert cgroup.killed_for_memory() is None
    (tmp_path / "cgroup" / "slice" / "memory.events").write_text("oom 5\noom_kill 3\n")
    assert cgroup.killed_for_memory() == 3
    perhaps, surely = ended(is_killed, is_killed_for_memory, limit=1)
    assert str(perhaps).startswith("its process was ended by SIGKILL; perhaps for want of memory")
    assert str(surely).startswith("its process was ended by SIGKILL; meanwhile the kernel killed in its cgroup for ")


# What a job does to its process ---------------------------------------------------------------------------------------


def spoils(tell: Tell) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    os.environ["SPOILT"] = "yes"
    os.chdir("/")
    torch.spoilt = True  # type: ignore[attr-defined]
    torch.manual_seed(3)


def looks(tell: Tell) -> tuple[Any, ...]:
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    return dtype, gradients, "SPOILT" in os.environ, os.getcwd(), hasattr(torch, "spoilt"), torch.initial_seed()


def looks_again(tell: Tell) -> tuple[Any, ...]:
    return looks(tell)


class Elsewhere:
    """A job that is `looks`, and whose code goes to another folder when a process loads it."""

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return loaded_elsewhere, ()

    def __call__(self, tell: Tell) -> Any:
        return looks(tell)


def loaded_elsewhere() -> Callable[[Tell], tuple[Any, ...]]:
    os.chdir("/")
    return looks


def test_what_a_job_does_to_its_process_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job after it finds the folder of the run and everything else as if it were the first. Seen to catch: a
    process used again, the folder that a job's code went to in place of the run's."""
    monkeypatch.chdir(tmp_path)
    first, _, second, third = ended(looks, spoils, looks_again, Elsewhere(), limit=1)
    assert first == second == third == (torch.float32, True, False, str(tmp_path), False, first[-1])


def leaves_a_process(tell: Tell) -> None:
    """Its child has all that it has, the pipe too, and lives on when it is killed."""
    child = os.fork()
    if child == 0:
        time.sleep(LONG)
        os._exit(0)
    tell(child)
    is_killed(tell)


def test_a_process_that_a_job_leaves_behind_ends_with_it() -> None:
    """Seen to catch: the end of the pipe waited for, which that process holds open; the child killed alone."""
    left, began = list[int](), time.monotonic()
    (each,) = run_all(perform, deque([leaves_a_process]), 1, lambda job, message: left.append(message))
    assert "SIGKILL" in str(each.error) and time.monotonic() - began < LONG / 2
    until(lambda: gone(left[0]))


# Ends of a run --------------------------------------------------------------------------------------------------------


def works_on(tell: Tell) -> None:
    tell(os.getpid())
    time.sleep(LONG)


def works_on_too(tell: Tell) -> None:
    works_on(tell)


def test_an_interrupt_leaves_no_process() -> None:
    """Seen to catch: children that work on, with the run waiting for them or not."""
    there, began = list[int](), time.monotonic()

    def interrupt(job: object, message: int) -> None:
        there.append(message)
        if len(there) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ended_jobs = run_all(perform, deque([works_on, works_on_too]), 2, interrupt)
        with closing(ended_jobs):
            next(ended_jobs)
    assert len(there) == 2 and all(map(gone, there)) and time.monotonic() - began < LONG / 2


def waits_for_the_other(tell: Tell) -> None:
    until(lambda: Path("there").exists())


def test_whoever_stops_asking_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to catch: children that are only killed on an interrupt."""
    monkeypatch.chdir(tmp_path)

    def note(job: object, message: int) -> None:
        Path("there").write_text(str(message))

    with closing(run_all(perform, deque([works_on, waits_for_the_other]), 2, note)) as jobs:
        assert next(jobs).job is waits_for_the_other
    assert gone(int(Path("there").read_text()))


def test_an_interrupt_that_had_to_wait_is_not_lost() -> None:
    """Seen to catch: the interrupt suppressed, not held back."""
    reached = False
    with pytest.raises(KeyboardInterrupt), no_interrupts():
        # To this thread, whose mask is looked at: a test runner may have others.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        time.sleep(0.01)
        reached = True
    assert reached


PARENT = """
import os, sys, time
from collections import deque
sys.path.insert(0, {tests!r})
from gapbench.runners import workers
from gapbench.runners.workers import run_all
import test_workers
workers.PRELOADED = workers.PRELOADED[:1]  # these jobs need nothing of gapbench
list(run_all(test_workers.perform, deque([test_workers.works_on]), 1, lambda job, message: print(message, flush=True)))
"""


def test_children_end_with_a_parent_that_is_killed() -> None:
    """Seen to catch: no thread that waits for the parent's end."""
    command = [sys.executable, "-c", PARENT.format(tests=str(Path(__file__).parent))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    until(lambda: gone(child))


LOADS = """
import time
from multiprocessing import forkserver
from gapbench.runners import workers
workers.PRELOADED[1:] = ["slow"]
workers.start_server()
print(forkserver._forkserver._forkserver_pid, flush=True)
time.sleep(240)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a server ends when it has loaded everything")
def test_a_server_that_loads_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """On a machine that is busy it loads for a minute. Seen to catch: an end that only its own loop looks for."""
    (tmp_path / "slow.py").write_text("import pathlib, time; pathlib.Path('there').touch(); time.sleep(240)")
    command, paths = [sys.executable, "-c", LOADS], {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=paths) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        until((tmp_path / "there").exists)
        assert not gone(server)
        parent.kill()
    until(lambda: gone(server))


def holds_the_lock(tell: Tell) -> None:
    """C code that never lets another thread of Python run. Its child does nothing."""
    child = os.fork()
    if child == 0:
        time.sleep(LONG)
        os._exit(0)
    tell((os.getpid(), child))
    ctypes.PyDLL(None).sleep(int(LONG))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere C code that holds Python's lock goes on to its end")
def test_c_code_and_what_it_started_end_with_a_parent_that_is_killed() -> None:
    """Seen to catch: only a thread that waits for the parent's end; the child signalled, its group not."""
    code = PARENT.replace("works_on", "holds_the_lock").format(tests=str(Path(__file__).parent))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        processes = ast.literal_eval(parent.stdout.readline())
        assert not any(map(gone, processes))
        parent.kill()
    until(lambda: all(map(gone, processes)))


# Limits ---------------------------------------------------------------------------------------------------------------


def loops(tell: Tell) -> None:
    while True:
        time.sleep(0.01)


def tells_where_it_was(tell: Tell) -> str:
    try:
        loops(tell)
    except TimedOut as error:
        return f"asked: {error}"
    return "never"


def will_not_listen(tell: Tell) -> None:
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    loops(tell)


def starts_another(tell: Tell) -> None:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        time.sleep(LONG)
        os._exit(0)
    tell(child)
    holds_python(tell)


def holds_python(tell: Tell) -> None:
    lock, library = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
    for _ in range(2):  # the second waits for ever; a sleep would end at the first signal
        library.pthread_mutex_lock(lock)


def quick(tell: Tell) -> str:
    return "done"


def test_a_job_that_runs_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked, so that it can say where it was; else ended, C code too, with whatever it started; else killed. Others are
    not touched.

    Seen to catch: jobs of other workers stopped, one way to stop it tried for ever, its end told as a signal's.
    """
    monkeypatch.setattr(workers, "GRACE", 0.3)
    jobs = [tells_where_it_was, will_not_listen, starts_another, holds_python, quick, takes_a_while]
    told, found = list[int](), {}
    for each in run_all(perform, deque(jobs), 6, lambda job, message: told.append(message), Limits(timeout=2)):
        found[each.job] = each.error or each.value
    words = "it ran longer than the 2 s of --timeout"
    assert found[tells_where_it_was] == f"asked: {words}"
    for job in (will_not_listen, starts_another, holds_python):
        assert isinstance(found[job], TimedOut) and str(found[job]) == words, job
    assert found[quick] == found[takes_a_while] == "done"
    until(lambda: all(gone(child) for child in told if isinstance(child, int)))


def record(number: int) -> Record:
    return Record({"number": 0}, "method", "MixturePrediction", [0], {}, diagnostics={"loss": [number]})


def wakes_up_late(tell: Tell) -> None:
    """It stops, and so does a process that no signal of ours meets, as on a machine that is out of reach."""
    if os.fork() == 0:
        os.setsid()
        Path("number").write_text(str(os.getpid()))
        Path("number").rename("late")
        os.kill(os.getpid(), signal.SIGSTOP)
        first = Store(Path("results")).write(key_of(record(2).identity), record(2))
        Path("said").write_text(f"first: {first}")
        os._exit(0)
    tell(os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)


def test_a_stopped_process_that_was_given_up_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can be killed is, though it is stopped. One that wakes up when another has made the record loses.

    Seen to catch: SIGTERM the last way to stop a job, which a stopped one does not hear (the run waits for ever); a
    record that is written over.
    """
    monkeypatch.setattr(workers, "GRACE", 0.2)
    monkeypatch.chdir(tmp_path)
    told, store = list[int](), Store(tmp_path / "results")
    (each,) = run_all(perform, deque([wakes_up_late]), 1, lambda _, message: told.append(message), Limits(timeout=4))
    until((tmp_path / "late").exists)
    late = int((tmp_path / "late").read_text())
    store.write(key_of(record(1).identity), record(1))
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    os.kill(late, signal.SIGCONT)
    until(lambda: gone(late))
    assert isinstance(each.error, TimedOut) and gone(told[0])
    assert (tmp_path / "said").read_text() == "first: False"
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before


def allocates(tell: Tell) -> None:
    kept = []
    while True:
        kept.append(np.ones(2**22))


def allocates_in_torch(tell: Tell) -> None:
    torch.ones(2**30)


def needs_little(tell: Tell) -> float:
    return float(np.ones(2**20).sum())


@pytest.mark.skipif(sys.platform != "linux", reason="no such limit there")
def test_a_job_may_not_hold_more_memory_than_its_limit() -> None:
    """Its own process alone. Seen to catch: no limit, a limit on this process."""
    found = {}
    jobs = deque([allocates, allocates_in_torch, needs_little])
    for each in run_all(perform, jobs, 2, lambda *_: None, Limits(memory=2 * 2**30)):
        found[each.job] = each.error or each.value
    assert isinstance(found[allocates], MemoryError)
    assert isinstance(found[allocates_in_torch], RuntimeError) and "allocate memory" in str(found[allocates_in_torch])
    assert found[needs_little] == 2**20
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY


def takes_a_while(tell: Tell) -> str:
    tell("begins")
    time.sleep(0.5)
    return "done"


def test_a_server_that_is_killed_costs_no_job() -> None:
    """A job that is running goes on to its end, and the next ones have a new server. Seen to catch: the server's end
    taken for the job's."""
    killed: list[int] = []

    def kill_the_server(job: object, message: object) -> None:
        killed.append(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]
        os.kill(killed[0], signal.SIGKILL)

    jobs: deque[Callable[..., Any]] = deque([takes_a_while, leaves_a_thread])
    first, second = run_all(perform, jobs, 1, kill_the_server)
    assert first.value == second.value == "done" and len(killed) == 1
    assert first.used is None and second.used is not None  # the server would have told


def test_a_server_that_is_killed_while_a_job_is_sent_to_it_costs_no_job() -> None:
    """The job has the next one. Seen to catch: an EOFError in place of the job's value, a run that waits for ever."""
    assert ended(leaves_a_thread) == ["done"]  # the server is there

    class Jobs(deque[Callable[..., Any]]):
        def popleft(self) -> Callable[..., Any]:
            os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
            return super().popleft()

    found = [each.error or each.value for each in run_all(perform, Jobs([leaves_a_thread]), 1, lambda *_: None)]
    assert found == ["done"]
