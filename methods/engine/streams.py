"""Random streams that start from another one: for parts that must not move each other, and for libraries that draw from
torch's global streams, which stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator


def own_stream(generator: Generator) -> Generator:
    """A generator on the same device, which starts from a seed that `generator` draws."""
    return Generator(device=generator.device).manual_seed(_seed(generator))


def _seed(generator: Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


@contextmanager
def own_streams(generator: Generator) -> Iterator[None]:
    """Inside, torch's global streams start from a seed that `generator` draws; they are restored at the end."""
    device = generator.device
    seed = _seed(generator)
    apple = torch.mps.get_rng_state() if device.type == "mps" else None  # fork_rng does not know this stream
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        if apple is not None:
            torch.mps.set_rng_state(apple)
