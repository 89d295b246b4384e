"""What CUDA needs of the code, shown without it: every tensor is made on the data's device, and no training loop asks
the device for a number. torch's function mode sees each call from Python, on whatever device."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from gapbench.datasets.base import Splits
from gapbench.datasets.gapped_sine import GappedSine
from gapbench.datasets.streams import torch_stream
from gapbench.evaluation.controls import PriorPredictive, Truth
from gapbench.methods.base import Predictor, UncertaintyMethod
from gapbench.methods.hmc import HMC
from gapbench.methods.minibatches import Poisson
from gapbench.methods.model import MLP
from gapbench.methods.registry import methods
from gapbench.methods.sgld import SGLD
from gapbench.runners.suites import shrunk

OURS = str(Path(sys.modules["gapbench.methods.base"].__file__ or "").resolve().parent.parent)
MAKERS = {
    torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.linspace, torch.eye, torch.tensor,
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal,
}  # fmt: skip
ASKING = {
    torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.__bool__,
    torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.nonzero, torch.nonzero,
}  # fmt: skip

CASES: dict[str, UncertaintyMethod] = {
    **{name: shrunk(cls()) for name, cls in methods().items()},
    "sgld_private": SGLD(
        batch=8, burn_in=64, draws=2, thin=32, noise_multiplier=1.0, allow_clipping=True, sampling=Poisson()
    ),
}


class Watch(TorchFunctionMode):
    """Counts what it is asked to, by the line of our code that called it: itself, or through a library."""

    def __init__(self, wanted: Callable[[Any, dict[str, Any]], bool], through_libraries: bool) -> None:
        super().__init__()
        self.wanted, self.through_libraries, self.seen = wanted, through_libraries, Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.wanted(func, kwargs or {}):
            frame = sys._getframe(1)
            while frame is not None and not frame.f_code.co_filename.startswith(OURS):
                # Adam's count of its steps is a number on the host.
                if not self.through_libraries or "/torch/optim/" in frame.f_code.co_filename:
                    return func(*args, **(kwargs or {}))
                frame = frame.f_back  # type: ignore[assignment]
            if frame is not None:
                self.seen[f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {func.__name__}"] += 1
        return func(*args, **(kwargs or {}))


def makes_without_device(func: Any, kwargs: dict[str, Any]) -> bool:
    return func in MAKERS and kwargs.get("device") is None


@pytest.fixture
def splits() -> Splits:
    return GappedSine(n=40, noise=0.1).splits(range(2))


def fit(method: UncertaintyMethod, splits: Splits) -> Predictor:
    return method.fit(MLP(hidden=(5,)), splits.x, splits.y, torch_stream("cpu", "device"))


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_is_made_on_the_datas_device(name: str, splits: Splits) -> None:
    """No factory without `device=` in fit or predict. Seen to catch: `device=` left out of SVI's noise, of
    `Model.sample_prior`, of MC dropout's diagnostics (as it once was)."""
    with Watch(makes_without_device, through_libraries=False) as watch:
        fit(CASES[name], splits)(splits.x_test)
    assert not watch.seen


def test_controls_are_made_on_the_datas_device(splits: Splits) -> None:
    """The same for the floor and the ceiling. Seen to catch: `device=` left out of `Model.sample_prior`."""
    with Watch(makes_without_device, through_libraries=False) as watch:
        for control in (PriorPredictive(draws=3), Truth()):
            control.predict(MLP(hidden=(5,)), splits, torch_stream("cpu", "device"))
    assert not watch.seen


@pytest.mark.parametrize("name", CASES)
def test_no_training_loop_asks_the_device_for_a_number(name: str, splits: Splits) -> None:
    """Four times the steps, not one more question; but for Poisson batches, whose widths are asked for once in 64
    steps, and for the number of leapfrog steps of a trajectory, which may have thousands. Seen to catch: an `.item()`
    in `adam`, a `bool(clipped.any())` in SGLD's step."""
    method = CASES[name]
    longer = {"steps": 4, "thin": 4}
    stretched = replace(method, **{f: getattr(method, f) * k for f, k in longer.items() if f in settings(method)})
    counts = []
    for each in (method, stretched):
        with Watch(lambda func, kwargs: func in ASKING, through_libraries=True) as watch:
            fit(each, splits)
        counts.append(sum(watch.seen.values()))
    blocks = 0
    if isinstance(method, SGLD) and isinstance(method.sampling, Poisson):
        assert isinstance(stretched, SGLD)
        blocks = stretched.steps // 64 - method.steps // 64
    if isinstance(method, HMC):
        assert isinstance(stretched, HMC)
        blocks = stretched.steps - method.steps
    assert counts[1] - counts[0] <= blocks + (blocks > 0)


def settings(method: UncertaintyMethod) -> set[str]:
    return {name for name, field in type(method).__dataclass_fields__.items() if field.init}
