"""What a GPU gains: everything that one should show, in about ten minutes.

    python timings/gpu.py [--device cuda] [--steps 400] [--replicas 32] [--chains 1000] [--draws 100]
                          [--reference-chains 4096] [--out DIR]

1. Seconds of a fit of each method of `all` that has steps, for a stack of replicas, on the device and on one CPU
   thread. With 400 steps, half of those by Adam are replayed; `python timings/recorded.py --device cuda` times these
   steps alone.
2. The notebook's run of SGLD, 63 steps a draw, with this many chains at once.
3. A certified reference of gapped_sine_noisy with this many chains; 0 for none.
4. With --out: the default suite on the device, into DIR; `gapbench publish` takes it from there.

Without a GPU, `--device cpu` runs the same code. No GPU has been measured yet.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
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
from gapbench.methods.engine.adjusted import AdjustedSampler
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.single_model import SingleModelMethod
from gapbench.methods.validated import Validated
from gapbench.runners import make_references
from gapbench.runners.budget import has_steps
from gapbench.runners.devices import devices
from gapbench.runners.memory import keep_freed_memory
from gapbench.runners.run import run_cells
from gapbench.runners.store import Store
from gapbench.runners.suites import AS_IT_WAS, Task, select, suites

REFERENCE_DRAWS = 20  # of each chain, at first: a run that is not certified goes on


def seconds(method: UncertaintyMethod, model: Model, problems: Problems, device: str) -> float:
    """The seconds of a fit; on a GPU of the second one, since the first one also loads what the device needs."""
    x, y, _ = (part.to(device) for part in problems.inputs)
    for _ in range(1 if device == "cpu" else 2):
        synchronise(device)
        started = time.perf_counter()
        method.fit(model, x, y, torch_stream(device, "gpu"))
        synchronise(device)
    return time.perf_counter() - started


def reference(task: Task, chains: int, device: str) -> str:
    """The seconds that a reference of the first replica took, as a line."""
    method = replace(make_references.METHOD, chains=chains, draws=REFERENCE_DRAWS)
    started, outcome = time.perf_counter(), "certified"
    with tempfile.TemporaryDirectory() as folder:
        job = make_references.Task("gapped_sine_noisy", task.dataset, task.model, 0, Path(folder), device, method)
        try:
            make_references.make(job)
        except make_references.NotCertified as refused:
            outcome = f"not certified: {refused}"
    return f"a reference by {chains} chains: {time.perf_counter() - started:.0f} s, {outcome}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    usual = {"steps": 400, "replicas": 32, "chains": 1000, "draws": 100, "reference-chains": 4096}
    for name, value in usual.items():
        parser.add_argument(f"--{name}", type=int, default=value)
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
    for method_name, method in suites()["all"].methods.items():
        if not has_steps(method) or isinstance(method, AdjustedSampler | SingleModelMethod | Validated):
            continue  # these take minutes; the reference shows what a GPU gives to trajectories
        short = cut(method, small)
        there, here = (seconds(short, task.model, problems, device) for device in (options.device, "cpu"))
        print(f"{method_name:20} {there:9.2f} {here:9.2f} {here / there:6.1f}", flush=True)

    notebook = suites()["notebook_sgld"].tasks["gapped_sine_notebook"]
    chains = replace(AS_IT_WAS, chains=options.chains, draws=options.draws)
    took = seconds(chains, notebook.model, notebook.dataset.problems([0]), options.device)
    steps = chains.draws * chains.thin
    print(f"the notebook's SGLD, {steps} steps of {options.chains} chains: {took:.1f} s", flush=True)

    if options.reference_chains:
        print(reference(task, options.reference_chains, options.device), flush=True)

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
