"""Workers: every job in a child process of its own, forked from a server that has loaded everything.

A job's changes to its process end with that process: a default dtype, a folder, a stream, an exit, a kill. The server
loads only gapbench, never a user's file. Each child leads a process group, which ends with it: whatever a job started.
"""

from __future__ import annotations

import fcntl
import math
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import FrameType
from typing import Any, Generic, TypeVar

from gapbench.runners.cgroup import killed_for_memory
from gapbench.runners.used import PACKED, Used

J = TypeVar("J")
PRELOADED = ["gapbench.runners.server", "gapbench.runners.preload"]
SERVER_DIED = 255  # the exit code that multiprocessing reports if the server has died
GRACE = 5.0  # seconds from each way to stop a job to the next
WAIT = 86_400.0  # seconds of one wait: the system refuses a wait of 25 days
Tell = Callable[[Any], None]


class Died(Exception):
    """A job whose process ended without a result; the message says how it ended."""


class TimedOut(Exception):
    """A job that ran longer than it may."""


@dataclass(frozen=True)
class Limits:
    """What each job may use. timeout: seconds. memory: bytes of data that its process may hold, torch's own included;
    Linux keeps it. None: no limit."""

    timeout: float | None = None
    memory: int | None = None

    @property
    def timed_out(self) -> TimedOut:
        return TimedOut(f"it ran longer than the {self.timeout:g} s of --timeout")


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Ended(Generic[J]):
    """A job that has ended, with its result, or with the exception that ended it.

    used: what its process used, if the system told that.
    """

    job: J
    value: Any = None
    error: Exception | None = None
    used: Used | None = None


@dataclass
class _Worker(Generic[J]):
    """A running job. deadline: when it is stopped, in the next of the ways to stop it, of which `tried` were tried.
    killed: how many processes the kernel had killed for want of memory when the job started."""

    job: J
    process: ForkServerProcess
    pipe: Connection
    deadline: float
    killed: int | None
    tried: int = 0

    def stop(self) -> None:
        """Stop the job in the next way: ask it, so that its record can say where it was; end it; kill it."""
        ways = (signal.SIGUSR1, signal.SIGTERM, signal.SIGKILL)
        if self.tried == 0:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid or 0, ways[0])
        else:
            end_group(self.process, ways[min(self.tried, 2)])
        self.tried += 1
        self.deadline = time.monotonic() + GRACE


def start_server() -> ForkServerContext:
    """The context of the fork server, which starts at the first call, in the background, and ends with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    resource_tracker.ensure_running()  # started first, because its start allows interrupts again
    with no_interrupts():  # server and children inherit this for good: only the parent handles Ctrl-C
        forkserver.ensure_running()
    return context


def run_all(
    work: Callable[[J, Tell], Any],
    jobs: deque[J],
    limit: int,
    tell: Callable[[J, Any], None],
    limits: Limits = Limits(),
) -> Generator[Ended[J], None, None]:
    """Every job when it ends; `limit` jobs run at a time, in the order of the queue.

    work: a module's function, called in the child with a job and with a function that sends a message. `tell` is called
    here with the job and each message. The caller may append to `jobs` meanwhile. No child is left at the end, also
    after an error. A caller that stops early must close the generator (contextlib.closing).
    """
    context = start_server()
    running: list[_Worker[J]] = []
    try:
        while jobs or running:
            while jobs and len(running) < limit:
                job = jobs.popleft()
                try:
                    _start(context, work, job, limits, running)
                except Exception as error:  # the job cannot be sent
                    yield Ended(job, error=error)
            for worker in _ready(running):
                word, content = _received(worker, limits)
                if word == "message":
                    tell(worker.job, content)
                    continue
                worker.process.join()
                end_group(worker.process, signal.SIGKILL)  # whatever the job started
                worker.pipe.close()
                running.remove(worker)
                yield Ended(worker.job, used=_used(worker.process), **{word: content})
    finally:  # also on an interrupt: running jobs are given up
        with no_interrupts():
            for worker in running:
                end_group(worker.process, signal.SIGKILL)
                worker.process.join()


def end_group(process: ForkServerProcess, number: int) -> None:
    """Send a signal to a child and to all processes that it started and that are left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid or 0, number)
        return
    with suppress(ProcessLookupError):  # it has no group yet
        process.kill()


def _start(
    context: ForkServerContext,
    work: Callable[[J, Tell], Any],
    job: J,
    limits: Limits,
    running: list[_Worker[J]],
) -> None:
    """Start a job, and add it to `running`. Raises any error that keeps the job from being sent."""
    ours, theirs = context.Pipe(duplex=False)
    try:
        killed = killed_for_memory()
        process = context.Process(target=_child, args=(work, job, theirs, os.getcwd(), limits))
        with no_interrupts():  # an interrupt between start and note would leave an unknown child
            try:
                process.start()
            except (EOFError, ConnectionError):  # the server was killed just now: the next start begins another
                time.sleep(0.1)
                process.start()
            deadline = time.monotonic() + (limits.timeout or math.inf)
            running.append(_Worker(job, process, ours, deadline, killed))
    except Exception:
        ours.close()
        raise
    finally:
        theirs.close()  # so that the pipe ends with the process


def _ready(running: list[_Worker[J]]) -> list[_Worker[J]]:
    """The workers that have sent something, or have ended. Waits for one, or until a job must be stopped."""
    # A process that a job started may outlive the job and keep the pipe open. So the end of the child is waited for,
    # too. The server reports this end. After the server has died, only the pipe is left.
    told = [worker.process.sentinel for worker in running if worker.process.exitcode != SERVER_DIED]
    first = min((worker.deadline for worker in running), default=math.inf) - time.monotonic()
    there = wait([*(worker.pipe for worker in running), *told], None if first == math.inf else min(max(first, 0), WAIT))
    for worker in running:
        if worker.pipe not in there and time.monotonic() >= worker.deadline:
            worker.stop()
    return [
        worker
        for worker in running
        if worker.pipe in there or (worker.process.sentinel in there and worker.process.exitcode != SERVER_DIED)
    ]


def _received(worker: _Worker[J], limits: Limits) -> tuple[str, Any]:
    """The answer of a worker, as a word and its content: a "message", the result as "value", or an "error"."""
    try:
        # An empty pipe means that the process has ended.
        if worker.pipe.poll():
            word, content = worker.pipe.recv()
            return word, content
    except (EOFError, OSError):
        pass
    except Exception as error:  # the answer cannot be read here
        return "error", error
    worker.process.join()
    if worker.tried:
        return "error", limits.timed_out
    return "error", Died(how_it_ended(worker.process.exitcode, (killed_for_memory() or 0) > (worker.killed or 0)))


def _used(process: ForkServerProcess) -> Used | None:
    """What a process that has ended used, which the server tells after the exit code; None if the server has died."""
    try:
        return Used.unpacked(os.read(process.sentinel, PACKED.size))
    except OSError:
        return None


def _child(work: Callable[[J, Tell], Any], job: J, pipe: Connection, folder: str, limits: Limits) -> None:
    """The life of a child process: one job."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def asked(number: int, frame: FrameType | None) -> None:
        raise limits.timed_out

    signal.signal(signal.SIGUSR1, asked)
    end_with_parent()
    os.chdir(folder)
    if limits.memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    try:
        answer = ("value", work(job, lambda message: pipe.send(("message", message))))
    except SystemExit as error:  # no answer: the parent sees the exit code
        _end(error.code if isinstance(error.code, int) else 0 if error.code is None else 1)
    except Exception as error:
        answer = ("error", error)
    try:
        pipe.send(answer)
    except Exception as error:  # the answer cannot be pickled
        pipe.send(("error", RuntimeError(f"{type(answer[1]).__name__}: {answer[1]} ({error})")))
    pipe.close()
    _end(0)


def _end(code: int) -> None:
    """End this process at once, without waiting for what a job left behind, such as a thread or an exit handler."""
    with suppress(Exception):  # a stream may be closed, or a job may have replaced it
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


def end_with_parent() -> None:
    """End this process and its group when its parent ends, in any way: kill -9 must not leave workers behind.

    On Linux the kernel sees to it. (prctl's death signal would follow the server, whose end a job survives.)
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    pipe = getattr(parent, "_sentinel", None)
    if pipe is not None:
        signal.signal(signal.SIGIO, signal.SIG_DFL)  # it ends a process
        end_at_close(pipe, -os.getpid())  # the group

    def follow() -> None:
        parent.join()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()


def end_at_close(pipe: int, whom: int) -> None:
    """Have Linux end a process when the other end of a pipe closes: also C code that holds Python's lock, and a process
    that is loading. whom: the process, or its group as a negative number."""
    if sys.platform == "linux":
        fcntl.fcntl(pipe, fcntl.F_SETOWN, whom)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)


def how_it_ended(code: int | None, memory: bool = False) -> str:
    """The end of a process that gave no result, in words. code: its exit code. memory: whether the kernel killed for
    want of memory meanwhile."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {int(one) for one in signal.Signals} else f"signal {-code}"
        if name != "SIGKILL":
            return f"its process was ended by {name}"
        why = "meanwhile the kernel killed in its cgroup" if memory else "perhaps"
        return f"its process was ended by SIGKILL; {why} for want of memory, of which --jobs 1 takes the least"
    return f"its process ended with exit code {code}, without a result; does its code call sys.exit?"


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Block SIGINT inside; a pending SIGINT arrives at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
