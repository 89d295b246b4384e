"""A step of training from its recording against the same step as it is written, for methods trained by Adam.

Ten replicas on gapped_sine_noisy. The steps that are timed come after the recording, which takes the time of some
hundred; both ways give the same bits.

python timings/recorded.py [--device cuda] [--rounds 3] [--steps 500]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from side_by_side import arguments, cost, ratio, synchronise, timed

from gapbench.datasets.streams import torch_stream
from gapbench.methods.engine import recorded
from gapbench.runners.suites import suites

METHODS = ("evidential", "mean_variance", "mc_dropout", "svi", "flipout", "deep_ensemble", "anchored_ensemble")


def step(method: Any, steps: int, worth: int, device: str) -> Callable[[], float]:
    """A function that gives the seconds of one step of a fit of ten replicas."""
    task = suites()["default"].tasks["gapped_sine_noisy"]
    x, y, _ = (part.to(device) for part in task.dataset.problems(range(10)).inputs)

    def fit(steps: int) -> float:
        started = time.perf_counter()
        replace(method, steps=steps).fit(task.model, x, y, torch_stream(device, "benchmark"))
        synchronise(device)
        return time.perf_counter() - started

    def run() -> float:
        before, recorded.WORTH = recorded.WORTH, worth
        try:
            return (fit(steps + 50) - fit(50)) / steps
        finally:
            recorded.WORTH = before

    return run


def main() -> None:
    options = arguments(__doc__, rounds=3, steps=500)
    print(f"{'method':20} {'ms as written':>14} {'ms recorded':>12} {'× faster':>9}")
    for name in METHODS:
        method = suites()["all"].methods[name]
        ways = {"recorded": 2, "as written": 10**9}
        rounds = timed(
            {way: step(method, options.steps, worth, options.device) for way, worth in ways.items()}, options.rounds
        )
        ms = [cost(rounds, way) * 1e3 for way in ("as written", "recorded")]
        print(f"{name:20} {ms[0]:14.2f} {ms[1]:12.2f} {ratio(rounds, 'as written', 'recorded'):9.2f}", flush=True)


if __name__ == "__main__":
    main()
