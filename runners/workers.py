"""Workers: every job in a child process of its own, forked from a server that has everything loaded.

What a job does to its process ends with it: a default dtype, a folder, a stream, an exit, a kill. The server loads
gapbench alone, never a user's file.
"""

from __future__ import annotations

import multiprocessing
import os
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
from typing import Any, Generic, TypeVar

J = TypeVar("J")
PRELOADED = ["gapbench.runners.preload"]
SERVER_DIED = 255  # the exit code that multiprocessing gives where the server cannot tell any more
Tell = Callable[[Any], None]


class Died(Exception):
    """A job's process ended without a result; the message says how."""


@dataclass(frozen=True)
class Ended(Generic[J]):
    """A job that is over, with its result, or the exception that it ended with."""

    job: J
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class _Worker(Generic[J]):
    job: J
    process: ForkServerProcess
    pipe: Connection


def start_server() -> ForkServerContext:
    """The server's context. It starts at the first call, in the background, and ends with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    resource_tracker.ensure_running()  # its start would let interrupts through again
    with no_interrupts():  # inherited by server and children, and for good: Ctrl-C is the parent's to handle
        forkserver.ensure_running()
    return context


def run_all(
    work: Callable[[J, Tell], Any], jobs: deque[J], limit: int, tell: Callable[[J, Any], None]
) -> Generator[Ended[J], None, None]:
    """Every job as it ends, `limit` at a time, the first of the queue first.

    work: a function of a module, called in the child with a job and a function that sends a message; `tell` is called
    here with the job and each message. The caller may append to `jobs` meanwhile. However this ends, no child is left:
    close the generator (contextlib.closing) if you do not come to its end.
    """
    context = start_server()
    running: list[_Worker[J]] = []
    try:
        while jobs or running:
            while jobs and len(running) < limit:
                job = jobs.popleft()
                try:
                    _start(context, work, job, running)
                except Exception as error:  # the job cannot be sent
                    yield Ended(job, error=error)
            for worker in _ready(running):
                word, content = _received(worker)
                if word == "message":
                    tell(worker.job, content)
                    continue
                worker.process.join()
                worker.pipe.close()
                running.remove(worker)
                yield Ended(worker.job, content) if word == "value" else Ended(worker.job, error=content)
    finally:  # also on an interrupt: what is running is given up
        with no_interrupts():
            for worker in running:
                worker.process.kill()
                worker.process.join()


def _start(context: ForkServerContext, work: Callable[[J, Tell], Any], job: J, running: list[_Worker[J]]) -> None:
    """Begin a job, and note it among those that are running. Raises whatever hinders its being sent."""
    ours, theirs = context.Pipe(duplex=False)
    try:
        process = context.Process(target=_child, args=(work, job, theirs, os.getcwd()))
        with no_interrupts():  # between its start and the note, one would leave a child that nobody knows of
            try:
                process.start()
            except (EOFError, ConnectionError):  # the server was killed just now: the next start begins another
                time.sleep(0.1)
                process.start()
            running.append(_Worker(job, process, ours))
    except Exception:
        ours.close()
        raise
    finally:
        theirs.close()  # so that the end of the process is the end of the pipe


def _ready(running: list[_Worker[J]]) -> list[_Worker[J]]:
    """Those that have sent something, or have ended; waits for one."""
    # A process that a job started may outlive it and hold the pipe open: the end of the child must be waited for, too.
    # The server tells it; once the server has died, the pipe must do.
    told = [worker.process.sentinel for worker in running if worker.process.exitcode != SERVER_DIED]
    there = wait([*(worker.pipe for worker in running), *told])
    return [
        worker
        for worker in running
        if worker.pipe in there or (worker.process.sentinel in there and worker.process.exitcode != SERVER_DIED)
    ]


def _received(worker: _Worker[J]) -> tuple[str, Any]:
    """A word and its content: "message", the result under "value", or an "error"."""
    try:
        # Without anything in the pipe it is the process that has ended.
        if worker.pipe.poll():
            word, content = worker.pipe.recv()
            return word, content
    except (EOFError, OSError):
        pass
    except Exception as error:  # what was sent cannot be read here
        return "error", error
    worker.process.join()
    return "error", Died(how_it_ended(worker.process.exitcode))


def _child(work: Callable[[J, Tell], Any], job: J, pipe: Connection, folder: str) -> None:
    """The life of a child process: one job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.chdir(folder)
    try:
        answer = ("value", work(job, lambda message: pipe.send(("message", message))))
    except SystemExit as error:  # no answer: its parent sees an exit code
        _end(error.code if isinstance(error.code, int) else 0 if error.code is None else 1)
    except Exception as error:
        answer = ("error", error)
    try:
        pipe.send(answer)
    except Exception as error:  # it cannot be pickled
        pipe.send(("error", RuntimeError(f"{type(answer[1]).__name__}: {answer[1]} ({error})")))
    pipe.close()
    _end(0)


def _end(code: int) -> None:
    """End this process at once: nothing that a job left behind has a say in it, such as a thread or an exit handler."""
    with suppress(Exception):  # a stream may be closed, or a job may have put one of its own there
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


def end_with_parent() -> None:
    """End this process when its parent ends, however that happens: kill -9 must not leave workers behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def how_it_ended(code: int | None) -> str:
    """In words, why a process that gave no result is no more."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {int(one) for one in signal.Signals} else f"signal {-code}"
        hint = "; perhaps for want of memory, of which --jobs 1 takes the least" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {code}, without a result; does its code call sys.exit?"


@contextmanager
def no_interrupts() -> Iterator[None]:
    """SIGINT waits until the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
