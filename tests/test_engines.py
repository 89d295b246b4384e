"""Engines: the same bits wherever cells run, and one clear line where they cannot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.evaluation.entries import Trained
from gapbench.methods.engine.model import MLP
from gapbench.methods.mc_dropout import MCDropout
from gapbench.runners import engines
from gapbench.runners.cell import Cell
from gapbench.runners.engines import EngineError, batch_cluster, dask, options_of, through
from gapbench.runners.run import run_cells
from gapbench.runners.store import Store
from gapbench.runners.workers import NO_LIMITS, Died, Limits, Tell, TimedOut

if TYPE_CHECKING:
    from nursery import Command

PATIENCE = 60.0  # seconds that nothing should ever take
LONG = 240.0  # seconds that nothing should ever wait for
SINE = GappedSine(n=12, noise_std=0.1, test_points=13)


@pytest.fixture(autouse=True)
def found_by_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import the jobs of this file by the name that pytest gave it."""
    folder = str(Path(__file__).resolve().parents[__name__.count(".")])
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def cells(count: int = 2) -> list[Cell]:
    model = MLP(hidden=(4,))
    return [
        Cell("sine", SINE, model, f"rate {at}", Trained(MCDropout(rate=0.1 * (at + 1), steps=5, draws=4)), 0, 2, 0)
        for at in range(count)
    ]


def contents(folder: Path) -> dict[str, dict[str, str]]:
    store = Store(folder)
    return {key: dict(store.record(key).arrays) for key in store.keys()}  # noqa: SIM118


def run(folder: Path, *args: Any, **more: Any) -> list[str]:
    found = run_cells(cells(), Store(folder), ["cpu", "cpu"], Console(quiet=True), -1, *args, **more)
    return [outcome.status for outcome in found]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("here")
    assert run(folder) == ["finished"] * 2
    return contents(folder)


@pytest.mark.parametrize(
    "made", [lambda: ThreadPoolExecutor(2), lambda: ProcessPoolExecutor(2, get_context("forkserver"))]
)
def test_any_executor_gives_the_same_bits(
    made: Callable[[], Executor], tmp_path: Path, here: dict[str, dict[str, str]]
) -> None:
    """Its workers are threads or processes. Run again, nothing is trained."""
    with made() as executor:
        assert run(tmp_path, engine=through(executor)) == ["finished"] * 2
        assert run(tmp_path, engine=through(executor)) == ["kept"] * 2
    assert contents(tmp_path) == here


def quick(job: int, tell: Tell) -> int:
    tell("begins")
    return 2 * job


def loops(job: int, tell: Tell) -> None:
    time.sleep(LONG)


def ends_itself(job: int, tell: Tell) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_limits_and_ends_hold_in_a_worker_too() -> None:
    """Seen to catch: limits left at home, the end of a child taken for that of its worker."""
    with ThreadPoolExecutor(2) as executor:
        engine = through(executor)
        assert sorted(each.value for each in engine(quick, deque([1, 2, 3]), NO_LIMITS)) == [2, 4, 6]
        (late,) = engine(loops, deque([1]), Limits(timeout=0.5))
        (dead,) = engine(ends_itself, deque([1]), NO_LIMITS)
    assert late.job == dead.job == 1 and isinstance(late.error, TimedOut)
    assert isinstance(dead.error, Died) and "SIGKILL" in str(dead.error)


WORKER = """
import ctypes, multiprocessing, os, pickle
from gapbench.runners import engines, workers

def job(number, tell):
    return number

def work():
    workers.PRELOADED = workers.PRELOADED[:1]
    assert engines.alone(pickle.dumps((job, 3)), workers.NO_LIMITS).value == 3
    print(os.getpid(), flush=True)
    ctypes.PyDLL(None).sleep(240)

def start():
    worker = multiprocessing.get_context("spawn").Process(target=work)
    worker.start()
    worker.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread of dask's sees to it, when it has the lock")
def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Also in C code that never lets another thread of Python run. Seen to catch: the cell's process alone ended."""
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-c", "import worker; worker.start()"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as parent:
        assert parent.stdout is not None
        stat = Path(f"/proc/{int(parent.stdout.readline())}/stat")
        parent.kill()
    until(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z")


class Where:
    """A job that is the number of the process that unpickled it, or an error there."""

    def __init__(self, path: str = "") -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path,)) if self.path else (os.getpid, ())


def itself(job: Any, tell: Tell) -> Any:
    return job


def test_a_job_is_opened_in_its_own_process() -> None:
    """So a user's file is loaded neither by a scheduler nor by a worker, and one that is not there fails the job.

    Seen to catch: the job sent as it is, the end of the child in place of the error.
    """
    with ThreadPoolExecutor(1) as executor:
        (where,) = through(executor)(itself, deque([Where()]), NO_LIMITS)
        (lost,) = through(executor)(itself, deque([Where("nowhere.py")]), NO_LIMITS)
    assert isinstance(where.value, int) and where.value != os.getpid()
    assert isinstance(lost.error, FileNotFoundError) and lost.error.filename == "nowhere.py"


class Fails(Executor):
    """An executor whose futures end as it is told."""

    def __init__(self, end: Callable[[Future[Any]], None]) -> None:
        self.end = end

    def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.end(future)
        return future


class KilledWorker(Exception):
    pass


def test_what_an_executor_loses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled job and one whose workers were killed have failed; an executor that is lost ends the run.

    Seen to catch: a wait without an end, a lost executor told as a failed cell, a worker without gapbench told so.
    """
    monkeypatch.setattr(engines, "POLL", 0.01)

    def lost() -> None:
        raise EngineError("it was lost")

    (cancelled,) = through(Fails(lambda future: future.cancel()))(quick, deque([1]), NO_LIMITS)
    (killed,) = through(Fails(lambda future: future.set_exception(KilledWorker())))(quick, deque([1]), NO_LIMITS)
    assert isinstance(cancelled.error, Died) and isinstance(killed.error, Died) and "killed" in str(killed.error)
    for end in (lambda future: None, lambda future: future.cancel(), lambda future: future.set_exception(OSError())):
        with pytest.raises(EngineError, match="lost"):
            list(through(Fails(end), lost)(quick, deque([1]), NO_LIMITS))
    for error in (ModuleNotFoundError("No module named 'gapbench'"), RuntimeError("Error during deserialization")):
        with pytest.raises(EngineError, match=f"cannot read a cell \\({error}\\): install the same gapbench"):
            list(through(Fails(lambda future: future.set_exception(error)))(quick, deque([1]), NO_LIMITS))  # noqa: B023


# dask -----------------------------------------------------------------------------------------------------------------


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[int]]]:
    """The address of a dask cluster that somebody else started, and its processes: a scheduler and two workers, which
    have what they import, and fork their own."""
    from nursery import started  # which workers, that import this module, do not find

    def of_dask(module: str, *words: str, output: Path) -> Command:
        environment = {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver"}
        return started(*words, module=module, folder=tmp_path, output=output, environment=environment)

    log = tmp_path / "scheduler.txt"
    log.touch()
    words = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    ours = [of_dask("distributed.cli.dask_scheduler", *words, output=log)]
    try:
        until(lambda: re.search(r"tcp://127\.0\.0\.1:\d+", log.read_text()))
        found = re.search(r"tcp://127\.0\.0\.1:\d+", log.read_text())
        assert found
        for number in range(2):
            words = (found[0], "--nthreads", "1", "--no-dashboard", "--death-timeout", "60")
            ours.append(of_dask("distributed.cli.dask_worker", *words, output=tmp_path / f"worker-{number}.txt"))
        yield found[0], [each.pid for each in ours]
    finally:
        for each in ours:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()


@pytest.mark.filterwarnings("ignore")  # dask's own, of its servers' ends
def test_a_dask_cluster_gives_the_same_bits_and_outlives_a_killed_worker(
    cluster: tuple[str, list[int]], tmp_path: Path, here: dict[str, dict[str, str]]
) -> None:
    """Its workers are daemons, as `dask worker` starts them. One is killed with all its processes while it runs a job:
    the other does it. Then the scheduler is killed: the run ends with one line.

    Seen to catch: children of daemons refused, a job whose worker died waited for, a scheduler that is gone.
    """
    address, (scheduler, *_) = cluster
    with dask(f"dask={address}", 1, {}, 1.0, NO_LIMITS) as engine:
        assert run(tmp_path / "results", engine=engine) == ["finished"] * 2
        assert contents(tmp_path / "results") == here
        place = tmp_path / "places"
        with closing(engine(says_where_it_is, deque([str(place)]), NO_LIMITS)) as jobs:
            ended = iter(jobs)

            def kill() -> None:
                until(place.exists)
                os.killpg(os.getsid(int(place.read_text())), signal.SIGKILL)
                place.rename(tmp_path / "seen")

            with ThreadPoolExecutor(1) as aside:
                killing = aside.submit(kill)
                (tmp_path / "go on").write_text("if you are the second")
                assert next(ended).value == "the second"
                killing.result()
        began = time.monotonic()
        os.kill(scheduler, signal.SIGKILL)
        with pytest.raises(EngineError, match="what is finished is kept"):
            list(engine(loops, deque([1]), NO_LIMITS))
        assert time.monotonic() - began < PATIENCE


def says_where_it_is(place: str, tell: Tell) -> str:
    """The first to come waits to be killed."""
    if (Path(place).parent / "seen").exists():
        return "the second"
    half = Path(f"{place}-{os.getpid()}")
    half.write_text(str(os.getpid()))
    half.rename(place)
    time.sleep(LONG)
    return "the first"


@pytest.mark.filterwarnings("ignore")
def test_an_address_where_nobody_answers_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor without a certificate. Seen to catch: dask's own error, a wait without an end."""
    monkeypatch.setattr(engines, "PATIENCE", 1.0)
    with (
        pytest.raises(EngineError, match=r"--engine dask=tcp://127\.0\.0\.1:9: cannot be reached .*is its scheduler"),
        dask("dask=tcp://127.0.0.1:9", 1, {}, 1.0, NO_LIMITS),
    ):
        pass
    with pytest.raises(EngineError, match="no certificate: set"), dask("dask=tls://127.0.0.1:9", 1, {}, 1.0, NO_LIMITS):
        pass


# Batch schedulers -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_the_script_of_a_batch_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the options say, and what the cells need: four times the longest cell, an hour at least; the memory of a
    cell and a GiB for its worker.

    Seen to catch: the walltime of one cell, memory without the worker's, an option that is dropped, the last of two
    directives alone.
    """
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"--engine slurm: there is no sbatch on this machine"):
        batch_cluster("slurm", 2, {}, 10.0, NO_LIMITS)
    for command in ("sbatch", "bsub"):
        (tmp_path / command).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / command).chmod(0o755)
    words = ["queue=short", "job_extra_directives=--gres=gpu:1", "job_extra_directives=--exclusive", "minimum=0"]
    with closing(batch_cluster("slurm", 0, options_of(words), 3600.0, Limits(memory=4 * 2**30))) as slurm:
        script = slurm.job_script()
    for line in ("-p short", "-n 1", "--cpus-per-task=1", "--mem=5G", "-t 04:00:00", "--gres=gpu:1", "--exclusive"):
        assert f"#SBATCH {line}\n" in script, script
    assert "distributed.cli.dask_worker" in script and "--nthreads 1" in script
    with closing(batch_cluster("lsf", 0, {}, 10.0, NO_LIMITS)) as lsf:
        assert "#BSUB -W 01:00\n" in lsf.job_script()


def test_jobs_that_the_scheduler_refuses_end_the_run(tmp_path: Path) -> None:
    """With what it said, and nothing else but that the cells waited.

    Seen to catch: a wait without an end, dask's traceback, nothing said of the wait.
    """
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: no such partition' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    from commands import gapbench  # which workers, that import this module, do not find

    words = ["--suite", "quick", "--methods", "nngp", "--device", "cpu", "--engine", "slurm", "--out", tmp_path / "out"]
    run = gapbench(tmp_path, "run", *words, PATH=f"{tmp_path}:{os.environ['PATH']}", COLUMNS="200")
    assert run.returncode == 5 and run.stderr.splitlines() == [
        "--engine slurm: it has no worker yet, so cells wait",
        "Error: --engine slurm: sbatch refuses the jobs (sbatch: error: no such partition)",
    ]


def test_a_cluster_that_cannot_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to catch: the error passed on as a bug of gapbench."""

    def nowhere(*args: Any) -> None:
        raise RuntimeError("'nowhere' is not a valid network interface")

    monkeypatch.setattr(engines, "batch_cluster", nowhere)
    with (
        pytest.raises(EngineError, match=r"^--engine slurm: cannot start \('nowhere' is not a valid"),
        dask("slurm", 1, {}, 1.0, NO_LIMITS),
    ):
        pass


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["walltme=1h"], "expected key=value with a key of workers, minimum, queue"),
        (["queue"], "expected key=value"),
        (["queue="], "expected key=value"),
        (["queue=a", "queue=b"], "given twice"),
        (["workers=many"], "expected a whole number"),
        (["workers=0"], "expected a whole number from 1"),
    ],
)
def test_options_that_make_no_sense(words: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        options_of(words)
