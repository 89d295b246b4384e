"""Commands of gapbench and of dask in processes of their own, without the seconds in which each imports everything.

One process has imported it all. For each command it forks a copy of itself, which leads a session, as a command that a
shell starts leads its group. Where a command would start the server of its children as a fresh Python, a copy of the
command becomes that server. All else is as always: pipes, signals, exit codes, children of children.
"""

from __future__ import annotations

import json
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import util
from pathlib import Path
from typing import Any

# What the tests call ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A command that was started, with some of the methods of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, or minus the number of the signal that ended it; None while it runs."""
        code: int | None = _asked("poll", self.pid)
        return code

    def wait(self, timeout: float = 600.0) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("gapbench", timeout)
            time.sleep(0.02)
        return code


def started(
    *words: object,
    folder: Path,
    output: Path,
    errors: Path | None = None,
    environment: Mapping[str, str] | None = None,
    limit: int | None = None,
    module: str | None = None,
) -> Command:
    """`gapbench WORDS` in this folder, which writes to `output`, and to `errors` if that is given. environment: what is
    added to that of the tests. limit: bytes that a file may have. module: `python -m MODULE WORDS` instead."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    files = [str(output), str(errors or output)]
    return Command(_asked("start", [list(map(str, words)), str(folder), files, variables, limit, module]))


@cache
def _nursery(process: int) -> subprocess.Popen[str]:
    """The process that has imported everything; it ends with this one."""
    command = [sys.executable, __file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def _asked(what: str, about: Any) -> Any:
    nursery = _nursery(os.getpid())
    assert nursery.stdin is not None and nursery.stdout is not None
    nursery.stdin.write(json.dumps([what, about]) + "\n")
    nursery.stdin.flush()
    return json.loads(nursery.stdout.readline())


# The process ----------------------------------------------------------------------------------------------------------


def _serve() -> None:
    ended: dict[int, int] = {}
    while line := sys.stdin.readline():
        what, about = json.loads(line)
        if what == "start":
            answer: int | None = os.fork()
            if answer == 0:
                _become(*about)
                return
        else:
            if about not in ended:
                process, status = os.waitpid(about, os.WNOHANG)
                if process:
                    ended[about] = os.waitstatus_to_exitcode(status)
            answer = ended.get(about)
        print(json.dumps(answer), flush=True)


def _become(
    words: Sequence[str],
    folder: str,
    files: Sequence[str],
    environment: Mapping[str, str],
    limit: int | None,
    module: str | None,
) -> None:
    """Be the command. It ends by SystemExit, as always."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    out = os.open(files[0], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    err = out if files[1] == files[0] else os.open(files[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1), os.dup2(err, 2)
    os.closerange(3, 1024)
    # Whoever started these tests may ignore it, as nohup does, and what is ignored is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))  # as Python does when it starts
    util.spawnv_passfds = _forked  # type: ignore[assignment]
    sys.argv = [module or "gapbench", *words]
    if module is not None:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    from gapbench.runners.cli.main import main

    main()


_fresh = util.spawnv_passfds


def _forked(path: str, args: Sequence[str], kept: Sequence[int]) -> int:
    """In place of a fresh Python that runs `args`, a copy of this process that does, if it is to be a server."""
    code = args[list(args).index("-c") + 1]
    if "multiprocessing.forkserver" not in code and "multiprocessing.resource_tracker" not in code:
        return _fresh(path, args, kept)
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        last = 2
        for number in sorted(kept):
            os.closerange(last + 1, number)
            last = max(last, number)
        os.closerange(last + 1, 1024)
        multiprocessing.forkserver._forkserver.__init__()  # type: ignore[misc]
        multiprocessing.resource_tracker._resource_tracker.__init__()  # type: ignore[misc]
        sys.modules.pop("gapbench.runners.server", None)  # whose import makes a process a server of gapbench's
        exec(code, {})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    import gapbench.runners.load
    import gapbench.runners.preload
    import gapbench.runners.run
    import gapbench.runners.suite_file  # noqa: F401

    _serve()
