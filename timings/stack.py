"""The gain of a stack of replicas over a loop of single fits, for any method with `steps` and `batch`.

Network 1-50-50-1, n = 200.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

from side_by_side import arguments, cost, ratio, synchronise, timed
from torch import Tensor

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.streams import torch_stream
from gapbench.methods.engine import recorded
from gapbench.methods.engine.model import MLP

FIRST = 10  # steps that do not count; the recording is among them


def step(method: Any, replicas: int, device: str, worth: int = 2) -> Callable[[], float]:
    """A function that gives the seconds of one step of fitting a stack of this many replicas.

    The method has `steps`, by Adam. worth: the number of the call that is recorded (engine/recorded.py).
    """
    x, y, _ = (part.to(device) for part in GappedSine(n=200, noise_std=0.1).problems(range(replicas)).inputs)
    replaying = recorded.Recorded.__call__

    def run() -> float:
        started: list[float] = []

        def call(self: recorded.Recorded, *inputs: Tensor) -> tuple[Tensor, ...]:
            if len(started) in (FIRST, FIRST + method.steps):
                synchronise(device)
            started.append(time.perf_counter())
            return replaying(self, *inputs)

        with mock.patch.object(recorded.Recorded, "__call__", call), mock.patch.object(recorded, "WORTH", worth):
            replace(method, steps=FIRST + method.steps + 1).fit(MLP(), x, y, torch_stream(device, "benchmark"))
        return (started[FIRST + method.steps] - started[FIRST]) / method.steps

    return run


def compare(method: Any, doc: str) -> None:
    """Print the gain over a loop. The loop's time is R times that of one fit of one replica in the same round."""
    options = arguments(doc, rounds=5, steps=200, replicas="1,10,32", batch="16,64,200")
    print(f"{'batch':>6} {'replicas':>9} {'ms a step':>10} {'× faster than a loop':>21}")
    for batch in options.batch:
        small = replace(method, steps=options.steps, batch=batch, draws=1)
        variants = {"a single fit": step(small, 1, options.device)}
        variants |= {str(replicas): step(small, replicas, options.device) for replicas in options.replicas}
        rounds = timed(variants, options.rounds)
        for replicas in options.replicas:
            seconds, gain = cost(rounds, str(replicas)), replicas * ratio(rounds, "a single fit", str(replicas))
            print(f"{batch:6} {replicas:9} {seconds * 1e3:10.2f} {gain:21.1f}", flush=True)
