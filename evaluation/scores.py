"""The scores: values at every test point first, then one number for each replica and region.

Scores named _y are of p(y | x) at fresh noisy observations, those named _f of p(f | x) at the true function. There is
no NLL of f: draws have no density.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scoringrules
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from gapbench.datasets.base import Splits
from gapbench.evaluation.calibration import pit
from gapbench.evaluation.diagnostics import convergence
from gapbench.evaluation.gap import gap_ratio
from gapbench.evaluation.reference import Reference, agreement
from gapbench.methods.base import Distribution, Predictive

METRICS_VERSION = 3  # raise it whenever a score's definition changes: old runs are then scored again, not trained

Floats = NDArray[np.float64]
LEVELS = (50, 90, 95)


def mean(values: Floats) -> float:
    return float(values.mean())


def root_mean(values: Floats) -> float:
    return float(np.sqrt(values.mean()))


def largest(values: Floats) -> float:
    return float(values.max())


def smallest(values: Floats) -> float:
    return float(values.min())


@dataclass(frozen=True)
class Score:
    """What a column means.

    better: "lower", "higher", the value to be near, or None where neither is good by itself.
    unit: "y" (brought back to the data's units), "nats" or "" (a pure number).
    over_points: how the points of a region make one number. pooled: of PITs over all replicas instead.
    interval: whether a bootstrap over replicas says anything of it.
    """

    about: str
    better: Literal["lower", "higher"] | float | None
    unit: Literal["y", "nats", ""] = ""
    over_points: Callable[[Floats], float] = mean
    pooled: Literal["pit_y", "pit_f"] | None = None
    interval: bool = True

    @property
    def direction(self) -> str:
        if isinstance(self.better, float):
            return f"→ {self.better:g}"
        return {"lower": "↓", "higher": "↑", None: ""}[self.better]


def _both(quantity: Literal["y", "f"], what: str, pits: Literal["pit_y", "pit_f"]) -> dict[str, Score]:
    scores = {
        "rmse": Score(f"root mean squared error of the predicted mean, against {what}", "lower", "y", root_mean),
        "crps": Score(
            f"continuous ranked probability score of p({quantity} | x), against {what} (Matheson & Winkler 1976)",
            "lower",
            "y",
        ),
    }
    for level in LEVELS:
        scores[f"coverage_{level}"] = Score(f"how often the central {level} % interval holds {what}", level / 100)
        scores[f"interval_{level}"] = Score(
            f"interval (Winkler) score of the central {level} % interval: width, and a penalty for {what} outside it "
            "(Gneiting & Raftery 2007)",
            "lower",
            "y",
        )
    scores["calibration_error"] = Score(
        f"∫|P(u ≤ p) − p| dp of the PIT u of {what}, pooled over replicas", "lower", pooled=pits
    )
    scores["miscalibration_area"] = Score(
        "the same for centred intervals, |2u − 1|: too wide or too narrow, not biased", "lower", pooled=pits
    )
    scores["pit_distance"] = Score(
        "largest |P(u ≤ p) − p| over p, pooled over replicas: where their PITs are independent, a test (Kolmogorov)",
        "lower",
        pooled=pits,
        interval=False,  # that of a resample is larger than that of what it was drawn from
    )
    return {f"{name}_{quantity}": score for name, score in scores.items()}


SCORES: dict[str, Score] = {
    "nll_y": Score("negative log density of an observation under p(y | x)", "lower", "nats"),
    **_both("y", "an observation", "pit_y"),
    **_both("f", "the true function", "pit_f"),
    "std_f": Score("epistemic std: of f", None, "y"),
    "std_aleatoric": Score("aleatoric std: root of the expected noise variance", None, "y"),
    "std_y": Score("sharpness: std of y", None, "y"),
    "gap_ratio": Score("mean std of f in the gap over mean std of f in the data", None),
    "gap_wider": Score("share of replicas in which that ratio is above 1", None),
    "reference_w1": Score("Wasserstein distance of p(f | x) to the reference posterior's, in its stds", "lower"),
    "reference_log_std": Score(
        "log of std of f over the reference posterior's: above 0 is under-, below 0 over-confident", 0.0
    ),
    "reference_error": Score("distance of the mean of f to the reference posterior's, in its stds", "lower"),
    **{
        f"reference_{name}_floor": Score(
            f"{what} of as many draws of the reference itself: its Monte-Carlo error", None
        )
        for name, what in (
            ("w1", "reference_w1"),
            ("log_std", "|reference_log_std| at a point"),
            ("error", "reference_error"),
        )
    },
    "rhat": Score(
        "rank-normalised split R-hat of f, the largest over points (Vehtari et al. 2021); methods with chains",
        1.0,
        over_points=largest,
    ),
    "rhat_limit": Score("the R-hat up to which as many draws count as converged", None, over_points=largest),
    "ess_bulk": Score("bulk effective sample size of f, the smallest over points", "higher", over_points=smallest),
    "ess_tail": Score("tail effective sample size of f, the smallest over points", "higher", over_points=smallest),
}


def point_values(
    predictive: Predictive,
    splits: Splits,
    generator: Generator,
    references: Sequence[Reference | None] = (),
    draws: int | None = None,
) -> dict[str, Floats]:
    """Every score's value at each replica's test points, (R, M) each, and `pit_y`, `pit_f`, `mean_f` beside them.

    All on the CPU. `generator` spreads the PIT at atoms. references: one for each replica, or none at all.
    draws: what f is made of, None if it is a closed form. nan where a score is not defined: f without a known truth,
    calibration of y where the data have no noise (a probability of something certain).
    """
    scale = splits.y_scale.double().unsqueeze(1)
    uniform = torch.rand(splits.y_test.shape, generator=generator, dtype=torch.float64)
    y, f = predictive.y, predictive.f
    target = splits.y_test.double()

    of_y = _distribution_values(y, target, uniform)
    of_y["nll"] = -y.log_density(target)
    if splits.noise_test is not None:
        certain = splits.noise_test == 0
        for name in ("pit", *(f"coverage_{level}" for level in LEVELS)):
            of_y[name] = of_y[name].masked_fill(certain, torch.nan)
    values = {f"{name}_y": value for name, value in of_y.items()}

    truth = splits.f_test
    of_f = _distribution_values(f, torch.zeros_like(target) if truth is None else truth.double(), uniform)
    for name, value in of_f.items():
        values[f"{name}_f"] = value if truth is not None else torch.full_like(value, torch.nan)

    values |= {"mean_f": f.mean, "std_f": f.std, "std_y": y.std, "std_aleatoric": predictive.aleatoric_std}
    for name, value in values.items():
        if name.startswith("rmse"):
            values[name] = value * scale.square()  # squared errors, until a region's mean is taken
        elif name == "nll_y":
            values[name] = value + scale.log()
        elif name == "mean_f" or (name in SCORES and SCORES[name].unit == "y"):
            values[name] = value * scale
    result = {name: value.numpy() for name, value in values.items()}
    result |= agreement(f, references or [None] * len(target), draws)
    if predictive.chained_f is not None:
        result |= convergence(predictive.chained_f)
    return result


def undefined(shape: tuple[int, int]) -> dict[str, Floats]:
    """What `point_values` would give, all nan: for replicas none of which can be scored."""
    names = [name for name, score in SCORES.items() if score.pooled is None and not name.startswith("gap_")]
    return {name: np.full(shape, np.nan) for name in (*names, "pit_y", "pit_f", "mean_f")}


def _distribution_values(distribution: Distribution, t: Tensor, uniform: Tensor) -> dict[str, Tensor]:
    values = {
        "rmse": (distribution.mean - t).square(),
        "crps": distribution.crps(t),
        "pit": pit(distribution, t, uniform),
    }
    for level in LEVELS:
        alpha = 1 - level / 100
        low, high = distribution.quantile(alpha / 2), distribution.quantile(1 - alpha / 2)
        values[f"coverage_{level}"] = ((low <= t) & (t <= high)).double()
        score = scoringrules.interval_score(t.numpy(), low.numpy(), high.numpy(), alpha, backend="numpy")
        values[f"interval_{level}"] = torch.from_numpy(np.asarray(score))
    return values


def replica_scores(
    points: Mapping[str, Floats], regions: Mapping[str, NDArray[np.bool_]]
) -> dict[str, dict[str, Floats]]:
    """score -> region -> (R,), over "all" points and by region. nan where a region is empty or a score is not defined.

    points: (R, M) each, as `point_values` gives them. Pooled scores are not here: they need all replicas at once.
    """
    replicas = len(next(iter(points.values())))
    everywhere = {"all": np.ones_like(next(iter(regions.values()))), **regions}
    result = {
        name: {
            region: np.array(
                [score.over_points(points[name][r, mask[r]]) if mask[r].any() else np.nan for r in range(replicas)]
            )
            for region, mask in everywhere.items()
        }
        for name, score in SCORES.items()
        if name in points
    }
    ratio = gap_ratio(result["std_f"])
    result["gap_ratio"] = {"all": ratio}
    result["gap_wider"] = {"all": np.where(np.isnan(ratio), np.nan, ratio > 1)}
    return result
