"""The cost of every method with its default settings on gapped_sine_noisy: seconds a replica and peak memory.

Stacked: ten replicas in one fit, CPU seconds for each. Looped: a fit of one replica, which a loop would repeat. Each
fit runs in a process of its own, on one thread. The memory is that of the stack above that of the imports.

    python timings/methods.py [--device cuda] [--only sgld,svi] [--replicas 10]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time


def fit(name: str, replicas: int, device: str) -> dict[str, float]:
    """The seconds of a fit and prediction, and its peak memory in MiB."""
    import torch

    from gapbench.datasets.streams import torch_stream
    from gapbench.runners.memory import keep_freed_memory
    from gapbench.runners.suites import suites

    torch.set_num_threads(1)
    keep_freed_memory()
    cuda = device.startswith("cuda")
    task = suites()["default"].tasks["gapped_sine_noisy"]
    x, y, x_test = (part.to(device) for part in task.dataset.problems(range(replicas)).inputs)
    method = suites()["all"].methods[name]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    spent = time.process_time()
    method.fit(task.model, x, y, torch_stream(device, "benchmark"))(x_test)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started if cuda else time.process_time() - spent
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    return {"seconds": seconds, "memory": torch.cuda.max_memory_allocated() / 2**20 if cuda else memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--replicas", type=int, default=10)
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "REPLICAS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(fit(options.one[0], int(options.one[1]), options.device)))
        return
    import torch

    from gapbench.runners.suites import suites

    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "one CPU thread"
    print(f"torch {torch.__version__}, {where}; seconds a replica")
    print(f"{'method':20} {'stacked':>9} {'looped':>9} {'gain':>7} {'memory':>12}")
    for name in options.only or suites()["all"].methods:
        command = [sys.executable, __file__, "--device", options.device, "--one", name]
        stacked, looped = (
            json.loads(
                subprocess.run([*command, str(replicas)], capture_output=True, text=True, check=True)
                .stdout.strip()
                .splitlines()[-1]
            )
            for replicas in (options.replicas, 1)
        )
        each = stacked["seconds"] / options.replicas
        gain = looped["seconds"] / each
        print(f"{name:20} {each:9.2f} {looped['seconds']:9.2f} {gain:6.1f}× {stacked['memory']:8.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
