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
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, Generic, TypeVar

J = TypeVar("J")
PRELOADED = ["gapbench.runners.preload"]
Tell = Callable[[Any], None]


class Died(Exception):
    """A job's process ended without a result; the message says how."""


@dataclass(frozen=True)
class Ended(Generic[J]):
    """A job that is over, with its result, or the exception that it ended with."""

    job: J
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True)
class _Worker(Generic[J]):
    process: ForkServerProcess
    job: J


def start_server() -> ForkServerContext:
    """The server's context. It starts at the first call, in the background, and ends with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    resource_tracker.ensure_running()  # its start would let interrupts through again
    with no_interrupts():  # inherited by server and children, and for good: Ctrl-C is the parent's to handle
        from multiprocessing.forkserver import ensure_running

        ensure_running()
    return context


def run_all(
    work: Callable[[J, Tell], Any], jobs: deque[J], limit: int, tell: Callable[[J, Any], None]
) -> Iterator[Ended[J]]:
    """Every job as it ends, `limit` at a time, the first of the queue first.

    work: a function of a module, called in the child with a job and a function that sends a message; `tell` is called
    here with the job and each message. The caller may append to `jobs` meanwhile. However this ends, no child is left.
    """
    context = start_server()
    running: dict[Connection, _Worker[J]] = {}
    try:
        while jobs or running:
            while jobs and len(running) < limit:
                job = jobs.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(work, job, theirs, os.getcwd()))
                try:
                    with no_interrupts():
                        process.start()
                except Exception as error:  # the job cannot be sent
                    yield Ended(job, error=error)
                    continue
                theirs.close()  # so that the end of the process is the end of the pipe
                running[ours] = _Worker(process, job)
            for pipe in wait(running):
                assert isinstance(pipe, Connection)
                worker = running[pipe]
                try:
                    word, content = pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    word, content = "error", Died(how_it_ended(worker.process.exitcode))
                except Exception as error:  # what was sent cannot be read here
                    word, content = "error", error
                if word == "message":
                    tell(worker.job, content)
                    continue
                del running[pipe]
                pipe.close()
                worker.process.join()
                yield Ended(worker.job, content) if word == "value" else Ended(worker.job, error=content)
    finally:  # also on an interrupt: what is running is given up
        with no_interrupts():
            for worker in running.values():
                worker.process.kill()
                worker.process.join()


def _child(work: Callable[[J, Tell], Any], job: J, pipe: Connection, folder: str) -> None:
    """The life of a child process: one job."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.chdir(folder)
    try:
        answer = ("value", work(job, lambda message: pipe.send(("message", message))))
    except Exception as error:
        answer = ("error", error)
    try:
        pipe.send(answer)
    except Exception as error:  # it cannot be pickled
        pipe.send(("error", RuntimeError(f"{type(answer[1]).__name__}: {answer[1]} ({error})")))
    pipe.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # nothing that a job left behind has a say in how its process ends


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
        with suppress(KeyboardInterrupt):
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
