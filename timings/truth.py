"""The cost of the truth: CPU seconds, floating-point operations and full gradients for one effective draw.

One replica of gapped_sine_noisy, one thread. HMC, MAMS and MCLMC, on all parameters and with the output layer
integrated out; and MAMS with moves to draws of the prior, of which each counts as a gradient. For g = f, f²,
1{f ≤ 5 % quantile} and 1{f ≤ 95 % quantile} of the reference, the effective number of draws is Var(g) / MCSE², with
MCSE that of the mean of E[g | draw]; the worst g and grid point count. Burn-in is told apart. The operations are those
of matrix products.

    python timings/truth.py [--draws 100] [--only collapsed] [--oracle PYTHON]

--oracle: the interpreter of an environment that has blackjax, whose NUTS and MAMS then run on the posterior of all
parameters (truth_by_blackjax.py).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.reference_file import Reference, find
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.model import Model
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
    hmc, mams = HMC(draws=draws, thin=1), MAMS(jitter=0.9, acceptance=0.7, draws=draws, thin=1)
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


def flop_of_gradient(method: UncertaintyMethod, model: Model, x: Tensor, y: Tensor) -> float:
    """10⁹ operations for a full gradient, counted in a short fit: counting takes many times as long as computing."""
    short = replace(method, burn_in=10, draws=1, thin=1)  # type: ignore[call-arg]
    with FlopCounterMode(display=False) as counter:
        fit = short.fit(model, x, y, torch_stream("cpu", "flop"))
    return counter.get_total_flops() / 1e9 / (float(fit.diagnostics["gradient evaluations"][0]) / y.shape[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--only", default="", help="samplers whose name has this in it")
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
        spent = []
        for one in (replace(method, draws=1, thin=1), method):
            started = time.process_time()
            fit = one.fit(task.model, x, y, torch_stream("cpu", "truth", name))
            cpu = time.process_time() - started
            spent.append({"cpu": cpu, "gradients": float(fit.diagnostics["gradient evaluations"][0]) / n})
        prediction = fit(x_test[:, ::EVERY])
        assert isinstance(prediction, MixturePrediction) and prediction.chained_f is not None
        mean = prediction.chained_f[0].double().numpy()
        std = np.zeros_like(mean) if prediction.chained_std is None else prediction.chained_std[0].double().numpy()
        costs = {what: spent[1][what] - spent[0][what] for what in spent[0]}
        costs["flop"] = costs["gradients"] * flop_of_gradient(method, task.model, x, y)
        show(name, mean, std, reference, costs, spent[0]["gradients"])
    if options.oracle:
        told = {
            "x": x[0, :, 0].tolist(),
            "y": y[0].tolist(),
            "x_test": x_test[0, ::EVERY, 0].tolist(),
            "hidden": task.model.hidden,
            "prior_std": task.model.prior_std,
            "noise_std": task.model.noise_std,
            "burn_in": 200,
            "chains": 4,
            "draws": 2 * options.draws,
            "steps": 30,  # of a trajectory of MAMS
        }
        script = Path(__file__).with_name("truth_by_blackjax.py")
        one_thread = {**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
        ran = subprocess.run(
            [options.oracle, script], input=json.dumps(told), capture_output=True, text=True, env=one_thread
        )
        if ran.returncode:
            sys.exit(f"{options.oracle} {script}: {ran.stderr.strip().splitlines()[-1]}")
        for one in map(json.loads, ran.stdout.splitlines()):
            mean = np.array(one["f"])
            costs = {name: one["draws"][name] for name in ("cpu", "gradients")}
            show(one["name"], mean, np.zeros_like(mean), reference, costs, one["burn_in"]["gradients"])


def show(
    name: str, mean: Floats, std: Floats, reference: Reference, costs: Mapping[str, float], burn_in: float
) -> None:
    """Print a line. costs: of the draws: "cpu" seconds, "flop" (10⁹) where they are counted, full "gradients"."""
    count = effective(mean, std, reference)
    z = np.random.default_rng(0).standard_normal((*mean.shape[:2], 1))
    rhat = array_stats.rhat(mean + std * z, method="rank", chain_axis=0, draw_axis=1).max()
    flop = f"{costs['flop'] / count:9.2f}" if "flop" in costs else f"{'':9}"
    each = f"{costs['cpu'] / count:9.3f} {flop} {costs['gradients'] / count:14.0f}"
    print(f"{name:26} {count:9.0f} {each} {burn_in:10.0f} {rhat:10.3f}", flush=True)


if __name__ == "__main__":
    main()
