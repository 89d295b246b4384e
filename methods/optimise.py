"""Minibatch Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980) on a stack, with the step annealed to 0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def minimise(loss: Callable[[Tensor], Tensor], theta: Tensor, steps: int, lr: float) -> Tensor:
    """theta (R, ..., P) after `steps` of Adam on `loss`, which returns one number for each leading index, or their
    sum.

    Summed losses leave the replicas' gradients independent and Adam is elementwise, so this equals one optimiser a
    replica. The cosine schedule ends at 0: what is returned has no noise of the last minibatch in it.
    """
    theta = theta.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in range(steps):
        optimizer.zero_grad()
        (theta.grad,) = torch.autograd.grad(loss(theta).sum(), theta)
        optimizer.step()
        schedule.step()
    return theta.detach()


def negative_log_posterior(log_likelihood: Tensor, log_prior: Tensor, n: int) -> Tensor:
    """−log p(θ | data) up to a constant, estimated from a batch. log_likelihood (..., B), log_prior (...)."""
    return -n * log_likelihood.mean(-1) - log_prior
