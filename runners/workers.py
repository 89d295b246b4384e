"""Workers: every job in a child process of its own, forked from a server that has loaded everything.

A job's changes to its process end with that process: a default dtype, a folder, a stream, an exit, a kill. The server
loads only gapbench, never a user's file.
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
SERVER_DIED = 255  # the exit code that multiprocessing reports if the server has died
Tell = Callable[[Any], None]


class Died(Exception):
    """A job whose process ended without a result; the message says how it ended."""


@dataclass(frozen=True)
class Ended(Generic[J]):
    """A job that has ended, with its result, or with the exception that ended it."""

    job: J
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class _Worker(Generic[J]):
    job: J
    process: ForkServerProcess
    pipe: Connection


def start_server() -> ForkServerContext:
    """The context of the fork server, which starts at the first call, in the background, and ends with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    resource_tracker.ensure_running()  # started first, because its start allows interrupts again
    with no_interrupts():  # server and children inherit this for good: only the parent handles Ctrl-C
        forkserver.ensure_running()
    return context


def run_all(
    work: Callable[[J, Tell], Any], jobs: deque[J], limit: int, tell: Callable[[J, Any], None]
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
    finally:  # also on an interrupt: running jobs are given up
        with no_interrupts():
            for worker in running:
                worker.process.kill()
                worker.process.join()


def _start(context: ForkServerContext, work: Callable[[J, Tell], Any], job: J, running: list[_Worker[J]]) -> None:
    """Start a job, and add it to `running`. Raises any error that keeps the job from being sent."""
    ours, theirs = context.Pipe(duplex=False)
    try:
        process = context.Process(target=_child, args=(work, job, theirs, os.getcwd()))
        with no_interrupts():  # an interrupt between start and note would leave an unknown child
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
        theirs.close()  # so that the pipe ends with the process


def _ready(running: list[_Worker[J]]) -> list[_Worker[J]]:
    """The workers that have sent something, or have ended. Waits for at least one."""
    # A process that a job started may outlive the job and keep the pipe open. So the end of the child is waited for,
    # too. The server reports this end. After the server has died, only the pipe is left.
    told = [worker.process.sentinel for worker in running if worker.process.exitcode != SERVER_DIED]
    there = wait([*(worker.pipe for worker in running), *told])
    return [
        worker
        for worker in running
        if worker.pipe in there or (worker.process.sentinel in there and worker.process.exitcode != SERVER_DIED)
    ]


def _received(worker: _Worker[J]) -> tuple[str, Any]:
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
    return "error", Died(how_it_ended(worker.process.exitcode))


def _child(work: Callable[[J, Tell], Any], job: J, pipe: Connection, folder: str) -> None:
    """The life of a child process: one job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.chdir(folder)
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
    """End this process when its parent ends, in any way: kill -9 must not leave workers behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def how_it_ended(code: int | None) -> str:
    """The end of a process that gave no result, in words. code: its exit code."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {int(one) for one in signal.Signals} else f"signal {-code}"
        hint = "; perhaps for want of memory, of which --jobs 1 takes the least" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {code}, without a result; does its code call sys.exit?"


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Block SIGINT inside; a pending SIGINT arrives at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
