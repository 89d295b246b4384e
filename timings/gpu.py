"""What a GPU gains: everything that one should show, in about ten minutes. Medians of rounds in one run.

    python timings/gpu.py [--device cuda] [--steps 200] [--replicas 32] [--chains 1000] [--draws 100] [--out DIR]

1. Seconds of a fit of each method that has steps, for a stack of replicas, on the device and on one CPU thread.
2. The notebook's run of SGLD, 63 steps a draw, with this many chains at once.
3. With --out: the default suite on the device, into DIR; `gapbench publish` takes it from there.

Without a GPU, `--device cpu` runs the same code. No GPU has been measured yet.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from side_by_side import synchronise

from gapbench.datasets.base import Problems
from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.conformance import cut
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.model import Model
from gapbench.runners.devices import devices
from gapbench.runners.memory import keep_freed_memory
from gapbench.runners.run import run_cells
from gapbench.runners.store import Store
from gapbench.runners.suites import AS_IT_WAS, select, suites


def seconds(method: UncertaintyMethod, model: Model, problems: Problems, device: str) -> float:
    """The seconds of the second fit: the first one also loads what the device needs."""
    x, y, _ = (part.to(device) for part in problems.inputs)
    for _ in range(2):
        synchronise(device)
        started = time.perf_counter()
        method.fit(model, x, y, torch_stream(device, "gpu"))
        synchronise(device)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    for name, default in (("steps", 200), ("replicas", 32), ("chains", 1000), ("draws", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    on_gpu = options.device.startswith("cuda")
    name = torch.cuda.get_device_name(options.device) if on_gpu else f"CPU ({platform.machine()})"
    print(f"{name}, torch {torch.__version__}; {options.replicas} replicas, {options.steps} steps")

    default = suites()["default"]
    task = default.tasks["gapped_sine_noisy"]
    problems = task.dataset.problems(range(options.replicas))
    small = {"steps": options.steps, "burn_in": options.steps, "adam_steps": options.steps, "draws": 10, "thin": 1}
    print(f"{'method':20} {'device s':>9} {'CPU s':>9} {'gain':>6}")
    for method_name, method in default.methods.items():
        short = cut(method, small)
        there, here = (seconds(short, task.model, problems, device) for device in (options.device, "cpu"))
        print(f"{method_name:20} {there:9.2f} {here:9.2f} {here / there:6.1f}", flush=True)

    notebook = suites()["notebook_sgld"].tasks["gapped_sine_notebook"]
    chains = replace(AS_IT_WAS, chains=options.chains, draws=options.draws)
    took = seconds(chains, notebook.model, notebook.dataset.problems([0]), options.device)
    steps = chains.draws * chains.thin
    print(f"the notebook's SGLD, {steps} steps of {options.chains} chains: {took:.1f} s", flush=True)

    if options.out:
        store = Store(options.out.absolute())
        store.prepare()
        started = time.perf_counter()
        cells = select(default).cells(default.replicas, 0, default.block)
        done = run_cells(cells, store, devices(options.device, 1, 1), Console(stderr=True))
        failed = sum(outcome.failed for outcome in done)
        print(f"the default suite: {time.perf_counter() - started:.0f} s, {failed} of {len(done)} cells failed")


if __name__ == "__main__":
    main()
