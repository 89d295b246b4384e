"""Seconds to score one cell: the present scores against the earlier ones, side by side in one process.

Earlier: CRPS over all pairs of components (scoringrules), each quantile by 50 halvings, R-hat and ESS at every test
point. 10 replicas of 200 draws at 241 points, medians over rounds; and one replica of 4,000 draws, where the earlier
CRPS is timed at a few points and scaled up. One thread. The largest relative difference of the scores is printed too.

    python timings/scoring.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import scoringrules
import torch
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from torch import Tensor

from gapbench.datasets.base import Problems
from gapbench.datasets.streams import stream, torch_stream
from gapbench.evaluation.agreement import agreement
from gapbench.evaluation.calibration import pit
from gapbench.evaluation.diagnostics import convergence
from gapbench.evaluation.reference_file import Reference, find
from gapbench.evaluation.scores import LEVELS, interval, point_values
from gapbench.methods.engine.distributions import NormalMixture
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.runners.memory import keep_freed_memory
from gapbench.runners.suites import suites

Floats = NDArray[np.float64]
ENDS = [end for level in LEVELS for end in interval(level)]


def posterior(replicas: int, number: int) -> tuple[MixturePrediction, Problems, list[Reference]]:
    """A prediction by `number` draws of the shipped references in 8 chains, with its problems and these references."""
    task = suites()["default"].tasks["gapped_sine_noisy"]
    problems = task.dataset.problems(range(replicas))
    references = [found for r in range(replicas) if (found := find(problems, r, task.model)) is not None]
    random = stream("benchmark")
    f = np.stack([random.permuted(reference.f.draws(number), axis=0) for reference in references])  # (R, S, M)
    assert isinstance(task.model, MLP) and isinstance(task.model.noise_std, float)
    noise = torch.tensor(task.model.noise_std)
    prediction = MixturePrediction(torch.from_numpy(f).float(), 0 * noise, noise, 8)
    return prediction, problems, references


# The earlier scores


def crps_before(of: NormalMixture, t: Tensor) -> Floats:
    """The CRPS over all pairs of components, in chunks that fit into a cache. Draws: scoringrules' own estimator."""
    location = of.location.movedim(1, -1).reshape(-1, of.location.shape[1]).numpy()
    scale = of.scale.expand(of.location.shape).movedim(1, -1).reshape(location.shape).numpy()
    target = t.reshape(-1).numpy()
    if not scale.any():
        return np.asarray(scoringrules.crps_ensemble(target, location, estimator="qd", backend="numpy"))
    points = max(1, 2**18 // location.shape[1] ** 2)
    pieces = (slice(k, k + points) for k in range(0, len(target), points))
    values = [scoringrules.crps_mixnorm(target[i], location[i], scale[i], backend="numpy") for i in pieces]
    return np.concatenate(values)


def quantile_before(of: NormalMixture, p: float) -> Tensor:
    """The quantile by 50 halvings of the range of the components' quantiles. Draws: by rank."""
    if not of.scale.any():
        return of.quantiles([p])[:, 0]
    each: Tensor = of.location + torch.special.ndtri(torch.tensor(p, dtype=torch.float64)) * of.scale
    low: Tensor = each.amin(1)
    high: Tensor = each.amax(1)
    low = low - 1e-9 * (1 + low.abs())
    for _ in range(50):
        middle = (low + high) / 2
        above = of.cdf(middle) >= p
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high


def convergence_before(chained: Tensor) -> dict[str, Floats]:
    f, axes = chained.double().numpy(), {"chain_axis": 1, "draw_axis": 2}
    return {
        "rhat": array_stats.rhat(f, method="rank", **axes),
        "ess_bulk": array_stats.ess(f, method="bulk", **axes),
        "ess_tail": array_stats.ess(f, method="tail", prob=(0.05, 0.95), **axes),
    }


def both(prediction: MixturePrediction, problems: Problems) -> list[tuple[NormalMixture, Tensor]]:
    """The pairs (distribution, target) of y and of f."""
    assert problems.f_test is not None
    return [(prediction.y, problems.y_test.double()), (prediction.f, problems.f_test.double())]


def whole_before(prediction: MixturePrediction, problems: Problems, references: list[Reference]) -> dict[str, Floats]:
    """The values that `point_values` gave before, without those that take no time."""
    uniform = torch.rand(problems.y_test.shape, dtype=torch.float64, generator=torch_stream("cpu", "benchmark"))
    found: dict[str, Floats] = {}
    for name, (of, t) in zip("yf", both(prediction, problems), strict=True):
        found |= {f"crps_{name}": crps_before(of, t).reshape(t.shape), f"pit_{name}": pit(of, t, uniform).numpy()}
        for level in LEVELS:
            low, high = (quantile_before(of, end) for end in interval(level))
            outside = (low - t).clamp(min=0) + (t - high).clamp(min=0)
            found[f"interval_{level}_{name}"] = (high - low + 2 / (1 - level / 100) * outside).numpy()
    found["nll_y"] = -prediction.y.log_density(problems.y_test.double()).numpy()
    found |= agreement(prediction.f, references)
    assert prediction.chained_f is not None
    return found | convergence_before(prediction.chained_f)


# The comparison


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(name: str, before: Callable[[], object], now: Callable[[], object], rounds: int, scale: float = 1) -> None:
    """Print one line of the comparison. scale: the work of `now` divided by that of `before`."""
    pairs = [(scale * seconds(before), seconds(now)) for _ in range(rounds)]
    old, new = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{name:26} {old:9.2f} s {new:9.2f} s {old / new:8.1f} ×", flush=True)


def difference(before: Mapping[str, Floats], now: Mapping[str, Floats]) -> float:
    """The largest difference between values that both have, in units of each score's mean size."""
    found = 0.0
    for name in before.keys() & now.keys():
        there = np.isfinite(before[name]) & np.isfinite(now[name])
        if there.any():
            gap = np.abs(before[name] - now[name])[there].max()
            found = max(found, float(gap / np.abs(before[name][there]).mean()))
    return found


def cell(rounds: int) -> None:
    prediction, problems, references = posterior(10, 200)
    chained = prediction.chained_f
    assert chained is not None

    def fresh() -> MixturePrediction:
        """The prediction without cached values, such as its sorted draws."""
        return replace(prediction)

    def now() -> dict[str, Floats]:
        return point_values(fresh(), problems, torch_stream("cpu", "benchmark"), references)

    def before() -> dict[str, Floats]:
        return whole_before(fresh(), problems, references)

    print(f"{'10 × 200 × 241':26} {'before':>11} {'now':>11}")
    compare(
        "CRPS of y and f",
        lambda: [crps_before(of, t) for of, t in both(fresh(), problems)],
        lambda: [of.crps(t) for of, t in both(fresh(), problems)],
        rounds,
    )
    compare(
        "quantiles of y and f",
        lambda: [quantile_before(of, p) for of, _ in both(fresh(), problems) for p in ENDS],
        lambda: [of.quantiles(ENDS) for of, _ in both(fresh(), problems)],
        rounds,
    )
    compare("R-hat and ESS", lambda: convergence_before(chained), lambda: convergence(chained), rounds)
    compare("everything", before, now, rounds)
    print(f"largest difference, of a score's size: {difference(before(), now()):.1g}\n")


def many_draws() -> None:
    prediction, problems, _ = posterior(1, 4000)
    few = slice(0, None, 24)
    some = NormalMixture(prediction.y.location[..., few], prediction.y.scale)
    target = problems.y_test.double()
    share = target.shape[1] / some.location.shape[2]
    print(f"{'1 × 4000 × 241':26} {'before':>11} {'now':>11}")
    compare("CRPS of y", lambda: crps_before(some, target[:, few]), lambda: prediction.y.crps(target), 1, share)
    print(
        f"{'everything':26} {'':11} {seconds(lambda: point_values(prediction, problems, torch_stream('cpu'))):9.2f} s"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"torch {torch.__version__}, one CPU thread; medians of {options.rounds} rounds")
    cell(options.rounds)
    many_draws()
