"""Networks trained by Adam: the settings, and the training itself, of every method that minimises a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.minibatches import Epochs, FixedSize, gather_points
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.optimise import adam, arrival, negative_log_posterior

Loss = Callable[[Tensor, Tensor], Tensor]  # (θ (R, ..., P), index of the minibatches (R, ..., B)) -> (R, ...)
Likelihood = Callable[[Tensor, Tensor, Tensor], Tensor]  # (θ (R, ..., P), x (R, ..., B, D), y (R, ..., B)) -> y's shape


@dataclass(frozen=True)
class AdamTrained(UncertaintyMethod):
    """A method whose networks are trained by Adam on minibatches.

    steps, lr, batch: of Adam. by_epochs: train as most published code does, by shuffled passes over the data and with a
    constant step size. Otherwise every batch is drawn anew, and the step size is annealed to 0.
    """

    steps: int = 8_000
    lr: float = 0.1
    batch: int = 50
    by_epochs: bool = False

    def train(self, loss: Loss, theta: Tensor, n: int, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The trained parameters, of the shape of theta (R, ..., P), and diagnostics. n: the points that each network
        has. Every network of the stack has its own minibatches. loss: the same computation in every step, since it is
        recorded and replayed (see engine/recorded.py)."""
        theta = theta.detach().clone().requires_grad_()
        diagnostics = self.move([theta], lambda index: loss(theta, index), theta.shape[:-1], n, generator)
        return theta.detach(), diagnostics

    def move(
        self,
        parameters: Iterable[Tensor],
        loss: Callable[[Tensor], Tensor],
        stack: Sequence[int],
        n: int,
        generator: Generator,
    ) -> dict[str, Tensor]:
        """Train leaf tensors of any shapes in place, for a stack of networks of this leading shape (R, ...).

        loss: takes the index of the minibatches, (R, ..., B), and returns (R, ...).
        """
        size = min(self.batch, n)
        batches = (Epochs() if self.by_epochs else FixedSize()).draw(stack, size, n, generator)
        indices = (batch.index for batch in batches)
        losses = adam(loss, parameters, self.steps, self.lr, indices, annealed=not self.by_epochs)
        seen = n / math.ceil(n / size) if self.by_epochs else size  # points of a step, on average
        evaluations = torch.full(stack[:1], float(self.steps * seen * math.prod(stack[1:])), device=generator.device)
        return {"gradient evaluations": evaluations, **({} if self.by_epochs else arrival(losses, n))}

    def train_map(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The maximum a posteriori (MAP) of each replica, (R, P), and diagnostics. x: (R, N, D), y: (R, N)."""
        return self.train(map_loss(model, x, y, y.shape[1]), model.init(generator, (len(y),)), y.shape[1], generator)


def map_loss(model: Model, x: Tensor, y: Tensor, n: int, likelihood: Likelihood | None = None) -> Loss:
    """The loss of the MAP, −log p(θ | data). x: (R, N, D), y: (R, N); n: how many of the N points a network has.

    likelihood: what stands for the log likelihood of each point; None for the model's.
    """
    log_likelihood = likelihood or model.training_log_likelihood

    def loss(theta: Tensor, index: Tensor) -> Tensor:
        each = log_likelihood(theta, gather_points(x, index), gather_points(y, index))
        return negative_log_posterior(each, model.log_prior(theta), n)

    return loss
