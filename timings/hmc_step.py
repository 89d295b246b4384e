"""HMC's cost of one leapfrog step of one chain: the stack against the bare matrix products in it, and against Pyro.

Network 1-50-50-1, n = 200, 10 replicas of 8 chains, one thread. The lower bound is the time of the hidden layer's three
products (forward, backward, gradient), for the same number of chains, in blocks of the same size.

    python timings/hmc_step.py [--device cuda] [--rounds 7]
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import HMC as PyroHMC
from pyro.infer import MCMC
from side_by_side import arguments, cost, ratio, synchronise, timed

from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.streams import torch_stream
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.target import AllParameters
from gapbench.methods.hmc import leapfrog

MODEL, STEP, BLOCK = MLP(), 1e-4, 24


def ours(replicas: int, chains: int, steps: int, device: str) -> Callable[[], float]:
    """A function that gives the seconds of one step of one chain."""
    x, y, _ = (part.to(device) for part in GappedSine(n=200, noise_std=0.1).problems(range(replicas)).inputs)
    generator = torch_stream(device, "benchmark")
    target, inputs = AllParameters(MODEL), (x.unsqueeze(1), y.unsqueeze(1))
    point = target.at(MODEL.sample_prior(generator, (replicas, chains)), *inputs)
    momentum = torch.randn(point.q.shape, generator=generator, device=device)
    size = torch.full((replicas, chains), STEP, device=device, dtype=torch.float64)
    number = torch.full((replicas, chains), steps, device=device)

    def run() -> float:
        started = time.perf_counter()
        leapfrog(target, point, momentum, *inputs, size, number)
        synchronise(device)
        return (time.perf_counter() - started) / (steps * replicas * chains)

    return run


def floor(chains: int, steps: int, device: str) -> Callable[[], float]:
    """A function that gives the seconds of the hidden layer's three products, with all memory allocated beforehand."""
    together = chains if device.startswith("cuda") else BLOCK
    a, weight = torch.randn(together, 200, 50, device=device), torch.randn(together, 50, 50, device=device)
    forward, backward, gradient = torch.empty_like(a), torch.empty_like(a), torch.empty_like(weight)

    def run() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            torch.bmm(a, weight, out=forward)
            torch.bmm(forward, weight.mT, out=backward)
            torch.bmm(a.mT, backward, out=gradient)
        synchronise(device)
        return (time.perf_counter() - started) / (steps * together)

    return run


def stock(steps: int) -> Callable[[], float]:
    """A function that gives the seconds of one step of Pyro's HMC kernel, for one chain, on the CPU."""
    x, y, _ = GappedSine(n=200, noise_std=0.1).problems(range(1)).inputs

    def program() -> None:
        with pyro.plate("parameters", MODEL.size):
            theta = pyro.sample("theta", dist.Normal(0.0, MODEL.prior_std))
        with pyro.plate("data", 200):
            pyro.sample("y", dist.Normal(MODEL.mean(theta, x[0]), MODEL.noise_std), obs=y[0])

    def run() -> float:
        kernel = PyroHMC(program, step_size=STEP, num_steps=steps, adapt_step_size=False, adapt_mass_matrix=False)
        sampler = MCMC(kernel, num_samples=2, warmup_steps=0, disable_progbar=True)
        started = time.perf_counter()
        sampler.run()
        return (time.perf_counter() - started) / (2 * steps)

    return run


def main() -> None:
    options = arguments(__doc__, rounds=7, steps=100)
    torch.manual_seed(0)  # Pyro's kernel has no generator of its own
    variants = {
        "matrix products alone": floor(80, options.steps, options.device),
        "gapbench, 1 replica of 8 chains": ours(1, 8, options.steps, options.device),
        "gapbench, 10 replicas of 8 chains": ours(10, 8, options.steps, options.device),
        "Pyro's HMC kernel, one chain": stock(options.steps),
    }
    rounds = timed(variants, options.rounds)
    products, *_, pyros = variants
    print(f"{'':36} {'µs per chain-step':>18} {'× the products':>15} {'× faster than Pyro':>19}")
    for name in variants:
        above, gain = ratio(rounds, name, products), ratio(rounds, pyros, name)
        print(f"{name:36} {cost(rounds, name) * 1e6:18.1f} {above:15.1f} {gain:19.1f}")


if __name__ == "__main__":
    main()
