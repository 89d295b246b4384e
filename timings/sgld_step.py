"""SGLD's cost of one step of one chain: the stock Opacus loop, one chain at a time, against the stack.

Network 1-100-100-1, batch 16, n = 1000, Poisson sampling, one thread.

    python timings/sgld_step.py [--device cuda] [--rounds 7] [--replicas 1,10,32] [--oracle PYTHON]

--oracle: the interpreter of an environment that has blackjax, whose SGLD then runs too (sgld_by_blackjax.py).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from opacus import PrivacyEngine
from side_by_side import arguments, cost, ratio, synchronise, timed
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.streams import torch_stream
from gapbench.methods.engine.minibatches import FixedSize, Poisson
from gapbench.methods.engine.model import MLP
from gapbench.methods.sgld import SGLD

MODEL = MLP(
    hidden=(100, 100), prior_std=math.sqrt(10), noise_std=math.sqrt(0.5), scale_by_fan_in=False, default_init=True
)
CLIPPING = SGLD(
    lr=0.01, batch=16, noise_multiplier=1.0, allow_clipping=True, burn_in=0, draws=1, chains=1, sampling=Poisson()
)
NO_CLIP = replace(CLIPPING, noise_multiplier=1e-3, allow_clipping=False, sampling=FixedSize())


def stock(steps: int, device: str) -> Callable[[], float]:
    """A function that runs `steps` steps of the notebook's loop and gives the seconds of one step."""
    x, y, _ = (part.to(device) for part in GappedSine().problems(range(1)).inputs)
    network = nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 1)).to(device)
    network, optimizer, loader = PrivacyEngine().make_private(
        module=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=CLIPPING.lr, weight_decay=1e-4),
        data_loader=DataLoader(TensorDataset(x[0], y[0].unsqueeze(-1)), batch_size=16),
        noise_multiplier=1.0,
        max_grad_norm=CLIPPING.max_grad_norm(1000),
    )
    loss = nn.MSELoss()

    def run() -> float:
        started, done = time.perf_counter(), 0
        while done < steps:
            for x, y in loader:
                optimizer.zero_grad()
                loss(network(x.to(device)), y.to(device)).backward()
                optimizer.step()
                done += 1
        synchronise(device)
        return (time.perf_counter() - started) / done

    return run


def ours(method: SGLD, replicas: int, steps: int, device: str) -> Callable[[], float]:
    """A function that gives the seconds of one step of one chain, in a stack of `replicas`."""
    x, y, _ = (part.to(device) for part in GappedSine().problems(range(replicas)).inputs)
    method = replace(method, thin=steps, delta=1e-5)

    def run() -> float:
        generator = torch_stream(device, "benchmark")
        started = time.perf_counter()
        draws = method.fit(MODEL, x, y, generator)
        synchronise(device)
        # ε is computed once in a fit of any length, so its time is not a part of a step.
        accounting = time.perf_counter()
        method.epsilon(1000)
        accounted = time.perf_counter() - accounting
        assert draws.theta.isfinite().all()
        return (accounting - started - accounted) / (steps * replicas)

    return run


def blackjax(python: str, replicas: int, steps: int) -> Callable[[], float]:
    """A function that gives the seconds of one step of one of blackjax's chains, on one thread."""
    problems = GappedSine().problems(range(replicas))
    setting = {
        "hidden": MODEL.hidden,
        "prior_std": MODEL.prior_std,
        "noise_std": MODEL.noise_std,
        "batch": NO_CLIP.batch,
        "step_size": NO_CLIP.lr / problems.y.shape[1],
        "steps": steps,
        "x": problems.x[..., 0].tolist(),
        "y": problems.y.tolist(),
    }
    process = subprocess.Popen(
        [python, str(Path(__file__).with_name("sgld_by_blackjax.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"},
    )
    assert process.stdin and process.stdout
    print(json.dumps(setting), file=process.stdin, flush=True)

    def run() -> float:
        print(file=process.stdin, flush=True)
        assert process.stdout
        return float(process.stdout.readline())

    return run


def normals(replicas: int, device: str) -> Callable[[], float]:
    """A function that gives a lower bound: the seconds of drawing the Langevin noise of one step of one chain."""
    buffer = torch.empty(replicas, MODEL.size, device=device)
    generator = torch_stream(device, "normals")

    def run() -> float:
        started = time.perf_counter()
        for _ in range(100):
            buffer.normal_(generator=generator)
        synchronise(device)
        return (time.perf_counter() - started) / (100 * replicas)

    return run


def shares(run: Callable[[], float]) -> None:
    """Print where the time of a run goes: the kernels that take the most of it, and the rest, which is mostly calls."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run()
    kernels = sorted(profiled.key_averages(), key=lambda one: -one.self_cpu_time_total)
    total = sum(one.self_cpu_time_total for one in kernels)
    largest = [(one.key, one.self_cpu_time_total / total) for one in kernels[:4]]
    for name, share in [*largest, (f"{len(kernels) - 4} others", 1 - sum(share for _, share in largest))]:
        print(f"  {name:42} {share:18.0%}")


def main() -> None:
    options = arguments(__doc__, rounds=7, steps=500, oracle=True, replicas="1,10,32")
    warnings.simplefilter("ignore")
    opacus = "stock Opacus loop, one chain"
    variants = {opacus: stock(options.steps, options.device)}
    for replicas in options.replicas:
        name = f"{replicas} replica{'s' if replicas > 1 else ''}"
        variants[f"SGLD with clipping, {name}"] = ours(CLIPPING, replicas, options.steps, options.device)
        variants[f"SGLD, no clip active, {name}"] = ours(NO_CLIP, replicas, options.steps, options.device)
    most = options.replicas[-1]
    variants[f"normal numbers alone, {most} replicas"] = normals(most, options.device)
    if options.oracle:
        variants |= {f"blackjax, {of} replicas": blackjax(options.oracle, of, options.steps) for of in options.replicas}
    rounds = timed(variants, options.rounds)
    print(f"{'':44} {'µs per chain-step':>18} {'× faster than stock':>20}")
    for name in variants:
        print(f"{name:44} {cost(rounds, name) * 1e6:18.1f} {ratio(rounds, opacus, name):20.1f}")
    if not options.device.startswith("cuda"):
        name = f"SGLD, no clip active, {most} replicas"
        print(f"{name}: share of each kernel")
        shares(variants[name])


if __name__ == "__main__":
    main()
