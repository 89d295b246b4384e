"""The fork server's own process: it ends with those whom it serves, and tells them what their children used.

The system tells only a parent what a process used, and the parent of all children is the server. So it sends that after
a child's exit code. And it looks after its clients only when it has loaded everything; until then the kernel does.
"""

from __future__ import annotations

import os
import select
import sys
from multiprocessing import forkserver
from types import FrameType
from typing import Any

from gapbench.runners.used import Used
from gapbench.runners.workers import end_at_close


class _System:
    """The module `os` as the server sees it: it keeps what the process used that was just waited for. The server waits
    until there is no other, so nothing is kept when it starts a process."""

    used = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def waitpid(self, process: int, options: int) -> tuple[int, int]:
        self.used = b""
        found, status, usage = os.wait4(process, options)
        if found:
            self.used = Used.of(usage).packed()
        return found, status


def _serve(alive: int) -> None:
    """Prepare this process, which is a server. alive: the pipe that closes when it has no client any more."""
    end_at_close(alive, os.getpid())
    if select.select([alive], [], [], 0)[0]:  # it closed before
        os._exit(0)
    system, write = _System(), forkserver.write_signed

    def write_signed(fd: int, n: int) -> None:
        """Send the number of a process that begins, or the exit code of one that has ended."""
        write(fd, n)
        if system.used:
            os.write(fd, system.used)

    forkserver.os = system  # type: ignore[attr-defined]
    forkserver.write_signed = write_signed


def _main() -> FrameType | None:
    """The frame of the server's main loop, which is loading this module; None in any other process."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not forkserver.main.__code__:
        frame = frame.f_back
    return frame


if (main := _main()) is not None:
    _serve(main.f_locals["alive_r"])
