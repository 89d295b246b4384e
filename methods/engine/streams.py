"""Random streams that start from another one: for parts that must not move each other, and for libraries that draw from
torch's global streams, which stay as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    seed = _seed(generator)
    with restored(generator.device):
        torch.manual_seed(seed)
        yield


@contextmanager
def restored(device: torch.device, generators: Sequence[Generator] = ()) -> Iterator[None]:
    """At the end, torch's global streams, that of the device too, and these generators are where they were before."""
    states = [generator.get_state() for generator in generators]
    apple = torch.mps.get_rng_state() if device.type == "mps" else None  # fork_rng does not know this stream
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        if apple is not None:
            torch.mps.set_rng_state(apple)
