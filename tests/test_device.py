"""What a GPU needs of the code, shown without one.

Device "meta" has shapes and no numbers: a tensor that is made on the wrong device, or a question to the host, raises
there. And torch's function mode sees each call from Python, on whatever device, so that questions and copies can be
counted.
"""

from __future__ import annotations

import re
import runpy
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

from gapbench.evaluation.conformance import cut
from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.jitter import Jittered
from gapbench.methods.engine.minibatches import Poisson
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise
from gapbench.methods.engine.predictions import MixturePrediction
from gapbench.methods.registry import methods
from gapbench.methods.sgld import SGLD
from gapbench.runners import make_references

OURS = str(Path(sys.modules["gapbench.methods.base"].__file__ or "").resolve().parent.parent)
# Not the whole checkout: an environment may lie in it.
FOLDERS = tuple(f"{OURS}/{folder}/" for folder in ("methods", "datasets", "evaluation", "runners"))
ASKING = {
    torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.__bool__,
    torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.nonzero, torch.nonzero,
}  # fmt: skip
COPYING = {torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.new_tensor}
# The functions that may ask, and why.
EXEMPT = {
    "clip": "on a CPU alone, where a look costs nothing: whether any gradient can reach the clip",
    "clipped_replicas": "once, after training: which replicas to fail",
    "poisson_batches": "once in 64 steps: how wide the widest batch is",
    "longest": "once a trajectory, of up to thousands of steps: when the longest chain is done",
    "failures": "once, after training: which chains never moved",
    "_unsettled": "once, after training: which replicas' step size did not settle",
    "rhat": "once, after training: whether the chains' energies agree",
    "law": "gpytorch at every step: whether its inputs are the inducing points",
    "_seed": "once, before training: the seed of a library's own stream, or of a candidate's",
    "chosen": "once for each candidate, after training: whether it is the best of any replica",
}
# The functions in which a library makes tensors of numbers at every step, and which.
COPYING_EXEMPT = {
    "program": "Pyro: sizes of plates",
    "guide": "Pyro: sizes of plates",
    "negative_elbo": "Pyro: scales of plates",
    "law": "gpytorch",
}
ON_HOST = {
    "boosted_quantiles": "scikit-learn's trees are on the host",
    "quantile_forest": "scikit-learn's trees are on the host",
    "clear": "quantiles of a mixture ask whether its components have a std",
    "recalibrated": "the levels of quantiles are plain numbers, and each replica has its own",
    "gp": "gpytorch compares numbers, and scipy's kind of optimiser asks for them",
    "deep_gp": "gpytorch compares numbers once",
    "nngp": "scipy finds a noise that is learned",
    "validated": "it makes streams, which are on no meta device; its candidates are tested alone",
}
SMALL = {"steps": 8, "burn_in": 4, "draws": 3, "thin": 3, "chains": 2, "members": 2, "max_steps": 3, "batch": 8}
CASES: dict[str, UncertaintyMethod] = {
    **{name: cut(cls(), SMALL) for name, cls in methods().items()},
    "sgld_private": SGLD(
        batch=8, burn_in=16, draws=2, thin=8, chains=2, noise_multiplier=1.0, allow_clipping=True, sampling=Poisson()
    ),
    "jittered": Jittered(SGLD(batch=8, burn_in=4, draws=2, thin=2, chains=2), 0.01),
}


def asker(func: Any) -> str | None:
    """The function of ours that called torch, by itself or through a library; None if Adam's own count did."""
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_filename.startswith(FOLDERS):
        if "/torch/optim/" in frame.f_code.co_filename:
            return None
        frame = frame.f_back  # type: ignore[assignment]
    return frame.f_code.co_name if frame is not None else None


class Meta(TorchFunctionMode):
    """Lets code run on device "meta": drops generators, which it has none of, and answers the exempt with ones."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "generator"}
        if func in ASKING and args and args[0].device.type == "meta" and asker(func) in EXEMPT:
            with torch._C.DisableTorchFunction():
                return func(torch.ones(args[0].shape, dtype=args[0].dtype), *args[1:], **kwargs)
        return func(*args, **kwargs)


class OnMeta(Generator):
    """A generator that says it is on "meta", where there is none. `Meta` drops it."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("meta")


@pytest.fixture
def unfused(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """There is no fused step on "meta", and nothing in a distribution's arguments for torch to look at, as it does
    once."""
    for name in ("SGD", "Adam"):
        stock = getattr(torch.optim, name)
        plain = partial(lambda stock, *args, fused, **kwargs: stock(*args, **kwargs), stock)
        monkeypatch.setattr(torch.optim, name, plain)
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", False)
    yield


@pytest.mark.one_file
@pytest.mark.parametrize("noise", [0.1, LearnedNoise(), HeteroscedasticNoise()])
@pytest.mark.parametrize("name", CASES)
def test_fit_and_prediction_stay_on_the_device(name: str, noise: float | Noise, unfused: None) -> None:
    """Seen to catch: `device=` left out of SVI's noise, of `Model.sample_prior`, of the masks of dropout; an `.item()`
    in `adam`, `bool(clipped.any())` in SGLD's step, `float(noise)` in the likelihood."""
    generator, model = OnMeta(), MLP(features=2, hidden=(5, 4), noise_std=noise)
    x, y, x_test = (torch.empty(shape, device="meta") for shape in ((3, 64, 2), (3, 64), (3, 7, 2)))
    reason = CASES[name].skip(model, x) or ON_HOST.get(name)
    if reason:
        pytest.skip(reason)
    with Meta():
        fitted = CASES[name].fit(model, x, y, generator)
        prediction = fitted(x_test)
    if isinstance(prediction, MixturePrediction):
        parts = [prediction.location, prediction.scale, prediction.noise_std]
        assert {part.device.type for part in parts} == {"meta"}
    assert {value.device.type for value in fitted.diagnostics.values()} <= {"meta"}


class Watch(TorchFunctionMode):
    """Counts questions to the device and copies from the host, by the function of ours that makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.copied = Counter[str](), Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for wanted, seen in ((ASKING, self.asked), (COPYING, self.copied)):
            if func in wanted and (name := asker(func)) is not None:
                seen[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.one_file
@pytest.mark.parametrize("name", CASES)
def test_no_training_loop_asks_the_device_or_copies_from_the_host(name: str) -> None:
    """Four times the steps, not one more question or copy, but of those that may ask. (A CUDA graph can capture
    neither.) Seen to catch: an `.item()` in `adam`, a `bool(clipped.any())` in SGLD's step, `new_tensor` in
    `Model.noise` (as it once was)."""
    method, generator = CASES[name], torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, 1, generator=generator)
    names = {one.name for one in fields(method) if one.init}
    longer = {one: getattr(method, one) * 4 for one in ("steps", "thin") if one in names}

    def watched(method: UncertaintyMethod) -> Watch:
        with Watch() as watch:
            method.fit(MLP(hidden=(5,)), x, x.squeeze(-1).sin(), generator)
        return watch

    short, long = watched(method), watched(replace(method, **longer))
    assert {who for who in long.copied if long.copied[who] > short.copied[who]} <= COPYING_EXEMPT.keys()
    assert {who for who in long.asked if long.asked[who] > short.asked[who]} <= EXEMPT.keys()


def test_a_question_is_seen() -> None:
    """The two watches themselves. Seen to catch: a function mode that sees nothing, site-packages taken for ours."""
    with Watch() as watch:
        MLP().noise(torch.zeros(3), torch.zeros(2, 1)).item()  # asked by a test, which is none of ours
    assert not watch.asked and not watch.copied
    with Meta(), pytest.raises(RuntimeError):
        Tensor.item(torch.ones((), device="meta"))


def test_the_script_that_measures_a_gpu_runs_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Methods with steps, the notebook's run, and a reference that is not long enough; in this process, which has
    imported everything. Seen to catch: a method whose budget is not cut."""
    script = Path(__file__).resolve().parent.parent / "timings" / "gpu.py"
    small = ["--steps", "2", "--replicas", "2", "--chains", "2", "--draws", "1", "--reference-chains", "2"]
    monkeypatch.syspath_prepend(script.parent)  # as Python does when it runs a script
    monkeypatch.setattr(sys, "argv", [str(script), "--device", "cpu", *small])
    monkeypatch.setattr("gapbench.runners.memory.keep_freed_memory", lambda: None)  # this process goes on
    monkeypatch.setattr(make_references, "METHOD", replace(make_references.METHOD, burn_in=2, trajectory=0.01))
    monkeypatch.setattr(make_references, "MAX_DRAWS", 20)
    runpy.run_path(str(script), run_name="__main__")
    *lines, notebook, reference = capsys.readouterr().out.splitlines()
    names = {line.split()[0] for line in lines[2:]}
    assert {"sgld", "svi", "deep_gp", "mclmc"} < names and not {"hmc", "mams", "mala", "validated", "nngp"} & names
    assert notebook.startswith("the notebook's SGLD, 63 steps of 2 chains: ")
    assert re.match(r"a reference by 2 chains: \d+ s, not certified: ", reference)
