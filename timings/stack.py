"""What the stack of replicas gains over a loop of single fits, for any method with `steps` and `batch`."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.streams import torch_stream
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.model import MLP
from gapbench.runners.memory import keep_freed_memory


def fit(method: UncertaintyMethod, replicas: int, device: str) -> Callable[[], float]:
    """Seconds of fitting a stack of this many replicas."""
    x, y, _ = (part.to(device) for part in GappedSine(n=200, noise_std=0.1).problems(range(replicas)).inputs)

    def run() -> float:
        generator = torch_stream(device, "benchmark")
        started = time.perf_counter()
        method.fit(MLP(), x, y, generator)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return run


def compare(method: Any, doc: str) -> None:
    """Print the gain over a loop, in whose place one fit of one replica is timed R times over in every round."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--replicas", default="1,10,32")
    parser.add_argument("--batch", default="16,64,200")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "one CPU thread"
    print(f"torch {torch.__version__}, {where}, network 1-50-50-1; medians of {options.rounds} rounds")
    print(f"{'batch':>6} {'replicas':>9} {'ms a step':>10} {'× faster than a loop':>21}")
    for batch in map(int, options.batch.split(",")):
        small = replace(method, steps=options.steps, batch=batch, draws=1)
        single = fit(small, 1, options.device)
        stacks = {replicas: fit(small, replicas, options.device) for replicas in map(int, options.replicas.split(","))}
        single()
        gains: dict[int, list[tuple[float, float]]] = {replicas: [] for replicas in stacks}
        for stack in stacks.values():
            stack()
        for _ in range(options.rounds):
            for replicas, stack in stacks.items():
                one, together = single(), stack()
                gains[replicas].append((together, replicas * one / together))
        for replicas, measured in gains.items():
            seconds, gain = (statistics.median(column) for column in zip(*measured, strict=True))
            print(f"{batch:6} {replicas:9} {seconds / options.steps * 1e3:10.2f} {gain:21.1f}", flush=True)
