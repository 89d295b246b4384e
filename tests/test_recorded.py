"""Recorded functions: a recording gives what its function gives, bit for bit, or is not used.

Planted bugs that they caught, one at a time: constants copied when the recording is made, or changed in place by its
first run; one recording for all shapes; no check; a check that leaves the given generator, or torch's own, where the
replay left it; a recording that draws; draws together with what changes them in place, or in the part without
generators; results with gradients; an error of the function hidden; nothing recorded; what the function changes in
place changed twice; of a CUDA graph, inputs or results that are not copied, and a graph of tensors on two devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from torch import Generator, Tensor

from gapbench.datasets.streams import torch_stream
from gapbench.methods.base import FittedMethod
from gapbench.methods.collapsed_svi import CollapsedSVI
from gapbench.methods.engine import recorded
from gapbench.methods.engine.adam_trained import AdamTrained
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise
from gapbench.methods.engine.recorded import WORTH, Recorded, Recording
from gapbench.methods.svi import SVI
from gapbench.runners.suites import suites

CALLS = WORTH + 5


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


class Counted:
    """A function, and how often it was called."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        return self.function(*inputs)


def noisy_gradient(theta: Tensor, generator: Generator) -> Callable[..., tuple[Tensor, ...]]:
    """A loss and its gradient with draws of a given generator, of torch's own, and work in place."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        mask = torch.empty(x.shape).bernoulli_(0.5, generator=generator).div_(0.5)
        jitter = torch.randn(x.shape) + torch.rand(x.shape, generator=generator)
        loss = ((x * mask + jitter) * theta).square().sum(0)
        return loss, *torch.autograd.grad(loss.sum(), theta)

    return function


def walk(call: Callable[..., tuple[Tensor, ...]], theta: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    """The results of calls between which θ moves, in place."""
    torch.manual_seed(7)
    kept = []
    for number in range(len(sizes) * CALLS):
        loss, gradient = call(torch.linspace(0, 1 + number / CALLS, sizes[number % len(sizes)])[:, None].expand(-1, 3))
        with torch.no_grad():
            theta -= 1e-3 * gradient
        kept += [loss, gradient]
    return kept


def graphed(function: Callable[..., tuple[Tensor, ...]], places: tuple[Tensor, ...]) -> object:
    """What torch.cuda.make_graphed_callables makes, without a GPU: inputs and results stay in their places."""
    warmed = [function(*places) for _ in range(3)]
    results = tuple(map(torch.zeros_like, warmed[-1]))

    def replay(*inputs: Tensor) -> tuple[Tensor, ...]:
        for place, given in zip(places, inputs, strict=True):
            if place.data_ptr() != given.data_ptr():
                place.copy_(given)
        for place, found in zip(results, function(*places), strict=True):
            place.copy_(found)
        return results

    return replay


@pytest.fixture(params=["interpreted", "captured"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """TorchScript, or a CUDA graph with what stands for one here."""
    if request.param == "captured":
        monkeypatch.setattr(recorded, "interpreted", recorded.captured)
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed)
    return str(request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("sizes", [(4,), (4, 3)])
def test_a_recording_repeats_its_function_bit_for_bit(sizes: tuple[int, ...]) -> None:
    ways = []
    for wrapped in (False, True):
        theta = torch.ones(3, requires_grad=True)
        function = Counted(noisy_gradient(theta, seeded()))
        ways.append(walk(Recorded(function) if wrapped else function, theta, sizes))
    assert function.calls == len(sizes) * (WORTH + 1)  # the one more makes the recording
    assert not any(part.requires_grad for part in ways[1])
    assert all(map(torch.equal, *ways))


def test_each_shape_has_its_own_recording() -> None:
    function = Counted(lambda x: (x + x.sum(),))
    call = Recorded(function)
    for _ in range(CALLS):
        for size in (2, 3):
            (found,) = call(torch.ones(size))
            assert torch.equal(found, torch.full((size,), 1.0 + size))
    assert function.calls == 2 * (WORTH + 1)


def test_what_a_function_changes_in_place_changes_once_a_call(way: str) -> None:
    total = torch.zeros(2)

    def running(x: Tensor) -> tuple[Tensor, ...]:
        return (total.add_(x) * 2,)

    function = Counted(running)
    call = Recorded(function)
    for number in range(CALLS):
        assert torch.equal(call(torch.ones(2))[0], torch.full((2,), 2.0 * (number + 1)))
    assert function.calls == (WORTH + 1 if way == "interpreted" else CALLS + 1)  # a graph is warmed up, and dropped


@pytest.mark.parametrize(
    ("devices", "expected"),
    [("cpu cpu", "interpreted"), ("cuda cuda", "captured"), ("cuda cpu", "module"), ("mps mps", "module")],
)
def test_each_device_has_its_own_way(devices: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph reads a tensor of the CPU once, when it is captured."""
    for name in ("interpreted", "captured"):
        monkeypatch.setattr(recorded, name, lambda *_, name=name: name)
    given, found = (Mock(device=torch.device(one)) for one in devices.split())
    assert recorded.faster("module", [given], [found]) == expected  # type: ignore[arg-type, comparison-overlap]


def test_a_function_that_counts_its_calls_runs_as_it_is() -> None:
    count = [0]

    def function(x: Tensor) -> tuple[Tensor, ...]:
        count[0] += 1
        return (x * count[0],)

    call = Recorded(function)
    for _ in range(CALLS):
        assert call(torch.ones(1))[0].item() == count[0]


def test_a_function_whose_numbers_decide_runs_as_it_is() -> None:
    """The draws before it decides, too, are those of a function that nobody records."""

    def way(wrap: Callable[[Callable[..., tuple[Tensor, ...]]], Callable[..., tuple[Tensor, ...]]]) -> list[float]:
        generator = seeded()
        torch.manual_seed(3)

        def function(x: Tensor) -> tuple[Tensor, ...]:
            z = x * (torch.rand(1, generator=generator) + torch.rand(1))
            return (z if z > 0 else -2 * z,)

        call = wrap(function)
        return [call(torch.tensor([(-1.0) ** number]))[0].item() for number in range(CALLS)]

    assert way(Recorded) == way(Counted) and min(way(Counted)) > 0


def test_an_error_of_the_function_is_its_own() -> None:
    count = [0]

    def function(x: Tensor) -> tuple[Tensor, ...]:
        count[0] += 1
        if count[0] >= WORTH:
            raise ValueError("no more")
        return (x,)

    call = Recorded(function)
    for _ in range(WORTH - 1):
        call(torch.ones(1))
    with pytest.raises(ValueError, match="no more"):
        call(torch.ones(1))


BY_ADAM = AdamTrained | SVI | CollapsedSVI
METHODS = {name: method for name, method in suites()["all"].methods.items() if isinstance(method, BY_ADAM)}
TRAINED = sorted(METHODS.keys() - {"deep_gp"})  # gpytorch looks at its numbers
LEARNED = [(name, noise) for noise in (LearnedNoise(), HeteroscedasticNoise()) for name in ("svi", "mc_dropout")]


@pytest.mark.parametrize(
    ("way", "name", "noise"),
    [
        *(("interpreted", name, noise) for name, noise in [*((name, 0.1) for name in TRAINED), *LEARNED]),
        *(("captured", name, 0.1) for name in ("svi", "mc_dropout", "anchored_ensemble")),
    ],
    indirect=["way"],
)
@pytest.mark.usefixtures("way")
def test_training_is_recorded_and_gives_the_same_bits(
    name: str, noise: float | Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = replace(METHODS[name], steps=30)
    x, y = torch.linspace(-1, 1, 24).expand(2, -1)[..., None], torch.randn(2, 24, generator=seeded())
    fitted, replays = [], [0]

    def counted(recording: Recording, *inputs: Tensor) -> tuple[Tensor, ...]:
        replays[0] += 1
        return replay(recording, *inputs)

    replay = Recording.__call__
    monkeypatch.setattr(Recording, "__call__", counted)
    for worth in (10, 31):
        monkeypatch.setattr(recorded, "WORTH", worth)
        fitted.append(method.fit(MLP(hidden=(8, 8), noise_std=noise), x, y, torch_stream("cpu", "recorded")))
    assert replays[0] % 21 == 0 < replays[0]  # all steps from the recording on, of each training
    for one, other in zip(*(tensors(fit) for fit in fitted), strict=True):
        assert torch.equal(one, other)


def tensors(fit: FittedMethod) -> list[Tensor]:
    """The tensors of a fitted method, and those that its diagnostics are made of."""
    return [*(value for value in vars(fit).values() if isinstance(value, Tensor)), *fit.diagnostics.values()]
