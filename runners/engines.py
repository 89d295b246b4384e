"""Engines: where the cells of a run are computed if not in this process's own children.

Anything that is a `concurrent.futures.Executor` will do. Only cells as recipes, keys and receipts travel. The results
folder must be the same for all, because a worker looks there first, runs the cell in a child process of its own, and
commits it there. So work that is done twice, or by a worker that was thought lost, does no harm.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import pickle
import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar

from gapbench.runners.workers import Died, Ended, Limits, Tell, end_at_close, run_all

J = TypeVar("J")
Engine = Callable[[Callable[[Any, Tell], Any], "deque[Any]", Limits], Generator["Ended[Any]", None, None]]
POLL = 2.0  # seconds after which a silent engine is looked at
PATIENCE = 20.0  # seconds that an engine may need to answer
ABANDONED = 120.0  # seconds without any worker after which a run ends
SCHEDULERS = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub"}  # -> the command that submits a job
# Options of a batch scheduler: workers and minimum bound how many jobs there are, the others are dask-jobqueue's.
LISTS = ("job_extra_directives", "job_script_prologue", "worker_extra_args")
OPTIONS = (
    *("workers", "minimum", "queue", "account", "project", "walltime", "memory"),
    *("interface", "local_directory", "log_directory", "python", "shebang"),
    *LISTS,
)
GIB = 2**30


class EngineError(Exception):
    """An engine that cannot be reached, was lost, or is not there; the message says what to do."""


def alone(data: bytes, limits: Limits) -> Ended[Any]:
    """The end of a job that runs in a child process of the worker that calls this. data: what `through` sends."""
    # Workers of some engines are daemons, which must have no children, lest these outlive them. Ours do not: they end
    # with their parent, however it ends.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    pipe = getattr(multiprocessing.parent_process(), "_sentinel", None)
    if pipe is not None:  # so does the worker itself: a thread of dask's, which would end it, waits for Python's lock
        end_at_close(pipe, os.getpid())
    with closing(run_all(_opened, deque([data]), 1, lambda *_: None, limits)) as ended:
        one = next(ended)
    return Ended(None, one.value, one.error, one.used)  # the job need not travel back


def _opened(data: bytes, tell: Tell) -> Any:
    """The work of the child. Only here is the job unpickled, so that a user's file is loaded neither by a scheduler nor
    by a worker, and a file that is not there fails the job."""
    work, job = pickle.loads(data)
    return work(job, tell)


def through(executor: Executor, check: Callable[[], None] = lambda: None) -> Engine:
    """The engine that runs jobs by an executor. check: raises EngineError if the executor is lost."""

    def engine(work: Callable[[J, Tell], Any], jobs: deque[J], limits: Limits) -> Generator[Ended[J], None, None]:
        running: dict[Future[Ended[Any]], J] = {}
        try:
            while jobs or running:
                while jobs:
                    job = jobs.popleft()
                    try:
                        running[executor.submit(alone, pickle.dumps((work, job)), limits)] = job
                    except Exception as error:
                        check()
                        yield Ended(job, error=error)
                wait(running, POLL, FIRST_COMPLETED)
                done = [future for future in running if future.done()]  # `wait` does not see those just cancelled
                if not done:
                    check()
                for future in done:
                    yield _ended(running.pop(future), future, check)
        finally:
            for future in running:
                future.cancel()

    return engine


def _ended(job: J, future: Future[Ended[Any]], check: Callable[[], None]) -> Ended[J]:
    try:
        ended = future.result()
        return Ended(job, ended.value, ended.error, ended.used)
    except CancelledError:
        check()
        return Ended(job, error=Died("its engine cancelled it"))
    except Exception as error:
        check()
        if type(error).__name__ == "KilledWorker":
            return Ended(job, error=Died("the workers that ran it were killed; perhaps for want of memory"))
        if isinstance(error, ImportError) or "deserializ" in str(error):  # not the job's: a child would have told it
            raise EngineError(
                f"the scheduler or a worker cannot read a cell ({_line(error)}): install the same gapbench and dask on "
                "all of them"
            ) from error
        return Ended(job, error=error)


@contextmanager
def dask(
    word: str,
    workers: int,
    options: Mapping[str, Sequence[str]],
    seconds: float,
    limits: Limits,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Engine]:
    """The engine of a dask cluster.

    word: "dask" for a cluster on this machine, "dask=ADDRESS" for one that runs, or a batch scheduler of SCHEDULERS.
    workers: how many, of a cluster that is made here. options: OPTIONS of a batch scheduler. seconds: what the longest
    cell should take. tell: is told that there is no worker yet. Raises EngineError.
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        raise EngineError(f"--engine {word} needs dask: pip install 'gapbench[cluster]'") from error
    settings = {
        "distributed.scheduler.worker-saturation": 1,  # a cell waits at the scheduler, not at a busy worker
        "distributed.scheduler.allowed-failures": 2,
        "distributed.worker.daemon": False,
        "distributed.comm.timeouts.connect": PATIENCE,
        "distributed.comm.timeouts.tcp": PATIENCE,
        "distributed.admin.tick.limit": "1h",  # torch is loaded in a worker's event loop
    }
    if word.startswith("dask=tls:") and not distributed.Security().get_connection_args("client").get("ssl_context"):
        raise EngineError(
            f"--engine {word}: no certificate: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, and …__CLIENT__CERT and "
            "…__CLIENT__KEY"
        )
    for name in ("distributed", "distributed.client", "tornado.application"):  # the run tells what matters
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set(settings):
        cluster = None
        try:
            if word == "dask":
                cluster = distributed.LocalCluster(
                    n_workers=workers, threads_per_worker=1, memory_limit=0, dashboard_address=None
                )
            elif word in SCHEDULERS:
                cluster = batch_cluster(word, workers, options, seconds, limits)
            address = cluster if cluster is not None else word.partition("=")[2]
            client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            if cluster is not None:
                cluster.close()
            if word == "dask" or word in SCHEDULERS:
                raise EngineError(f"--engine {word}: cannot start ({_line(error)})") from error
            raise EngineError(
                f"--engine {word}: cannot be reached ({_line(error)}): is its scheduler running?"
            ) from error

        seen = time.monotonic()  # when a worker was there
        told = False

        def check() -> None:
            nonlocal seen, told
            try:
                found = client.sync(client.scheduler.identity, callback_timeout=PATIENCE)
            except Exception as error:
                raise EngineError(
                    f"--engine {word}: the scheduler was lost ({_line(error)}); what is finished is kept"
                ) from error
            if not found["workers"] and not told:
                tell(f"--engine {word}: it has no worker yet, so cells wait")
                told = True
            refused = getattr(cluster, "refused", None)
            if refused is not None and refused():
                raise EngineError(f"--engine {word}: {SCHEDULERS[word]} refuses the jobs ({refused()})")
            if found["workers"] or word in SCHEDULERS:  # jobs may wait in a queue for days
                seen = time.monotonic()
            elif time.monotonic() > seen + ABANDONED:
                raise EngineError(
                    f"--engine {word}: it has had no worker for {ABANDONED:g} s: start some, with the gapbench that is "
                    "installed here; what is finished is kept"
                )

        try:
            yield through(client.get_executor(pure=False, retries=0), check)
        finally:
            with suppress(Exception):
                client.close(timeout=POLL)
            if cluster is not None:
                with suppress(Exception):
                    cluster.close(timeout=POLL)


def batch_cluster(word: str, workers: int, options: Mapping[str, Sequence[str]], seconds: float, limits: Limits) -> Any:
    """The dask-jobqueue cluster whose jobs are workers with one cell at a time. It grows to `workers` and shrinks.

    The walltime is four times what the longest cell should take, an hour at least. The memory is that of --memory and
    a GiB for the worker, else 4 GiB. Its `refused` tells why the scheduler took none of the jobs; "" if it took one.
    Raises EngineError if this machine cannot submit jobs.
    """
    import dask
    import dask_jobqueue

    command = SCHEDULERS[word]
    if shutil.which(command) is None:
        raise EngineError(f"--engine {word}: there is no {command} on this machine: run it where jobs are submitted")
    minutes = max(60, math.ceil(4 * seconds / 60))
    walltime = f"{minutes // 60:02}:{minutes % 60:02}" + ("" if word == "lsf" else ":00")
    settings: dict[str, Any] = {"walltime": walltime, "memory": f"{(limits.memory or 3 * GIB) / GIB + 1:g}GiB"}
    settings |= {name: list(values) if name in LISTS else values[-1] for name, values in options.items()}
    most, least = int(settings.pop("workers", workers)), int(settings.pop("minimum", 0))
    kind = getattr(dask_jobqueue, f"{word.upper()}Cluster")
    taken, said = 0, ""

    class Job(kind.job_cls):  # type: ignore[misc,name-defined]
        async def _submit_job(self, script: str) -> Any:
            nonlocal taken, said
            try:
                answer = await super()._submit_job(script)
            except RuntimeError as error:
                said = _line(RuntimeError(str(error).rpartition("stderr:")[2]))
                raise
            taken += 1
            return answer

    pages = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}  # nobody else reads them
    scheduler = {**dask.config.get(f"jobqueue.{word}.scheduler-options", {}), **pages}
    cluster = kind(cores=1, processes=1, job_cls=Job, scheduler_options=scheduler, **settings)
    cluster.refused = lambda: "" if taken else said
    cluster.adapt(minimum=least, maximum=max(most, least))
    return cluster


def options_of(words: Sequence[str]) -> dict[str, list[str]]:
    """The options of a batch scheduler from words "key=value"; those of LISTS may be given again. Raises ValueError."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, is_, value = word.partition("=")
        if not is_ or not value or name not in OPTIONS:
            raise ValueError(f"--engine-option {word!r}: expected key=value with a key of {', '.join(OPTIONS)}")
        least = {"workers": 1, "minimum": 0}.get(name)
        if least is not None and not (value.isascii() and value.isdigit() and int(value[:9]) >= least):
            raise ValueError(f"--engine-option {word!r}: expected a whole number from {least}")
        if name in found and name not in LISTS:
            raise ValueError(f"--engine-option {name} is given twice: expected it once")
        found.setdefault(name, []).append(value)
    return found


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
