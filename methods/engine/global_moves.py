"""Moves of chains to draws of the prior: iterated sampling importance resampling (i-SIR).

    q₀ the chain's place,  q₁ … q_K ~ p(q):   go to q_k with probability ∝ p(y | q_k)

This leaves the posterior as it is (Andrieu, Lee & Vihola 2018, https://arxiv.org/abs/1312.6432). A likelihood of known
noise has an upper bound, so the chain forgets its start at a rate that does not depend on the start. The rate is high
where the prior has places as good as the posterior's: with the output layer integrated out, a few of a hundred draws of
the hidden layers' prior are. Between such moves, a local sampler explores (Samsonov et al. 2022,
https://arxiv.org/abs/2111.02702).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from gapbench.methods.engine.target import Point, Target


def moved_globally(target: Target, point: Point, x: Tensor, y: Tensor, count: int, generator: Generator) -> Point:
    """The chains after one move, for each of which `count` draws of the prior are at choice.

    point: (R, chains); x, y: as `Target.at` takes them.
    """
    lead = point.energy.shape
    q = target.prior_draws(generator, (*lead, count))
    own = -point.energy - target.log_prior(point.q)
    weights = torch.cat([own.unsqueeze(-1), target.log_likelihood(q, x.unsqueeze(-3), y.unsqueeze(-2))], -1)
    # By Gumbel's trick: the index of the largest has the probabilities softmax(weights).
    uniform = torch.rand(weights.shape, generator=generator, device=q.device, dtype=weights.dtype)
    chosen = (weights.nan_to_num(nan=-torch.inf) - uniform.log().neg().log()).argmax(-1)
    places = (chosen - 1).clamp(min=0)[..., None, None].expand(*lead, 1, target.size)
    there = q.gather(-2, places).squeeze(-2)
    return point.moved(chosen > 0, target.at(there, x, y))
