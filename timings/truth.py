"""The cost of the truth: CPU seconds, floating-point operations and full gradients for one effective draw.

One replica of gapped_sine_noisy, one thread. HMC, MAMS and MCLMC, on all parameters and with the output layer
integrated out; and MAMS with moves to draws of the prior, of which each counts as a gradient. For g = f, f²,
1{f ≤ 5 % quantile} and 1{f ≤ 95 % quantile} of the reference, the effective number of draws is Var(g) / MCSE², with
MCSE that of the mean of E[g | draw]; the worst g and grid point count. Burn-in is told apart. The operations are those
of matrix products.

    python timings/truth.py [--draws 100] [--only collapsed] [--oracle PYTHON]

--oracle: the interpreter of an environment that has blackjax, whose NUTS then runs on the posterior of all parameters.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from scipy.special import ndtr
from torch.utils.flop_counter import FlopCounterMode

from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.reference_file import Reference, find
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.hmc import HMC
from gapbench.methods.mams import MAMS
from gapbench.methods.mclmc import MCLMC
from gapbench.runners.memory import keep_freed_memory
from gapbench.runners.suites import suites

Floats = NDArray[np.float64]
EVERY = 4  # grid points between those that are looked at


def variants(draws: int) -> Mapping[str, UncertaintyMethod]:
    """The samplers, each with as many draws a chain. MCLMC of all parameters starts at optima."""
    hmc, mams = HMC(draws=draws, thin=1), MAMS(jitter=0.9, acceptance=0.7, draws=draws)
    mclmc = MCLMC(draws=draws, thin=10)
    return {
        "HMC": hmc,
        "HMC, collapsed": replace(hmc, collapse=True),
        "MAMS, collapsed": mams,
        "MAMS and prior, collapsed": replace(mams, proposals=64),
        "MCLMC": replace(mclmc, collapse=False, adam_steps=2000, burn_in=2000),
        "MCLMC, collapsed": mclmc,
    }


def effective(mean: Floats, std: Floats, reference: Reference) -> float:
    """The smallest effective number of draws over g and points. mean, std: of f given each draw, (chains, draws, M)."""
    low, high = reference.f.at(np.array([-1.6449, 1.6449]))[:, ::EVERY]
    centred, variance = mean - reference.mean[::EVERY], reference.std[::EVERY] ** 2
    law = reference.f.draws(2000)[:, ::EVERY] - reference.mean[::EVERY]
    with np.errstate(divide="ignore", invalid="ignore"):
        below = [ndtr(np.where(std > 0, (q - mean) / std, np.where(q >= mean, np.inf, -np.inf))) for q in (low, high)]
    each = (
        (centred, variance),
        (centred**2 + std**2, (law**2).var(0)),
        (below[0], 0.05 * 0.95),
        (below[1], 0.05 * 0.95),
    )
    found = [whole / array_stats.mcse(g, method="mean", chain_axis=0, draw_axis=1) ** 2 for g, whole in each]
    return float(np.min(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--only", default="", help="samplers whose name has this in it; HMC takes half an hour")
    parser.add_argument("--oracle", help="an interpreter with blackjax")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    task = suites()["default"].tasks["gapped_sine_noisy"]
    problems = task.dataset.problems([0])
    reference = find(problems, 0, task.model)
    assert reference is not None
    x, y, x_test = problems.inputs
    n = y.shape[1]
    print(f"torch {torch.__version__}, one CPU thread, {options.draws} draws a chain; an effective draw costs")
    heads = ("effective", "CPU s", "10⁹ FLOP", "full gradients", "of burn-in", "R-hat of f")
    print(f"{'':26} " + " ".join(f"{head:>{max(9, len(head))}}" for head in heads))
    for name, method in variants(options.draws).items():
        if options.only not in name:
            continue
        burn_in = replace(method, draws=1, thin=1)
        spent = []
        for one in (burn_in, method):
            started = time.process_time()
            with FlopCounterMode(display=False) as counter:
                fit = one.fit(task.model, x, y, torch_stream("cpu", "truth", name))
            gradients = float(fit.diagnostics["gradient evaluations"][0]) / n
            spent.append((time.process_time() - started, counter.get_total_flops() / 1e9, gradients))
        prediction = fit(x_test[:, ::EVERY])
        assert isinstance(prediction, MixturePrediction) and prediction.chained_f is not None
        mean = prediction.chained_f[0].double().numpy()
        std = np.zeros_like(mean) if prediction.chained_std is None else prediction.chained_std[0].double().numpy()
        z = np.random.default_rng(0).standard_normal((*mean.shape[:2], 1))
        rhat = array_stats.rhat(mean + std * z, method="rank", chain_axis=0, draw_axis=1).max()
        count = effective(mean, std, reference)
        costs = [(whole - start) / count for start, whole in zip(*spent, strict=True)]
        row = f"{count:9.0f} {costs[0]:9.3f} {costs[1]:9.2f} {costs[2]:14.0f} {spent[0][2]:10.0f} {rhat:10.3f}"
        print(f"{name:26} {row}", flush=True)
    if options.oracle:
        told = subprocess.run(
            [options.oracle, "-c", ORACLE], input=json.dumps(_plain(x, y)), capture_output=True, text=True
        )
        print(told.stdout if told.returncode == 0 else f"{options.oracle}: {told.stderr.strip().splitlines()[-1]}")


def _plain(x: torch.Tensor, y: torch.Tensor) -> dict[str, list[float]]:
    return {"x": x[0, :, 0].tolist(), "y": y[0].tolist()}


ORACLE = """
import json, sys, time
import blackjax, jax, jax.numpy as jnp
data = {name: jnp.array(values) for name, values in json.load(sys.stdin).items()}
sizes = [(1, 50), (50, 50), (50, 1)]
def network(theta):
    h, at = data["x"][:, None], 0
    for layer, (m, n) in enumerate(sizes):
        w = theta[at:at + m * n].reshape(m, n); at += m * n
        h = h @ w / m ** 0.5 + theta[at:at + n]; at += n
        h = jax.nn.relu(h) if layer < 2 else h
    return h[:, 0]
def log_density(theta):
    return -0.25 * (theta ** 2).sum() - 0.5 * (((data["y"] - network(theta)) / 0.1) ** 2).sum()
size = sum((m + 1) * n for m, n in sizes)
key = jax.random.key(0)
start = 2 ** 0.5 * jax.random.normal(key, (size,))
began = time.process_time()
warm = blackjax.window_adaptation(blackjax.nuts, log_density, is_mass_matrix_diagonal=True)
(state, parameters), _ = warm.run(key, start, num_steps=200)
step = jax.jit(blackjax.nuts(log_density, **parameters).step)
warmed = time.process_time()
gradients, draws = 0, 50
for one in jax.random.split(key, draws):
    state, info = step(one, state)
    gradients += int(info.num_integration_steps)
print(f"blackjax {blackjax.__version__}, NUTS, one chain: {gradients / draws:.0f} gradients and "
      f"{(time.process_time() - warmed) / draws:.2f} CPU s a draw, {warmed - began:.0f} CPU s of warm-up")
"""


if __name__ == "__main__":
    main()
