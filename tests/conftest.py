"""What several test files need, as fixtures: test modules do not import each other (--import-mode=importlib)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator

from gapbench.runners import run, workers

torch.set_num_threads(1)  # the tests' tensors are small: threads would only wait for each other


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they need to be, whatever terminal or runner these tests are in."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def seeded() -> Callable[[int], Generator]:
    """Seed -> a torch generator of its own; nothing here touches the global ones."""
    return lambda seed: torch.Generator().manual_seed(seed)


@pytest.fixture
def own_randomness() -> Iterator[None]:
    """The stock libraries under comparison draw from torch's global stream: fix it, and put it back."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def here() -> Callable[..., Iterator[workers.Ended[Any]]]:
    """`workers.run_all` without child processes, which test_workers.py and test_open.py have."""

    def run_all(
        work: Callable[[Any, workers.Tell], Any],
        jobs: deque[Any],
        limit: int,
        tell: Callable[[Any, Any], None],
        limits: workers.Limits,
    ) -> Iterator[workers.Ended[Any]]:
        while jobs:
            job = jobs.popleft()
            yield workers.Ended(job, work(job, partial(tell, job)))

    return run_all


@pytest.fixture
def in_this_process(here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs have no child processes, and do not wait for the disk."""
    monkeypatch.setattr(run, "run_all", here)
    monkeypatch.setattr(workers, "start_server", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and have their files, which are empty: to paint them takes seconds."""
    monkeypatch.setattr("gapbench.evaluation.plots._bytes", lambda *_: b"")


@pytest.fixture
def session() -> Callable[[int], set[int]]:
    """Leader -> the processes of its session, but for those that have ended and wait to be asked after."""

    def of(leader: int) -> set[int]:
        found = set()
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
                if int(session) == leader and state != "Z":
                    found.add(int(path.parent.name))
        return found

    return of
