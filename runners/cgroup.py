"""The cgroup of this process, which a container or a batch scheduler gives its memory limit: whom the kernel killed."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def killed_for_memory() -> int | None:
    """How many processes of this cgroup the kernel has killed for want of memory; None where it does not tell."""
    try:
        (place,) = (line[3:].lstrip("/") for line in OWN.read_text().splitlines() if line.startswith("0::"))
        events = dict(line.split() for line in (ROOT / place / "memory.events").read_text().splitlines())
        return int(events["oom_kill"])
    except (OSError, ValueError, KeyError):  # no cgroup of version 2, or none with memory
        return None
