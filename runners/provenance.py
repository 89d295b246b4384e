"""Provenance of a cell: the machine, the versions and the cost, which its record holds beside the numbers."""

from __future__ import annotations

import platform
import resource
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from gapbench.runners.used import Used

FOLDERS = ("methods", "datasets", "evaluation", "runners")  # the folders of the code that decides numbers


@dataclass(frozen=True)
class Spent:
    """The time that this process had spent when a training began."""

    device: str
    wall: float
    cpu: float

    @staticmethod
    def start(device: str) -> Spent:
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)
        return Spent(device, time.perf_counter(), time.process_time())

    def provenance(self) -> dict[str, Any]:
        """The machine and versions, with the training's cost up to now: seconds, CPU seconds and peak memory."""
        cuda = self.device.startswith("cuda")
        used = Used.of(resource.getrusage(resource.RUSAGE_SELF)).memory
        return {
            **surroundings(self.device),
            "seconds": round(time.perf_counter() - self.wall, 3),
            "cpu seconds": round(time.process_time() - self.cpu, 3),
            "peak memory (bytes)": int(torch.cuda.max_memory_allocated(self.device) if cuda else used),
        }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def surroundings(device: str) -> dict[str, Any]:
    """The time, the machine and the versions of a computation."""
    cuda = device.startswith("cuda") and torch.cuda.is_available()  # it may be another machine's
    packages = ("gapbench", "torch", "opacus", "pyro-ppl", "numpy", "scipy", "scoringrules", "arviz-stats")
    return {
        "finished": now(),
        "device": torch.cuda.get_device_name(device) if cuda else f"{device.upper()} ({platform.machine()})",
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "commit": commit(),
    }


def commit() -> str | None:
    """The git commit of this code, with + if its folders were edited since; None outside a git checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", *FOLDERS) else "")
    except (OSError, subprocess.CalledProcessError):
        return None
