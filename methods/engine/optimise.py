"""Minibatch Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980) on a stack, with the step annealed to 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def adam(loss: Callable[[], Tensor], parameters: Iterable[Tensor], steps: int, lr: float) -> None:
    """Move the leaf tensors `parameters` by `steps` of Adam on the sum of what `loss` returns.

    Summed losses leave the replicas' gradients independent and Adam is elementwise, so this equals one optimiser a
    replica. The cosine schedule ends at 0: what is left has little of the last minibatch's noise in it.
    """
    parameters = list(parameters)
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in range(steps):
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss().sum(), parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
        schedule.step()


def minimise(loss: Callable[[Tensor], Tensor], theta: Tensor, steps: int, lr: float) -> Tensor:
    """theta (R, ..., P) after `steps` of Adam on `loss`, which returns one number for each leading index."""
    theta = theta.detach().clone().requires_grad_()
    adam(lambda: loss(theta), [theta], steps, lr)
    return theta.detach()


def negative_log_posterior(log_likelihood: Tensor, log_prior: Tensor, n: int) -> Tensor:
    """−log p(θ | data) up to a constant, estimated from a batch. log_likelihood (..., B), log_prior (...)."""
    return -n * log_likelihood.mean(-1) - log_prior
