"""Distributions of one number at each replica and test point, with the abilities that scores need.

A score names the ability that it needs: `HasQuantiles`, `HasCdf` or `HasDensity`. Every tensor is in float64,
and of shape (R, M) unless another shape is given. Letters: R replicas, M test points, S components, L levels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from scipy import special
from torch import Tensor


class Distribution(ABC):
    """One univariate distribution for each replica and test point."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The mean; nan where the mean is not known or does not exist."""

    @property
    @abstractmethod
    def std(self) -> Tensor:
        """The std; nan where the variance is not known or does not exist, inf where the variance is infinite."""


class HasQuantiles(Distribution):
    """A distribution that knows its quantiles."""

    @abstractmethod
    def quantiles(self, levels: Sequence[float]) -> Tensor:
        """The quantiles inf {t : P(X ≤ t) ≥ p} for each level p, (R, L, M); nan at a level without a known quantile.

        Raises ValueError unless 0 < p < 1.
        """


class HasCdf(HasQuantiles):
    """A distribution that knows its distribution function."""

    @abstractmethod
    def cdf(self, t: Tensor) -> Tensor:
        """The distribution function P(X ≤ t)."""

    @abstractmethod
    def cdf_below(self, t: Tensor) -> Tensor:
        """The probability P(X < t), which differs from `cdf` if the distribution has an atom at t."""

    @abstractmethod
    def crps(self, t: Tensor) -> Tensor:
        """The CRPS ∫ (P(X ≤ z) − 1{t ≤ z})² dz, in the units of t (Matheson & Winkler 1976). Never below 0."""


class HasDensity(Distribution):
    """A distribution that knows its density."""

    @abstractmethod
    def log_density(self, t: Tensor) -> Tensor:
        """The log density log p(t). An atom has log density +inf at its place, −inf elsewhere."""


@dataclass(frozen=True)
class NormalMixture(HasCdf, HasDensity):
    """The mixture 1/S Σₛ N(locationₛ, scaleₛ²); a component of scale 0 is an atom.

    location: (R, S, M). scale: broadcasts to location, ≥ 0.
    """

    location: Tensor
    scale: Tensor

    @cached_property
    def _scale(self) -> Tensor:
        return self.scale.expand(self.location.shape)

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        """Locations and scales with one row for each point, (R·M, S) each."""
        rows = (part.movedim(1, -1).reshape(-1, part.shape[1]) for part in (self.location, self._scale))
        return next(rows), next(rows)

    @cached_property
    def _sorted(self) -> Tensor:
        return self.location.sort(1).values

    @property
    def mean(self) -> Tensor:
        return self.location.mean(1)

    @cached_property
    def std(self) -> Tensor:
        """The std of the whole mixture, in which the spread of the components' locations counts too."""
        centred = self.location - self.location.mean(1, keepdim=True)
        unit = _not_zero(torch.maximum(centred.abs(), self._scale).amax(1, keepdim=True))  # its square may overflow
        variance = ((centred / unit).square() + (self._scale / unit).square()).mean(1)
        return variance.sqrt() * unit.squeeze(1)

    def cdf(self, t: Tensor) -> Tensor:
        return _cdf(t.unsqueeze(1), self.location, self._scale, 1, torch.ge)

    def each_cdf(self, t: Tensor) -> Tensor:
        """The probability P(Xₛ ≤ t) of each component, (R, S, M)."""
        reached = (t.unsqueeze(1) >= self.location).to(self.location.dtype)
        if not self.scale.any():
            return reached
        each = torch.special.ndtr((t.unsqueeze(1) - self.location) / self._scale)
        return torch.where(self._scale > 0, each, reached)

    def cdf_below(self, t: Tensor) -> Tensor:
        return _cdf(t.unsqueeze(1), self.location, self._scale, 1, torch.gt)

    def log_density(self, t: Tensor) -> Tensor:
        distance = t.unsqueeze(1) - self.location
        each = -0.5 * (distance / self._scale).square() - self._scale.log() - 0.5 * math.log(2 * math.pi)
        each = torch.where(self._scale > 0, each, torch.where(distance == 0, math.inf, -math.inf))
        return torch.logsumexp(each, 1) - math.log(each.shape[1])

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        """The quantiles. Of draws: the ⌈p·S⌉-th draw. Of components with a std: F⁻¹(p) to about 1e-15 of its range."""
        p = _probabilities(levels).to(self.location.device)
        replicas, draws, points = self.location.shape
        # F jumps by 1/S at each draw; rounding must not push p·S = 10 up to the eleventh draw.
        ranks = (p * draws - 1e-9).ceil().clamp(min=1).long() - 1
        if not self.scale.any():
            return self._sorted[:, ranks]
        location, scale = self._rows
        values = location.new_empty(len(location), len(p))
        atoms = (scale == 0).sum(1)
        for rows in _pieces((atoms == draws).nonzero().flatten(), draws):
            values[rows] = location[rows].sort(1).values[:, ranks]
        for rows in _pieces(((atoms > 0) & (atoms < draws)).nonzero().flatten(), draws * len(p)):
            values[rows] = _halved(location[rows], scale[rows], p)
        for rows in _pieces((atoms == 0).nonzero().flatten(), draws):
            values[rows] = _inverted(location[rows], scale[rows], p)
        return values.reshape(replicas, points, len(p)).movedim(-1, 1)

    def crps(self, t: Tensor) -> Tensor:
        """The CRPS, E|X − t| − ½ E|X − X′|, exact up to rounding.

        For draws: the CRPS of the S draws as a distribution. This is a biased estimate of the CRPS of the distribution
        that the draws come from.
        """
        location, scale = self._rows
        target = t.reshape(-1, 1)
        # With a quarter of all numbers, no difference overflows. In units of the largest number, no square overflows.
        distance, spread = location / 4 - target / 4, location / 4 - location.amin(1, keepdim=True) / 4
        unit = _not_zero(torch.stack([distance.abs().amax(1), spread.amax(1), scale.amax(1) / 4]).amax(0)).unsqueeze(1)
        distance, spread, scale = distance / unit, spread / unit, scale / 4 / unit
        values = torch.empty_like(unit)
        for rows in _pieces(torch.arange(len(values)), location.shape[1]):
            values[rows] = _expected_distance(distance[rows], scale[rows]).mean(1, keepdim=True)
        values = (values - _half_mean_difference(spread, scale).unsqueeze(1)).clamp(min=0)
        return (values * 4 * unit).reshape(t.shape)


CACHED = 2**14  # numbers in a piece of work: 128 kB, and too few for torch to start threads
NODES = 33  # points in the table of F that brackets all levels at once; 17 and 65 are slower
SMALLEST = 1e-300  # a std that stands for 0: no quotient is 0/0, and no answer differs


def _pieces(rows: Tensor, numbers: int) -> Iterator[Tensor]:
    """The indices `rows` in pieces of about CACHED numbers. numbers: the count of numbers in one row."""
    size = max(1, CACHED // max(1, numbers))
    yield from (rows[k : k + size] for k in range(0, len(rows), size))


def _not_zero(unit: Tensor) -> Tensor:
    return torch.where(unit > 0, unit, 1.0)


def _probabilities(levels: Sequence[float]) -> Tensor:
    for p in levels:
        if not 0 < p < 1:
            raise ValueError(f"quantile level p = {p}: expected 0 < p < 1")
    return torch.tensor(tuple(levels), dtype=torch.float64)


def _cdf(
    t: Tensor, location: Tensor, scale: Tensor, axis: int, reaches: Callable[[Tensor, Tensor], Tensor] = torch.ge
) -> Tensor:
    """The probability P(X ≤ t), or P(X < t) if `reaches` is `torch.gt`. The components lie along `axis`."""
    each = torch.special.ndtr((t - location) / scale)
    if not scale.all():
        each = torch.where(scale > 0, each, reaches(t, location).to(each.dtype))
    probability: Tensor = each.mean(axis)
    return probability


def _expected_distance(location: Tensor, scale: Tensor) -> Tensor:
    """The mean E|X| of X ~ N(location, scale²), elementwise."""
    standard = location / scale.clamp(min=SMALLEST) * math.sqrt(0.5)
    return location * standard.erf() + scale * standard.square().neg_().exp_().mul_(math.sqrt(2 / math.pi))


def _half_mean_difference(location: Tensor, scale: Tensor) -> Tensor:
    """Half the mean difference, ½ E|X − X′| = ∫ F(1 − F), of each row, (rows,). location, scale: (rows, S), at most 1.

    Each row takes the cheapest of three ways. Draws: a sum over the sorted draws. Rows that need no more nodes than
    they have components: trapezoids, with an error below 1e-12 of the smallest scale. Other rows: a sum over pairs.
    """
    draws = location.shape[1]
    values = location.new_empty(len(location))
    low, high = (location - 8.5 * scale).amin(1), (location + 8.5 * scale).amax(1)
    nodes = (high - low) / (scale.amin(1) / 1.6)  # inf or nan for a row with an atom
    certain = scale.amax(1) == 0
    smooth = nodes <= draws
    for rows in _pieces(certain.nonzero().flatten(), draws):
        level = torch.arange(1, draws, dtype=location.dtype, device=location.device) / draws
        values[rows] = location[rows].sort(1).values.diff(dim=1) @ (level * (1 - level))
    order = nodes.argsort()
    for rows in _pieces(order[smooth[order]], draws):
        values[rows] = _by_trapezoids(location[rows], scale[rows], low[rows], high[rows], int(nodes[rows].amax()) + 1)
    for rows in _pieces((~(certain | smooth)).nonzero().flatten(), draws):
        values[rows] = _by_pairs(location[rows], scale[rows])
    return values


def _by_trapezoids(location: Tensor, scale: Tensor, low: Tensor, high: Tensor, intervals: int) -> Tensor:
    step = ((high - low) / intervals).unsqueeze(1)
    root = scale * math.sqrt(2)
    first, advance = (low.unsqueeze(1) - location) / root, step / root
    total, z = torch.zeros_like(low), torch.empty_like(location)
    for k in range(intervals + 1):
        torch.add(first, advance, alpha=k, out=z)
        total += 1 - z.erf_().mean(1).square()  # 4 F (1 − F)
    return total * step.squeeze(1) / 4


def _by_pairs(location: Tensor, scale: Tensor) -> Tensor:
    """Half the mean difference of each row, by a sum over pairs of components, (rows,).

    Pairs are k places apart on a circle, for k up to half a turn: each pair once (twice at exactly half a turn).
    """
    draws = location.shape[1]
    around, wide = torch.cat([location, location], 1), torch.cat([scale, scale], 1)
    total = scale.sum(1) / math.sqrt(math.pi)
    for k in range(1, draws // 2 + 1):
        other = slice(k, k + draws)
        pairs = _expected_distance(location - around[:, other], torch.hypot(scale, wide[:, other])).sum(1)
        total += pairs / 2 if 2 * k == draws else pairs
    return total / draws**2


def _halved(location: Tensor, scale: Tensor, p: Tensor) -> Tensor:
    """The quantiles of rows with some atoms, by halving, (rows, L). location, scale: (rows, S)."""
    location, scale = location.unsqueeze(1), scale.unsqueeze(1)
    each = location + torch.special.ndtri(p).unsqueeze(1) * scale
    # The components' quantiles bracket the mixture's. Halving keeps F(low) < p ≤ F(high), so `high` converges to the
    # left-continuous inverse, whether F is continuous or jumps.
    low: Tensor = each.amin(-1)
    high: Tensor = each.amax(-1)
    low = low - 1e-9 * (1 + low.abs())
    for _ in range(50):
        middle = (low + high) / 2
        above = _cdf(middle.unsqueeze(-1), location, scale, -1) >= p
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high


def _inverted(location: Tensor, scale: Tensor, p: Tensor) -> Tensor:
    """The quantiles of rows without atoms, (rows, L). location, scale: (rows, S).

    A table of F at NODES nodes brackets every level; `_newton` then solves each (row, level).
    """
    origin = location[:, :1]
    location = location - origin
    z = torch.special.ndtri(p)
    low, high = (location + z.amin() * scale).amin(1), (location + z.amax() * scale).amax(1)
    share = torch.linspace(0, 1, NODES, dtype=low.dtype, device=low.device)
    nodes = low.unsqueeze(1) + (high - low).unsqueeze(1) * share
    table = torch.stack([_cdf(node.unsqueeze(1), location, scale, 1) for node in nodes.unbind(1)], 1)
    table = table.cummax(1).values
    right = torch.searchsorted(table, p.expand(len(table), -1).contiguous()).clamp(1, NODES - 1)
    a, b = nodes.gather(1, right - 1), nodes.gather(1, right)
    # Between two nodes F is nearly normal, so its normal scores are nearly linear (exactly, for one component).
    below, above = (torch.special.ndtri(table.gather(1, place)) for place in (right - 1, right))
    start = a + (b - a) * (z - below) / (above - below)
    start = torch.where((start >= a) & (start <= b), start, (a + b) / 2)

    values = torch.empty_like(start).flatten()
    a, b, start, level = a.flatten(), b.flatten(), start.flatten(), p.expand(start.shape).flatten()
    row = torch.arange(len(location), device=p.device).repeat_interleave(len(p))
    for pairs in _pieces(torch.arange(len(values), device=p.device), location.shape[1]):
        of = row[pairs]
        values[pairs] = _newton(location[of], scale[of], level[pairs], a[pairs], b[pairs], start[pairs])
    return values.reshape(len(location), len(p)) + origin


def _newton(location: Tensor, scale: Tensor, p: Tensor, a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """The quantile F⁻¹(p) of each row, between a and b, by Newton's method on the log of the smaller tail, from x.

    If F is flat at a point, the bracket is halved instead. location, scale: (rows, S); the others (rows,).
    """
    result = torch.empty_like(x)
    todo = torch.arange(len(x), device=x.device)
    side = torch.where(p <= 0.5, 1.0, -1.0)
    tail = torch.where(p <= 0.5, p, 1 - p)
    narrow = scale.amin(1)
    for k in range(130):
        z = (x.unsqueeze(1) - location) / scale
        found = torch.special.ndtr(side.unsqueeze(1) * z).mean(1)
        density = (z.square_().mul_(-0.5).exp_() / scale).mean(1) / math.sqrt(2 * math.pi)
        above = torch.where(side > 0, found >= tail, found <= tail)
        a, b = torch.where(above, a, x), torch.where(above, x, b)
        step = -side * found * (found / tail).log() / density
        # If the density is nearly 0, F is flat up to rounding, and a step of 0 does not mean convergence.
        sure = (density * narrow > 1e-10 * tail) & (x + step >= a) & (x + step <= b)
        if k > 6 and k % 2:  # with many different scales Newton's steps may not converge: halve between them
            sure = torch.zeros_like(sure)
        done = sure & (step.abs() <= 1e-8 * narrow)  # the next step would be of the order of this step's square
        closed = b - a <= 1e-15 * torch.maximum(a.abs(), b.abs())
        x = torch.where(sure, x + step, torch.where(closed, b, (a + b) / 2))
        over = done | closed
        result[todo[over]] = x[over]
        if over.all():
            return result
        if over.any():
            left = ~over
            todo, location, scale, side, tail, narrow = (
                part[left] for part in (todo, location, scale, side, tail, narrow)
            )
            a, b, x = a[left], b[left], x[left]
    result[todo] = b
    return result


@dataclass(frozen=True)
class StudentT(HasCdf, HasDensity):
    """The distribution of location + scale · T, where T has Student's t-distribution with df degrees of freedom.

    df, location, scale: (R, M), on the CPU; df > 0, scale > 0. The mean is nan for df ≤ 1. The std is inf for
    1 < df ≤ 2, nan below. The CRPS is given for df > 1, nan below.
    """

    df: Tensor
    location: Tensor
    scale: Tensor

    @property
    def mean(self) -> Tensor:
        return torch.where(self.df > 1, self.location, math.nan)

    @property
    def std(self) -> Tensor:
        finite = self.scale / (1 - 2 / self.df).sqrt()
        return torch.where(self.df > 2, finite, torch.where(self.df > 1, math.inf, math.nan))

    def cdf(self, t: Tensor) -> Tensor:
        return torch.from_numpy(special.stdtr(self.df.numpy(), ((t - self.location) / self.scale).numpy()))

    def cdf_below(self, t: Tensor) -> Tensor:
        return self.cdf(t)

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        p = _probabilities(levels).reshape(1, -1, 1)
        # Computed from the smaller tail, since stdtrit is inexact near 1.
        lower = torch.from_numpy(special.stdtrit(self.df.unsqueeze(1).numpy(), torch.minimum(p, 1 - p).numpy()))
        each = torch.where(p <= 0.5, lower, -lower).where(p != 0.5, torch.zeros_like(lower))
        return self.location.unsqueeze(1) + self.scale.unsqueeze(1) * each

    def log_density(self, t: Tensor) -> Tensor:
        return self._standard_log_density((t - self.location) / self.scale) - self.scale.log()

    def crps(self, t: Tensor) -> Tensor:
        """The closed form by Jordan, Krüger & Lerch (2019, Journal of Statistical Software 90(12), appendix A)."""
        z, df = (t - self.location) / self.scale, self.df
        cdf = torch.from_numpy(special.stdtr(df.numpy(), z.numpy()))
        # 2√ν/(ν − 1) · B(½, ν − ½)/B(½, ν/2)², where B(½, x) = √π Γ(x)/Γ(x + ½)
        log_spread = 2 * _log_half_step(df / 2) - _log_half_step(df - 0.5)
        spread = 2 * df.sqrt() / (df - 1) * log_spread.exp() / math.sqrt(math.pi)
        # p(z)·(ν + z²), by logs: z² may overflow while p(z) underflows.
        weighted = (self._standard_log_density(z) + df.log() + _log_one_plus_square(z / df.sqrt())).exp()
        values = z * (2 * cdf - 1) + 2 * weighted / (df - 1) - spread
        return torch.where(df > 1, self.scale * values.clamp(min=0), math.nan)

    def _standard_log_density(self, z: Tensor) -> Tensor:
        df = self.df
        constant = _log_half_step(df / 2) - 0.5 * (math.pi * df).log()
        return constant - (df + 1) / 2 * _log_one_plus_square(z / df.sqrt())


def _log_one_plus_square(w: Tensor) -> Tensor:
    """The logarithm log(1 + w²), without overflow for any w."""
    size = w.abs()
    return torch.where(size < 1e8, size.clamp(max=1e8).square().log1p(), 2 * size.log())


def _log_half_step(x: Tensor) -> Tensor:
    """The difference log Γ(x + ½) − log Γ(x), to 1e-14. For large x, a series: subtraction would lose the digits."""
    y = x.clamp(min=40.0)
    series = 0.5 * y.log() - 1 / (8 * y) + 1 / (192 * y**3) - 1 / (640 * y**5) + 17 / (14336 * y**7)
    return torch.where(x < 40, torch.lgamma(x + 0.5) - torch.lgamma(x), series)


@dataclass(frozen=True)
class Interpolated(HasCdf):
    """The distribution with given quantiles at L ≥ 2 levels. It is uniform between neighbouring quantiles.

    Beyond the outermost quantiles the tails are exponential, and the density is continuous at these quantiles:
    P(X < q₁ − z) = p₁ exp(−z/b) with b = p₁ (q₂ − q₁)/(p₂ − p₁), and likewise at the other end. Neighbouring quantiles
    that coincide make an atom. If the two outermost quantiles coincide, the atom holds the tail too.

    levels: (L,), increasing, in (0, 1). values: (R, L, M), not decreasing along L.
    """

    levels: Tensor
    values: Tensor

    @cached_property
    def _tails(self) -> tuple[Tensor, Tensor]:
        """The scales b of the lower and the upper tail, (R, M) each."""
        p, q = self.levels, self.values
        lower = p[0] * (q[:, 1] - q[:, 0]) / (p[1] - p[0])
        return lower, (1 - p[-1]) * (q[:, -1] - q[:, -2]) / (p[-1] - p[-2])

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first level, the mass beyond the last one, and the two outermost quantiles."""
        return self.levels[0], 1 - self.levels[-1], self.values[:, 0], self.values[:, -1]

    @property
    def mean(self) -> Tensor:
        (low, high), (below, above, first, last) = self._tails, self._ends
        inner = (self.levels.diff().unsqueeze(1) * (self.values[:, 1:] + self.values[:, :-1]) / 2).sum(1)
        return inner + below * (first - low) + above * (last + high)

    @property
    def std(self) -> Tensor:
        (low, high), (below, above, _, _) = self._tails, self._ends
        centred = self.values - self.mean.unsqueeze(1)
        unit = _not_zero(centred.abs().amax(1))
        centred, low, high = centred / unit.unsqueeze(1), low / unit, high / unit
        left, right = centred[:, :-1], centred[:, 1:]
        inner = (self.levels.diff().unsqueeze(1) * (left.square() + left * right + right.square()) / 3).sum(1)
        tails = below * ((centred[:, 0] - low).square() + low.square())
        tails = tails + above * ((centred[:, -1] + high).square() + high.square())
        return (inner + tails).sqrt() * unit

    def cdf(self, t: Tensor) -> Tensor:
        return self._cdf(t, torch.ge)

    def cdf_below(self, t: Tensor) -> Tensor:
        return self._cdf(t, torch.gt)

    def _cdf(self, t: Tensor, reaches: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        (low, high), (below, above, first, last) = self._tails, self._ends
        left, width, t = self.values[:, :-1], self.values.diff(dim=1), t.unsqueeze(1)
        share = torch.where(width > 0, ((t - left) / width).clamp(0, 1), reaches(t, left).to(left.dtype))
        t = t.squeeze(1)
        # A tail of scale 0 is an atom at z = 0: only at this point does `reaches` count.
        lower = torch.where((low > 0) | (t != first), _survival(first - t, low), reaches(t, first).to(t.dtype))
        upper = torch.where((high > 0) | (t != last), 1 - _survival(t - last, high), reaches(t, last).to(t.dtype))
        inner = (self.levels.diff().unsqueeze(1) * share).sum(1)
        return (below * lower + inner + above * upper).clamp(0, 1)

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        p = _probabilities(levels).to(self.values.device)
        (low, high), (below, above, first, last) = self._tails, self._ends
        right = torch.searchsorted(self.levels, p).clamp(1, len(self.levels) - 1)
        weight = ((p - self.levels[right - 1]) / (self.levels[right] - self.levels[right - 1])).unsqueeze(1)
        inner = self.values[:, right - 1].lerp(self.values[:, right], weight)
        p = p.unsqueeze(1)
        lower = first.unsqueeze(1) + low.unsqueeze(1) * (p / below).log()
        upper = last.unsqueeze(1) - high.unsqueeze(1) * ((1 - p) / above).log()
        return torch.where(p < self.levels[0], lower, torch.where(p > self.levels[-1], upper, inner))

    def crps(self, t: Tensor) -> Tensor:
        """The CRPS in closed form: F² and (1 − F)² are parabolas between the quantiles and exponentials beyond them."""
        (low, high), (below, above, first, last) = self._tails, self._ends
        left, right = self.values[:, :-1], self.values[:, 1:]
        cut = t.unsqueeze(1).clamp(left, right)
        width = right - left
        p, q = self.levels[:-1].unsqueeze(1), self.levels[1:].unsqueeze(1)
        at = p + (q - p) * torch.where(width > 0, (cut - left) / width, 0.0)
        before = (cut - left) * (p.square() + p * at + at.square()) / 3
        after = (right - cut) * ((1 - at).square() + (1 - at) * (1 - q) + (1 - q).square()) / 3
        inner = (before + after).sum(1)
        return inner + _tail_crps(first - t, low, below) + _tail_crps(t - last, high, above)


def _survival(z: Tensor, scale: Tensor) -> Tensor:
    """The survival exp(−z/scale) for z > 0, else 1. With scale 0: 0 for z > 0."""
    positive = z.clamp(min=0)
    return torch.where(positive > 0, (-positive / scale).exp(), 1.0)


def _tail_crps(z: Tensor, scale: Tensor, mass: Tensor) -> Tensor:
    """The part of the CRPS beyond an outermost quantile, for a target z beyond it (z ≤ 0: the target is inside)."""
    left = _survival(z, scale)
    outside = z.clamp(min=0) - 2 * mass * scale * (1 - left) + mass.square() * scale / 2 * (1 - left.square())
    return outside + mass.square() * scale / 2 * left.square()


@dataclass(frozen=True)
class Band(HasQuantiles):
    """A point prediction and quantiles at some levels, of which nothing between or beyond is known: no distribution
    function.

    location: (R, M). levels: (L,), increasing. values: (R, L, M).
    """

    location: Tensor
    levels: Tensor
    values: Tensor

    @property
    def mean(self) -> Tensor:
        """The point prediction, which is what a squared error is of."""
        return self.location

    @property
    def std(self) -> Tensor:
        return torch.full_like(self.location, torch.nan)

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        found = self.location.new_full((len(self.location), len(levels), self.location.shape[1]), torch.nan)
        for position, level in enumerate(_probabilities(levels).tolist()):
            known = ((self.levels - level).abs() < 1e-9).nonzero().flatten()
            if len(known):
                found[:, position] = self.values[:, known[0]]
        return found
