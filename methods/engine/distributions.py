"""Univariate distributions, one for each replica and test point: what a prediction says of f or of y there.

Every tensor here is (R, M), float64, on the CPU or on a device that has float64, unless its shape is written. A
distribution has the abilities of the classes that it inherits; a score asks for the one that it needs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import special
from torch import Tensor

PIECE = 2**18  # numbers in one piece of work, so that it stays in a processor's cache
REACH = 8.5  # stds beyond which a normal's tail is below the rounding of 1
NODES = 2.0  # trapezoids in the smallest std, where their error is below rounding


class Distribution(ABC):
    """The least that is known of a quantity: mean and std. Either may be nan where it does not exist."""

    @property
    @abstractmethod
    def mean(self) -> Tensor: ...

    @property
    @abstractmethod
    def std(self) -> Tensor: ...


class HasQuantiles(Distribution):
    """A distribution whose quantiles are known, at some levels at least."""

    @abstractmethod
    def quantiles(self, levels: Sequence[float]) -> Tensor:
        """inf {t : P(X ≤ t) ≥ p} for each level 0 < p < 1, (R, L, M); nan at a level that is not known."""


class HasCdf(HasQuantiles):
    """A distribution that is known as a whole."""

    @abstractmethod
    def cdf(self, t: Tensor) -> Tensor:
        """P(X ≤ t)."""

    @abstractmethod
    def cdf_below(self, t: Tensor) -> Tensor:
        """P(X < t), which differs from `cdf` where the distribution has an atom at t."""

    @abstractmethod
    def crps(self, t: Tensor) -> Tensor:
        """∫ (P(X ≤ z) − 1{t ≤ z})² dz, in the units of t (Matheson & Winkler 1976)."""


class HasDensity(Distribution):
    """A distribution with a density."""

    @abstractmethod
    def log_density(self, t: Tensor) -> Tensor:
        """log p(t): +inf at an atom, −inf where there is nothing."""


def checked(levels: Sequence[float]) -> Sequence[float]:
    """The levels themselves. Raises ValueError if one is not between 0 and 1."""
    for p in levels:
        if not 0 < p < 1:
            raise ValueError(f"quantile level p = {p}: expected 0 < p < 1")
    return levels


@dataclass(frozen=True)
class NormalMixture(HasCdf, HasDensity):
    """1/S Σₛ N(locationₛ, scaleₛ²); a component of scale 0 is an atom.

    location: (R, S, M). scale: broadcasts to it, ≥ 0.
    """

    location: Tensor
    scale: Tensor

    @cached_property
    def _scale(self) -> Tensor:
        return self.scale.to(self.location).expand(self.location.shape)

    @cached_property
    def _points(self) -> tuple[Tensor, Tensor]:
        """Locations and scales with a row for each replica and point, (R·M, S)."""
        parts = (part.movedim(1, -1).reshape(-1, self.location.shape[1]) for part in (self.location, self._scale))
        location, scale = parts
        return location, scale

    @cached_property
    def _drawn(self) -> bool:
        """Whether all components are atoms."""
        return not bool(self.scale.any())

    @property
    def mean(self) -> Tensor:
        return self.location.mean(1)

    @property
    def std(self) -> Tensor:
        """The mixture's own: the spread of the components' means counts, and with weight 1/S each."""
        spread = self.location.std(1, correction=0)
        largest = self._scale.amax(1)  # divided by, so that no square overflows
        within = largest * (self._scale / largest.clamp(min=TINY).unsqueeze(1)).square().mean(1).sqrt()
        return torch.hypot(spread, within)

    def cdf(self, t: Tensor) -> Tensor:
        return self._cdf(t, torch.ge)

    def cdf_below(self, t: Tensor) -> Tensor:
        return self._cdf(t, torch.gt)

    def _cdf(self, t: Tensor, reaches: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        t = t.unsqueeze(1)
        steps = reaches(t, self.location).to(self.location.dtype)
        if self._drawn:
            return steps.mean(1)
        smooth = torch.special.ndtr((t - self.location) / self._scale)
        return torch.where(self._scale > 0, smooth, steps).mean(1)

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        if self._drawn:
            # The S draws jump by 1/S each; rounding must not push p·S = 10 up to the eleventh draw.
            draws = self.location.shape[1]
            ranks = [max(1, math.ceil(p * draws - 1e-9)) - 1 for p in checked(levels)]
            return self.location.sort(1).values[:, ranks]
        location, scale = self._points
        p = torch.tensor(checked(levels), dtype=location.dtype, device=location.device)
        found = torch.empty(len(location), len(p), dtype=location.dtype, device=location.device)
        for piece in pieces(len(location), location.shape[1] * len(p)):
            found[piece] = mixture_quantiles(location[piece], scale[piece], p)
        replicas, _, points = self.location.shape
        return found.view(replicas, points, len(p)).movedim(-1, 1)

    def log_density(self, t: Tensor) -> Tensor:
        z = (t.unsqueeze(1) - self.location) / self._scale
        each = -0.5 * z.square() - self._scale.log() - 0.5 * math.log(2 * math.pi)
        if not (self._scale > 0).all():
            atom = torch.where(t.unsqueeze(1) == self.location, math.inf, -math.inf)
            each = torch.where(self._scale > 0, each, atom.to(each))
        whole: Tensor = torch.logsumexp(each, 1)
        return whole - math.log(each.shape[1])

    def crps(self, t: Tensor) -> Tensor:
        location, scale = self._points
        location = location - t.reshape(-1, 1)
        # In units of the largest number of each point, so that no square overflows.
        unit = torch.maximum(location.abs(), scale).amax(1, keepdim=True).clamp(min=TINY)
        location, scale = location / unit, scale / unit
        far = mean_absolute(location, scale).mean(1)
        half_spread = spread_of_draws(location) if self._drawn else spread_of_mixture(location, scale)
        return ((far - half_spread).clamp(min=0) * unit.squeeze(1)).view(t.shape)


TINY = 1e-300


def pieces(rows: int, numbers: int) -> Iterator[slice]:
    """Slices of `rows` rows, each of which needs so many numbers."""
    size = max(1, PIECE // max(numbers, 1))
    return (slice(first, first + size) for first in range(0, rows, size))


def mean_absolute(location: Tensor, scale: Tensor) -> Tensor:
    """E|X| of X ~ N(location, scale²), elementwise."""
    z = location / scale.clamp(min=TINY)
    z = z.clamp(-1e100, 1e100)  # its square must not overflow
    smooth = location * (2 * torch.special.ndtr(z) - 1) + scale * math.sqrt(2 / math.pi) * (-0.5 * z.square()).exp()
    return torch.where(scale > 0, smooth, location.abs())


def spread_of_draws(draws: Tensor) -> Tensor:
    """½ E|X − X′| of the draws as a distribution, (K,). draws: (K, S)."""
    number = draws.shape[1]
    weight = 2 * torch.arange(1, number + 1, dtype=draws.dtype, device=draws.device) - number - 1
    spread: Tensor = (draws.sort(1).values * weight).sum(1) / number**2
    return spread


def spread_of_mixture(location: Tensor, scale: Tensor) -> Tensor:
    """½ E|X − X′| of 1/S Σ N(location, scale²), (K,). location, scale: (K, S).

    It is ∫ F (1 − F), which trapezoids give to rounding in some tens or hundreds of nodes, as F is smooth at the scale
    of its narrowest component. Where that takes more nodes than there are components, it is the mean over all pairs.
    """
    components = location.shape[1]
    low, high = (location - REACH * scale).amin(1), (location + REACH * scale).amax(1)
    step = scale.amin(1) / NODES
    nodes = ((high - low) / step.clamp(min=TINY)).ceil() + 1
    by_nodes = nodes <= 2 * components + 64
    found = torch.empty_like(low)
    order = nodes.argsort()
    chosen = order[by_nodes[order]]
    first = 0
    while first < len(chosen):  # points that need about as many nodes go together
        room = max(1, PIECE // (components * int(nodes[chosen[min(first + 15, len(chosen) - 1)]])))
        at = chosen[first : first + room]
        count = int(nodes[at[-1]])
        grid = low[at, None] + step[at, None] * torch.arange(count, dtype=low.dtype, device=low.device)
        z = (grid.unsqueeze(2) - location[at].unsqueeze(1)) / scale[at].unsqueeze(1)
        F = torch.special.ndtr(z).mean(2)
        found[at] = (F * (1 - F)).sum(1) * step[at]
        first += room
    for row in (~by_nodes).nonzero().flatten().split(max(1, PIECE // components**2)):
        apart = location[row].unsqueeze(1) - location[row].unsqueeze(2)
        wide = torch.hypot(scale[row].unsqueeze(1), scale[row].unsqueeze(2))
        found[row] = mean_absolute(apart, wide).mean((1, 2)) / 2
    return found


def mixture_quantiles(location: Tensor, scale: Tensor, p: Tensor) -> Tensor:
    """Left-continuous inverse of the cdf at each level, (K, L). location, scale: (K, S); p: (L,).

    A bracket keeps F(low) < p ≤ F(high) and is narrowed by ITP (Oliveira & Takahashi 2020): as few steps as the secant
    where F is smooth, and never more than bisection takes, wherever F is flat or jumps.
    """
    z = torch.special.ndtri(p)
    each = location.unsqueeze(1) + z.view(-1, 1) * scale.unsqueeze(1)  # (K, L, S): the components' quantiles bracket
    low, high = each.amin(2).flatten(), each.amax(2).flatten()
    low = low - 1e-9 * (1 + low.abs())
    owner = torch.arange(len(location), device=p.device).repeat_interleave(len(p))
    level = p.repeat(len(location))

    def excess(t: Tensor, of: Tensor) -> Tensor:
        mu, sigma = location[of], scale[of]
        smooth = torch.special.ndtr((t.unsqueeze(1) - mu) / sigma)
        return torch.where(sigma > 0, smooth, (t.unsqueeze(1) >= mu).to(smooth)).mean(1) - level[active]

    active = torch.arange(len(low), device=p.device)
    # Rounding may find F below p at the upper end of the bracket, or not below p at the lower end.
    below, above = excess(low, owner).clamp(max=-TINY), excess(high, owner).clamp(min=0)
    width = high - low
    precision = 2e-16 * (low.abs() + high.abs()) + TINY
    most = ((width / (2 * precision)).log2().ceil().clamp(min=0) + 1).long()
    pull = 0.2 / width.clamp(min=TINY)
    done = 0
    while True:
        middle = (low + high) / 2
        open_ = (high - low > 2 * precision) & (low < middle) & (middle < high)
        active = active[open_[active]]
        if not len(active):
            break
        a, b, ya, yb = low[active], high[active], below[active], above[active]
        middle, eps = middle[active], precision[active]
        radius = (eps * torch.exp2((most[active] - done).clamp(min=0)) - (b - a) / 2).clamp(min=0)
        secant = (yb * a - ya * b) / (yb - ya)
        side = torch.sign(middle - secant)
        nudge = pull[active] * (b - a).square()
        t = torch.where(nudge <= (middle - secant).abs(), secant + side * nudge, middle)
        t = torch.where((t - middle).abs() <= radius, t, middle - side * radius)
        t = torch.where((t > a) & (t < b), t, middle)
        y = excess(t, owner[active])
        reached = y >= 0
        high[active], above[active] = torch.where(reached, t, b), torch.where(reached, y, yb)
        low[active], below[active] = torch.where(reached, a, t), torch.where(reached, ya, y)
        done += 1
    found: Tensor = high.view(len(location), len(p))
    return found


@dataclass(frozen=True)
class StudentT(HasCdf, HasDensity):
    """location + scale · t_df. df > 0; scale > 0. The mean is nan for df ≤ 1, the std is nan for df ≤ 2."""

    df: Tensor
    location: Tensor
    scale: Tensor

    @property
    def mean(self) -> Tensor:
        return torch.where(self.df > 1, self.location, torch.nan)

    @property
    def std(self) -> Tensor:
        return torch.where(self.df > 2, self.scale * (self.df / (self.df - 2)).sqrt(), torch.nan)

    def cdf(self, t: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(special.stdtr(self.df.numpy(), self._z(t).numpy())))

    def cdf_below(self, t: Tensor) -> Tensor:
        return self.cdf(t)

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        each = [torch.from_numpy(np.asarray(special.stdtrit(self.df.numpy(), p))) for p in checked(levels)]
        return torch.stack([self.location + self.scale * z for z in each], 1)

    def log_density(self, t: Tensor) -> Tensor:
        return self._log_standard(self._z(t)) - self.scale.log()

    def crps(self, t: Tensor) -> Tensor:
        """Closed form (Jordan, Krüger & Lerch 2019); nan for df ≤ 1, where it does not exist."""
        nu, z = self.df, self._z(t)
        log_betas = torch.from_numpy(
            np.asarray(special.betaln(0.5, nu.numpy() - 0.5) - 2 * special.betaln(0.5, nu.numpy() / 2))
        )
        cdf = torch.from_numpy(np.asarray(special.stdtr(nu.numpy(), z.numpy())))
        density = self._log_standard(z).exp()
        score = z * (2 * cdf - 1) + 2 * density * (nu + z.square()) / (nu - 1)
        score = score - 2 * nu.sqrt() / (nu - 1) * log_betas.exp()
        return torch.where(nu > 1, self.scale * score, torch.nan)

    def _z(self, t: Tensor) -> Tensor:
        return (t - self.location) / self.scale

    def _log_standard(self, z: Tensor) -> Tensor:
        nu = self.df
        constant = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - 0.5 * (nu * math.pi).log()
        return constant - (nu + 1) / 2 * torch.log1p(z.square() / nu)


@dataclass(frozen=True)
class Interpolated(HasCdf):
    """The distribution of some quantiles: its quantile function is linear between the levels.

    Beyond the outermost levels the tails are exponential, with the density that the outermost interval has: q₁ + s₁
    log(p/p₁) with s₁ = p₁ (q₂ − q₁)/(p₂ − p₁) on the left, and its mirror image on the right. Equal neighbours are an
    atom. There is no density, since a piecewise constant one would be an artefact of the levels.

    levels: (L,), increasing, L ≥ 2. values: (R, L, M), not decreasing over L.
    """

    levels: Tensor
    values: Tensor

    @cached_property
    def _tails(self) -> tuple[Tensor, Tensor]:
        """s₁ and its mirror image."""
        p, q = self.levels, self.values
        left = p[0] * (q[:, 1] - q[:, 0]) / (p[1] - p[0])
        return left, (1 - p[-1]) * (q[:, -1] - q[:, -2]) / (p[-1] - p[-2])

    @cached_property
    def _masses(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """p and q at both ends of each interval: (L − 1, 1), (L − 1, 1), (R, L − 1, M), (R, L − 1, M)."""
        p, q = self.levels.view(-1, 1), self.values
        return p[:-1], p[1:], q[:, :-1], q[:, 1:]

    @property
    def mean(self) -> Tensor:
        return self._integral(torch.ones_like(self.values[:, 0]))

    @property
    def std(self) -> Tensor:
        a, b, qa, qb = self._masses
        center = self.mean.unsqueeze(1)
        qa, qb, (left, right) = qa - center, qb - center, self._tails
        first, last, p, c = qa[:, 0], qb[:, -1], self.levels[0], 1 - self.levels[-1]
        inner = ((b - a) * (qa.square() + qa * qb + qb.square()) / 3).sum(1)
        outer = p * (first.square() - 2 * first * left + 2 * left.square())
        return (inner + outer + c * (last.square() + 2 * last * right + 2 * right.square())).sqrt()

    def cdf(self, t: Tensor) -> Tensor:
        return self._cdf(t, right=True)

    def cdf_below(self, t: Tensor) -> Tensor:
        return self._cdf(t, right=False)

    def _cdf(self, t: Tensor, right: bool) -> Tensor:
        p, q, (left_tail, right_tail) = self.levels, self.values, self._tails
        reached = (q <= t.unsqueeze(1)) if right else (q < t.unsqueeze(1))
        count = reached.sum(1)  # of values at or below t
        lower = (count - 1).clamp(0, len(p) - 2).unsqueeze(1)
        a, b = q.gather(1, lower).squeeze(1), q.gather(1, lower + 1).squeeze(1)
        pa, pb = p[lower.squeeze(1)], p[lower.squeeze(1) + 1]
        share = ((t - a) / (b - a).clamp(min=TINY)).clamp(0, 1)
        inside = pa + (pb - pa) * share
        below = p[0] * ((t - q[:, 0]).clamp(max=0) / left_tail.clamp(min=TINY)).exp()
        beyond = 1 - (1 - p[-1]) * (-(t - q[:, -1]).clamp(min=0) / right_tail.clamp(min=TINY)).exp()
        at_end = (
            beyond if right else torch.where((t == q[:, -1]) & (right_tail == 0), p[-1] * torch.ones_like(t), beyond)
        )
        below = torch.where(left_tail > 0, below, torch.zeros_like(t))
        return torch.where(count == 0, below, torch.where(count == len(p), at_end, inside))

    def quantiles(self, levels: Sequence[float]) -> Tensor:
        p, q, (left, right) = self.levels, self.values, self._tails
        found = []
        for level in checked(levels):
            if level < p[0]:
                found.append(q[:, 0] + left * math.log(level / float(p[0])))
            elif level > p[-1]:
                found.append(q[:, -1] - right * math.log((1 - level) / float(1 - p[-1])))
            else:
                above = max(1, int(torch.searchsorted(p, level)))
                share = (level - p[above - 1]) / (p[above] - p[above - 1])
                found.append(q[:, above - 1] + share * (q[:, above] - q[:, above - 1]))
        return torch.stack(found, 1)

    def crps(self, t: Tensor) -> Tensor:
        """2 [∫_u¹ Q dp − ∫₀¹ p Q dp + t (u − ½)] with u = F(t): the integral of the pinball losses of all levels."""
        a, b, qa, qb = self._masses
        (left, right), p, c = self._tails, self.levels[0], 1 - self.levels[-1]
        slope = (qb - qa) / (b - a)
        moment = ((b**2 - a**2) / 2 * qa + slope * ((b**3 - a**3) / 3 - a * (b**2 - a**2) / 2)).sum(1)
        moment = moment + p**2 * (self.values[:, 0] / 2 - left / 4)
        moment = moment + self.values[:, -1] * (c - c**2 / 2) + right * (c - c**2 / 4)
        u = self.cdf(t)
        return (2 * (self.mean - self._integral(u) - moment + t * (u - 0.5))).clamp(min=0)

    def _integral(self, u: Tensor) -> Tensor:
        """∫₀ᵘ Q dp."""
        a, b, qa, qb = self._masses
        (left, right), p, c = self._tails, self.levels[0], 1 - self.levels[-1]
        end = torch.minimum(torch.maximum(u.unsqueeze(1), a), b) - a  # how much of each interval counts
        inner = (end * qa + end.square() / 2 * (qb - qa) / (b - a)).sum(1)
        low = u.clamp(max=float(p))
        outer = low * (self.values[:, 0] + left * ((low / p).clamp(min=TINY).log() - 1))
        v = (1 - u).clamp(max=float(c))
        tail = c * (self.values[:, -1] + right) - v * (self.values[:, -1] - right * ((v / c).clamp(min=TINY).log() - 1))
        return inner + outer + tail
