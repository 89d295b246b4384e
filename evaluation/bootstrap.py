"""The bootstrap over replicas: 95 % intervals of scores, and tests of whether one method is better than another.

Replicas are resampled whole, since the points of one replica are nearly one observation. All methods of a dataset see
the same resamples, so their differences are paired. The work is done in pieces: memory stays below 300 MB at any number
of replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapbench.datasets.streams import stream
from gapbench.evaluation.results import Column, Floats, Result
from gapbench.evaluation.scores import SCORES

RESAMPLES = 2000
MIN_REPLICAS = 5  # fewer replicas are too few for an interval, or for a significant difference
# Bytes of one array of a piece: it stays in the cache. Up to 8 times that, if a piece would have under 8 resamples.
CHUNK = 2**19
KEPT = 32 * 2**20  # bytes of counts that are kept for the next method


class Bootstrap:
    """The resampled scores of one column, each computed once."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self._resampled: dict[tuple[int, bytes], Floats] = {}

    def interval(self, result: Result) -> tuple[float, float]:
        """The ends of the 95 % percentile interval; nan below MIN_REPLICAS, or if the score has no interval."""
        replicas = result.valid(self.column)
        if len(replicas) < MIN_REPLICAS or not SCORES[self.column[0]].interval:
            return np.nan, np.nan
        with np.errstate(invalid="ignore"):  # interpolating between two infinite resamples gives nan
            low, high = np.nanpercentile(self.resampled(result, replicas), [2.5, 97.5])
        return float(low), float(high)

    def better(self, this: Result, other: Result) -> bool:
        """True if `this` is significantly better than `other` on the replicas that both have.

        Significant: the paired 95 % interval of the difference does not contain 0.
        """
        score = SCORES[self.column[0]]
        replicas = np.intersect1d(this.valid(self.column), other.valid(self.column))
        if score.better is None or not score.interval or len(replicas) < MIN_REPLICAS:
            return False
        losses = []
        for result in (this, other):
            values = self.resampled(result, replicas)
            if isinstance(score.better, float):
                losses.append(np.abs(values - score.better))
            else:
                losses.append(values if score.better == "lower" else -values)
        with np.errstate(invalid="ignore"):  # inf − inf is nan: not better
            return bool(np.percentile(losses[0] - losses[1], 97.5) < 0)

    def resampled(self, result: Result, replicas: NDArray[np.int64]) -> Floats:
        """The score on bootstrap resamples of these replicas, (RESAMPLES,)."""
        key = (id(result), replicas.tobytes())
        if key not in self._resampled:
            self._resampled[key] = resampled(result, self.column, replicas)
        return self._resampled[key]


def estimate(result: Result, column: Column, replicas: NDArray[np.int64]) -> float:
    """The value of a column over these replicas; nan without replicas."""
    return float(estimates(result, column, replicas, np.ones((1, len(replicas))))[0]) if len(replicas) else np.nan


def estimates(result: Result, column: Column, replicas: NDArray[np.int64], counts: NDArray[Any]) -> Floats:
    """The score if replica k counted counts[b, k] times, (B,). replicas: the (K,) numbers to use; counts: (B, K).

    The score is the mean over replicas. A pooled score is computed from the PITs of all replicas together.
    """
    name, region = column
    score, chosen = SCORES[name], np.searchsorted(result.replicas, replicas)
    if score.pooled is None:
        values = result.scores[name][region][chosen]
        return np.concatenate([_mean(values, piece) for piece in _pieces(counts, len(values))])
    inside = result.inside(region)[chosen]
    pits, owner = result.pits[f"pit_{score.of}"][chosen][inside], np.nonzero(inside)[0]
    order = np.argsort(pits)  # sorted once, not for every piece
    pits, owner = pits[order], owner[order]
    return np.concatenate([score.pooled(pits, piece[:, owner]) for piece in _pieces(counts, len(pits))])


def resampled(result: Result, column: Column, replicas: NDArray[np.int64]) -> Floats:
    """The score on bootstrap resamples of these replicas, (RESAMPLES,). Methods of a dataset share resamples."""
    counts = _counts(result.dataset, tuple(replicas.tolist()))
    values = np.concatenate([estimates(result, column, replicas, piece) for piece in counts])
    if SCORES[column[0]].pooled:  # resampled PITs have ties, so they are further from uniform than the originals
        values = np.maximum(values - (values.mean() - estimate(result, column, replicas)), 0)
    return values


def _mean(values: Floats, counts: Floats) -> Floats:
    with np.errstate(invalid="ignore"):  # 0 · inf: a replica with count 0 must not matter, whatever its value
        return np.asarray(np.where(counts > 0, counts * values, 0).sum(-1) / counts.sum(-1))


def _pieces(counts: NDArray[Any], width: int) -> Iterator[Floats]:
    """The counts in pieces of a few resamples, in float64. With `width` numbers a resample, a piece fits into CHUNK.

    Each piece has a cost of its own, so a piece has no fewer than 8 resamples where memory allows that.
    """
    fitting = CHUNK // (8 * max(width, 1))
    number = max(fitting, min(8, 8 * CHUNK // (8 * max(width, 1))), 1)
    for start in range(0, len(counts), number):
        yield counts[start : start + number].astype(np.float64)


def _counts(dataset: str, replicas: tuple[int, ...]) -> Iterable[NDArray[np.uint16]]:
    """The number of times that each resample holds each replica: pieces (B, K) with RESAMPLES lines in all."""
    if 2 * RESAMPLES * len(replicas) <= KEPT:
        return [_kept(dataset, replicas)]
    return _drawn(dataset, replicas)


@lru_cache(maxsize=2)
def _kept(dataset: str, replicas: tuple[int, ...]) -> NDArray[np.uint16]:
    """All counts, (RESAMPLES, K). They are the same for every method of the dataset, so they are drawn once."""
    return np.concatenate(list(_drawn(dataset, replicas)))


def _drawn(dataset: str, replicas: tuple[int, ...]) -> Iterator[NDArray[np.uint16]]:
    number, random = len(replicas), stream("bootstrap", dataset, list(replicas))
    lines = max(1, CHUNK // (8 * number))  # drawn at a time; the numbers are the same as if all were drawn at once
    for start in range(0, RESAMPLES, lines):
        drawn = random.multinomial(number, np.full(number, 1 / number), min(lines, RESAMPLES - start))
        yield drawn.astype(np.uint16)  # 16 bits: a replica is never drawn 65,536 times
