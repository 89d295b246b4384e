"""Minibatch Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980) on a stack, with the step annealed to 0."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from gapbench.methods.engine.precision import widest
from gapbench.methods.engine.recorded import Recorded


def adam(
    loss: Callable[..., Tensor],
    parameters: Iterable[Tensor],
    steps: int,
    lr: float,
    inputs: Iterable[Tensor] | None = None,
    annealed: bool = True,
) -> Tensor:
    """Move the leaf tensors `parameters` by `steps` steps of Adam on the sum of the losses that `loss` returns.

    loss: is recorded, so every step must be the same computation (see engine/recorded.py). It takes the next one of
    `inputs`, if there are any.
    With summed losses the replicas' gradients are independent, and Adam is elementwise. So this equals one optimiser
    for each replica. The cosine schedule of the step size ends at 0, so the result has little minibatch noise; it is
    constant if not `annealed`. Returns the losses of the second half of the steps, (K, *), which `arrival` judges.
    """
    parameters, second_half = list(parameters), []
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)  # one pass over the parameters in each step
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1)) if annealed else None

    @Recorded
    def losses_and_gradients(*given: Tensor) -> tuple[Tensor, ...]:
        losses = loss(*given)
        return losses, *torch.autograd.grad(losses.sum(), parameters)

    with denormals_flushed():
        for step, given in zip(range(steps), repeat(()) if inputs is None else zip(inputs), strict=False):
            losses, *gradients = losses_and_gradients(*given)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            if schedule:
                schedule.step()
            if step >= steps // 2:
                second_half.append(losses)
    return torch.stack(second_half) if second_half else torch.empty(0)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Numbers below 1e-38 count as 0 on the CPU inside; the setting of before is restored at the end.

    The prior shrinks the weights of units that the data do not use, to such numbers, and arithmetic with these is slow:
    from the 3,000th step of MC dropout on, a step took 2.5 times as long.
    """
    before = sys.float_info.min / 2 == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def minimise(loss: Callable[[Tensor], Tensor], theta: Tensor, steps: int, lr: float) -> tuple[Tensor, Tensor]:
    """The parameters theta (R, ..., P) after `steps` steps of Adam, and the losses of the second half, (K, R, ...).

    loss: returns one number for each leading index of theta, (R, ...).
    """
    theta = theta.detach().clone().requires_grad_()
    losses = adam(lambda: loss(theta), [theta], steps, lr)
    return theta.detach(), losses


def arrival(losses: Tensor, n: int) -> dict[str, Tensor]:
    """The diagnostics of `adam`'s convergence, (R,) each, in nats for each of the n observations.

    losses: (K, R, ...), as `adam` returns them; dimensions after R are averaged.
    "loss": the mean over the last tenth of the steps. "loss fall": the fall of the loss on a tenth of the way. "loss
    fall error": the standard error of the fall. The way is the sum of the step sizes. The last tenth of the steps is
    0.2 % of the way, so any loss seems constant there. A smaller step also lowers the loss, because it brings less
    noise, wherever the optimiser is. So the losses are fitted by least squares as a constant + a multiple of the step
    size + a multiple of the way that is left. With fewer than 5 losses such a curve always fits: the result is empty.
    """
    count = len(losses)
    if count < 5:
        return {}
    left = (1 - (np.arange(count) + 0.5) / count) / 2  # share of the steps, 1/2 … 0
    way = left - np.sin(np.pi * left) / np.pi  # share of the sum of all step sizes, proportional to 1 − cos(π left)
    curve = np.stack([np.ones(count), 1 - np.cos(np.pi * left), way], 1)
    each = (losses.flatten(2).mean(2) if losses.ndim > 2 else losses).to(widest(losses.device))
    curves, inverse = (torch.from_numpy(part).to(each) for part in (curve, np.linalg.pinv(curve)))
    fitted = inverse @ each  # (3, R)
    error = ((each - curves @ fitted).square().sum(0) / (count - 3)).sqrt() * inverse[2].norm()
    last = each[-max(count // 5, 1) :].mean(0)
    return {"loss": last / n, "loss fall": 0.1 * fitted[2] / n, "loss fall error": 0.1 * error / n}


def with_gradient(value: Tensor, at: Tensor, gradient: Tensor) -> Tensor:
    """The value, (...), with this gradient by `at`, (..., P), in place of its own."""
    slope = (gradient.detach() * at).sum(-1)
    return slope + (value.detach() - slope.detach()).to(slope)


def pooled(apart: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The diagnostics of replicas, (R,) each, whose networks were trained apart. apart: those of networks, (R, K)."""
    found = {name: each.mean(1) for name, each in apart.items()}
    found["gradient evaluations"] = apart["gradient evaluations"].sum(1)
    if "loss fall error" in apart:  # the standard error of the mean of independent falls
        found["loss fall error"] = apart["loss fall error"].square().sum(1).sqrt() / apart["loss fall error"].shape[1]
    return found


def negative_log_posterior(log_likelihood: Tensor, log_prior: Tensor, n: int) -> Tensor:
    """The estimate of −log p(θ | data) from a batch, up to a constant. log_likelihood (..., B), log_prior (...)."""
    return -n * log_likelihood.mean(-1) - log_prior
