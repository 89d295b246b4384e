"""R-hat by chance: the measurement of RHAT_CHANCE on independent draws.

The draws have no memory, so every R-hat above 1 is chance. They are f of networks (1-50-50-1) drawn from the prior, at
241 test points; and, as the worst case for any f, normal numbers at independent points. The printed number, for each
number of chains and draws: the 95 % quantile over experiments of the largest R-hat² on the grid, minus 1, in the unit
that `limit` multiplies by RHAT_CHANCE: √(2/(m − 1))/n, with m half chains of n draws.

    python timings/rhat_chance.py [--experiments 400]
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.diagnostics import RHAT_CHANCE, convergence
from gapbench.methods.engine.model import MLP

POINTS = 241


def chance(chains: int, draws: int, experiments: int, rough: bool) -> float:
    generator = torch_stream("cpu", "rhat_chance", chains, draws)
    x = GappedSine(n=2, test_points=POINTS).problems([0]).inputs[2]  # (1, M, 1)
    largest = []
    for _ in range(experiments):
        if rough:
            f = torch.randn(chains * draws, POINTS, generator=generator)
        else:
            f = MLP().mean(MLP().sample_prior(generator, (chains * draws,)), x)
        largest.append(np.nanmax(convergence(f.reshape(1, chains, draws, POINTS))["rhat"]))
    halves, each = (2 * chains, draws // 2) if chains > 1 else (4, draws // 4)
    return float(np.quantile((np.square(largest) - 1) * each / math.sqrt(2 / (halves - 1)), 0.95))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"RHAT_CHANCE = {RHAT_CHANCE:g}; {options.experiments} experiments each")
    print(f"{'chains':>6} {'draws':>6} {'networks':>9} {'independent points':>19}")
    for chains, draws in ((1, 200), (2, 100), (4, 50), (8, 25), (20, 10), (4, 500)):
        found = (chance(chains, draws, options.experiments, rough) for rough in (False, True))
        print(f"{chains:6} {draws:6} {next(found):9.1f} {next(found):19.1f}", flush=True)
