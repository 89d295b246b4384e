"""The optimiser: what it returns of its way, and what is made of that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from gapbench.evaluation.diagnostics import stands_still
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.exactness import example
from gapbench.methods.engine.optimise import arrival, minimise
from gapbench.methods.mc_dropout import MCDropout
from gapbench.methods.svi import SVI

Seeded = Callable[[int], Generator]
Floats = NDArray[np.float64]


@pytest.mark.parametrize("steps", [1, 7, 200, 250])
def test_a_stack_goes_as_each_of_its_members_alone(steps: int) -> None:
    """As torch's Adam by hand under the cosine schedule; and the losses are those of the second half. Seen to catch: no
    schedule, a step more or less in it, the losses of all steps, losses summed over replicas."""
    centre = torch.tensor([[1.0, -2.0], [0.5, 4.0], [3.0, 0.0]])
    theta, losses = minimise(lambda theta: ((theta - centre) ** 4).sum(-1), torch.zeros(3, 2), steps, 0.1)
    assert losses.shape == (steps - steps // 2, 3)
    for r in range(3):
        alone, seen = torch.zeros(2, requires_grad=True), []
        optimizer = torch.optim.Adam([alone], lr=0.1)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + np.cos(np.pi * step / steps))
            optimizer.zero_grad()
            loss = ((alone - centre[r]) ** 4).sum()
            loss.backward()
            optimizer.step()
            seen.append(loss.detach())
        torch.testing.assert_close(theta[r], alone.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(losses[:, r], torch.stack(seen[steps // 2 :]), rtol=1e-4, atol=1e-5)


def test_tiny_numbers_are_0_while_it_runs_and_not_after() -> None:
    """Whatever the setting was before, and if the loss raises. Seen to catch: the setting left on, or never made, or
    turned off for a user who had it on."""

    def flushes() -> bool:
        return float(torch.tensor(1e-30) * 1e-10) == 0

    seen: list[bool] = []

    def loss(theta: Tensor) -> Tensor:
        seen.append(flushes())
        if len(seen) == 3:
            raise ArithmeticError
        return theta.sum(-1)

    for before in (True, False):
        seen.clear()
        torch.set_flush_denormal(before)
        try:
            minimise(loss, torch.ones(2, 1), 2, 0.1)
            assert flushes() == before
            with pytest.raises(ArithmeticError):
                minimise(loss, torch.ones(2, 1), 2, 0.1)
            assert seen == [True] * 3 and flushes() == before
        finally:
            torch.set_flush_denormal(False)


def sizes_and_way(steps: int) -> tuple[Floats, Floats]:
    """Of the second half of the steps: the step sizes, and the sum of those still to come as a share of all."""
    sizes = 1 + np.cos(np.pi * np.arange(steps) / steps)
    left = (sizes.sum() - np.cumsum(sizes)) / sizes.sum()
    return sizes[steps // 2 :], left[steps // 2 :]


def test_arrival_is_the_fall_on_a_tenth_of_the_way(seeded: Seeded) -> None:
    """Known losses: what a tenth of the way lowers is told from what the smaller steps lower; for each observation and
    each replica by itself; what stands behind a replica is averaged. With noise within 5 of its standard errors, whose
    z over 400 replicas has the std that it claims. Seen to catch: the fall with the wrong sign, a tenth of the steps,
    the smaller steps counted too, not divided by n, replicas averaged, an error not of this slope."""
    sizes, way = sizes_and_way(2000)
    falls = torch.tensor([0.0, 3.0, -2.0])
    losses = 7 + 5 * torch.from_numpy(sizes)[:, None] + 10 * falls * torch.from_numpy(way)[:, None]
    found = arrival(losses, 2)
    np.testing.assert_allclose(found["loss fall"], falls / 2, atol=0.01)
    np.testing.assert_allclose(found["loss"], losses[-200:].mean(0) / 2)
    assert bool((found["loss fall error"] < 0.001).all())
    members = torch.stack([losses, losses + 2, losses + 4], -1)  # (K, R, members)
    np.testing.assert_allclose(arrival(members, 2)["loss"], found["loss"] + 1)
    np.testing.assert_allclose(arrival(members, 2)["loss fall"], found["loss fall"])
    assert arrival(losses[:4], 2) == {}

    noisy = losses[:, 1:2] + torch.randn(len(losses), 400, generator=seeded(0), dtype=torch.float64)
    found = arrival(noisy, 2)
    z = (found["loss fall"] - falls[1] / 2) / found["loss fall error"]
    assert abs(z.mean()) < 5 / 20 and z.std() == pytest.approx(1, abs=5 / np.sqrt(800))


@pytest.mark.parametrize("method", [MCDropout(rate=0.0, lr=0.04, batch=20), SVI(lr=0.04, batch=20)])
def test_the_loss_of_a_short_run_still_falls(method: UncertaintyMethod, seeded: Seeded) -> None:
    """On linear regression, whose optimum 1,000 steps reach: some replica is marked after 100 steps, and none after
    1,000. Seen to catch: no diagnostics of a method, the wrong n."""
    regression = example()
    x, y = regression.stack(8)
    for steps, arrived in ((100, False), (1000, True)):
        fitted = replace(method, steps=steps).fit(regression.model, x, y, seeded(0))  # type: ignore[call-arg]
        fall, error = (fitted.diagnostics[name].numpy() for name in ("loss fall", "loss fall error"))
        assert fall.shape == error.shape == (8,)
        still = stands_still(fall, error)
        assert still.all() == arrived, (fall, error)
