"""Microcanonical dynamics (Robnik, De Luca, Silverstein & Seljak 2022): the speed is constant, forces turn it.

Position q, direction u on the unit sphere, g = ∇U(q), d the dimension. A step of size ε is B(ε/2) A(ε) B(ε/2):

    A(ε)   q ← q + ε u
    B(ε)   δ = ε‖g‖/(d−1),  e = −g/‖g‖,  c = e·u,  ζ = exp(−δ):
           u ← [ζ u + e ((1−ζ²) + c (1−ζ)²)/2], normalised
           K ← K + (d−1) (δ + log((1+ζ²)/2 + c (1−ζ²)/2))

U + K is constant along exact trajectories, whose positions have the density exp(−U). https://arxiv.org/abs/2212.08549
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from gapbench.methods.engine.target import Point, Target


def direction(like: Tensor, generator: Generator) -> Tensor:
    """The directions u of new trajectories, uniform on the unit sphere. like: (..., d)."""
    return normalised(torch.empty_like(like).normal_(generator=generator))


def normalised(u: Tensor) -> Tensor:
    length: Tensor = u.norm(dim=-1, keepdim=True)
    return u / length


def kick(u: Tensor, gradient: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """The step B: the new direction, (..., d), and the change of K, (...), float64. step: ε, (...)."""
    d = u.shape[-1]
    size = gradient.norm(dim=-1).to(step)
    cosine = -(gradient * u).sum(-1).to(step) / size.clamp(min=1e-30)
    cosine = cosine.clamp(-1 + 1e-12, 1)  # at exactly −1 the direction would never turn
    delta = step * size / (d - 1)
    zeta = delta.neg().exp()
    along = ((1 - zeta.square()) + cosine * (1 - zeta).square()) / 2
    # The length of ζ u + along · e, since u and e have length 1.
    length = (zeta.square() + along.square() + 2 * zeta * along * cosine).sqrt()
    turned = (1 + zeta.square()) / 2 + cosine * (1 - zeta.square()) / 2
    kept, added = (part.unsqueeze(-1).to(u) for part in (zeta / length, -along / length / size.clamp(min=1e-30)))
    return torch.addcmul(u * kept, gradient, added), (d - 1) * (delta + turned.log())


def move(target: Target, point: Point, u: Tensor, step: Tensor, x: Tensor, y: Tensor) -> tuple[Point, Tensor, Tensor]:
    """The point and the direction after one step, and the change of U + K, (...). A chain of step 0 stays in place.

    point: (...) of any leading dimensions; u: (..., d); step: ε, (...), float64; x, y: as `Target` takes them.
    """
    u, first = kick(u, point.gradient, step / 2)
    after = target.at(torch.addcmul(point.q, u, step.unsqueeze(-1).to(u)), x, y)
    u, second = kick(u, after.gradient, step / 2)
    return after, u, after.energy - point.energy + first + second


def bounded_move(
    target: Target, point: Point, u: Tensor, step: Tensor, limit: float, x: Tensor, y: Tensor
) -> tuple[Point, Tensor, Tensor, Tensor]:
    """`move`, without the steps that raise U + K by more than `limit`, or to nan: such a chain stays and turns around.

    An accept step would refuse them too, with probability 1 − exp(−limit) at least. A chain that makes one is far from
    where the posterior has its mass, and may need thousands of steps to come back. Also returns which chains were
    refused, (...) bool; their change of U + K is `limit`, not what it would have been.
    """
    after, turned, change = move(target, point, u, step, x, y)
    refused = ~(change <= limit)
    stays = refused.unsqueeze(-1)
    kept = Point(
        torch.where(stays, point.q, after.q),
        torch.where(refused, point.energy, after.energy),
        torch.where(stays, point.gradient, after.gradient),
    )
    return kept, torch.where(stays, -u, turned), change.masked_fill(refused, limit), refused


def refresh(u: Tensor, share: Tensor, generator: Generator) -> Tensor:
    """The directions after a partial refresh: u ← (u + ν z)/‖·‖ with z ~ N(0, I) and ν = √((e^{2ε/L} − 1)/d).

    Then E[u·u′] = exp(−ε/L) for large d. share: ε/L, (...). (Robnik & Seljak 2023, https://arxiv.org/abs/2303.18221)
    """
    nu = ((2 * share).expm1() / u.shape[-1]).sqrt().unsqueeze(-1).to(u)
    return normalised(torch.empty_like(u).normal_(generator=generator).mul_(nu).add_(u))
