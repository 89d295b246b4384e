"""The answer for one's own table: which method's error bars are right where, which to use, and what it costs.

A method's 90 % interval should hold 90 % of the rows that it has not seen. How far the share may be off by chance is
the band of the binomial law. Rows of one gap belong together, so that chance can do more than the band says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from gapbench.evaluation.bootstrap import estimate
from gapbench.evaluation.conditional import different, held, told, worst
from gapbench.evaluation.headline import percent
from gapbench.evaluation.results import Result
from gapbench.evaluation.tables import cpu_seconds, number

LEVEL = 0.9
Verdict = Literal["right", "too narrow", "too wide", "n/a"]


@dataclass(frozen=True)
class Judged:
    """A method on one kind of rows. coverage: the share of `rows` that its 90 % intervals hold; band: where that share
    is with probability 95 % if they are right. crps, width, rmse: means, in the units of the target; nan for n/a.
    weak: where in x the intervals are too narrow most, in words; "" if chance alone could do it."""

    method: str
    status: str
    crps: float
    coverage: float
    band: tuple[float, float]
    rows: int
    width: float
    rmse: float
    weak: str = ""

    @property
    def verdict(self) -> Verdict:
        if not self.rows or np.isnan(self.coverage):
            return "n/a"
        low, high = self.band
        return "too narrow" if self.coverage < low else "too wide" if self.coverage > high else "right"


@dataclass(frozen=True)
class Place:
    """A kind of rows, and the methods on it, those that rank first by CRPS. name: "held-out rows", "rows in a gap"."""

    name: str
    judged: tuple[Judged, ...]


@dataclass(frozen=True)
class Answer:
    """places: held-out rows, and the rows in gaps if there are gaps. best: the method to use; None if none is sound.
    seconds: method -> CPU seconds of one fit. why: sentences on the choice."""

    places: tuple[Place, ...]
    best: str | None
    seconds: dict[str, float]
    why: tuple[str, ...]


def answer(results: Sequence[Result], names: Sequence[str] = ()) -> Answer:
    """The answer from the results of `gapbench run --csv`. names: of the features."""
    methods = [one for one in results if one.kind == "method"]
    kinds = (("held-out rows", "data", False), ("rows in a gap", "gap", True))
    places = []
    for name, region, in_gap in kinds:
        rows = [one for one in methods if one.dataset.endswith("_gap_splits") == in_gap]
        judged = sorted((judge(one, region, names) for one in rows), key=_rank)
        places += [Place(name, tuple(judged))] if judged else []
    seconds = {one.method: spent for one in methods if (spent := cpu_seconds(one)) is not None}
    best, why = choice(places)
    return Answer(tuple(places), best, seconds, tuple(why))


def judge(result: Result, region: str, names: Sequence[str] = ()) -> Judged:
    """A method in one region, over all its sound replicas."""

    def mean(score: str) -> float:
        valid = result.valid((score, region))
        return estimate(result, (score, region), valid) if len(valid) else np.nan

    shares = result.scores.get("coverage_90_y", {}).get(region, np.full(len(result.replicas), np.nan))
    counts = result.inside(region).sum(1)
    known = result.sound & ~np.isnan(shares) & (counts > 0)
    rows = int(counts[known].sum())
    coverage = float((shares * counts)[known].sum() / rows) if rows else np.nan
    of_rows = held(result, region)
    number = different(*of_rows[:2]) if of_rows else max(rows, 1)
    low, high = stats.binom.interval(0.95, number, LEVEL)
    band = float(low) / number, float(high) / number
    group = worst(result, region)
    weak = told(group, names) if group is not None and group.coverage < group.band[0] else ""
    widths = mean("width_90_y"), mean("rmse_y")
    return Judged(result.method, result.status, mean("crps_y"), coverage, band, rows, *widths, weak)


def choice(places: Sequence[Place]) -> tuple[str | None, list[str]]:
    """The method to use, and why: of the ranked methods whose intervals are nowhere too narrow, the one with the least
    CRPS, in gaps if there are any. If all are too narrow somewhere, the one that is least so."""
    if not places:
        return None, ["No method was trained."]
    known = [{one.method: one for one in place.judged if one.status == "ranked" and one.rows} for place in places]
    names = [name for name in known[0] if all(name in each for each in known) and not np.isnan(known[0][name].crps)]
    if not names:
        return None, ["No method is sound: see which failed or did not converge."]
    last = known[-1]
    where = places[-1].name
    wide = [name for name in names if all(each[name].verdict != "too narrow" for each in known)]
    if wide:
        best = min(wide, key=lambda name: last[name].crps)
        why = [
            f"On average its 90 % intervals are not too narrow, and of such methods it has the least CRPS on {where}."
        ]
        if len(names) == 1:
            why = ["On average its 90 % intervals are not too narrow; no other sound method was there to compare with."]
        if any(each[best].verdict == "too wide" for each in known):
            why.append("Some are too wide: they are safe, and say less than they could.")
    else:
        best = max(names, key=lambda name: min(each[name].coverage for each in known))
        why = [
            f"Do not trust any blindly: every method's 90 % intervals are too narrow; those of {best} are the least so."
        ]
    for place, each in zip(places, known, strict=True):
        one = each[best]
        low, high = one.band
        why.append(
            f"On {place.name} they hold {percent(one.coverage)} of {one.rows} (right: {percent(low)} to "
            f"{percent(high)}), and are {number(one.width)} wide."
            + (f" But they are too narrow where {one.weak}." if one.weak else "")
        )
    first = known[0]
    sharper = [m for m in first if first[m].crps < first[best].crps and first[m].verdict in ("right", "too wide")]
    if sharper and len(places) > 1:
        why.append(f"A smaller CRPS on held-out rows, if you never predict in a gap: {', '.join(sharper)}.")
    return best, why


def _rank(one: Judged) -> tuple[bool, float]:
    return one.status != "ranked", np.inf if np.isnan(one.crps) else one.crps
