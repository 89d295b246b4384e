"""What several test files need, as fixtures: test modules do not import each other (--import-mode=importlib)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Generator

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
