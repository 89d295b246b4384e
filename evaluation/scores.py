"""The scores: a value at every test point first, then one number for each replica and region.

Scores named _y judge p(y | x) at fresh noisy observations. Scores named _f judge p(f | x) at the true function. The
NLL of f does not exist: draws have no density. To add a score, add one object to `ALL`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from gapbench.datasets.base import Problems
from gapbench.evaluation.agreement import agreement
from gapbench.evaluation.calibration import calibration_error, miscalibration_area, pit, pit_ks
from gapbench.evaluation.diagnostics import component_convergence, convergence
from gapbench.evaluation.gap import gap_ratio, gap_wider
from gapbench.evaluation.reference_file import Reference
from gapbench.methods.engine.distributions import Distribution, HasCdf, HasDensity, HasQuantiles
from gapbench.methods.engine.predictions import Prediction

METRICS_VERSION = 5  # raise it if a score's definition changes: old runs are then scored again, not trained again

Floats = NDArray[np.float64]
LEVELS = (50, 90, 95)  # of central intervals, in percent
CURVES = (5, 25, 50, 75, 95)  # the quantiles that figures show, in percent


@dataclass(frozen=True)
class Quantity:
    """A quantity, f or y: its predicted distribution and its target. (R, M) each, float64, units of the data.

    target: None if the truth is not known. certain: True for targets without noise, whose frequencies mean nothing.
    uniform: random numbers that spread a PIT over a jump.
    """

    distribution: Distribution
    target: Tensor | None
    certain: Tensor
    uniform: Tensor

    def quantile(self, p: float) -> Tensor:
        """The p-quantile of a distribution that HasQuantiles. Quantiles of shipped scores are computed once."""
        if p in self._quantiles:
            return self._quantiles[p]
        assert isinstance(self.distribution, HasQuantiles)
        return self.distribution.quantiles([p])[:, 0]

    @cached_property
    def _quantiles(self) -> dict[float, Tensor]:
        assert isinstance(self.distribution, HasQuantiles)
        ends = [end for level in LEVELS for end in interval(level)]
        levels = sorted({*ends, *(percent / 100 for percent in CURVES)})
        return dict(zip(levels, self.distribution.quantiles(levels).unbind(1), strict=True))


def interval(level: int) -> tuple[float, float]:
    """The two quantile levels of the central `level` % interval."""
    outside = round((1 - level / 100) / 2, 12)
    return outside, 1 - outside


@dataclass(frozen=True)
class Case:
    """A prediction with everything that it is scored against, in the units of the data, on the CPU."""

    prediction: Prediction
    problems: Problems
    uniform: Tensor
    references: Sequence[Reference | None]
    chained: Tensor | None = None  # draws of f along chains, (R, chains, draws, M)

    @cached_property
    def y(self) -> Quantity:
        noise, target = self.problems.noise_test, self.problems.y_test.double()
        certain = torch.zeros_like(target, dtype=torch.bool) if noise is None else noise == 0
        return Quantity(self.prediction.y, target, certain, self.uniform)

    @cached_property
    def f(self) -> Quantity | None:
        truth, f = self.problems.f_test, self.prediction.f
        if f is None:
            return None
        target = None if truth is None else truth.double()
        return Quantity(f, target, torch.zeros_like(self.uniform, dtype=torch.bool), self.uniform)

    @cached_property
    def agreement(self) -> dict[str, Floats]:
        f = self.prediction.f
        return agreement(f, self.references) if isinstance(f, HasCdf) else {}

    @cached_property
    def convergence(self) -> dict[str, Floats]:
        if self.chained is None:
            return {}
        means, stds = self.prediction.chained_f, self.prediction.chained_std
        found = convergence(self.chained)
        if means is not None and stds is not None:
            found["rhat_components"] = component_convergence(means, stds, self.prediction.chained_noise)
        return found


def mean(values: Floats) -> float:
    small, exponent = _shrunk(values)
    return float(np.ldexp(small.mean(), exponent))


def root_mean_square(values: Floats) -> float:
    small, exponent = _shrunk(values)
    return float(np.ldexp(np.sqrt(np.square(small).mean()), exponent))


def _shrunk(values: Floats) -> tuple[Floats, int]:
    """The values divided by 2^k, at most 1 in size, and k: no sum or square overflows. Powers of 2 do not round."""
    largest = np.abs(values).max()
    exponent = int(np.frexp(largest)[1]) if np.isfinite(largest) else 0
    return np.ldexp(values, -exponent), exponent


def largest(values: Floats) -> float:
    """The largest value over the points that have one; nan if no point has one."""
    return float(np.nanmax(values)) if not np.isnan(values).all() else np.nan


def smallest(values: Floats) -> float:
    """The smallest value over the points that have one; nan if no point has one."""
    return float(np.nanmin(values)) if not np.isnan(values).all() else np.nan


@dataclass(frozen=True)
class Score:
    """A column of a table: its meaning and its computation.

    better: "lower", "higher", the value to be near, or None if neither direction is good by itself.
    unit: "y" (the unit of the data), "nats" or "" (a pure number).
    of: the quantity that is scored; "run" for a score that does not belong to f or y alone.
    needs: the ability that the quantity's distribution must have. Without the ability the score is n/a.
    at_point: Quantity (or Case, if `of` is "run") -> a value for each replica and test point, (R, M); None for n/a.
    targeted: True if the truth must be known.
    over_points: the values at the points of a region -> one number.
    pooled: the PITs of all replicas together -> the score; replaces `at_point`.
    across: the stds of f of all regions -> the score; replaces `at_point`.
    interval: True if a bootstrap interval over replicas makes sense.
    """

    name: str
    description: str
    better: Literal["lower", "higher"] | float | None
    unit: Literal["y", "nats", ""] = ""
    of: Literal["y", "f", "run"] = "run"
    needs: type[Distribution] = Distribution
    at_point: Callable[..., Tensor | Floats | None] | None = None
    targeted: bool = True
    over_points: Callable[[Floats], float] = mean
    pooled: Callable[..., Floats] | None = None
    across: Callable[[Mapping[str, Floats]], Floats | None] | None = None
    interval: bool = True

    @property
    def direction(self) -> str:
        """The sign of the good direction: ↓, ↑, or → and the value to be near; "" if neither direction is good."""
        if isinstance(self.better, float):
            return f"→ {self.better:g}"
        return {"lower": "↓", "higher": "↑", None: ""}[self.better]

    def values(self, case: Case) -> Floats | None:
        """The values at each replica and test point, (R, M); None if the score is n/a."""
        if self.at_point is None:
            return None
        if self.of == "run":
            found = self.at_point(case)
        else:
            quantity = case.y if self.of == "y" else case.f
            if quantity is None or not isinstance(quantity.distribution, self.needs):
                return None
            if self.targeted and quantity.target is None:
                return None
            found = self.at_point(quantity)
        return found.numpy() if isinstance(found, Tensor) else found


# The scores at a point. The targets of targeted scores are known.


def absolute_error(q: Quantity) -> Tensor:
    assert q.target is not None
    return (q.distribution.mean - q.target).abs()


def crps(q: Quantity) -> Tensor:
    assert isinstance(q.distribution, HasCdf) and q.target is not None
    return q.distribution.crps(q.target)


def negative_log_density(q: Quantity) -> Tensor:
    assert isinstance(q.distribution, HasDensity) and q.target is not None
    return -q.distribution.log_density(q.target)


def coverage(level: int, q: Quantity) -> Tensor:
    assert q.target is not None
    low, high = map(q.quantile, interval(level))
    return ((low <= q.target) & (q.target <= high)).double().masked_fill(q.certain, torch.nan)


def winkler(level: int, q: Quantity) -> Tensor:
    assert q.target is not None
    low, high = map(q.quantile, interval(level))
    outside = (low - q.target).clamp(min=0) + (q.target - high).clamp(min=0)
    return high - low + 2 / (1 - level / 100) * outside


def width(level: int, q: Quantity) -> Tensor:
    low, high = map(q.quantile, interval(level))
    return high - low


def std(q: Quantity) -> Tensor:
    return q.distribution.std


def pits(q: Quantity | None) -> Tensor | None:
    """The PITs, (R, M), nan where the target is certain; None without a cdf or a target."""
    if q is None or q.target is None or not isinstance(q.distribution, HasCdf):
        return None
    return pit(q.distribution, q.target, q.uniform).masked_fill(q.certain, torch.nan)


def _of(of: Literal["y", "f"], what: str) -> tuple[Score, ...]:
    """The scores that y and f share, for one of them. what: the name of the target."""
    pooled = (
        ("calibration_error", f"∫|P(u ≤ p) − p| dp of the PIT u of {what}, pooled over replicas", calibration_error),
        ("miscalibration_area", "the same of |2u − 1|: centred intervals too wide or too narrow", miscalibration_area),
        ("pit_ks", "largest |P(u ≤ p) − p|, pooled: a test (Kolmogorov–Smirnov) where PITs are independent", pit_ks),
    )
    return (
        Score(
            f"rmse_{of}",
            f"root mean squared error of the predicted mean, against {what}",
            "lower",
            "y",
            of,
            at_point=absolute_error,
            over_points=root_mean_square,
        ),
        Score(
            f"crps_{of}",
            f"continuous ranked probability score of p({of} | x), against {what} (Matheson & Winkler 1976)",
            "lower",
            "y",
            of,
            HasCdf,
            crps,
        ),
        *(
            score
            for level in LEVELS
            for score in (
                Score(
                    f"coverage_{level}_{of}",
                    f"how often the central {level} % interval holds {what}",
                    level / 100,
                    "",
                    of,
                    HasQuantiles,
                    partial(coverage, level),
                ),
                Score(
                    f"interval_{level}_{of}",
                    f"interval (Winkler) score of the central {level} % interval: its width, and a penalty for {what} "
                    "outside it (Gneiting & Raftery 2007)",
                    "lower",
                    "y",
                    of,
                    HasQuantiles,
                    partial(winkler, level),
                ),
            )
        ),
        Score(
            f"width_90_{of}",
            f"width of the central 90 % interval of {of}",
            None,
            "y",
            of,
            HasQuantiles,
            partial(width, 90),
            targeted=False,
        ),
        *(
            # A resample's distance is larger than the sample's: pit_ks has no interval.
            Score(f"{name}_{of}", about, "lower", of=of, needs=HasCdf, pooled=statistic, interval=name != "pit_ks")
            for name, about, statistic in pooled
        ),
        Score(f"std_{of}", STDS[of], None, "y", of, at_point=std, targeted=False),
    )


STDS = {"y": "sharpness: std of y", "f": "epistemic std: of f"}


def _reference(name: str) -> Callable[[Case], Floats | None]:
    return lambda case: case.agreement.get(name)


def _chains(name: str) -> Callable[[Case], Floats | None]:
    return lambda case: case.convergence.get(name)


ALL = (
    Score(
        "nll_y",
        "negative log density of an observation under p(y | x)",
        "lower",
        "nats",
        "y",
        HasDensity,
        negative_log_density,
    ),
    *_of("y", "an observation"),
    *_of("f", "the true function"),
    Score(
        "std_aleatoric",
        "aleatoric std: root of the expected noise variance",
        None,
        "y",
        at_point=lambda case: case.prediction.aleatoric_std,
    ),
    Score("gap_ratio", "mean std of f in the gap over mean std of f in the data", None, across=gap_ratio),
    Score("gap_wider", "share of replicas in which that ratio is above 1", None, across=gap_wider),
    Score(
        "reference_w1",
        "Wasserstein distance of p(f | x) to the reference posterior's, in its stds",
        "lower",
        at_point=_reference("reference_w1"),
    ),
    Score(
        "reference_cramer",
        "Cramér distance ∫(F − G)² of p(f | x) to the reference posterior's, in its stds, without few draws' bias",
        0.0,
        at_point=_reference("reference_cramer"),
    ),
    Score(
        "reference_log_std",
        "log of std of f over the reference posterior's: above 0 is under-, below 0 over-confident",
        0.0,
        at_point=_reference("reference_log_std"),
    ),
    Score(
        "reference_error",
        "distance of the mean of f to the reference posterior's, in its stds",
        "lower",
        at_point=_reference("reference_error"),
    ),
    *(
        Score(
            f"reference_{name}_mc_error",
            f"Monte-Carlo error of the reference: {what} of as many of its own draws, or components",
            None,
            at_point=_reference(f"reference_{name}_mc_error"),
        )
        for name, what in (
            ("w1", "reference_w1"),
            ("log_std", "|reference_log_std| at a point"),
            ("error", "reference_error"),
        )
    ),
    Score(
        "rhat",
        "rank-normalised split R-hat of f (Vehtari et al. 2021), the largest over every fifth point; for chains",
        1.0,
        at_point=_chains("rhat"),
        over_points=largest,
    ),
    Score(
        "rhat_limit",
        "the R-hat up to which as many draws count as converged",
        None,
        at_point=_chains("rhat_limit"),
        over_points=largest,
    ),
    Score(
        "rhat_components",
        "the same of the components' m, v, m² + v, tails and log σ, the largest; for chains of components",
        1.0,
        at_point=_chains("rhat_components"),
        over_points=largest,
    ),
    Score(
        "ess_bulk",
        "bulk effective sample size of f, the smallest over every fifth point",
        "higher",
        at_point=_chains("ess_bulk"),
        over_points=smallest,
    ),
    Score(
        "ess_tail",
        "tail effective sample size of f, the smallest over every fifth point",
        "higher",
        at_point=_chains("ess_tail"),
        over_points=smallest,
    ),
)
SCORES: Mapping[str, Score] = {score.name: score for score in ALL}


def point_values(
    prediction: Prediction,
    problems: Problems,
    generator: Generator,
    references: Sequence[Reference | None] = (),
) -> dict[str, Floats]:
    """Every score's values at each replica's test points, (R, M) each; nan where a score is n/a.

    Other keys: "pit_y", "pit_f", "mean_f", and the quantiles that figures show, "f_05" to "f_95" ("y_05" to "y_95" for
    a prediction without f). All values are on the CPU and in the units of the data, as `prediction` and `problems` are.
    generator: spreads PITs at atoms. references: one for each replica, or an empty sequence.
    """
    shape = tuple(problems.y_test.shape)
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    case = Case(prediction, problems, uniform, list(references) or [None] * shape[0], chained(prediction, generator))
    found: dict[str, Tensor | Floats | None] = {
        score.name: score.values(case) for score in SCORES.values() if score.at_point
    }
    found |= {"pit_y": pits(case.y), "pit_f": pits(case.f)}
    found["mean_f"] = None if case.f is None else case.f.distribution.mean
    drawn, letter = (case.y, "y") if case.f is None else (case.f, "f")
    if isinstance(drawn.distribution, HasQuantiles):
        found |= {f"{letter}_{percent:02}": drawn.quantile(percent / 100) for percent in CURVES}
    return {name: np.full(shape, np.nan) if value is None else np.asarray(value) for name, value in found.items()}


def chained(prediction: Prediction, generator: Generator) -> Tensor | None:
    """The draws of f along chains, (R, chains, draws, M): one of each component, f = m + std · z. None if without."""
    means, stds = prediction.chained_f, prediction.chained_std
    if means is None or stds is None:
        return means
    z = torch.randn(means.shape[:-1], generator=generator, dtype=torch.float64).unsqueeze(
        -1
    )  # one draw is one function
    return means.double() + stds.double() * z


def undefined(shape: tuple[int, int]) -> dict[str, Floats]:
    """The keys of `point_values` with values of nan: for replicas of which none can be scored."""
    names = [name for name, score in SCORES.items() if score.at_point]
    curves = [f"f_{percent:02}" for percent in CURVES]
    return {name: np.full(shape, np.nan) for name in (*names, *curves, "pit_y", "pit_f", "mean_f")}


def replica_scores(
    points: Mapping[str, Floats], regions: Mapping[str, NDArray[np.bool_]]
) -> dict[str, dict[str, Floats]]:
    """The scores of each replica, score -> region -> (R,), over "all" points and in each region.

    A score is nan if the region is empty or the score is not defined. points: (R, M) each, as `point_values` gives
    them. Pooled scores are left out: they need all replicas at once.
    """
    shape = next(iter(points.values())).shape
    everywhere = {"all": np.ones(shape, dtype=bool), **regions}
    result = {
        name: {
            region: np.array([over_region(score, points[name][r], mask[r]) for r in range(shape[0])])
            for region, mask in everywhere.items()
        }
        for name, score in SCORES.items()
        if name in points
    }
    for name, score in SCORES.items():
        found = score.across(result["std_f"]) if score.across is not None and "std_f" in result else None
        if found is not None:
            result[name] = {"all": found}
    return result


def over_region(score: Score, values: Floats, mask: NDArray[np.bool_]) -> float:
    """The score of one replica in one region; nan if the region is empty. values, mask: (M,)."""
    return score.over_points(values[mask]) if mask.any() else np.nan
