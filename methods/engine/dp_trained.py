"""Private training by Adam: the settings, and the training itself, of methods that minimise a loss with privacy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.gradients import PerSampleGradients
from gapbench.methods.engine.minibatches import Poisson, too_few_points
from gapbench.methods.engine.model import Model


@dataclass(frozen=True)
class PrivatelyTrained(UncertaintyMethod):
    """A method whose parameters are trained by Adam on clipped gradients of single points with noise.

    batch: the expected size of the batches, which each point enters independently. noise_multiplier: σ, the std of the
    noise in units of max_grad_norm, C. delta: the δ at which ε(δ) is reported.
    The defaults take as many steps at the same noise as the suite's private SGLD, so their ε is the same.
    """

    steps: int = 6_400
    lr: float = 5e-3
    batch: int = 8
    noise_multiplier: float = 1.0
    max_grad_norm: float = 10.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.noise_multiplier > 0 and self.max_grad_norm > 0 and 0 < self.delta < 1):
            raise ValueError(
                f"{type(self).__name__}: noise_multiplier = {self.noise_multiplier}, max_grad_norm = "
                f"{self.max_grad_norm}, delta = {self.delta}: expected positive numbers, and delta between 0 and 1"
            )

    def skip(self, model: Model, x: Tensor) -> str | None:
        return too_few_points(self.batch, x.shape[1])

    def epsilon(self, n: int) -> float:
        """The privacy loss ε(δ) of releasing all iterates of a replica, for adding or removing one of n points."""
        from gapbench.methods.engine.dp_sgd import privacy_loss

        return privacy_loss(((self.noise_multiplier, Poisson().rate(self.batch, n), self.steps),), self.delta)

    def train(
        self,
        start: Tensor,
        gradients: Callable[[Tensor, Tensor], PerSampleGradients],
        without_data: Callable[[Tensor], Tensor],
        n: int,
        generator: Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The trained parameters, (R, P), and diagnostics. start: (R, P).

        gradients: those of −log p of each point, given the parameters (R, 1, P) and an index of points (R, 1, B).
        without_data: the gradient of what the loss adds to their sum over all points, of the parameters' shape.
        """
        from gapbench.methods.engine.dp_sgd import StackedDPOptimizer  # Opacus takes seconds to import

        theta = start.unsqueeze(1).clone().requires_grad_()
        adam = torch.optim.Adam([theta], lr=self.lr, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(self.steps, 1))
        optimizer = StackedDPOptimizer(
            adam,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            expected_batch_size=self.batch,
            generator=generator,
        )
        batches = Poisson().draw(theta.shape[:-1], self.batch, n, generator)
        for _ in range(self.steps):
            batch, now = next(batches), theta.detach()
            optimizer.step(gradients(now, batch.index), batch.present, without_data(now) / n)
            schedule.step()
        clipped = optimizer.clipped_fraction
        return theta.detach().squeeze(1), {
            "clipped fraction": clipped,
            "epsilon": torch.full_like(clipped, self.epsilon(n)),
            "noise multiplier": torch.full_like(clipped, self.noise_multiplier),
            "clipping norm": torch.full_like(clipped, self.max_grad_norm),
            "gradient evaluations": optimizer.seen.sum(1),
        }
