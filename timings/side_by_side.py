"""Variants timed side by side: every round times all of them, one after another, in one process.

So the ratios hold even if the machine's speed drifts. Medians over rounds are printed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping

import torch

from gapbench.runners.memory import keep_freed_memory

Rounds = list[dict[str, float]]


def arguments(doc: str | None, rounds: int, steps: int, oracle: bool = False, **others: str) -> argparse.Namespace:
    """The options of the command line. Sets torch to one thread, and prints the device. oracle: whether there is one.
    others: lists of numbers."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--steps", type=int, default=steps)
    for name, default in others.items():
        parser.add_argument(f"--{name}", default=default, type=lambda text: [int(one) for one in text.split(",")])
    if oracle:
        parser.add_argument("--oracle", metavar="PYTHON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "one CPU thread"
    print(f"torch {torch.__version__}, {where}; medians of {options.rounds} rounds")
    return options


def timed(variants: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """The seconds that each variant reports, in every round, after a round that does not count."""
    for run in variants.values():
        run()
    return [{name: run() for name, run in variants.items()} for _ in range(rounds)]


def cost(rounds: Rounds, name: str) -> float:
    """The median seconds of a variant."""
    return statistics.median(one[name] for one in rounds)


def ratio(rounds: Rounds, above: str, below: str) -> float:
    """The median over rounds of the ratio of two variants' seconds, `above` to `below`."""
    return statistics.median(one[above] / one[below] for one in rounds)


def synchronise(device: str) -> None:
    """Wait until the device has finished all its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
