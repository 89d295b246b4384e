"""The gain of a stack of replicas over a loop of single fits, for any method with `steps` and `batch`.

Network 1-50-50-1, n = 200.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from side_by_side import arguments, cost, ratio, synchronise, timed

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.streams import torch_stream
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.model import MLP


def fit(method: UncertaintyMethod, replicas: int, device: str) -> Callable[[], float]:
    """A function that gives the seconds of fitting a stack of this many replicas."""
    x, y, _ = (part.to(device) for part in GappedSine(n=200, noise_std=0.1).problems(range(replicas)).inputs)

    def run() -> float:
        generator = torch_stream(device, "benchmark")
        started = time.perf_counter()
        method.fit(MLP(), x, y, generator)
        synchronise(device)
        return time.perf_counter() - started

    return run


def compare(method: Any, doc: str) -> None:
    """Print the gain over a loop. The loop's time is R times that of one fit of one replica in the same round."""
    options = arguments(doc, rounds=5, steps=200, replicas="1,10,32", batch="16,64,200")
    print(f"{'batch':>6} {'replicas':>9} {'ms a step':>10} {'× faster than a loop':>21}")
    for batch in options.batch:
        small = replace(method, steps=options.steps, batch=batch, draws=1)
        variants = {"a single fit": fit(small, 1, options.device)}
        variants |= {str(replicas): fit(small, replicas, options.device) for replicas in options.replicas}
        rounds = timed(variants, options.rounds)
        for replicas in options.replicas:
            seconds, gain = cost(rounds, str(replicas)), replicas * ratio(rounds, "a single fit", str(replicas))
            print(f"{batch:6} {replicas:9} {seconds / options.steps * 1e3:10.2f} {gain:21.1f}", flush=True)
