"""A step of training from its recording against the same step as it is written, for methods trained by Adam.

Ten replicas of the network 1-50-50-1 with n = 200. The recording itself is not timed: it takes as long as some hundred
steps. Both ways give the same bits.

python timings/recorded.py [--device cuda] [--rounds 3] [--steps 500]
"""

from __future__ import annotations

from dataclasses import replace

from side_by_side import arguments, cost, ratio, timed
from stack import step

from gapbench.runners.suites import suites

METHODS = ("evidential", "mean_variance", "mc_dropout", "svi", "flipout", "deep_ensemble", "anchored_ensemble")


def main() -> None:
    options = arguments(__doc__, rounds=3, steps=500)
    print(f"{'method':20} {'ms as written':>14} {'ms recorded':>12} {'× faster':>9}")
    for name in METHODS:
        method = replace(suites()["all"].methods[name], steps=options.steps)
        ways = {"as written": 10**9, "recorded": 2}  # the number of the call that is recorded
        variants = {way: step(method, 10, options.device, worth) for way, worth in ways.items()}
        rounds = timed(variants, options.rounds)
        ms = [cost(rounds, way) * 1e3 for way in ("as written", "recorded")]
        print(f"{name:20} {ms[0]:14.2f} {ms[1]:12.2f} {ratio(rounds, 'as written', 'recorded'):9.2f}", flush=True)


if __name__ == "__main__":
    main()
