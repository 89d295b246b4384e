"""Peak memory of a whole fit and prediction at 10 and at 100 replicas, each in a process of its own.

python timings/memory.py [--device cuda]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

METHODS = ("mc_dropout", "sgld", "svi")


def peak(name: str, replicas: int, device: str) -> float:
    """The peak memory of a fit and prediction, in MiB. On the CPU, the memory of the imports is subtracted."""
    import torch

    from gapbench.datasets.gapped_sine import GappedSine
    from gapbench.datasets.streams import torch_stream
    from gapbench.methods.engine.model import MLP
    from gapbench.methods.registry import methods
    from gapbench.runners.suites import shrunk

    torch.set_num_threads(1)
    method = shrunk(methods()[name]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    x, y, x_test = (part.to(device) for part in GappedSine(n=200, noise_std=0.1).problems(range(replicas)).inputs)
    method.fit(MLP(), x, y, torch_stream(device, "benchmark"))(x_test)
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "REPLICAS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(peak(options.one[0], int(options.one[1]), options.device))
        return
    print(f"{'method':12} {'10 replicas':>14} {'100 replicas':>14} {'growth':>8}")
    for name in METHODS:
        few, many = (
            float(
                subprocess.run(
                    [sys.executable, __file__, "--device", options.device, "--one", name, str(replicas)],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.split()[-1]
            )
            for replicas in (10, 100)
        )
        print(f"{name:12} {few:10.0f} MiB {many:10.0f} MiB {many / few:7.1f}×", flush=True)


if __name__ == "__main__":
    main()
