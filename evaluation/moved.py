"""What moved between two folders of results, A and B: by how much, and is it more than chance does?

The numbers are those of the headlines, means over replicas. Where A and B have three replicas of the same data, these
are paired: both learn the same data, so that only the training differs, and Student's law says how far from 0 chance
brings the mean difference. As in `likeness`, this needs no correction for splits that share rows. Elsewhere Welch's
test compares the two means, if the replicas of both are independent. A number moved if its p-value is below 0.05 after
Holm's correction for all numbers that are tested: of pairs of folders between which nothing changed but chance, at most
one in twenty has a number that moved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from scipy.special import stdtr, stdtrit

from gapbench.evaluation.bootstrap import estimate
from gapbench.evaluation.compare import LEVEL, Estimate, holm
from gapbench.evaluation.headline import most
from gapbench.evaluation.likeness import TOLERANCE, relative
from gapbench.evaluation.results import Column, Floats, Result, rounded
from gapbench.evaluation.scores import SCORES
from gapbench.evaluation.tables import regions_of

Place = tuple[str, str]  # (dataset, method)
Verdict = Literal["moved", "noise", "not tested", "within tolerance", "same bits"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
PAIRS = 3  # the fewest replicas that are compared in pairs


@dataclass(frozen=True)
class Number:
    """One number in A and in B.

    difference: b − a; nan, or without an interval, if nothing is known of it. basis: of which replicas a and b are, or
    why they are not tested. p: two-sided, of this number alone; nan if it is not tested.
    """

    dataset: str
    method: str
    column: Column
    a: float
    b: float
    difference: Estimate
    basis: str
    verdict: Verdict
    p: float = math.nan

    @property
    def size(self) -> float:
        """The difference in the size of the number; of a log, the difference itself. 0 if it is not known."""
        size = 1.0 if self.column[0] == "reference_log_std" else (abs(self.a) + abs(self.b)) / 2
        return abs(self.b - self.a) / size if size and math.isfinite(self.b - self.a) else 0.0


def moved(a: Sequence[Result], b: Sequence[Result], same: Mapping[Place, frozenset[int]]) -> list[Number]:
    """The numbers that both have, what moved most first. same: the replicas that have the same data in both."""
    rows, others, numbers = _by_dataset(a), _by_dataset(b), list[Number]()
    for dataset in (name for name in rows if name in others):
        left, right = rows[dataset], others[dataset]
        for method in (name for name in left if name in right):
            one, other = left[method], right[method]
            numbers += [
                _number(one, other, column, same.get((dataset, method), frozenset()))
                for column in dict.fromkeys([*most([*left.values()]), *most([*right.values()])])
                if len(one.valid(column)) or len(other.valid(column))
            ]
    tested = [at for at, one in enumerate(numbers) if one.verdict == "noise"]
    for at, p in zip(tested, holm([numbers[at].p for at in tested]), strict=True):
        numbers[at] = replace(numbers[at], verdict="moved") if p < 1 - LEVEL else numbers[at]
    return sorted(numbers, key=lambda one: (VERDICTS.index(one.verdict), -one.size))


def summary(numbers: Sequence[Number]) -> str:
    """How many numbers have which verdict, as a sentence."""
    counts = [sum(one.verdict == verdict for one in numbers) for verdict in VERDICTS]
    if not numbers:
        return "A and B have no number in common."
    rest = [f"{verdict}: {count}" for verdict, count in zip(VERDICTS[1:], counts[1:], strict=True) if count]
    return f"{counts[0] or 'None'} of {len(numbers)} numbers moved{'; ' if rest else ''}{', '.join(rest)}."


def lacking(a: Sequence[Result], b: Sequence[Result]) -> list[str]:
    """Sentences on what only one of the folders has: datasets, methods, and regions of datasets that both have."""
    found = []
    for letter, own, other in (("A", _by_dataset(a), _by_dataset(b)), ("B", _by_dataset(b), _by_dataset(a))):

        def say(what: str, ours: Iterable[str], theirs: Iterable[str], letter: str = letter) -> None:
            if alone := [name for name in ours if name not in theirs]:
                found.append(f"{what} that only {letter} has: {', '.join(alone)}.")

        say("Datasets", own, other)
        for name in (name for name in own if name in other):
            say(f"{name}: methods", own[name], other[name])
            say(f"{name}: regions", regions_of([*own[name].values()]), regions_of([*other[name].values()]))
    return found


def _by_dataset(results: Sequence[Result]) -> dict[str, dict[str, Result]]:
    """Dataset -> method -> result."""
    found: dict[str, dict[str, Result]] = {}
    for one in results:
        found.setdefault(one.dataset, {})[one.method] = one
    return found


def _number(one: Result, other: Result, column: Column, same: frozenset[int]) -> Number:
    """A number with the verdict "noise" where it is tested, before all tests are judged together."""
    name, region = column
    valid = one.valid(column), other.valid(column)
    shared = np.array([r for r in np.intersect1d(*valid) if r in same], np.int64)
    independent = one.layout.independent and other.layout.independent
    paired = len(shared) > 0 and (len(shared) >= min(PAIRS, *map(len, valid)) or not independent)
    replicas = (shared, shared) if paired else valid
    left, right = (estimate(row, column, own) for row, own in zip((one, other), replicas, strict=True))
    if paired:
        basis = f"{len(shared)} pair{'s' if len(shared) > 1 else ''}"
        basis += f" of {len(valid[0])} and {len(valid[1])} replicas" if {*map(len, valid)} != {len(shared)} else ""
    else:
        basis = f"{len(valid[0])} and {len(valid[1])} replicas, not paired"
    unknown = Estimate(right - left, np.nan, np.nan)
    made = Number(one.dataset, one.method, column, left, right, unknown, basis, "not tested")
    if min(map(len, valid)) == 0:
        return replace(made, basis=f"only {'A' if len(valid[0]) else 'B'} has it")
    if SCORES[name].pooled is not None:
        return replace(made, basis=f"{basis}: one number of all replicas together has no test")
    parts = [
        row.scores[name][region][np.searchsorted(row.replicas, own)]
        for row, own in zip((one, other), replicas, strict=True)
    ]
    if paired and _same_bits(*parts):
        return replace(made, verdict="same bits")
    if not all(np.isfinite(part).all() for part in parts):
        return replace(made, basis=f"{basis}: a value is infinite")
    if not paired and not independent:
        return replace(made, basis=f"{basis}: they share rows, or are all that there are")
    if min(map(len, parts)) < (PAIRS if paired else 2):
        return replace(made, basis=f"{basis}: too few to test")
    if paired and relative(*parts) <= TOLERANCE:
        return replace(made, verdict="within tolerance")
    difference, p = change(parts[0], parts[1], paired)
    return replace(made, difference=difference, p=p, verdict="noise")


def _same_bits(a: Floats, b: Floats) -> bool:
    """Published scores are rounded: what is compared with these is rounded alike."""
    short, other = rounded(a), rounded(b)
    published = np.array_equal(a, short) or np.array_equal(b, other)
    return np.array_equal(short, other) if published else np.array_equal(a, b)


def change(a: Floats, b: Floats, paired: bool) -> tuple[Estimate, float]:
    """The mean of b − that of a, with its 95 % interval, and its two-sided p: by Student's law, or Welch's."""
    parts = [b - a] if paired else [a, b]
    mean = float(b.mean() - a.mean())
    squares = [float(part.var(ddof=1)) / len(part) for part in parts]
    # Equal values up to rounding have no scale; nothing but this keeps the formulas finite.
    error = max(math.sqrt(sum(squares)), 1e-12 * abs(mean), 1e-150)
    shares = sum((square / error**2) ** 2 / (len(part) - 1) for square, part in zip(squares, parts, strict=True))
    freedom = 1 / shares if shares else min(map(len, parts)) - 1
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Estimate(mean, mean - half, mean + half), 2 * float(stdtr(freedom, -abs(mean) / error))
