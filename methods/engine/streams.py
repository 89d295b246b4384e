"""Random streams of libraries that draw from torch's global ones: these stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator


@contextmanager
def own_streams(generator: Generator) -> Iterator[None]:
    """Inside, torch's global streams start from a seed that `generator` draws; they are restored at the end."""
    device = generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    apple = torch.mps.get_rng_state() if device.type == "mps" else None  # fork_rng does not know this stream
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        if apple is not None:
            torch.mps.set_rng_state(apple)
